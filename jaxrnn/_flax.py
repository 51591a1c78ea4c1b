"""Shared parts of `nnx` and `linen`: parameters by name, the layout of time, Flax cells as jaxrnn cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import traverse_util

from jaxrnn.cell import Cell
from jaxrnn.checks import check_flags, check_input, check_lengths, check_state
from jaxrnn.engine.driver import for_all_rows, unroll
from jaxrnn.engine.layer import Layer, check_layer, size_of
from jaxrnn.ops import cast
from jaxrnn.typing import Array, DTypeLike, Key, Params, PyTree, State

__all__ = [
    "FlaxCell",
    "by_name",
    "check_cell",
    "feature_axes",
    "from_names",
    "in_dtype",
    "initial_carry",
    "run",
    "sharding_names",
]

Sharding = Mapping[str, tuple[str | None, ...]]


def check_cell(cell: Any, flax_kind: type, way: str) -> None:
    """Raises unless `cell` is a jaxrnn cell or network; `way` says how to make one of a cell of Flax."""
    if isinstance(cell, flax_kind):
        raise TypeError(f"cell: got {type(cell).__name__} of Flax, needs a jaxrnn.Cell or a network of cells; {way}")
    check_layer(cell)


def by_name(params: Params) -> dict[str, Any]:
    """Returns the leaves of `params` by path: `{"w_x": ..., "b": ...}`, or `{"0/w_x": ...}` in a `Stack`; not None."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def from_names(spec: Params, named: Mapping[str, Any], path: tuple[str, ...] = ()) -> Params:
    """Puts the leaves of the nested dict `named`, of the module at `path`, into the structure of `spec`."""
    flat = traverse_util.flatten_dict(named, sep="/")
    needed = by_name(spec)
    if flat.keys() != needed.keys():
        where = f"params of {'/'.join(path)}" if path else "params"
        way = "init creates them"
        if any(name.endswith("/kernel") for name in flat):
            way = "those of a Flax cell belong to from_flax(flax_cell)"
        raise ValueError(f"{where}: got the names {sorted(flat)}, needs {sorted(needed)}; {way}")
    return jax.tree.unflatten(jax.tree.structure(spec), [flat[name] for name in needed])


def sharding_names(sharding: Sharding, params: Params) -> dict[str, tuple[str | None, ...] | None]:
    """Returns the mesh axes of each leaf of `params`, by the paths of `by_name`; None for leaves not in `sharding`."""
    last = {path: path.rsplit("/", 1)[-1] for path in by_name(params)}
    if unknown := set(sharding) - set(last.values()):
        raise ValueError(f"sharding: got {sorted(unknown)}, the parameters are {sorted(set(last.values()))}")
    return {path: sharding.get(name) for path, name in last.items()}


def feature_axes(cell: Layer) -> int:
    """Counts the axes of one example's input."""
    return len(jax.tree.leaves(cell.input_spec)[0].shape)


def initial_carry(cell: Layer, input_shape: tuple[int, ...], dtype: DTypeLike) -> State:
    """Returns the zero state for one time step's input of this shape, `[*batch, ...]`."""
    shape, size = tuple(input_shape), jax.tree.leaves(cell.input_spec)[0].shape
    if len(shape) < len(size) or shape[len(shape) - len(size) :] != size:
        needed = ", ".join(map(str, ("*batch", *size)))
        raise ValueError(f"input_shape: got {shape}, {cell} needs [{needed}], that of one time step's input")
    return cell.initial_state(shape[: len(shape) - len(size)], dtype)


def in_dtype(dtype: DTypeLike | None, params: Params, inputs: PyTree) -> tuple[Params, PyTree]:
    """Returns parameters and inputs in the dtype of the computation; None: as they are."""
    return (params, inputs) if dtype is None else (cast(params, dtype), cast(inputs, dtype))


