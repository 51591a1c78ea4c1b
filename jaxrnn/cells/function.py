"""A cell from functions of the user's own, with any state (Recurrence and Recursor of Element-Research's rnn).

    state', y = f(params, state, x)

Any pytrees; other cells may be called in f.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.typing import DTypeLike, Key, Params, PyTree, State

__all__ = ["Function"]


@dataclass(frozen=True)
class Function(Cell):
    """A cell whose step is any function, with any pytrees of parameters, state and input; cells may be called in it.

        state', y = f(params, state, x)

    The function is what `Cell.__call__` is, so that a cell is such a function itself: it works for any leading batch
    axes, `[*batch, ...]`, and for none, a single example. One for single examples alone serves for batches by
    `jax.vmap` of `unroll`. `unroll` finds the products of the input alone in it and does them ahead of the loop, and
    its derivatives go the fast way, as any cell's. It may close over arrays, also over what is differentiated.

    Cells compare by their fields, and functions by identity: give functions of a module, not fresh ones at each call.

    Args:
        function: `(params, state, x) -> (state, y)`; the state in the structure and shapes it came in, y `[*batch, O]`.
        make_params: `(key, dtype) -> params`; called with `dtype` by name, as a cell's `init` needs it.
        make_state: `(batch_shape, dtype) -> state`, the zero state, leaves `[*batch_shape, ...]`.
        input_size: I, length of the last axis of the input; or, for any other input, the shapes and dtypes of one
            example's as a pytree of `jax.ShapeDtypeStruct` (in tuples: a dict does not hash).

    Raises:
        TypeError: something that must be a function is not callable, or `function` does not give a pair.
        ValueError: `input_size` is neither a positive integer nor a pytree of shapes, or `function` gives a state of
            another structure or other shapes than it got.

    Example:
        >>> import jaxrnn
        >>> lstm = jaxrnn.LSTM(input_size=3 + 2, hidden_size=4)
        >>> def feedback(params, state, x):                      # an LSTM that sees its own last prediction
        ...     inner, y = state
        ...     inner, h = lstm(params["lstm"], inner, jnp.concatenate([x, y.astype(x.dtype)], axis=-1))
        ...     y = jaxrnn.dot(h, params["w_y"])
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
        if not _is_spec(self.input_size):
            check_sizes(input_size=self.input_size)
        pair = self._step_spec()
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise TypeError(f"function: got {type(pair).__name__} from it, needs a pair (state, y)")
        was, now = (jax.tree.map(lambda leaf: leaf.shape, state) for state in (self._state_spec(), pair[0]))
        if was != now:
            raise ValueError(f"function: got a state of shapes {now} from it, needs those of make_state, {was}")

    @property
    def hidden_size(self) -> tuple[int, ...]:
        """How many values each leaf of the state has for one example."""
        return tuple(math.prod(leaf.shape) for leaf in jax.tree.leaves(self._state_spec()))

    @property
    def input_spec(self) -> PyTree:
        """`input_size` reals, or the shapes that it is."""
        return self.input_size if _is_spec(self.input_size) else super().input_spec

    @property
    def output_size(self) -> Any:
        """Length of `y`, or its shape where that is not one axis; for a `y` of several arrays, one a leaf."""
        y = self._step_spec()[1]
        return jax.tree.map(lambda leaf: leaf.shape[0] if leaf.ndim == 1 else leaf.shape, y)

    def _state_spec(self) -> PyTree:
        return jax.eval_shape(self.initial_state)

    def _step_spec(self) -> Any:
        """Shapes and dtypes that `function` gives for one example."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        return jax.eval_shape(self.function, params, self._state_spec(), self.input_spec)

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> Params:
        """Fresh parameters, those of `make_params`."""
        return self.make_params(key, dtype=dtype)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """The zero state, that of `make_state`."""
        return self.make_state(batch_shape, dtype)

    def project(self, params: Params, x: PyTree) -> PyTree:
        """The input as it is."""
        del params
        return x

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """One call of `function`."""
        return self.function(params, state, drive)


def _is_spec(size: Any) -> bool:
    leaves = jax.tree.leaves(size)
    return bool(leaves) and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
