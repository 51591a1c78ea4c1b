"""Many devices: batches, hidden units, heads or time steps spread over an axis of a mesh.

    replicate, spread       data parallel: parameters everywhere, rows of a batch apart; also across processes
    unroll_units            hidden units apart: one all-gather of h a step; with `heads` none
    SpreadUnits             the same inside of networks and modules
    unroll_time             time steps of a linear cell apart: two all-gathers of the state's size

Data parallel training needs no other `unroll`: under `jax.jit` it follows how its arguments are spread.
"""

import functools
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrnn.cell import Cell, LinearCell, cast_coefficients
from jaxrnn.checks import check_params
from jaxrnn.engine.associative import linear_states
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.driver import checked_options
from jaxrnn.engine.layer import check_layer, computation_dtype, state_dtype
from jaxrnn.engine.meshes import alike
from jaxrnn.engine.newton import Newton
from jaxrnn.engine.options import Options
from jaxrnn.engine.recurrence import states_before
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import AllUnits, cast, keep, select, spread_like
from jaxrnn.typing import Array, DTypeLike, Key, P, Params, PyTree, S, State

__all__ = ["SpreadUnits", "join_units", "replicate", "split_units", "spread", "unroll_time", "unroll_units"]

T = TypeVar("T")


def replicate(tree: T, mesh: Mesh) -> T:
    """Puts a pytree on every device of a mesh, such as parameters or a `TrainState`.

    Args:
        tree: arrays and typed keys; where there are several processes, each gives the same values.
        mesh: the devices.

    Example:
        >>> import jaxrnn
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> params = replicate(jaxrnn.GRU(3, 4).init(jax.random.key(0)), mesh)
        >>> params.w_h.sharding.is_fully_replicated
        True
    """
    sharding = NamedSharding(mesh, PartitionSpec())

    def one(x: Any) -> Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(one, tree)


def spread(tree: T, mesh: Mesh, axis: str, *, at: int = 0) -> T:
    """Spreads the rows of a batch over the devices of a mesh axis.

    Args:
        tree: arrays whose axis number `at` is that of the rows; where there are several processes, each gives its own
            rows, in the order of `jax.process_index()`.
        mesh: the devices.
        axis: name of the mesh axis.
        at: number of the array axis: 1 for `xs` `[T, B, ...]`, 0 for a state or lengths `[B, ...]`.

    Raises:
        ValueError: the mesh axis is unknown, or its devices do not divide the rows.

    Example:
        >>> import jaxrnn
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> cell = jaxrnn.GRU(3, 4)
        >>> params = replicate(cell.init(jax.random.key(0)), mesh)
        >>> xs = spread(jnp.ones((5, 2, 3)), mesh, "data", at=1)
        >>> state, ys = jax.jit(jaxrnn.unroll)(cell, params, xs)
        >>> ys.shape, state.h.shape
        ((5, 2, 4), (2, 4))
    """
    _check_axis(mesh, axis=axis)
    sharding, devices = NamedSharding(mesh, PartitionSpec(*[None] * at, axis)), mesh.shape[axis]
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        rows = np.shape(x)[at : at + 1]
        if not rows or rows[0] * jax.process_count() % devices:
            where = f"tree{jax.tree_util.keystr(path)}"
            raise ValueError(
                f"{where}: got the shape {np.shape(x)}, needs an axis {at} that {devices} devices of {axis!r} divide"
            )
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def split_units(cell: Cell, params: Params, mesh: Mesh, axis: str) -> Params:
    """Spreads the parameters of a cell over a mesh axis so that each device has all gates of its own hidden units.

    Weights and biases `[..., nH]` of n gates are seen as `[..., n, H]`, H over the devices. Block-diagonal weights
    `[heads, ...]` keep their shape, heads over the devices. Train these; `join_units` gives back the usual layout.

    Args:
        cell: as for `unroll_units`.
        params: from `cell.init`.
        mesh: the devices.
        axis: name of the mesh axis.

    Raises:
        TypeError, ValueError: as `unroll_units`.

    Example:
        >>> import jaxrnn
        >>> cell, mesh = jaxrnn.LSTM(3, 4), jax.make_mesh((1,), ("model",))
        >>> params = split_units(cell, cell.init(jax.random.key(0)), mesh, "model")
        >>> params.w_h.shape, join_units(cell, params).w_h.shape
        ((4, 4, 4), (4, 16))
    """
    check_params(cell, params)
    _check_units(cell, mesh, axis)

    shardings = jax.tree.map(functools.partial(NamedSharding, mesh), _specs(cell, axis))
    return jax.device_put(_by_unit(cell, params), shardings)


