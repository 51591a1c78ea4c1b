"""The checks at the boundary: each error names the argument, what it got and what it needs."""

import functools
import importlib.util
import inspect
import itertools
import math
import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.typing import Array, Params, PyTree, State


def check_installed(package: str) -> None:
    """Raises unless an optional package is installed, for which there is an extra of the same name."""
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"{package}: not installed; pip install 'jaxrnn[{package}]' brings it", name=package)


def check_sizes(**sizes: Any) -> None:
    """Raises unless every size is a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name}: got {_show(size)}, needs a positive integer{_static(name, size)}")


def _static(name: str, value: Any) -> str:
    """Says how an option that `jax.jit` has traced becomes a number or a bool again."""
    traced = isinstance(value, jax.core.Tracer)
    return f" that jax.jit does not trace: static_argnames={name!r}, or functools.partial" * traced


def _show(value: Any) -> str:
    """Returns a value as it is written, or, where that takes more than a line or is unknown, what it is."""
    if isinstance(value, jax.core.Tracer):
        return f"an array {value.dtype}{list(value.shape)}"
    written = repr(value)
    return written if len(written) <= 80 and "\n" not in written else type(value).__name__


def check_boundaries(boundaries: Any) -> tuple[int, ...]:
    """Returns `boundaries` as a tuple; raises unless they are lengths that rise, one at least."""
    needs = "needs rising lengths, such as (50, 100)"
    if not isinstance(boundaries, list | tuple | np.ndarray):
        raise TypeError(f"boundaries: got {boundaries!r}, {needs}")
    check_sizes(**{f"boundaries[{i}]": n for i, n in enumerate(boundaries)})
    lengths = tuple(map(int, boundaries))
    if not lengths or any(a >= b for a, b in itertools.pairwise(lengths)):
        raise ValueError(f"boundaries: got {lengths}, {needs}")
    return lengths


def check_tuple(**shapes: Any) -> None:
    """Raises unless every shape is a tuple, or a list, of sizes."""
    for name, shape in shapes.items():
        if not isinstance(shape, tuple | list):
            way = f"({shape},)" if isinstance(shape, int | np.integer) else "(2,)"
            raise TypeError(f"{name}: got {_show(shape)}, needs a tuple, such as {way}")


def check_counts(**counts: Any) -> None:
    """Raises unless every count is an integer of at least zero."""
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 0:
            raise ValueError(f"{name}: got {_show(count)}, needs an integer of at least 0")


def check_heads(heads: Any, **sizes: int) -> None:
    """Raises unless `heads` is a positive integer that divides every size."""
    check_sizes(heads=heads)
    for name, size in sizes.items():
        if size % heads:
            raise ValueError(f"heads: got {heads}, needs a divisor of {name} = {size}")


def check_choice(*, among: tuple[Any, ...], **options: Any) -> None:
    """Raises unless every option is one of those there are."""
    for name, option in options.items():
        if option not in among:
            raise ValueError(f"{name}: got {option!r}, needs one of {', '.join(map(repr, among))}")


def check_key(key: Any, *, optional: bool = False) -> Any:
    """Returns `key` as a typed key, or None where it is optional; raises unless it is one of JAX's, typed or raw."""
    if optional and key is None:
        return None
    needs = f"needs a key, jax.random.key(seed){', or None' * optional}"
    dtype = getattr(key, "dtype", None)
    if dtype == np.uint32:  # of `jax.random.PRNGKey`
        key = jax.random.wrap_key_data(key)
    elif not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key: got {_show(key)}, {needs}")
    if key.shape:
        raise ValueError(f"key: got keys of the shape {key.shape}, {needs}")
    return key


def check_rate(**rates: Any) -> None:
    """Raises unless every rate is a number in [0, 1)."""
    for name, rate in rates.items():
        if not (_is_number(rate) and 0 <= rate < 1):
            raise ValueError(f"{name}: got {_show(rate)}, needs a rate in [0, 1)")


def check_positive(**values: Any) -> None:
    """Raises unless every number is finite and greater than zero."""
    for name, number in values.items():
        if not (_is_number(number) and number > 0):
            raise ValueError(f"{name}: got {_show(number)}, needs a positive number")


