"""The cell protocol: a frozen dataclass of sizes and options, with pure methods, and the helpers its equations use.

    drive         = project(params, x)             all that sees the input only
    state, output = step(params, state, drive)     all that sees the previous state
    y             = readout(params, output, drive) all that nothing later waits for

`unroll` runs `project` and `readout` for many time steps at once and only `step` in sequence.
"""

import abc
import dataclasses
import functools
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_input, check_params, check_state, check_step
from jaxrnn.chunks import StepData, default_chunk, in_chunks
from jaxrnn.hoist import hoist
from jaxrnn.jaxprs import flat_products
from jaxrnn.recurrence import recurrence
from jaxrnn.rows import Walk, keep, select, starts, valid_steps
from jaxrnn.typing import Array, DTypeLike, Key, Params, PyTree, State

__all__ = ["Cell", "add", "add_bias", "affine", "blockwise", "cast", "dot", "gates", "recurrent", "weigh"]


def dot(h: Array, w: Array) -> Array:
    """`h @ w`, computed in the dtype of the weight: `[*batch, H] x [H, O] -> [*batch, O]`.

    So a float32 state meets bfloat16 weights in a bfloat16 product, and keeps its own precision outside of it. In mixed
    precision, parameters and inputs are cast together (`cast`).
    """
    return jnp.matmul(h.astype(w.dtype), w)


def recurrent(h: Array, w: Array, n: int) -> tuple[Array, ...]:
    """The `n` gates of `h @ w`, a tuple: `[*batch, R] -> n x [*batch, H]`.

    A weight `[R, nH]` is dense. A weight `[heads, R / heads, nH / heads]` is block-diagonal: the units of each gate see
    those of their own head only.
    """
    if w.ndim == 2:
        return gates(dot(h, w), n)
    heads = (gates(z, n) for z in blockwise(gates(h, len(w)), w))
    return tuple(jnp.concatenate(gate, axis=-1) for gate in zip(*heads, strict=True))


def blockwise(parts: tuple[Array, ...], w: Array) -> tuple[Array, ...]:
    """Each of N parts by its own matrix: N x `[*batch, K]` by `[N, K, O]` gives N x `[*batch, O]`.

    One batched product, but on the CPU, where XLA takes twice as long for it and its derivatives, N of them.
    """
    if jax.default_backend() == "cpu":
        return tuple(dot(part, w[i]) for i, part in enumerate(parts))
    z = jnp.einsum("...ki,kio->...ko", jnp.stack(parts, axis=-2).astype(w.dtype), w)
    return tuple(z[..., i, :] for i in range(len(parts)))


def affine(x: Array, w: Array, b: Array | None) -> Array:
    """`x @ w + b` over any leading axes; no bias where `b` is None."""
    return add_bias(jnp.matmul(x, w), b)


def add_bias(z: Array, b: Array | None) -> Array:
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