def join_units(cell: Cell, params: Params) -> Params:
    """Returns parameters from `split_units` in the layout of `cell.init`."""

    def one(w: Array, spec: Any) -> Array:
        sharding = jax.typeof(w).sharding
        if any(sharding.spec):  # explicit axes; others follow by themselves
            w = jax.reshard(w, NamedSharding(sharding.mesh, PartitionSpec()))
        return w.reshape(spec.shape)

    return jax.tree.map(one, params, _spec_of(cell))


def unroll_units(
    cell: Cell,
    params: Params,
    xs: Array,
    state: State | None = None,
    *,
    mesh: Mesh,
    axis: str,
    batch: str | None = None,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    chunk: int | None = None,
    solver: Newton | None = None,
) -> tuple[State, Array]:
    """Runs a cell whose hidden units are spread over a mesh axis, as `unroll` on one device: `(state, ys)`.

    Each step gathers `h` from all devices, once for each product that sees it; the backward pass scatters its sum. A
    cell with `heads` communicates nothing: its units see those of their own head only.

    Args:
        cell: one whose units are alike (`Cell.alike`): `LSTM`, `GRU`, `Elman`.
        params: from `split_units`.
        xs: `[T, B, I]`, or with several batch axes.
        state: as for `unroll`, seen as a whole, `[B, H]`.
        mesh: the devices.
        axis: name of the mesh axis, whose size divides H, and the number of heads if there are several.
        batch: name of the mesh axis that spreads the first batch axis; None: every device has all rows.
        lengths: as for `unroll`.
        resets: as for `unroll`.
        reverse: as for `unroll`.
        chunk: as for `unroll`.
        solver: as for `unroll`, for a cell with `heads`; other units see those on other devices.

    Returns:
        `(state, ys)`, each as a whole, its units spread over the axis.

    Raises:
        TypeError: the units of `cell` are not alike.
        ValueError: the mesh axis is unknown, its size does not divide the units or the heads, or there is a solver and
            no heads.

    Example:
        >>> import jaxrnn
        >>> cell, mesh = jaxrnn.LSTM(3, 4), jax.make_mesh((1,), ("model",))
        >>> params = split_units(cell, cell.init(jax.random.key(0)), mesh, "model")
        >>> state, ys = unroll_units(cell, params, jnp.ones((5, 2, 3)), mesh=mesh, axis="model")
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 4))
    """
    _check_units(cell, mesh, axis)
    _check_batch(mesh, batch, xs)
    _check_solver(cell, solver)
    check_params(_Units(cell, axis, mesh.shape[axis]), params)
    options = checked_options(
        cell, xs, state, lengths=lengths, resets=resets, reverse=reverse, chunk=chunk, solver=solver
    )
    if state is None:
        state = cell.initial_state(options.batch_shape, state_dtype(params, xs))
    return _run_units(cell, params, xs, state, options, mesh, axis, batch)