def check_at_least(minimum: float, /, **values: Any) -> None:
    """Raises unless every number is finite and at least `minimum`."""
    for name, number in values.items():
        if not (_is_number(number) and number >= minimum):
            raise ValueError(f"{name}: got {_show(number)}, needs a number of at least {minimum}")


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite real number, NumPy's too."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def check_arrays(**arrays: Any) -> None:
    """Raises unless every array is one of JAX's or NumPy's, or a number: no tensor of another library, no list."""
    for name, array in arrays.items():
        if isinstance(array, jax.Array | numbers.Number) or isinstance(getattr(array, "dtype", None), np.dtype):
            continue
        kind = type(array)
        got = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        converts = hasattr(array, "__array__") or isinstance(array, list | tuple)
        way = f"; jnp.asarray({name}) makes one" if converts else ""
        raise TypeError(f"{name}: got a {got}, needs an array of JAX's or NumPy's{way}")


@functools.lru_cache(maxsize=1024)
def _params_spec(cell: Any) -> PyTree:
    params = jax.eval_shape(cell.init, jax.random.key(0))
    check_returned(cell, "init", params)
    return params


def check_returned(cell: Any, method: str, result: PyTree) -> None:
    """Raises if a method of `cell` returned nothing."""
    if result is None:
        raise TypeError(f"{method}: got None from {cell}, needs a pytree of arrays, () for none; is there a `return`?")


def check_start(cell: Any, state: Any, batch_shape: tuple[int, ...]) -> None:
    """Raises unless what `cell.initial_state` returned is a pytree of arrays `[*batch_shape, ...]`."""
    check_returned(cell, "initial_state", state)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not hasattr(leaf, "dtype") or leaf.shape[: len(batch_shape)] != batch_shape:
            got = f"the shape {leaf.shape}" if hasattr(leaf, "dtype") else f"a {type(leaf).__name__}"
            where = f"initial_state: state{jax.tree_util.keystr(path)}"
            raise ValueError(f"{where}: got {got} from {cell}, needs [*batch_shape, ...], batch_shape = {batch_shape}")


def check_params(cell: Any, params: Params) -> None:
    """Raises unless `params` has the structure and shapes that `cell.init` gives."""
    _check_tree("params", params, _params_spec(cell), f"as from {cell}.init(key)")


def check_state(cell: Any, state: State, batch_shape: tuple[int, ...], name: str = "state", way: str = "") -> None:
    """Raises unless `state` is one of `cell` for `batch_shape`; `way` says what may be wrong."""
    spec = jax.eval_shape(lambda: cell.initial_state(batch_shape))
    check_start(cell, spec, batch_shape)
    _check_tree(name, state, spec, f"as from {cell}.initial_state({batch_shape}){way}")


def check_step(cell: Any, result: Any, state: State) -> tuple[State, PyTree]:
    """Returns what a step of `cell` gave; raises unless it is a pair of a state like `state` and an output."""
    if not (isinstance(result, tuple) and len(result) == 2):
        got = "an array" if isinstance(result, jax.Array) else type(result).__name__
        raise TypeError(f"step: got {got} from {cell}, needs a pair (state, output)")
    _check_tree("step: state", result[0], state, f"as before it, from {cell}")
    return result


def check_output(cell: Any, ys: PyTree, leading: tuple[int, ...]) -> None:
    """Raises unless the outputs of `cell` over time have the leading axes of the input."""
    check_returned(cell, "step, readout: output", ys)
    for path, y in jax.tree_util.tree_leaves_with_path(ys):
        if jnp.shape(y)[: len(leading)] != leading:
            where = f"step, readout: output{jax.tree_util.keystr(path)}"
            raise ValueError(f"{where}: got the shape {jnp.shape(y)[1:]} from {cell}, needs [*batch, ...]")


def check_input(cell: Any, x: PyTree, name: str = "x", time: bool = False) -> tuple[int, ...]:
    """Returns the leading axes of `x`, all but those of one example; raises unless `x` is an input of `cell`."""
    spec = cell.input_spec
    check_structure(name, x, spec, f"{cell} needs {structure(spec)}")
    leading = set()
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(spec), strict=True):
        check_arrays(**{f"{name}{jax.tree_util.keystr(path)}": leaf})
        shape, axes = jnp.shape(leaf), len(want.shape)
        needed = f"[{'T, ' * time}*batch{''.join(f', {n}' for n in want.shape)}]"
        if len(shape) < axes + time or shape[len(shape) - axes :] != want.shape:
            raise ValueError(f"{name}: got the shape {shape}, {cell} needs {needed}")
        if _kind(leaf) != _kind(want):
            way = "; astype(float) makes them" * (_kind(want) == "real" and _kind(leaf) != "complex")
            raise TypeError(f"{name}: got the dtype {_dtype(leaf)}, {cell} needs {_kind(want)} values{way}")
        leading.add(shape[: len(shape) - axes])
    if not leading:
        raise ValueError(f"input_spec: got no arrays from {cell}, needs one at least, by which T is known")
    if len(leading) != 1:
        way = ", needs the same ones, [T, *batch], or time alone, [T]" if time else ", needs the same ones"
        raise ValueError(f"{name}: got leaves of different leading axes {sorted(leading)}{way}")
    return leading.pop()


