"""A layer in the other direction of time."""

from dataclasses import dataclass

from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.typing import P, PyTree, S

__all__ = ["Reversed"]


@dataclass(frozen=True)
class Reversed(Wrapper[P, S]):
    """Runs a layer in the other direction of time: from each row's last valid step to its first.

    The outputs are in the order of the inputs. It has no single time step, only `unroll` runs it.

    Args:
        cell: any cell or network.

    Raises:
        TypeError: `cell` is neither.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> state, ys = jaxrnn.unroll(Reversed(cell), params, xs)
        >>> bool((ys == jaxrnn.unroll(cell, params, xs, reverse=True)[1]).all())
        True
    """

    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Runs the layer with the direction toggled."""
        return self.cell.run(params, xs, state, options._replace(reverse=not options.reverse))

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Refuses a single time step: the last one comes first."""
        raise TypeError("Reversed: has no single time step, it needs the whole sequence; use unroll")