def _run_units(
    cell: Cell, params: Params, xs: Array, state: State, options: Options, mesh: Mesh, axis: str, batch: str | None
) -> tuple[State, Array]:
    """Runs a cell with parameters in the view of `split_units`."""
    rows = _rows(options.batch_shape, batch)
    units, ys = PartitionSpec(*rows, axis), PartitionSpec(None, *rows, axis)

    def local(params: Params, xs: Array, state: State, lengths: Any, resets: Any, edges: Any) -> tuple[State, Array]:
        fused = jax.tree.map(lambda w, s: w.reshape(*w.shape[: len(s.shape) - 1], -1), params, _spec_of(cell))
        here = options._replace(batch_shape=xs.shape[1:-1], lengths=lengths, resets=resets, edges=edges)
        return _Units(cell, axis, mesh.shape[axis]).run(fused, xs, state, here)

    here, over_time = PartitionSpec(*rows), PartitionSpec(None, *rows)
    specs = (_specs(cell, axis), over_time, units, here, over_time, here)
    given = params, xs, state, options.lengths, options.resets, options.edges
    return _shard_map(local, mesh, specs, (units, ys), *given)


@dataclass(frozen=True)
class SpreadUnits(Wrapper[P, S]):
    """Spreads the hidden units of a cell over a mesh axis, inside of networks and modules, as `unroll_units` does.

    Parameters keep their layout, so checkpoints are those of the cell alone; a run takes `split_units`'s view of them,
    which is sent once. A single time step is the cell's own.

    Args:
        cell: as for `unroll_units`.
        mesh: the devices.
        axis: name of the mesh axis of the units.
        batch: name of the mesh axis that spreads the first batch axis, where there is one; None: every device has all
            rows.

    Raises:
        TypeError, ValueError: as `unroll_units`.

    Example:
        >>> import jaxrnn
        >>> mesh = jax.make_mesh((1,), ("model",))
        >>> net = jaxrnn.Stack((SpreadUnits(jaxrnn.LSTM(3, 4), mesh, "model"),), dropout=0.5)
        >>> params = net.init(jax.random.key(0))                # those of jaxrnn.Stack((jaxrnn.LSTM(3, 4),))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)))
        >>> params[0].w_h.shape, ys.shape
        ((4, 16), (5, 2, 4))
    """

    cell: Cell
    mesh: Mesh
    axis: str
    batch: str | None = None

    def __post_init__(self) -> None:
        _check_units(self.cell, self.mesh, self.axis)
        if self.batch is not None:
            _check_axis(self.mesh, batch=self.batch)

    def run(self, params: Params, xs: Array, state: State, options: Options) -> tuple[State, Array]:
        batch = self.batch if options.batch_shape else None
        _check_batch(self.mesh, batch, xs)
        _check_solver(self.cell, options.solver)
        options = options._replace(key=None)  # the cell draws nothing
        split = _by_unit(self.cell, params)
        return _run_units(self.cell, split, xs, state, options, self.mesh, self.axis, batch)


@dataclass(frozen=True)
class _Units(Cell):
    """The hidden units of a cell that are on one of `devices` devices; `init` gives the view of all of them."""

    cell: Cell
    axis: str
    devices: int

    @property
    def input_size(self) -> Any:
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        return self.cell.hidden_size // self.devices

    def __repr__(self) -> str:
        return f"{self.cell} on {self.devices} devices"

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> Params:
        return _by_unit(self.cell, self.cell.init(key, dtype=dtype))

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        whole = self.cell.initial_state(batch_shape, dtype)
        return jax.tree.map(lambda s: s[..., : self.hidden_size], whole)

    def project(self, params: Params, x: Array) -> PyTree:
        return self.cell.project(params, x)

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, Array]:
        params = jax.tree.map(lambda w: AllUnits(w, self.axis) if w.ndim == 2 else w, params)
        return self.cell.step(params, state, drive)


def _by_unit(cell: Cell, params: Params) -> Params:
    return jax.tree.map(lambda w: w if w.ndim == 3 else w.reshape(*w.shape[:-1], -1, cell.hidden_size), params)


def _spec_of(cell: Cell) -> Params:
    return jax.eval_shape(cell.init, jax.random.key(0))


