"""Any layer that has single time steps, as one cell."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxrnn.cell import Cell
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.typing import P, PyTree, S

__all__ = ["Stepped", "as_cell"]


@dataclass(frozen=True)
class Stepped(Cell[P, S], Wrapper[P, S]):
    """Turns any layer with single time steps into one cell, which runs all of its inner cells within each step.

    A `Stack` runs layer after layer. `Stepped(stack)` runs time step after time step, as in generation, with the same
    values. So everything that works on the steps of a cell works on a network.

    Args:
        cell: any cell or network that has single time steps.

    Example:
        >>> import jax, jaxrnn
        >>> import jax.numpy as jnp
        >>> net = jaxrnn.Stack((jaxrnn.LSTM(3, 8), jaxrnn.GRU(8, 4)))
        >>> params, xs = net.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> _, ys = jaxrnn.unroll(Stepped(net), params, xs)
        >>> bool(jnp.allclose(ys, jaxrnn.unroll(net, params, xs)[1], atol=1e-6))
        True
    """

    asks: ClassVar[bool] = True

    def project(self, params: P, x: PyTree) -> PyTree:
        """Returns the input; `unroll` finds input-only products in the equations and hoists them out of the loop."""
        del params
        return x

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Runs one time step of the layer."""
        return self.cell.advance(params, state, drive, draw)

    def step(self, params: P, state: S, drive: PyTree) -> tuple[S, PyTree]:
        """Runs one time step of the deterministic layer."""
        return self.step_with(params, state, drive, nothing)


def as_cell(layer: Layer) -> Any:
    """Returns `layer` as a `Cell`: itself if it is one."""
    return layer if isinstance(layer, Cell) else Stepped(layer)
