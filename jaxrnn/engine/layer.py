"""The abstract `Layer`: the base class of cells, networks and wrappers.

params    = layer.init(key)
state     = layer.initial_state(batch_shape)
state, y  = layer(params, state, x)                  one time step
state, ys = unroll(layer, params, xs, state)         a sequence, by `layer.run`
"""

import abc
import dataclasses
import functools
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Generic, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import (
    check_choice,
    check_flags,
    check_input,
    check_key,
    check_params,
    check_start,
    check_state,
    check_tuple,
    named_promotions,
)
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.ops import select, spread_like
from jaxrnn.typing import Array, DTypeLike, Key, P, PyTree, S

__all__ = ["Layer", "call_path", "check_layer", "computation_dtype", "on_call_path", "size_of", "state_dtype"]

CallPath = Literal["auto", "scan", "part"]

_call_path: ContextVar[CallPath] = ContextVar("call_path", default="auto")


@contextmanager
def on_call_path(path: CallPath) -> Iterator[None]:
    """Within, single steps take this path; "part": what runs the step that they are a part of decides for them."""
    token = _call_path.set(path)
    try:
        yield
    finally:
        _call_path.reset(token)


def call_path() -> CallPath:
    """Returns the path of a single step that is taken now."""
    return _call_path.get()


class _LayerType(abc.ABCMeta):
    """Keeps `help` of a layer to what its user calls."""

    def __dir__(cls) -> list[str]:
        fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
        # A default that is a function would be shown as a method, with all of its own documentation.
        own = {name for name, a in cls.__dict__.items() if not (name.startswith("_") or isinstance(a, bool))} - fields
        used = {"init", "initial_state", "project", "step", "readout", "input_spec", "output_size", "__call__"}
        return sorted(own | {name for name in used if hasattr(cls, name)})


