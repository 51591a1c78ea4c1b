"""Layers without a state: a function between layers, and a table of embeddings below them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_sizes
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.ops import keep, look_up
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, PyTree

__all__ = ["Embedding", "Pointwise"]


@dataclass(frozen=True)
class Pointwise(Layer[tuple[()], tuple[()]]):
    """A function of each time step's input, for any leading axes; `Stack((cell, jax.nn.relu, cell))` makes it itself.

        y = function(x)

    Args:
        function: `[*leading, I] -> [*leading, O]`.
        input_size: I, or the shape of one example's input where it has more axes.

    Raises:
        TypeError: `function` is not callable.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.GRU(3, 4), Pointwise(jax.nn.relu, 4), jaxrnn.GRU(4, 2)))
        >>> state, ys = jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> ys.shape, state[1]
        ((5, 2, 2), ())
    """

    function: Callable[[Any], Any]
    input_size: Any

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function: got {type(self.function).__name__}, needs a function")

    @property
    def hidden_size(self) -> int:
        """0: nothing is carried."""
        return 0

    @property
    def output_size(self) -> Any:
        """Length of what the function returns for one example, or its shape where it has more axes."""
        y = jax.eval_shape(self.function, self.input_spec)
        return jax.tree.map(lambda leaf: leaf.shape[0] if leaf.ndim == 1 else leaf.shape, y)

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> tuple[()]:
        """Returns no parameters."""
        del key, dtype, initializers
        return ()

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """Returns no state."""
        del batch_shape, dtype
        return ()

    def run(self, params: tuple[()], xs: PyTree, state: tuple[()], options: Options) -> tuple[tuple[()], PyTree]:
        """Applies the function to all time steps at once."""
        ys = self.function(xs)
        return (), ys if options.valid is None else keep(options.valid, ys)

    def advance(self, params: tuple[()], state: tuple[()], x: PyTree, draw: Draw = nothing) -> tuple[tuple[()], PyTree]:
        """Applies the function to one time step."""
        return (), self.function(x)


@dataclass(frozen=True)
class Embedding(Layer[Array, tuple[()]]):
    """A row of a table for each token: below a cell, its input product is a look-up.

        y = table[x]

    Args:
        vocabulary: V, the number of tokens; an input is an integer in 0..V-1.
        size: E, values that stand for a token.

    Raises:
        ValueError: a size is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((Embedding(256, 8), jaxrnn.GRU(8, 4)))
        >>> params = net.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.zeros((5, 2), int))
        >>> params[0].shape, ys.shape
        ((256, 8), (5, 2, 4))
    """

    vocabulary: int
    size: int

    def __post_init__(self) -> None:
        check_sizes(vocabulary=self.vocabulary, size=self.size)

    @property
    def input_size(self) -> int:
        """V."""
        return self.vocabulary

    @property
    def hidden_size(self) -> int:
        """0: nothing is carried."""
        return 0

    @property
    def output_size(self) -> int:
        """E."""
        return self.size

    @property
    def input_spec(self) -> jax.ShapeDtypeStruct:
        """One integer."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        embedding_init: Initializer = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
        **initializers: Any,
    ) -> Array:
        """Returns a fresh table `[V, E]` by `embedding_init`, by default Flax's; other initializers are ignored."""
        del initializers
        return embedding_init(key, (self.vocabulary, self.size), dtype)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """Returns no state."""
        del batch_shape, dtype
        return ()

    def run(self, params: Array, xs: Array, state: tuple[()], options: Options) -> tuple[tuple[()], Array]:
        """Looks all time steps up at once."""
        ys = look_up(params, xs, mode="fill")
        return (), ys if options.valid is None else keep(options.valid, ys)

    def advance(self, params: Array, state: tuple[()], x: Array, draw: Draw = nothing) -> tuple[tuple[()], Array]:
        """Looks one time step up."""
        return (), look_up(params, x, mode="fill")
