"""The same input at every time step."""

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_input, check_params, check_sizes
from jaxrnn.engine.driver import unroll
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Key, Params, PyTree, State

__all__ = ["repeat"]


def repeat(
    cell: Layer, params: Params, x: PyTree, steps: int, state: State | None = None, *, key: Key | None = None
) -> tuple[State, PyTree]:
    """Runs a cell with the same input at each of `steps` steps: `(state, ys)`, as `unroll` does.

    Args:
        cell: any cell.
        params: from `cell.init`.
        x: one step's input, leaves `[*batch, ...]`.
        steps: T.
        state: before the first step; None: the initial state.
        key: for cells with randomness.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> state, ys = repeat(cell, cell.init(jax.random.key(0)), jnp.ones((2, 3)), steps=5)
        >>> ys.shape
        (5, 2, 4)

    Reference: Element-Research/rnn, `Repeater`.
    """
    check_layer(cell)
    check_sizes(steps=steps)
    check_params(cell, params)
    check_input(cell, x)
    xs = jax.tree.map(lambda a: jnp.broadcast_to(jnp.asarray(a)[None], (steps, *jnp.shape(a))), x)
    return unroll(cell, params, xs, state, key=key)
