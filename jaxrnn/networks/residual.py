"""A cell whose output is added to its input."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import keep
from jaxrnn.typing import Array, P, S

__all__ = ["Residual"]


@dataclass(frozen=True)
class Residual(Wrapper[P, S]):
    """A cell whose output is added to its input: `y = x + cell(x)`.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too, whose outputs are as long as its inputs.

    Raises:
        ValueError: `cell.output_size` is not `cell.input_size`, or the input is no array of reals.

    Example:
        >>> import jax, jaxrnn
        >>> import jax.numpy as jnp
        >>> net = jaxrnn.Stack((jaxrnn.GRU(3, 4), Residual(jaxrnn.GRU(4, 4))))
        >>> state, ys = jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> ys.shape
        (5, 2, 4)

    Reference: He et al. 2016, "Deep residual learning"; in recurrent stacks: Wu et al. 2016, section 3.1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell.output_size != self.cell.input_size:
            raise ValueError(
                f"cell: {self.cell} turns {self.cell.input_size} values into {self.cell.output_size}, needs equal sizes"
            )
        spec = self.cell.input_spec
        if not (isinstance(spec, jax.ShapeDtypeStruct) and jnp.issubdtype(spec.dtype, jnp.inexact)):
            raise ValueError(f"cell: got {self.cell}, whose input is no array of reals, needs one that outputs add to")

    def run(self, params: P, xs: Array, state: S, options: Options) -> tuple[S, Array]:
        """Adds the outputs of the cell's run to its inputs."""
        state, ys = self.cell.run(params, xs, state, options)
        return state, ys + (xs if options.valid is None else keep(options.valid, xs))

    def advance(self, params: P, state: S, x: Array, draw: Draw = nothing) -> tuple[S, Array]:
        """Adds the output of the cell's step to its input."""
        state, y = self.cell.advance(params, state, x, draw)
        return state, x + y
