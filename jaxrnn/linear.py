"""Cells linear in their state, and their walk in logarithmic time.

    h' = a ⊙ h + b                                              a and b see the input only

Two such steps are one of the same kind, so all states come from one associative scan over the pairs

    (a_1, b_1) then (a_2, b_2)  =  (a_1 ⊙ a_2, a_2 ⊙ b_1 + b_2)

A step beyond a row's length is the pair (1, 0), the first state is part of the first pair, and across a reset nothing
is combined: what stands before it is replaced by zero, not multiplied, so that NaN cannot leak.
"""

import abc
import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.cell import Cell, cast, gates, initial_like
from jaxrnn.checks import check_choice
from jaxrnn.chunks import StepData, default_chunk
from jaxrnn.recurrence import saved, states_before
from jaxrnn.rows import keep, select
from jaxrnn.typing import Array, DTypeLike, Params, PyTree, State

__all__ = ["LinearCell"]


@dataclass(frozen=True, kw_only=True)
class LinearCell(Cell):
    """A cell with `h' = a ⊙ h + b`: a subclass defines `init`, `initial_state`, `project`, `coefficients`, `readout`.

    Args:
        scan: how `unroll` walks: "sequential" (least work and memory, a step after the other) or "associative" (about
            twice the work, in a number of rounds that grows with the logarithm of T; for accelerators and long
            sequences). Values and derivatives are the same up to rounding. Chunks (`unroll`) are walked one after the
            other; without the argument an accelerator has one chunk of all T steps, the CPU what its cache holds.

    Raises:
        ValueError: `scan` is neither.
    """

    scan: Literal["sequential", "associative"] = "sequential"

    def __post_init__(self) -> None:
        check_choice(scan=self.scan, among=("sequential", "associative"))

    @abc.abstractmethod
    def coefficients(self, params: Params, drive: PyTree) -> tuple[State, State]:
        """`(a, b)` for any leading axes, trees like the state; axes of length one in `a` broadcast against `b`.

        `drive` is that of `project` in the precision of the state.
        """

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, State]:
        """`a ⊙ h + b`; the output is the new state, for `readout`."""
        a, b = _in_precision_of(state, self, params, drive)
        new = jax.tree.map(lambda a, b, h: a * h + b, a, b, state)
        return new, new

    @property
    def stepped(self) -> bool:
        """Whether the walk is sequential."""
        return self.scan == "sequential"

    def walk_chunk(self, params: Params, state: State, data: StepData, reverse: bool) -> tuple[State, State]:
        """The states of a chunk, in the way that `scan` says."""
        if self.scan == "sequential":
            return super().walk_chunk(params, state, data, reverse)
        drives, valid, resets = data
        a, b = _in_precision_of(state, self, params, drives)
        if valid is not None:
            a = jax.tree.map(lambda k: select(valid, k, jnp.ones_like(k)), a)
            b = keep(valid, b)
        start = None if resets is None else initial_like(self, state, resets.shape)
        states = _states(a, b, state, resets, start, reverse)
        return jax.tree.map(lambda h: h[0 if reverse else -1], states), states

    def chunk_size(self, steps: int, drive: PyTree, state: State) -> int:
        """Steps a chunk by default."""
        if self.scan == "sequential":
            return super().chunk_size(steps, drive, state)
        # More at once than the cache holds gains nothing on the CPU, and everything elsewhere.
        bytes_per_step = 2 * sum(h.size * h.dtype.itemsize for h in jax.tree.leaves(state))
        return default_chunk(steps, bytes_per_step) if jax.default_backend() == "cpu" else steps


def _in_precision_of(state: State, cell: LinearCell, params: Params, drive: PyTree) -> tuple[State, State]:
    precision = jnp.finfo(jax.tree.leaves(state)[0].dtype).dtype
    pair = cell.coefficients(params, cast(drive, precision))
    a, b = (jax.tree.map(lambda k, h: k.astype(h.dtype), tree, state) for tree in pair)
    return a, b


def _states(a: State, b: State, state: State, resets: Array | None, start: State | None, reverse: bool) -> State:
    """All states of `h' = a ⊙ h + b`, from `state` before the first step and `start` `[T, ...]` before flagged ones."""
    first = -1 if reverse else 0
    before = jax.tree.map(lambda k, h: jnp.zeros_like(k).at[first].set(h), b, state)
    if resets is not None:
        before = jax.tree.map(lambda s, h: select(resets, s, h), start, before)
    return _solve(reverse, resets, a, jax.tree.map(lambda a, b, h: a * h + b, a, b, before))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(reverse: bool, resets: Array | None, a: State, b: State) -> State:
    """All states of `h' = a ⊙ h + b` from zero, and from zero again at flagged steps."""

    def then(one: Any, two: Any) -> Any:
        (flags_1, a_1, b_1), (flags_2, a_2, b_2) = one, two
        flags = None
        if flags_1 is not None:
            flags = flags_1 | flags_2
            a_1, b_1 = keep(~flags_2, (a_1, b_1))
        return (
            flags,
            jax.tree.map(jnp.multiply, a_1, a_2),
            jax.tree.map(lambda a, b, c: a * b + c, a_2, b_1, b_2),
        )

    return lax.associative_scan(then, (resets, a, b), reverse=reverse)[2]


@_solve.defjvp
def _solve_jvp(reverse: bool, primals: Any, tangents: Any) -> tuple[State, State]:
    """The tangents are such a recurrence too, `dh' = a ⊙ dh + (da ⊙ h + db)`, so that the states are all it needs."""
    resets, a, b = primals
    _, da, db = tangents
    states = jax.tree.map(saved, _solve(reverse, resets, a, b))
    before = jax.tree.map(lambda h: states_before(jnp.zeros_like(h[0]), h, reverse), states)
    if resets is not None:
        before = keep(~resets, before)
    inputs = jax.tree.map(lambda da, h, db: da * h + db, da, before, db)
    return states, _solve(reverse, resets, a, inputs)


# What the complex cells share: their parameters are real, real and imaginary parts side by side.


def complex_dtype(dtype: DTypeLike) -> Any:
    """complex64, or complex128 for a dtype of double precision."""
    return np.dtype(np.complex128 if jnp.finfo(dtype).bits == 64 else np.complex64)


def wide(z: Array) -> Array:
    """`z` in float32 or wider, where complex numbers begin."""
    return z.astype(np.promote_types(z.dtype, np.float32))


def to_complex(z: Array) -> Array:
    """Blocks Re, Im as complex numbers: `[*batch, 2N] -> [*batch, N]`."""
    return lax.complex(*gates(wide(z), 2))


def to_real(z: Array) -> Array:
    """Complex numbers as blocks Re, Im: `[*batch, N] -> [*batch, 2N]`."""
    return jnp.concatenate([z.real, z.imag], axis=-1)
