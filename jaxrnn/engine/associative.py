"""Linear recurrences in logarithmic time.

    h' = a ⊙ h + b                                              a and b see the input only

Two such steps are one of the same kind, so all states come from one associative scan over the pairs

    (a_1, b_1) then (a_2, b_2)  =  (a_2 ⊙ a_1, a_2 ⊙ b_1 + b_2)

Where `a` has one axis more than `b`, it is a matrix, and ⊙ is the matrix product.

A step beyond a row's length is the pair (1, 0). The first state is part of the first pair. Nothing is combined across a
reset: what comes before it is replaced by zero, not multiplied, so that NaN cannot leak.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.engine.recurrence import saved, states_before
from jaxrnn.ops import keep, select
from jaxrnn.typing import Array, State

__all__ = ["act", "linear_states"]


def linear_states(a: State, b: State, state: State, resets: Array | None, start: State | None, reverse: bool) -> State:
    """Returns all states of `h' = a ⊙ h + b`, beginning in `state`, and in `start` at the steps that `resets` flags.

    Leaves of `a` are like those of `b`, `[T, ...]`, or matrices `[T, ..., n, n]` for vectors `[T, ..., n]`.
    """
    first = -1 if reverse else 0
    before = jax.tree.map(lambda k, h: jnp.zeros_like(k).at[first].set(h), b, state)
    if resets is not None:
        before = jax.tree.map(lambda s, h: select(resets, s, h), start, before)
    return _solve(reverse, resets, a, jax.tree.map(lambda a, b, h: act(a, h) + b, a, b, before))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve(reverse: bool, resets: Array | None, a: State, b: State) -> State:
    """Returns all states of `h' = a ⊙ h + b`, beginning in zero, and in zero again at flagged steps."""

    def then(one: Any, two: Any) -> Any:
        (flags_1, a_1, b_1), (flags_2, a_2, b_2) = one, two
        flags = None
        if flags_1 is not None:
            flags = flags_1 | flags_2
            a_1, b_1 = keep(~flags_2, (a_1, b_1))
        return (
            flags,
            jax.tree.map(_product, a_2, a_1, b_1),
            jax.tree.map(lambda a, b, c: act(a, b) + c, a_2, b_1, b_2),
        )

    return lax.associative_scan(then, (resets, a, b), reverse=reverse)[2]


@_solve.defjvp
def _solve_jvp(reverse: bool, primals: Any, tangents: Any) -> tuple[State, State]:
    """Solves the tangents' recurrence, `dh' = a ⊙ dh + (da ⊙ h + db)`; of the forward pass it needs only the states."""
    resets, a, b = primals
    _, da, db = tangents
    states = jax.tree.map(saved, _solve(reverse, resets, a, b))
    before = jax.tree.map(lambda h: states_before(jnp.zeros_like(h[0]), h, reverse), states)
    if resets is not None:
        before = keep(~resets, before)
    inputs = jax.tree.map(lambda da, h, db: act(da, h) + db, da, before, db)
    return states, _solve(reverse, resets, a, inputs)


SMALL = 4
"""Rows of a matrix up to which sums of multiples beat a call for products."""


def act(a: Array, h: Array) -> Array:
    """Returns `a ⊙ h`, or the product of the matrices `a` with the vectors `h`."""
    return a * h if a.ndim == h.ndim else _multiply(a, h[..., None])[..., 0]


def _product(a: Array, b: Array, h: Array) -> Array:
    """`a ⊙ b`, or the product of matrices, for vectors like `h`."""
    return a * b if a.ndim == h.ndim else _multiply(a, b)


def _multiply(a: Array, b: Array) -> Array:
    if a.shape[-1] <= SMALL:
        return jnp.sum(a[..., None] * b[..., None, :, :], axis=-2)
    return jnp.matmul(a, b, precision="highest")