def _specs(cell: Cell, axis: str) -> Params:
    def one(w: Any) -> PartitionSpec:
        return PartitionSpec(axis) if len(w.shape) == 3 else PartitionSpec(*[None] * len(w.shape), axis)

    return jax.tree.map(one, _spec_of(cell))


def unroll_time(
    cell: LinearCell,
    params: Params,
    xs: Array,
    state: State | None = None,
    *,
    mesh: Mesh,
    axis: str,
    batch: str | None = None,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
) -> tuple[State, Array]:
    """Runs a linear cell whose time steps are spread over a mesh axis, as `unroll` on one device: `(state, ys)`.

    Each device runs its steps from zero, all gather what each stretch does to a state, and each runs again from the
    state that reaches it. So the recurrence, but not its products, is computed twice.

    Args:
        cell: a `LinearCell`, such as `LRU`, `S5`, `MinGRU`, `QRNN`, `RGLRU`. It needs no solver: one round would do.
        params: from `cell.init`.
        xs: `[T, B, I]`, or with several batch axes; T is a multiple of the axis' size.
        state: as for `unroll`.
        mesh: the devices.
        axis: name of the mesh axis.
        batch: name of the mesh axis that spreads the first batch axis; None: every device has all rows.
        lengths: as for `unroll`.
        resets: as for `unroll`.
        reverse: as for `unroll`.

    Returns:
        `(state, ys)`, `ys` with its time steps spread over the axis.

    Raises:
        TypeError: `cell` is not linear.
        ValueError: the mesh axis is unknown, or its size does not divide T.

    Example:
        >>> import jaxrnn
        >>> cell, mesh = jaxrnn.MinGRU(3, 4), jax.make_mesh((1,), ("time",))
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = unroll_time(cell, params, jnp.ones((8, 2, 3)), mesh=mesh, axis="time")
        >>> ys.shape, state.h.shape
        ((8, 2, 4), (2, 4))

    Reference: Martin & Cundy 2018, "Parallelizing linear recurrent neural nets over sequence length".
    """
    if not isinstance(cell, LinearCell):
        raise TypeError(f"cell: got {type(cell).__name__}, needs a jaxrnn.LinearCell, whose steps can be joined")
    _check_axis(mesh, axis=axis)
    _check_batch(mesh, batch, xs)
    check_params(cell, params)
    options = checked_options(cell, xs, state, lengths=lengths, resets=resets, reverse=reverse)
    devices = mesh.shape[axis]
    if options.steps == 0 or options.steps % devices:
        raise ValueError(f"xs: got {options.steps} time steps, needs a multiple of {devices}, the devices of {axis!r}")
    if state is None:
        state = cell.initial_state(options.batch_shape, state_dtype(params, xs))
        state = cell.restart(params, state, options.batch_shape)
    valid, flags = options.valid, options.resets_before
    begins = None if flags is None else jnp.any(flags.reshape(devices, -1, *flags.shape[1:]), axis=1)

    def local(params: Params, xs: Array, state: State, valid: Any, resets: Any, begins: Any) -> tuple[State, Array]:
        params, xs, state = alike((params, xs, state))
        dtype = computation_dtype(params, xs)
        drives = cell.project(params, xs if valid is None else keep(valid, xs))
        data = StepData(drives, valid, resets)
        factor = jax.tree.map(lambda a: jnp.prod(a, axis=0), _factors(cell, params, state, drives, valid))
        zero = jax.tree.map(lambda s, a: spread_like(jnp.zeros_like(s), a), state, factor)
        end, _ = cell.run_chunk(params, zero, data, reverse)
        factors, ends = lax.all_gather((factor, end), axis)
        start = jax.tree.map(jnp.zeros_like, ends)
        if begins is not None:
            factors = keep(~begins, factors)  # what comes before a reset does not matter after it
        after = linear_states(factors, ends, state, begins, start, reverse)
        own = lax.axis_index(axis)
        before = jax.tree.map(lambda first, s: states_before(first, s, reverse)[own], state, after)
        _, outputs = cell.run_chunk(params, before, data, reverse)
        ys = cast(cell.readout(params, outputs, drives), dtype)
        return jax.tree.map(lambda s: s[None, 0 if reverse else -1], after), ys if valid is None else keep(valid, ys)

    rows = _rows(options.batch_shape, batch)
    here, stretch = PartitionSpec(*rows), PartitionSpec(axis, *rows)
    specs = (PartitionSpec(), stretch, here, stretch, stretch, PartitionSpec(None, *rows))
    final, ys = _shard_map(local, mesh, specs, (stretch, stretch), params, xs, state, valid, flags, begins)
    if AxisType.Explicit in mesh.axis_types:  # no part of an axis is taken where that is spread
        final = jax.reshard(final, NamedSharding(mesh, PartitionSpec(None, *rows)))
    return jax.tree.map(lambda s: s[0], final), ys