def safe_sqrt(z: Array) -> Array:
    """`√z` of real numbers from zero on; the derivative at zero, where the root has none, is zero."""
    some = z > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, z, jnp.ones_like(z))), jnp.zeros_like(z))


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """`tree` with its real leaves in `dtype`; integers and complex numbers stay as they are.

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
        # A leaf that has the dtype stays the same object: `recurrence` sees by it that an output is part of the state.
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != dtype else leaf

    return jax.tree.map(one, tree)


class Cell(abc.ABC):
    """A recurrent cell: sizes and options in a frozen dataclass, parameters and state in pytrees outside of it.

    A subclass is a `@dataclass(frozen=True)` with fields `input_size` and `hidden_size` (or properties of these names)
    that defines `init`, `initial_state`, `project`, `step` and, where something can be postponed, `readout`. It holds
    no arrays, so it can be a static argument of `jax.jit`. See `jaxrnn/cells/lstm.py` for the model page.

    A cell made of several cells also defines how it walks a whole sequence, `walk`, as `jaxrnn/networks.py` does;
    without that it is stepped as one cell, and only its own `project` is done ahead of the loop. A cell that has a
    faster way to the same values than step after step defines `walk_chunk`, as `jaxrnn/cells/delta.py` does.
    """

    input_size: Any
    hidden_size: Any

    @abc.abstractmethod
    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> Params:
        """Fresh parameters in `dtype`; initializers are further keyword arguments of the subclass."""

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
        """Shape and kind of dtype of one example's input: a `jax.ShapeDtypeStruct`, or a pytree of them.

        Here that of reals, `input_size` a length or a shape.
        """
        size = self.input_size
        return jax.ShapeDtypeStruct(size if isinstance(size, tuple) else (size,), jnp.float32)

    @property
    def output_size(self) -> Any:
        """Length of one example's `y`, or its shape where it has more axes; a pytree of them where `y` is one."""
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
        check_cell(self)
        check_params(self, params)
        batch_shape = check_input(self, x)
        check_state(self, state, batch_shape)
        drive = self.project(params, x)
        state, output = advance(self, params, state, drive)
        y = self.readout(params, output, drive)
        return state, cast(y, computation_dtype(params, x))

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """The cell over a whole sequence, as `unroll` with checked arguments: chunk by chunk."""
        steps, *_ = check_input(self, xs, "xs", time=True)
        dtype = computation_dtype(params, xs)
        resets = starts(how, steps)

        def segment(params: Params, state: State, part: tuple[PyTree, Array, Array | None]) -> tuple[State, PyTree]:
            xs, times, resets = part
            valid = None
            if how.lengths is not None:
                valid = valid_steps(times, how.lengths)
                xs = keep(valid, xs)
            drives = flat_products(self.project)(params, xs)
            state, outputs = self.walk_chunk(params, state, StepData(drives, valid, resets), how.reverse)
            ys = cast(flat_products(self.readout)(params, outputs, drives), dtype)
            if valid is not None:
                ys = keep(valid, ys)
            return state, ys

        if steps == 0:
            ys = jax.eval_shape(segment, params, state, _one_step(xs, resets))[1]
            return state, jax.tree.map(lambda y: jnp.zeros((0, *y.shape[1:]), y.dtype), ys)
        if (chunk := how.chunk) is None:
            drive = jax.eval_shape(self.project, params, jax.tree.map(lambda x: x[0], xs))
            chunk = self.chunk_size(steps, drive, state)
        whole = xs, jnp.arange(steps), resets
        return in_chunks(segment, params, state, whole, chunk, reverse=how.reverse, save=how.save)

    def walk_chunk(self, params: Params, state: State, data: StepData, reverse: bool) -> tuple[State, PyTree]:
        """The sequential part of a chunk: `(state after it, outputs [T, ...])`, step after step."""
        step: Any = functools.partial(_step, self)
        every: Any = data
        if found := hoist(step, params, state, jax.tree.map(lambda d: d[0], data)):
            ahead, step = found
            every = flat_products(jax.vmap(ahead, (None, 0)))(params, data)
        return recurrence(step, reverse, params, state, every)

    def chunk_size(self, steps: int, drive: PyTree, state: State) -> int:
        """Steps a chunk by default, from one step's drive and state."""
        del state
        return default_chunk(steps, sum(d.size * d.dtype.itemsize for d in jax.tree.leaves(drive)))

    @property
    def stepped(self) -> bool:
        """Whether a wrapper may take single steps instead of a walk: no option or walk of the cell says otherwise."""
        return type(self).walk is Cell.walk

    def __repr__(self) -> str:
        """The constructor call, without the fields that have their defaults."""
        shown = (
            f"{f.name}={_show(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.repr and getattr(self, f.name) != f.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> Any:
        return jax.tree.map(_by_name, self.__dict__)

    # What cannot change and holds no arrays is its own copy.
    def __copy__(self) -> "Cell":
        return self

    def __deepcopy__(self, memo: Any) -> "Cell":
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # `@dataclass` writes a `__repr__` of its own unless the class has one.
        super().__init_subclass__(**kwargs)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Cell.__repr__  # type: ignore[method-assign]


def _show(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


class _Named(NamedTuple):
    """What pickles as the thing of this name. Of a jitted function pickle would make another, which is not equal."""

    name: str

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return pkgutil.resolve_name, (self.name,)


def _by_name(value: Any) -> Any:
    """`value`, by its name if it is a function that has one."""
    if isinstance(value, Cell) or not callable(value):
        return value
    name = f"{value.__module__}:{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
    try:
        found = pkgutil.resolve_name(name)
    except (AttributeError, ImportError, ValueError):
        return value
    return _Named(name) if found is value else value


# What the drivers share.


def advance(cell: Cell, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
    """`cell.step` with the new state in the dtypes of the old."""
    new, output = check_step(cell, cell.step(params, state, drive), state)
    return jax.tree.map(lambda n, s: cast(n, s.dtype), new, state), output


def computation_dtype(params: Params, x: PyTree) -> Any:
    """The real dtype that parameters and input promote to."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves((params, x))]
    return jnp.result_type(*[jnp.finfo(d).dtype for d in dtypes if jnp.issubdtype(d, jnp.inexact)] or [jnp.float32])


def initial_like(cell: Cell, state: State, batch_shape: tuple[int, ...]) -> State:
    """The initial state, in the dtypes of `state`."""
    real = [jnp.finfo(s.dtype).dtype for s in jax.tree.leaves(state) if jnp.issubdtype(s.dtype, jnp.inexact)]
    start = cell.initial_state(batch_shape, functools.reduce(np.promote_types, real, jnp.float32))
    return jax.tree.map(lambda a, s: a.astype(s.dtype), start, state)


def state_dtype(params: Params, x: PyTree) -> Any:
    """That of a fresh state: the computation's, and float32 at least."""
    return np.promote_types(computation_dtype(params, x), np.float32)


def check_cell(cell: Any, name: str = "cell") -> None:
    """Raise unless `cell` is a jaxrnn cell."""
    if not isinstance(cell, Cell):
        raise TypeError(f"{name}: got {type(cell).__name__}, needs a jaxrnn.Cell")
    if not dataclasses.is_dataclass(cell):
        raise TypeError(f"{name}: {type(cell).__name__} is no dataclass, needs @dataclass(frozen=True)")
    try:
        hash(cell)
    except TypeError:
        raise TypeError(
            f"{name}: {type(cell).__name__} does not hash, needs @dataclass(frozen=True) and fields that do"
        ) from None


def _step(cell: Cell, params: Params, state: State, data: StepData) -> tuple[State, PyTree]:
    """One step with resets before it and, on invalid rows, the old state after it.

    Selected by `where`, never multiplied, so that NaN cannot leak. On invalid rows the output is of no account.
    """
    drive, valid, reset = data
    old = state
    if reset is not None:
        state = jax.tree.map(functools.partial(select, reset), initial_like(cell, state, reset.shape), state)
    new, output = advance(cell, params, state, drive)
    if valid is None:
        return new, output
    held = jax.tree.map(lambda n, o: select(valid, n, o), new, old)
    # An output that is a part of the state stays that part: `recurrence` then keeps it once.
    same = {id(n): h for n, h in zip(jax.tree.leaves(new), jax.tree.leaves(held), strict=True)}
    return held, jax.tree.map(lambda o: same.get(id(o), o), output)


def _one_step(xs: PyTree, resets: Array | None) -> PyTree:
    def spec(a: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype)

    return jax.tree.map(spec, (xs, jnp.zeros(0, jnp.int32), resets))