def _check_tree(name: str, got: PyTree, want: PyTree, source: str) -> None:
    check_structure(name, got, want, f"needs {structure(want)}, {source}")
    paths = jax.tree_util.tree_leaves_with_path(want)
    for (path, w), g in zip(paths, jax.tree.leaves(got), strict=True):
        where = f"{name}{jax.tree_util.keystr(path)}"
        check_arrays(**{where: g})
        if jnp.shape(g) != jnp.shape(w):
            raise ValueError(f"{where}: got the shape {jnp.shape(g)}, needs {jnp.shape(w)}, {source}")
        if _kind(g) != _kind(w):
            raise TypeError(f"{where}: got the dtype {_dtype(g)}, needs {_kind(w)} values, {source}")


@contextmanager
def named_promotions(params: PyTree, state: PyTree, **inputs: PyTree) -> Iterator[None]:
    """Names the arguments whose dtypes differ where JAX refuses to promote them; `state` None is a fresh one."""
    try:
        yield
    except jax.dtypes.TypePromotionError as error:
        given = {"params": params, **inputs, "state": jnp.zeros((), jnp.float32) if state is None else state}
        dtypes = {name: _precisions(tree) for name, tree in given.items()}
        if len({*itertools.chain(*dtypes.values())}) == 1:
            raise  # the cell mixes them by itself
        got = ", ".join(f"{name} of {' and '.join(names)}" for name, names in dtypes.items() if names)
        raise TypeError(
            f"{', '.join(given)}: got {got}{' (from None)' * (state is None)}, jax_numpy_dtype_promotion='strict' "
            "needs one dtype; jaxrnn.cast(params, dtype) and cell.initial_state(batch_shape, dtype) give it, "
            "with jax.numpy_dtype_promotion('standard') they may differ"
        ) from error


def _precisions(tree: PyTree) -> list[str]:
    dtypes = map(_dtype, jax.tree.leaves(tree))
    return sorted({str(jnp.finfo(dtype).dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)})