def _factors(cell: LinearCell, params: Params, state: State, drives: PyTree, valid: Array | None) -> State:
    """The `a` of `h' = a ⊙ h + b` at every step, one beyond a row's length."""
    a, b = cast_coefficients(cell, params, state, drives)
    a = jax.tree.map(lambda a, b: jnp.broadcast_to(a, b.shape), a, b)
    return a if valid is None else jax.tree.map(lambda a: select(valid, a, jnp.ones_like(a)), a)


def _rows(batch_shape: tuple[int, ...], batch: str | None) -> tuple[str | None, ...]:
    """How the batch axes are spread."""
    return (batch, *(None for _ in batch_shape[1:])) if batch_shape else ()


def _shard_map(local: Any, mesh: Mesh, specs: Any, out_specs: Any, *args: Any) -> Any:
    # Outside of a jitted function every operation of the run would be compiled by itself.
    run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out_specs))
    if AxisType.Explicit not in mesh.axis_types:
        return run(*args)
    # On such a mesh arrays are taken only as they are spread there.

    def placed(spec: PartitionSpec, part: PyTree) -> PyTree:
        return jax.tree.map(lambda a: jax.reshard(a, NamedSharding(mesh, spec)), part)

    return run(*jax.tree.map(placed, specs, args, is_leaf=lambda s: isinstance(s, PartitionSpec)))


def _check_batch(mesh: Mesh, batch: str | None, xs: Array) -> None:
    if batch is not None:
        _check_axis(mesh, batch=batch)
        if jnp.ndim(xs) < 3 or xs.shape[1] % mesh.shape[batch]:
            needs = f"needs [T, B, I] with B a multiple of {mesh.shape[batch]}, the devices of {batch!r}"
            raise ValueError(f"xs: got the shape {jnp.shape(xs)}, {needs}")


def _check_axis(mesh: Mesh, **axes: str) -> None:
    for name, axis in axes.items():
        if axis not in mesh.shape:
            raise ValueError(f"{name}: got {axis!r}, needs one of {tuple(mesh.shape)}, the axes of the mesh")


def _check_solver(cell: Cell, solver: Newton | None) -> None:
    if solver is not None and _heads(cell) == 1:
        raise ValueError(f"solver: got {solver}, but every unit of {cell} sees those on other devices, needs heads")


def _heads(cell: Cell) -> int:
    return getattr(cell, "heads", 1)


def _check_units(cell: Cell, mesh: Mesh, axis: str) -> None:
    check_layer(cell)
    _check_axis(mesh, axis=axis)
    if not (isinstance(cell, Cell) and cell.alike):
        raise TypeError(f"cell: got {cell}, needs one whose hidden units are alike: LSTM, GRU or Elman")
    devices, heads = mesh.shape[axis], _heads(cell)
    if cell.hidden_size % devices:
        raise ValueError(f"hidden_size: got {cell.hidden_size}, needs a multiple of {devices}, the devices of {axis!r}")
    if heads > 1 and heads % devices:
        raise ValueError(f"heads: got {heads}, needs a multiple of {devices}, the devices of {axis!r}")
