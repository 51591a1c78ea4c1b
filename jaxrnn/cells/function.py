"""A cell from functions of the user's own (Recurrence and Recursor: Léonard et al. 2015)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.cell import Cell
from jaxrnn.checks import check_returned, check_sizes
from jaxrnn.engine.layer import size_of
from jaxrnn.typing import DTypeLike, Key, Params, PyTree, State

__all__ = ["Function"]


@dataclass(frozen=True)
class Function(Cell[Any, Any]):
    """A cell whose step is any function, with any pytrees of parameters, state and input; cells may be called in it.

        state', y = f(params, state, x)

    The function has the signature of a call of a cell, so a cell is such a function. It works for any leading batch
    axes, `[*batch, ...]`, and for none. A function of single examples only runs on batches by `jax.vmap` of `unroll`.
    `unroll` finds products that see only the input and computes them before the loop; derivatives are as fast as any
    cell's. The function may close over arrays, and over values that are differentiated. It is traced once for equal
    shapes: a global that it reads stays what it was.

    Cells compare by their fields, and functions by identity: pass functions of a module, not new ones in each call.

    Args:
        function: `(params, state, x) -> (state, y)`; the state keeps its structure and shapes, y is `[*batch, O]`.
        make_params: `(key, dtype) -> params`; called with `dtype` as a keyword, as a cell's `init`.
        make_state: `(batch_shape, dtype) -> state`, the zero state, leaves `[*batch_shape, ...]`.
        input_size: I, length of the last axis of the input. For any other input, the shape and dtype of one example as
            a pytree of `jax.ShapeDtypeStruct`, made of tuples, because a dict does not hash.

    Raises:
        TypeError: an argument that must be a function is not callable, or `function` does not return a pair.
        ValueError: `input_size` is neither a positive integer nor a pytree of shapes, or `function` changes the
            structure or the shapes of the state.

    Example:
        >>> import jaxrnn
        >>> lstm = jaxrnn.LSTM(input_size=3 + 2, hidden_size=4)
        >>> def feedback(params, state, x):                      # an LSTM that sees its last prediction
        ...     inner, y = state
        ...     inner, h = lstm(params["lstm"], inner, jnp.concatenate([x, y.astype(x.dtype)], axis=-1))
        ...     y = jaxrnn.ops.dot(h, params["w_y"])
        ...     return (inner, y), y
        >>> def make_params(key, dtype):
        ...     return {"lstm": lstm.init(key, dtype=dtype), "w_y": jnp.ones((4, 2), dtype)}
        >>> def make_state(batch_shape, dtype):
        ...     return lstm.initial_state(batch_shape, dtype), jnp.zeros((*batch_shape, 2), dtype)
        >>> cell = Function(feedback, make_params, make_state, input_size=3)
        >>> (inner, y), ys = jaxrnn.unroll(cell, cell.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> ys.shape, cell.output_size
        ((5, 2, 2), 2)

    Reference: Léonard, Waghmare, Wang & Kim 2015, "rnn: Recurrent library for Torch", sections on Recurrence, Recursor.
    """

    function: Callable[[Params, State, PyTree], tuple[State, PyTree]]
    make_params: Callable[..., Params]
    make_state: Callable[[tuple[int, ...], DTypeLike], State]
    input_size: Any

    def __post_init__(self) -> None:
        for name in ("function", "make_params", "make_state"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name}: got {type(getattr(self, name)).__name__}, needs a function")
        try:
            hash(self.input_size)
        except TypeError:
            raise TypeError(
                f"input_size: got {type(self.input_size).__name__}, which does not hash, needs shapes in tuples"
            ) from None
        if not _is_spec(self.input_size):
            check_sizes(input_size=self.input_size)
        pair = self._step_spec()
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise TypeError(f"function: got {type(pair).__name__} from it, needs a pair (state, y)")
        was, now = (jax.tree.map(lambda leaf: leaf.shape, state) for state in (self._state_spec(), pair[0]))
        if was != now:
            raise ValueError(f"function: got a state of shapes {now} from it, needs those of make_state, {was}")

    @property
    def hidden_size(self) -> Any:
        """Number of values in one example's state; for a state of several arrays a tuple, one number per leaf."""
        sizes = tuple(math.prod(leaf.shape) for leaf in jax.tree.leaves(self._state_spec()))
        return sizes[0] if len(sizes) == 1 else sizes

    @property
    def input_spec(self) -> PyTree:
        return self.input_size if _is_spec(self.input_size) else super().input_spec

    @property
    def output_size(self) -> Any:
        return size_of(self._step_spec()[1])

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> Params:
        """Returns what `make_params` returns."""
        return self.make_params(key, dtype=dtype)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """Returns what `make_state` returns."""
        return self.make_state(batch_shape, dtype)

    def project(self, params: Params, x: PyTree) -> PyTree:
        """Returns the input unchanged."""
        del params
        return x

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """Calls `function`."""
        return self.function(params, state, drive)

    def _state_spec(self) -> PyTree:
        return jax.eval_shape(self.initial_state)

    def _step_spec(self) -> Any:
        """Returns the shapes and dtypes that `function` returns for one example."""
        params, state = jax.eval_shape(self.init, jax.random.key(0)), self._state_spec()
        check_returned(self, "make_params", params)
        check_returned(self, "make_state", state)
        return jax.eval_shape(self.function, params, state, self.input_spec)


def _is_spec(size: Any) -> bool:
    leaves = jax.tree.leaves(size)
    return bool(leaves) and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
