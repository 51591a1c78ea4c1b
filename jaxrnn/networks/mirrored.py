"""A cell over a plane, in both directions of its rows."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.engine.layer import Layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.bidirectional import Bidirectional, BidirectionalParams, BidirectionalState
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.typing import Array, DTypeLike, Key

__all__ = ["Mirrored"]


@dataclass(frozen=True)
class Mirrored(Wrapper[BidirectionalParams, BidirectionalState]):
    """Runs a cell over a plane in both directions of its rows and concatenates the outputs.

    Parameters and states are pairs, forward and backward. The columns of the backward state are from right to left.

    Args:
        cell: a cell whose input is `[C, I]`, such as `MDLSTM`.

    Raises:
        TypeError: `cell` is no cell.
        ValueError: the input or output of the cell is not of two axes.

    Example:
        >>> import jaxrnn
        >>> net = Mirrored(jaxrnn.MDRNN((6, 3), 4))
        >>> state, ys = jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 6, 3)))
        >>> ys.shape, state.backward.h.shape
        ((5, 2, 6, 8), (2, 6, 4))

    Reference: Graves, Fernández & Schmidhuber 2007, section 2.1, with `Bidirectional` for the other axis.
    """

    cell: Layer

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in (self.cell.input_size, self.cell.output_size):
            if not isinstance(size, tuple) or len(size) != 2:
                raise ValueError(f"cell: got {self.cell} of the size {size!r}, needs (columns, values at a place)")

    @property
    def output_size(self) -> tuple[int, int]:
        """The cell's output size, with twice the values at a place."""
        columns, size = self.cell.output_size
        return columns, 2 * size

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> BidirectionalParams:
        """Returns fresh parameters of both; `initializers` go to the cell's `init`."""
        return Bidirectional(self.cell).init(key, dtype=dtype, **initializers)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> BidirectionalState:
        """Returns the cell's zero state, twice."""
        return Bidirectional(self.cell).initial_state(batch_shape, dtype)

    def restart(
        self, params: BidirectionalParams, state: BidirectionalState, batch_shape: tuple[int, ...]
    ) -> BidirectionalState:
        """Returns the states in which both begin."""
        return Bidirectional(self.cell).restart(params, state, batch_shape)

    def run(
        self, params: BidirectionalParams, xs: Array, state: BidirectionalState, options: Options
    ) -> tuple[BidirectionalState, Array]:
        """Runs over the plane and over its mirror image."""
        keys = (None, None) if options.key is None else tuple(jax.random.split(options.key))
        there, ys = self.cell.run(params.forward, xs, state.forward, options._replace(key=keys[0]))
        back, zs = self.cell.run(params.backward, _mirror(xs), state.backward, options._replace(key=keys[1]))
        return BidirectionalState(there, back), jnp.concatenate([ys, _mirror(zs)], axis=-1)

    def advance(
        self, params: BidirectionalParams, state: BidirectionalState, x: Array, draw: Draw = nothing
    ) -> tuple[BidirectionalState, Array]:
        """Runs over one row in both directions."""
        there, y = self.cell.advance(params.forward, state.forward, x, draw)
        back, z = self.cell.advance(params.backward, state.backward, _mirror(x), draw)
        return BidirectionalState(there, back), jnp.concatenate([y, _mirror(z)], axis=-1)


def _mirror(xs: Array) -> Array:
    return jnp.flip(xs, axis=-2)
