"""Sequences that begin in a learned state."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_initializers
from jaxrnn.engine.noise import Draw
from jaxrnn.networks.wrapper import StepWrapper
from jaxrnn.ops import repeat_like, spread_like
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, S, State

__all__ = ["LearnedState", "LearnedStateParams"]


class LearnedStateParams(NamedTuple):
    """Parameters of `LearnedState`."""

    cell: Params
    initial: State  # of one row; None for leaves that are not real or complex, such as a count of time steps


@dataclass(frozen=True)
class LearnedState(StepWrapper[LearnedStateParams, S]):
    """Begins sequences in a learned state: in a call without `state`, and after resets.

    `initial_state` stays the zero state. To carry a learned state over calls, begin with
    `cell.restart(params, cell.initial_state(batch_shape), batch_shape)`.

    Args:
        cell: any cell that runs step by step; in a `Stack`, each layer has its own.

    Raises:
        TypeError, ValueError: `cell` is no cell, or runs a sequence in its own way.

    Example:
        >>> import jaxrnn
        >>> cell = LearnedState(jaxrnn.GRU(3, 4))
        >>> params = cell.init(jax.random.key(0), state_init=jaxrnn.initializers.uniform(0.1))
        >>> params.initial.h.shape
        (4,)
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), lengths=jnp.array([5, 0]))
        >>> bool((state.h[1] == params.initial.h).all())
        True
    """

    cell: Cell[Any, S]

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        state_init: Initializer = initializers.zeros,
        **initializers: Any,
    ) -> LearnedStateParams:
        """Returns the cell's parameters and an initial state, whose leaves are `state_init(key, shape, dtype)`."""
        check_initializers(state_init=state_init)
        leaves, tree = jax.tree.flatten(self.cell.initial_state((), dtype))
        key, *keys = jax.random.split(key, 1 + len(leaves))
        drawn = [
            state_init(k, s.shape, s.dtype) if jnp.issubdtype(s.dtype, jnp.inexact) else None
            for k, s in zip(keys, leaves, strict=True)
        ]
        return LearnedStateParams(self.cell.init(key, dtype=dtype, **initializers), jax.tree.unflatten(tree, drawn))

    def restart(self, params: LearnedStateParams, state: S, batch_shape: tuple[int, ...]) -> S:
        """Returns the learned state for every row; integers and booleans are those of the cell."""
        learned = iter(jax.tree.leaves(params.initial))

        def one(own: Array, s: Array) -> Array:
            if not jnp.issubdtype(s.dtype, jnp.inexact):
                return own
            return spread_like(repeat_like(next(learned).astype(s.dtype), s), s)

        return jax.tree.map(one, self.cell.restart(params.cell, state, batch_shape), state)

    def project(self, params: LearnedStateParams, x: PyTree) -> PyTree:
        """Returns the cell's drive."""
        return self.cell.project(params.cell, x)

    def step_with(self, params: LearnedStateParams, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes one step of the cell."""
        return self.cell.step_with(params.cell, state, drive, draw)

    def readout(self, params: LearnedStateParams, output: PyTree, drive: PyTree) -> PyTree:
        """Returns the cell's `y`."""
        return self.cell.readout(params.cell, output, drive)
