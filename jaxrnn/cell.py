"""The cell protocol: a frozen dataclass of sizes and options, with pure methods, and the helpers its equations use.

    drive         = project(params, x)             all that sees the input only
    state, output = step(params, state, drive)     all that sees the previous state
    y             = readout(params, output, drive) all that nothing later waits for

`unroll` runs `project` and `readout` for many time steps at once and only `step` in sequence.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_input, check_params, check_state
from jaxrnn.typing import Array, DTypeLike, Key, Params, PyTree, State

__all__ = ["Cell", "add", "affine", "cast", "dot", "gates", "shift", "weigh"]


def dot(h: Array, w: Array) -> Array:
    """`h @ w`, computed in the dtype of the weight: `[*batch, H] x [H, O] -> [*batch, O]`.

    So a float32 state meets bfloat16 weights in a bfloat16 product, and keeps its own precision outside of it.
    """
    return jnp.matmul(h.astype(w.dtype), w)


def affine(x: Array, w: Array, b: Array | None) -> Array:
    """`x @ w + b` over any leading axes; no bias where `b` is None."""
    return shift(jnp.matmul(x, w), b)


def shift(z: Array, b: Array | None) -> Array:
    """`z + b` over any leading axes; `z` where `b` is None."""
    return z if b is None else z + jnp.broadcast_to(b, z.shape)


def weigh(h: Array, w: Array) -> Array:
    """`h ⊙ w`, a diagonal product over any leading axes."""
    return h * jnp.broadcast_to(w, h.shape)


def gates(z: Array, n: int) -> tuple[Array, ...]:
    """The `n` equal blocks of the last axis, as a tuple: `[*batch, n * H] -> n x [*batch, H]`."""
    return tuple(jnp.split(z, n, axis=-1))


def add(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    """Gate by gate sum of two tuples of gates."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """`tree` with its floating-point leaves in `dtype`; others stay as they are.

    The computation's dtype is that of the parameters and inputs a call is given. Mixed precision is a cast at the call,
    so that gradients arrive in the dtype of the stored parameters:

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.LSTM(3, 4)
        >>> params = cell.init(jax.random.key(0))                       # float32
        >>> xs = jnp.ones((5, 2, 3), jnp.bfloat16)
        >>> state, ys = jaxrnn.unroll(cell, jaxrnn.cast(params, jnp.bfloat16), xs)
        >>> ys.dtype, state.c.dtype
        (dtype(bfloat16), dtype('float32'))
    """

    def one(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)


class Cell(abc.ABC):
    """A recurrent cell: sizes and options in a frozen dataclass, parameters and state in pytrees outside of it.

    A subclass is a `@dataclass(frozen=True)` with fields `input_size` and `hidden_size` (or properties of these names)
    that defines `init`, `initial_state`, `project`, `step` and, where something can be postponed, `readout`. It holds
    no arrays, so it can be a static argument of `jax.jit`. See `jaxrnn/cells/lstm.py` for the model page.
    """

    input_size: Any
    hidden_size: Any

    @abc.abstractmethod
    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> Params:
        """Fresh parameters in `dtype`; initialisers are further keyword arguments of the subclass."""

    @abc.abstractmethod
    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """The zero state, leaves `[*batch_shape, ...]`."""

    @abc.abstractmethod
    def project(self, params: Params, x: PyTree) -> PyTree:
        """What the step needs of the input, for any leading axes: a pytree, one array per gate."""

    @abc.abstractmethod
    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """One step from the previous state: `(state, output)`."""

    def readout(self, params: Params, output: PyTree, drive: PyTree) -> PyTree:
        """What follows the step and nothing later in the loop waits for, for any leading axes; the identity here."""
        del params, drive
        return output

    @property
    def input_spec(self) -> PyTree:
        """Shape and kind of dtype of one example's input: a `jax.ShapeDtypeStruct`, or a pytree of them."""
        return jax.ShapeDtypeStruct((self.input_size,), jnp.float32)

    @property
    def output_size(self) -> int:
        """Length of the last axis of `y`."""
        return self.hidden_size

    def __call__(self, params: Params, state: State, x: PyTree) -> tuple[State, PyTree]:
        """One time step: `(state, y)`.

        Args:
            params: from `init`.
            state: from `initial_state` or the step before, leaves `[*batch, ...]`; keeps its dtypes.
            x: the input, leaves `[*batch, *input_spec.shape]`.

        Raises:
            TypeError, ValueError: an argument is not of the cell's structure, shape or kind of dtype.
        """
        check_params(self, params)
        batch_shape = check_input(self, x)
        check_state(self, state, batch_shape)
        drive = self.project(params, x)
        state, output = advance(self, params, state, drive)
        y = self.readout(params, output, drive)
        return state, cast_floats(y, computation_dtype(params, x))

    def __repr__(self) -> str:
        """The constructor call, without the fields that have their defaults."""
        shown = (
            f"{f.name}={_show(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.repr and getattr(self, f.name) != f.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # `@dataclass` writes a `__repr__` of its own unless the class body has one.
        super().__init_subclass__(**kwargs)
        cls.__repr__ = Cell.__repr__  # type: ignore[method-assign]


def _show(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


# What the drivers share.


def advance(cell: Cell, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
    """`cell.step` with the new state in the dtypes of the old."""
    new, output = cell.step(params, state, drive)
    return jax.tree.map(lambda n, s: cast_floats(n, s.dtype), new, state), output


def computation_dtype(params: Params, x: PyTree) -> Any:
    """The dtype that parameters and input promote to."""
    leaves = [jnp.asarray(leaf).dtype for leaf in jax.tree.leaves((params, x))]
    return jnp.result_type(*[d for d in leaves if jnp.issubdtype(d, jnp.inexact)] or [jnp.float32])


def cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    """`tree` with real leaves in `dtype`, complex and integer ones untouched; identical leaves stay identical."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)
