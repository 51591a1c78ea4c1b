"""Layers that graphs of ONNX have beside cells: a matrix product at the end, a layer in the other direction of time."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.checks import check_bools, check_initializers, check_sizes
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import affine, keep
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State

__all__ = ["Linear", "LinearParams", "Reversed"]


class LinearParams(NamedTuple):
    """Parameters of `Linear`; `b` is None without bias."""

    w: Array  # [I, O]
    b: Array | None  # [O]


@dataclass(frozen=True)
class Linear(Layer[LinearParams, tuple[()]]):
    """A matrix product at each time step, such as the head of a classifier: no state.

        y = x W + b

    Args:
        input_size: I, length of the last axis of the input.
        size: O, length of the last axis of the output.
        use_bias: whether there is a `b`.

    Raises:
        TypeError: `use_bias` is not a bool.
        ValueError: a size is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.GRU(3, 4), Linear(4, 2)))
        >>> state, ys = jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> ys.shape, state[1]
        ((5, 2, 2), ())
    """

    input_size: int
    size: int
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, size=self.size)
        check_bools(use_bias=self.use_bias)

    @property
    def hidden_size(self) -> int:
        """0: nothing is carried."""
        return 0

    @property
    def output_size(self) -> int:
        """O."""
        return self.size

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
        **others: Any,
    ) -> LinearParams:
        """Returns fresh parameters: `w` by `input_init`, and `b` by `bias_init`, which sees `[1, O]`."""
        del others
        check_initializers(input_init=input_init, bias_init=bias_init)
        k_w, k_b = jax.random.split(key)
        b = bias_init(k_b, (1, self.size), dtype)[0] if self.use_bias else None
        return LinearParams(input_init(k_w, (self.input_size, self.size), dtype), b)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """Returns no state."""
        del batch_shape, dtype
        return ()

    def run(self, params: LinearParams, xs: Array, state: tuple[()], options: Options) -> tuple[tuple[()], Array]:
        """Multiplies all time steps at once."""
        ys = affine(xs, params.w, params.b)
        return (), ys if options.valid is None else keep(options.valid, ys)

    def advance(
        self, params: LinearParams, state: tuple[()], x: Array, draw: Draw = nothing
    ) -> tuple[tuple[()], Array]:
        """Multiplies one time step."""
        return (), affine(x, params.w, params.b)


@dataclass(frozen=True)
class Reversed(Wrapper):
    """A layer in the other direction of time: from each row's last valid step to its first.

    The outputs are in the order of the inputs. It has no single time step, only `unroll` runs it.

    Args:
        cell: any cell or network.

    Raises:
        TypeError: `cell` is neither.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> state, ys = jaxrnn.unroll(Reversed(cell), params, xs)
        >>> bool((ys == jaxrnn.unroll(cell, params, xs, reverse=True)[1]).all())
        True
    """

    def run(self, params: Params, xs: PyTree, state: State, options: Options) -> tuple[State, PyTree]:
        """Runs the layer with the direction toggled."""
        return self.cell.run(params, xs, state, options._replace(reverse=not options.reverse))

    def advance(self, params: Params, state: State, x: PyTree, draw: Draw = nothing) -> tuple[State, PyTree]:
        """Raises: the last step comes first."""
        raise TypeError("Reversed: has no single time step, it needs the whole sequence; use unroll")