def run(
    cell: Layer,
    params: Params,
    xs: PyTree,
    state: State | None,
    *,
    lengths: Array | None,
    resets: Array | None,
    dtype: DTypeLike | None,
    time_major: bool,
    **options: Any,
) -> tuple[State, PyTree]:
    """Calls `unroll` with `options`, the time axis moved first unless `time_major`, and in `dtype` unless None."""
    xs = for_all_rows(cell, xs, batch_major=not time_major)
    leading = check_input(cell, xs, "xs")
    params, xs = in_dtype(dtype, params, xs)
    layout = "[T, *batch" if time_major else "[*batch, T"
    if not leading:
        shapes = [jnp.shape(x) for x in jax.tree.leaves(xs)]
        raise ValueError(f"xs: got no time axis in the shapes {shapes}, needs {layout}, ...]")
    if resets is not None:
        resets = check_flags(resets, leading, "resets", f"{layout}]")
    time_axis = 0 if time_major else len(leading) - 1
    batch_shape = leading[:time_axis] + leading[time_axis + 1 :]
    if state is not None:
        check_state(cell, state, batch_shape, "initial_carry")
    if lengths is not None:
        check_lengths(lengths, leading[time_axis], batch_shape, "seq_lengths")
    xs, resets = jax.tree.map(lambda x: jnp.moveaxis(x, time_axis, 0), (xs, resets))
    state, ys = unroll(cell, params, xs, state, lengths=lengths, resets=resets, **options)
    return state, jax.tree.map(lambda y: jnp.moveaxis(y, 0, time_axis), ys)


class Recipe(Protocol):
    """A Flax cell without its parameters; it hashes, compares and prints by value."""

    def init(self, key: Key, input_shape: tuple[int, ...]) -> Params:
        """Returns fresh parameters, a nested dict."""

    def carry(self, params: Params, input_shape: tuple[int, ...]) -> State:
        """Returns the initial carry for inputs of this shape; `params` may be shapes only."""

    def apply(self, params: Params, carry: State, x: Array) -> tuple[State, Array]:
        """Takes one step."""


@dataclass(frozen=True)
class FlaxCell(Cell):
    """A Flax cell as a jaxrnn cell, from `jaxrnn.nnx.from_flax` or `jaxrnn.linen.from_flax`.

    The drive is the input itself, because a Flax cell's equations come undivided. `unroll` finds the input-only
    products in them and hoists them out of the loop (`jaxrnn/engine/hoist.py`). Parameters are Flax's nested dict, the
    state is Flax's carry.

    Args:
        flax: the Flax cell without its parameters.
        input_size: length of the last axis of the input, or the shape of one example's input where that has more axes.
    """

    flax: Recipe
    input_size: int | tuple[int, ...]

    def __post_init__(self) -> None:
        if isinstance(self.input_size, Sequence):
            object.__setattr__(self, "input_size", tuple(self.input_size))

    @property
    def hidden_size(self) -> int:
        """Length of the output's last axis; Flax's cells do not tell their hidden size."""
        return self._output.shape[-1]

    @property
    def output_size(self) -> int | tuple[int, ...]:
        """Length of one example's output, or its shape if it has several axes."""
        return size_of(self._output)

    @property
    def _output(self) -> jax.ShapeDtypeStruct:
        def output(key: Key) -> Array:
            x = jnp.zeros(self.input_spec.shape)
            return self.step(self.init(key), self.initial_state(), x)[1]

        return jax.eval_shape(output, jax.random.key(0))

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> Params:
        """Returns fresh parameters by the Flax cell's initializers, cast to `dtype`."""
        return cast(self.flax.init(key, self.input_spec.shape), dtype)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """Returns the Flax cell's initial carry."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        return cast(self.flax.carry(params, (*batch_shape, *self.input_spec.shape)), dtype)

    def project(self, params: Params, x: Array) -> Array:
        """Returns the input itself."""
        return x

    def step(self, params: Params, state: State, drive: Array) -> tuple[State, Array]:
        """Calls the Flax cell."""
        return self.flax.apply(params, state, drive)