class Layer(Generic[P, S], metaclass=_LayerType):
    """Base class of everything that runs over time: holds sizes and options; parameters and state are separate pytrees.

    A subclass is a `@dataclass(frozen=True)` with fields `input_size` and `hidden_size` (or properties of these names).
    It holds no arrays: it hashes, compares, prints and pickles by value, so it can be a static argument of `jax.jit`.
    A cell of your own derives from `Cell`; a wrapper around whole sequences from `jaxrnn.networks.Wrapper`, around
    single steps from `jaxrnn.networks.StepWrapper`.
    """

    input_size: Any
    hidden_size: Any

    @abc.abstractmethod
    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> P:
        """Returns fresh parameters in `dtype`; initializers are further keyword arguments of the subclass."""

    @abc.abstractmethod
    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> S:
        """Returns the zero state, leaves `[*batch_shape, ...]`."""

    @abc.abstractmethod
    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Runs a sequence, as `unroll` after its checks: `(final state, ys [T, *batch, ...])`."""

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Runs one time step, unchecked; `draw` gives the randomness that the step asks for."""
        raise TypeError(f"{type(self).__name__}: has no single time step, it needs the whole sequence; use unroll")

    def restart(self, params: P, state: S, batch_shape: tuple[int, ...]) -> S:
        """Returns the state in which a sequence begins, in the dtypes of `state`: the initial state."""
        del params
        dtypes = map(jnp.result_type, jax.tree.leaves(state))
        real = [jnp.finfo(dtype).dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
        start = self.initial_state(batch_shape, functools.reduce(np.promote_types, real, jnp.float32))
        check_start(self, start, batch_shape)
        return jax.tree.map(lambda a, s: spread_like(a.astype(s.dtype), s), start, state)

    def with_cells(self, function: "Callable[[Layer], Layer]") -> "Layer":
        """Returns the layer with `function` applied to each inner cell; here the layer itself counts as one cell."""
        return function(self)

    @property
    def needs_state(self) -> str:
        """How to make the state without which the layer cannot run; empty where it begins by itself."""
        return ""

    @property
    def init_names(self) -> frozenset[str]:
        """Names of the initializers that `init` takes, also for inner cells."""
        named = inspect.signature(self.init).parameters.values()
        return frozenset(p.name for p in named if p.kind is not p.VAR_KEYWORD) - {"key", "dtype"}

    @property
    def input_spec(self) -> PyTree:
        """Shape and kind of dtype of one example's input: a `jax.ShapeDtypeStruct`, or a pytree of them.

        By default real values of the length or shape `input_size`, or of a pytree of these.
        """
        return _spec_of(self.input_size)

    @property
    def output_size(self) -> Any:
        """Length of one example's `y`, or its shape if it has several axes; a pytree of these if `y` is a pytree."""
        return self.hidden_size

    @property
    def output_spec(self) -> PyTree:
        """Shape of one example's `y`: `output_size` as a `jax.ShapeDtypeStruct` of real values, or a pytree of them."""
        return _spec_of(self.output_size)

    def __call__(
        self, params: P, state: S, x: PyTree, *, reset: Array | None = None, path: Literal["auto", "scan"] = "auto"
    ) -> tuple[S, PyTree]:
        """Runs one time step: `(state, y)`.

        Args:
            params: from `init`.
            state: from `initial_state` or the step before, leaves `[*batch, ...]`; keeps its dtypes.
            x: the input, leaves `[*batch, *input_spec.shape]`.
            reset: `[*batch]` booleans: before the step, the state of a flagged row becomes the initial state, as by
                the `resets` of `unroll`; such as what an environment says of the end of an episode.
            path: "auto": a native loop of one step on a CPU where that is faster, unless the call is made in another
                cell's step; `jaxrnn.explain(cell, steps=None, batch=B)` tells. "scan": the operations of the step, as
                on the scan path of `unroll`.

        Raises:
            TypeError, ValueError: an argument does not have the structure, shape or kind of dtype that is needed, or
                the layer has no single time step.
        """
        check_layer(self)
        check_params(self, params)
        batch_shape = check_input(self, x)
        check_state(self, state, batch_shape, way="; a call is one time step, unroll runs a sequence")
        if reset is not None:
            flags = check_flags(reset, batch_shape, "reset", "[*batch]")
            fresh = self.restart(params, state, batch_shape)
            state = jax.tree.map(functools.partial(select, flags), fresh, state)
        check_choice(path=path, among=("auto", "scan"))
        with named_promotions(params, state, x=x), on_call_path(path) if path == "scan" else nullcontext():
            return self.advance(params, state, x)

    def __repr__(self) -> str:
        """Prints the constructor call, without fields at their defaults."""
        shown = (
            f"{f.name}={_show(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.repr and getattr(self, f.name) != f.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> Any:
        return jax.tree.map(_by_name, self.__dict__)

    # Immutable and without arrays, so a copy is the object itself.
    def __copy__(self) -> "Layer":
        return self

    def __deepcopy__(self, memo: Any) -> "Layer":
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A leafless pytree, so that a layer may be an argument of `jax.jit` and a part of any pytree.
        jax.tree_util.register_static(cls)
        if "initial_state" in cls.__dict__:
            cls.initial_state = _checked_state(cls.initial_state)  # type: ignore[method-assign]
        if "init" in cls.__dict__:
            cls.init = _checked_init(cls.init)  # type: ignore[method-assign]
        # `@dataclass` writes a `__repr__` of its own unless the class has one.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Layer.__repr__  # type: ignore[method-assign]


def _checked_init(init: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method `init` that says what is wrong where a number stands for the key, or a method has no `dtype`."""
    named = inspect.signature(init).parameters.values()
    has_dtype = any(p.name == "dtype" or p.kind is p.VAR_KEYWORD for p in named)

    @functools.wraps(init)
    def checked(self: Layer, key: Key, *args: Any, **options: Any) -> Any:
        if "dtype" in options and not has_dtype:
            raise TypeError(f"init: that of {self} takes no dtype, needs init(self, key, *, dtype=jnp.float32)")
        return init(self, check_key(key), *args, **options)

    return checked


def _checked_state(initial_state: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method `initial_state` that says what is wrong where a number stands for the tuple `batch_shape`."""

    @functools.wraps(initial_state)
    def checked(*args: Any, **options: Any) -> Any:
        check_tuple(batch_shape=args[1] if len(args) > 1 else options.get("batch_shape", ()))
        return initial_state(*args, **options)

    return checked


def _show(value: Any) -> str:
    return getattr(value, "__name__", None) or repr(value)


class _Named(NamedTuple):
    """Pickles a function by its name. Pickle would turn a jitted function into another one, which is not equal."""

    name: str

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return pkgutil.resolve_name, (self.name,)


def _by_name(value: Any) -> Any:
    """Replaces a function that has an importable name by that name."""
    if isinstance(value, Layer) or not callable(value):
        return value
    name = f"{value.__module__}:{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"
    try:
        found = pkgutil.resolve_name(name)
    except (AttributeError, ImportError, ValueError):
        return value
    return _Named(name) if found is value else value


def check_layer(layer: Any, name: str = "cell") -> None:
    """Raises unless `layer` is a jaxrnn cell or network."""
    if not isinstance(layer, Layer):
        got = f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__
        raise TypeError(f"{name}: got {got}, needs a jaxrnn.Cell or a network of cells")
    if not dataclasses.is_dataclass(layer):
        raise TypeError(f"{name}: {type(layer).__name__} is no dataclass, needs @dataclass(frozen=True)")
    try:
        hash(layer)
    except TypeError:
        raise TypeError(
            f"{name}: {type(layer).__name__} does not hash, needs @dataclass(frozen=True) and fields that do"
        ) from None


def _spec_of(size: Any) -> PyTree:
    """Returns a `jax.ShapeDtypeStruct` of real values for each length or shape in `size`."""

    def is_shape(size: Any) -> bool:
        return type(size) is tuple and all(isinstance(n, int | np.integer) for n in size)

    def one(size: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size if isinstance(size, tuple) else (size,), jnp.float32)

    return jax.tree.map(one, size, is_leaf=is_shape)


def size_of(spec: PyTree) -> Any:
    """Returns the length of each `jax.ShapeDtypeStruct` with one axis, and the shape of each other one."""
    return jax.tree.map(lambda leaf: leaf.shape[0] if leaf.ndim == 1 else leaf.shape, spec)


def computation_dtype(params: PyTree, x: PyTree) -> Any:
    """Returns the real dtype that parameters and input promote to."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves((params, x))]
    return jnp.result_type(*[jnp.finfo(d).dtype for d in dtypes if jnp.issubdtype(d, jnp.inexact)] or [jnp.float32])


def state_dtype(params: PyTree, x: PyTree) -> Any:
    """Returns the dtype of a fresh state: the dtype of the computation, but at least float32."""
    return np.promote_types(computation_dtype(params, x), np.float32)
