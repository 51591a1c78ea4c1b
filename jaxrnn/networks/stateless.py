"""Layers without a state: a function between layers, a table of embeddings below them, a product above them."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.checks import check_bools, check_initializers, check_sizes
from jaxrnn.engine.layer import Layer, size_of
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.ops import affine, keep, look_up
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, P, PyTree

__all__ = ["Embedding", "Linear", "LinearParams", "Pointwise"]


class _Stateless(Layer[P, tuple[()]]):
    """What layers without a state share."""

    @property
    def hidden_size(self) -> int:
        """0: nothing is carried."""
        return 0

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """Returns no state."""
        del batch_shape, dtype
        return ()

    @abstractmethod
    def apply(self, params: P, xs: PyTree) -> PyTree:
        """Returns the outputs of inputs with any leading axes."""

    def run(self, params: P, xs: PyTree, state: tuple[()], options: Options) -> tuple[tuple[()], PyTree]:
        """Computes all time steps at once."""
        ys = self.apply(params, xs)
        return (), ys if options.valid is None else keep(options.valid, ys)

    def advance(self, params: P, state: tuple[()], x: PyTree, draw: Draw = nothing) -> tuple[tuple[()], PyTree]:
        """Computes one time step."""
        return (), self.apply(params, x)


@dataclass(frozen=True)
class Pointwise(_Stateless[tuple[()]]):
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
    def output_size(self) -> Any:
        """Length of what the function returns for one example, or its shape where it has more axes."""
        return size_of(jax.eval_shape(self.function, self.input_spec))

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> tuple[()]:
        """Returns no parameters."""
        del key, dtype
        return ()

    def apply(self, params: tuple[()], xs: PyTree) -> PyTree:
        """Applies the function."""
        return self.function(xs)


@dataclass(frozen=True)
class Embedding(_Stateless[Array]):
    """A row of a table for each token: below a cell, its input product is a look-up.

        y = table[x]

    Args:
        vocabulary: V, the number of tokens; an input is an integer in 0..V-1; the output of others is NaN.
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
        """V, words of the vocabulary."""
        return self.vocabulary

    @property
    def output_size(self) -> int:
        """E, length of an embedding."""
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
    ) -> Array:
        """Returns a fresh table `[V, E]` by `embedding_init`, by default Flax's."""
        check_initializers(embedding_init=embedding_init)
        return embedding_init(key, (self.vocabulary, self.size), dtype)

    def apply(self, params: Array, xs: Array) -> Array:
        """Looks tokens up."""
        return look_up(params, xs, mode="fill")


class LinearParams(NamedTuple):
    """Parameters of `Linear`; `b` is None without bias."""

    w: Array  # [I, O]
    b: Array | None  # [O]


@dataclass(frozen=True)
class Linear(_Stateless[LinearParams]):
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
    ) -> LinearParams:
        """Returns fresh parameters: `w` by `input_init`, and `b` by `bias_init`, which sees `[1, O]`."""
        check_initializers(input_init=input_init, bias_init=bias_init)
        k_w, k_b = jax.random.split(key)
        b = bias_init(k_b, (1, self.size), dtype)[0] if self.use_bias else None
        return LinearParams(input_init(k_w, (self.input_size, self.size), dtype), b)

    def apply(self, params: LinearParams, xs: Array) -> Array:
        """Multiplies by the matrix and adds the bias."""
        return affine(xs, params.w, params.b)