def check_structure(name: str, got: PyTree, want: PyTree, needs: str) -> None:
    """Raises unless `got` has the structure of `want`; `needs` says which that is."""
    tree: Any = jax.tree.structure(want)
    if tree == jax.tree.structure(got):
        return
    paths = [f"{name}{jax.tree_util.keystr(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(want)]
    try:
        parts = tree.flatten_up_to(got)
    except ValueError:
        parts = []
    # Where an array is needed, lists of numbers are no pytrees of scalars.
    check_arrays(**{path: part for path, part in zip(paths, parts, strict=False) if isinstance(part, list)})
    held = any(type(part).__module__.startswith("flax.nnx") for part in (got, *parts))
    way = f"; flax.nnx.as_pure({name}) takes the arrays out of Flax's variables" if held else ""
    raise TypeError(f"{name}: got the structure {structure(got)}, {needs}{way}")


def structure(tree: PyTree) -> str:
    """Returns the structure of a pytree as a person would write it: `(LSTMState(h, c), [*, *])`."""
    if tree is None:
        return "None"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {structure(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        shown = [(field, structure(value)) for field, value in zip(tree._fields, tree, strict=True)]
        return f"{type(tree).__name__}({', '.join(f if s == '*' else f'{f}={s}' for f, s in shown)})"
    if isinstance(tree, tuple | list):
        inner = ", ".join(map(structure, tree))
        return f"[{inner}]" if isinstance(tree, list) else f"({inner}{',' * (len(tree) == 1)})"
    if jax.tree_util.all_leaves([tree]):
        return "*"
    parts, _ = jax.tree_util.default_registry.flatten_one_level(tree)
    return f"{type(tree).__name__}({', '.join(map(structure, parts))})"


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _kind(leaf: Any) -> str:
    """What a leaf holds."""
    kinds = {"real": jnp.floating, "complex": jnp.complexfloating, "integer": jnp.integer, "boolean": np.bool_}
    dtype = _dtype(leaf)
    return next((kind for kind, of in kinds.items() if jnp.issubdtype(dtype, of)), str(dtype))


def check_lengths(lengths: Any, steps: int, batch_shape: tuple[int, ...], name: str = "lengths") -> Array:
    """Returns `lengths` as an array; raises unless integers `[*batch]` in 0..T, where their values are known now."""
    lengths = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    dtype = lengths.dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        ways = {"real": f"{name}.astype(int) makes them", "boolean": "sequences.lengths_from_mask(mask) makes them"}
        way = ways.get(_kind(lengths), "")
        raise TypeError(f"{name}: got the dtype {dtype}, needs integers{f'; {way}' if way else ''}")
    if lengths.shape != batch_shape:
        way = "; time and batch seem to be swapped in the inputs" if batch_shape and lengths.shape == (steps,) else ""
        raise ValueError(f"{name}: got the shape {lengths.shape}, needs [*batch] = {batch_shape}{way}")
    if not isinstance(lengths, jax.core.Tracer):
        values = np.asarray(lengths)
        if values.size and not (values.min() >= 0 and values.max() <= steps):
            raise ValueError(f"{name}: got values from {values.min()} to {values.max()}, needs 0 to T = {steps}")
    # That of counts: in a narrow dtype they would run over.
    return jnp.asarray(lengths).astype(int)


def check_flags(flags: Any, shape: tuple[int, ...], name: str, axes: str = "[T, *batch]") -> Array:
    """Returns `flags` as an array; raises unless booleans of this shape, whose letters are `axes`."""
    flags = flags if isinstance(flags, jax.Array) else np.asarray(flags)
    if flags.dtype != jnp.bool_:
        way = f"; {name}.astype(bool) makes them" if flags.shape == shape else f" {axes} = {shape}"
        raise TypeError(f"{name}: got the dtype {flags.dtype}, needs booleans{way}")
    if flags.shape != shape:
        raise ValueError(f"{name}: got the shape {flags.shape}, needs {axes} = {shape}")
    return jnp.asarray(flags)


def check_bools(**flags: Any) -> None:
    """Raises unless every flag is a bool, NumPy's too."""
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{name}: got {_show(flag)}, needs a bool{_static(name, flag)}")


def check_functions(needs: str, count: int, /, **functions: Any) -> None:
    """Raises unless every function can be called with `count` arguments; `needs` says as what."""
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"{name}: got {_show(function)}, needs a function {needs}")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            continue  # one without, such as some of C
        try:
            signature.bind(*range(count))
        except TypeError:
            got = f"{getattr(function, '__name__', type(function).__name__)}({', '.join(signature.parameters)})"
            raise TypeError(f"{name}: got {got}, needs a function {needs}") from None


def check_integers(**arrays: Any) -> None:
    """Raises unless every array is one of integers."""
    check_arrays(**arrays)
    for name, array in arrays.items():
        if _kind(array) != "integer":
            raise TypeError(f"{name}: got the dtype {_dtype(array)}, needs integers")


def check_inexact(**arrays: Any) -> None:
    """Raises unless every array is one of real or complex numbers."""
    check_arrays(**arrays)
    for name, array in arrays.items():
        if _kind(array) not in ("real", "complex"):
            raise TypeError(f"{name}: got the dtype {_dtype(array)}, needs real values")


def check_axes(array: Any, name: str, axes: str, least: int) -> None:
    """Raises unless an array has `least` axes or more, whose letters are `axes`."""
    if jnp.ndim(array) < least:
        raise ValueError(f"{name}: got the shape {jnp.shape(array)}, needs {axes}")


def check_shape(array: Any, name: str, axes: str, shape: tuple[int, ...]) -> None:
    """Raises unless an array has this shape, whose letters are `axes`."""
    if jnp.shape(array) != shape:
        raise ValueError(f"{name}: got the shape {jnp.shape(array)}, needs {axes} = {shape}")


def check_activations(**activations: Any) -> None:
    """Raises unless every activation is a function."""
    for name, activation in activations.items():
        if not callable(activation):
            raise TypeError(f"{name}: got {activation!r}, needs a function of an array, such as jax.numpy.tanh")


def check_initializers(**initializers: Any) -> None:
    """Raises unless every initializer is a function."""
    for name, initializer in initializers.items():
        if not callable(initializer):
            raise TypeError(
                f"{name}: got {initializer!r}, needs a function (key, shape, dtype) -> array, "
                "such as jax.nn.initializers.lecun_normal()"
            )
