"""Newton's method over the sequence: all states of a run at once, as the root of `step(s_{t-1}, d_t) - s_t = 0`.

    r_t  = step(s_{t-1}, d_t) - s_t                             the residual of the guess, every t at once
    Δs_t = J_t Δs_{t-1} + r_t,  Δs_0 = 0                        J_t = ∂step/∂s at s_{t-1}
    s_t  ← s_t + Δs_t

Each round solves one linear recurrence by an associative scan. The rounds are not differentiated: derivatives are those
of the solution, by one more such recurrence.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.checks import check_positive, check_sizes
from jaxrnn.engine.associative import act, linear_states
from jaxrnn.engine.blocks import Blocks
from jaxrnn.engine.linearize import linearize
from jaxrnn.engine.recurrence import saved, states_before
from jaxrnn.jaxprs import flat_products, without_closure
from jaxrnn.ops import follow
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["Convergence", "Newton", "solve"]

Step = Callable[[Params, State, PyTree], PyTree]


@dataclass(frozen=True)
class Newton:
    """Solves a run for all of its states at once, in rounds; an option of `unroll`.

    A round takes a number of operations that grows with log T, where a loop takes T. Its cost is in the Jacobians. They
    are dense, n² numbers for each step and row with n values in the state, unless parts of it don't see each other: in
    `IndRNN`, `SRU` and linear cells each unit is apart, in `GRU`, `LSTM` and `Elman` each of the `heads`. So it pays on
    accelerators, for long sequences, few rows and small states or `heads=hidden_size`. It does not pay on CPUs, nor
    where a trained cell acts as a state machine, which takes hundreds of rounds: `inspection.newton_rounds` counts
    those of a model, and the guide to devices has numbers.

    Args:
        tolerance: the largest residual |step(s_{t-1}) - s_t| of a solution, relative to |s_t| where that is above 1;
            it must be above the rounding error of the cell's dtypes.
        max_iterations: rounds after which a run that has not converged is done step after step, from its start. So the
            result is right in any case, and so are derivatives.

    Raises:
        ValueError: `tolerance` is not a positive number, or `max_iterations` no positive integer.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.IndRNN(3, 8)
        >>> params, xs = cell.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (100, 2, 3))
        >>> state, ys = jaxrnn.unroll(cell, params, xs, solver=Newton(tolerance=1e-6))
        >>> bool(jnp.allclose(ys, jaxrnn.unroll(cell, params, xs, path="scan")[1], atol=1e-5))
        True

    Reference: Lim, Zhu, Selfridge & Kasim 2024, "Parallelizing non-linear sequential models over the sequence length"
    (DEER); Danieli et al. 2025, "ParaRNN: Unlocking parallel training of nonlinear RNNs for large language models".
    """

    tolerance: float = 1e-5
    max_iterations: int = 100

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance)
        check_sizes(max_iterations=self.max_iterations)


class Convergence(NamedTuple):
    """How a run was solved; where a residual is above the tolerance, the run was done step after step."""

    rounds: Array  # [T] integers, the rounds of the chunk that a step is in
    residual: Array  # [T], the largest of a step after them


def solve(
    solver: Newton, blocks: Blocks, step: Step, reverse: bool, params: Params, state: State, drives: PyTree
) -> tuple[State, PyTree, Convergence]:
    """Runs `step` over `drives` `[T, ...]`: `(final state, outputs [T, ...], how)`; T is at least 1.

    Differentiates also with respect to the traced values that `step` closes over.
    """
    opened, captured = without_closure(step, params, state, jax.tree.map(lambda d: d[0], drives))

    def next_state(given: tuple[Params, list[Any]], s: State, d: PyTree) -> State:
        return opened(given[1], given[0], s, d)[0]

    def output(given: tuple[Params, list[Any]], s: State, after: State, d: PyTree) -> PyTree:
        new, y = opened(given[1], given[0], s, d)
        return follow(new, after, y)

    given = (params, captured), state, drives
    # Named, so that a backward pass that computes the rest again does not search again.
    found = _search(next_state, solver, blocks, reverse, *lax.stop_gradient(given))
    states, how = jax.tree.map(saved, found)
    states = _solution(next_state, blocks, reverse, *given, states, jnp.max(how.residual) <= solver.tolerance)
    every = flat_products(jax.vmap(output, (None, 0, 0, 0)))
    outputs = every(given[0], _before(state, states, reverse), states, drives)
    return jax.tree.map(lambda s: s[0 if reverse else -1], states), outputs, how


def _before(state: State, states: State, reverse: bool) -> State:
    return jax.tree.map(lambda s0, s: states_before(s0, s, reverse), state, states)


def _search(
    step: Step, solver: Newton, blocks: Blocks, reverse: bool, params: Params, state: State, drives: PyTree
) -> tuple[State, Convergence]:
    """Returns the states after every step."""
    steps = jax.tree.leaves(drives)[0].shape[0]
    every = flat_products(jax.vmap(step, (None, 0, 0)))

    def before(s: Array) -> State:
        return _before(state, blocks.unpack(s), reverse)

    def judged(s: Array) -> tuple[Array, Array, Array]:
        r = blocks.pack(every(params, before(s), drives)) - s
        relative = jnp.abs(r) / jnp.maximum(jnp.abs(s), 1)
        return s, r, jnp.max(relative, axis=tuple(range(1, s.ndim)), initial=0)

    def unsolved(residual: Array) -> Array:
        return ~(jnp.max(residual) <= solver.tolerance)  # NaN is unsolved

    def improve(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        s, r, _, rounds = carry
        jacobians = _jacobians(step, blocks, params, before(s), drives)
        s = s + linear_states(jacobians, r, jnp.zeros_like(r[0]), None, None, reverse)
        # After k rounds the first k states are exact, whatever the guess of the others.
        return *judged(jnp.where(jnp.isfinite(s), s, jnp.zeros_like(s))), rounds + 1

    guess = jnp.repeat(blocks.pack(state)[None], steps, axis=0)
    s, _, residual, rounds = lax.while_loop(
        lambda carry: unsolved(carry[2]) & (carry[3] < solver.max_iterations), improve, (*judged(guess), jnp.int32(0))
    )

    def sequential() -> State:
        def body(s: State, d: PyTree) -> tuple[State, State]:
            s = step(params, s, d)
            return s, s

        return lax.scan(body, state, drives, reverse=reverse)[1]

    states = lax.cond(unsolved(residual), sequential, lambda: blocks.unpack(s))
    return states, Convergence(jnp.broadcast_to(rounds, (steps,)), residual)


def _jacobians(step: Step, blocks: Blocks, params: Params, before: State, drives: PyTree) -> Array:
    """Returns ∂step/∂s at every step, `[T, *batch, blocks, size, size]`, or `[T, *batch, blocks]` if the size is 1.

    A derivative along a direction that is one in the j-th value of every block is the j-th column of every block.
    """
    coefficients, apply = linearize(step, params, before, drives)
    row = blocks.pack(jax.tree.map(lambda s: s[0], before))
    steps = jax.tree.leaves(before)[0].shape[0]

    def column(known: list[Array], direction: Array) -> Array:
        return blocks.pack(apply(known, blocks.unpack(direction)))

    if blocks.size == 1:
        return jax.vmap(column, (0, None), axis_size=steps)(coefficients, jnp.ones_like(row))
    unit = jnp.eye(blocks.size, dtype=row.dtype).reshape(blocks.size, *[1] * (row.ndim - 1), blocks.size)
    columns = jax.vmap(column, (None, 0), out_axes=-1)
    # Spread over a mesh as the state is.
    return jax.vmap(columns, (0, None), axis_size=steps)(coefficients, unit + jnp.zeros_like(row)[None])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _solution(
    step: Step,
    blocks: Blocks,
    reverse: bool,
    params: Params,
    state: State,
    drives: PyTree,
    states: State,
    converged: Array,
) -> State:
    """Returns the known `states`, with the derivatives that the recurrence gives them."""
    return states


@_solution.defjvp
def _solution_jvp(step: Step, blocks: Blocks, reverse: bool, primals: Any, tangents: Any) -> tuple[State, State]:
    params, state, drives, _, converged = primals
    dparams, dstate, ddrives, *_ = tangents
    states = _solution(step, blocks, reverse, *primals)
    before = _before(state, states, reverse)
    every = flat_products(jax.vmap(step, (None, 0, 0)))
    _, u = jax.jvp(lambda p, d: every(p, before, d), (params, drives), (dparams, ddrives))

    def parallel(a: Array, u: Array, ds: Array) -> Array:
        return linear_states(a, u, ds, None, None, reverse)

    def sequential(a: Array, u: Array, ds: Array) -> Array:
        def body(ds: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            ds = act(at[0], ds) + at[1]
            return ds, ds

        return lax.scan(body, ds, (a, u), reverse=reverse)[1]

    # Where states grow without bound, products of Jacobians overflow that no sequential run multiplies.
    given = _jacobians(step, blocks, params, before, drives), blocks.pack(u), blocks.pack(dstate)
    return states, blocks.unpack(lax.cond(converged, parallel, sequential, *given))
