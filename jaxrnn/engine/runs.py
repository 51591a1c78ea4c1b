"""A run of a cell over time: its chunks, and their steps.

    for each chunk of steps:
        drives  = project(params, xs)        all steps of the chunk at once
        outputs = run_chunk(...)             step by step (`recurrence`), or as the cell does it faster
        ys      = readout(params, ...)       all steps of the chunk at once

Only one chunk of projected inputs exists at a time. In reverse mode a chunk keeps only its states and computes the rest
again, for all of its steps at once.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_returned, check_step
from jaxrnn.engine.blocks import Blocks
from jaxrnn.engine.buffers import has_buffer
from jaxrnn.engine.chunks import StepData, in_chunks
from jaxrnn.engine.hoist import hoist
from jaxrnn.engine.layer import Layer, computation_dtype, on_call_path
from jaxrnn.engine.meshes import without_mesh
from jaxrnn.engine.newton import Newton, solve
from jaxrnn.engine.noise import Draw, Noise
from jaxrnn.engine.options import Options, Save
from jaxrnn.engine.recurrence import loop, recurrence
from jaxrnn.engine.rows import Spec, Untraceable, with_axes
from jaxrnn.jaxprs import NUMBER, flat_products, mixer
from jaxrnn.ops import cast, follow, keep, select
from jaxrnn.typing import Array, Params, PyTree, State

if TYPE_CHECKING:
    from jaxrnn.cell import Cell

__all__ = ["CellRun", "RunData", "begin_anew", "read_out", "run_steps", "take_step"]


class RunData(NamedTuple):
    """What the steps of a run read: leaves `[T, *batch, ...]`, or of one step of one row."""

    xs: PyTree
    valid: Array | None
    resets: Array | None
    noise: tuple[Array, ...]


@dataclass(frozen=True)
class CellRun:
    """A run of a cell; constants are parameters and draws for the run, carried are the state and draws for rows."""

    cell: "Cell"
    reverse: bool = False
    chunk: int | None = None
    save: Save = "auto"
    random: bool = False
    solver: tuple[Newton, Blocks] | None = None
    buffered: bool = False  # whether the state has a buffer, so that JAX's derivative of the loop reads least
    settings: tuple[Any, ...] = ()  # of JAX, when the run was made

    def __str__(self) -> str:
        return str(self.cell)

    def whole(self, consts: PyTree, carry: PyTree, data: RunData) -> tuple[PyTree, PyTree]:
        """Runs all steps, chunk by chunk."""
        if jax.tree.leaves(data)[0].shape[0] == 0:
            one_step = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), data)
            ys = jax.eval_shape(self._segment, consts, carry, one_step)[1]
            return carry, jax.tree.map(lambda y: jnp.zeros((0, *y.shape[1:]), y.dtype), ys)
        run = self.with_buffers(consts, carry, data)
        return run.in_chunks(run._segment, consts, carry, data)

    def with_buffers(self, consts: PyTree, carry: PyTree, data: RunData) -> "CellRun":
        """Returns the run of a state that has a buffer, this one for any other state, solver or `save`."""
        if self.solver or self.cell.chunkwise or self.save == "states" or callable(self.save):
            return self
        one_step = jax.tree.map(lambda a: a[0], data)
        if not has_buffer(self.row, consts, carry, one_step):
            return self
        if self.save == "auto":
            return replace(self, buffered=True, save="residuals")
        return replace(self, buffered=True)

    def in_chunks(self, segment: Any, consts: PyTree, carry: PyTree, data: RunData) -> tuple[PyTree, PyTree]:
        """Runs `segment` over chunks of the length that was asked for, or that suits the cell."""
        if (chunk := self.chunk) is None:
            drive = jax.eval_shape(self.cell.project, consts[0], jax.tree.map(lambda x: x[0], data.xs))
            chunk = self.cell.chunk_size(jax.tree.leaves(data)[0].shape[0], drive, carry[0])
        return in_chunks(segment, consts, carry, data, chunk, reverse=self.reverse, save=self.save)

    def _segment(self, consts: PyTree, carry: PyTree, data: RunData) -> tuple[PyTree, PyTree]:
        cell, (params, drawn), (state, rows) = self.cell, consts, carry
        dtype = computation_dtype(params, data.xs)
        xs = data.xs if data.valid is None else keep(data.valid, data.xs)
        _check_apart(cell, "project", params, xs)
        drives = flat_products(cell.project)(params, xs)
        check_returned(cell, "project", drives)
        noise = Noise(self.random, drawn, rows, data.noise)
        valid = data.valid
        if valid is None and not jax.tree.leaves(drives):
            # The loops take T from what their steps read.
            valid = jnp.ones(jax.tree.leaves(xs)[0].shape[0], bool)
        every, how = StepData(drives, valid, data.resets, noise), None
        if self.solver is not None:
            run = functools.partial(solve, *self.solver)
            state, outputs, how = _over_steps(run, cell, params, state, every, self.reverse)
        elif self.buffered:
            state, outputs = _over_steps(loop, cell, params, state, every, self.reverse)
        else:
            state, outputs = cell.run_chunk(params, state, every, self.reverse)
        _check_apart(cell, "readout", params, outputs, drives)
        ys = cast(flat_products(cell.readout)(params, outputs, drives), dtype)
        return (state, rows), (ys if data.valid is None else keep(data.valid, ys), how)

    def row(self, consts: PyTree, carry: PyTree, data: RunData) -> tuple[PyTree, PyTree]:
        """Runs one step of one row."""
        cell, (params, drawn), (state, rows) = self.cell, consts, carry
        dtype = computation_dtype(params, data.xs)
        drive = cell.project(params, data.xs if data.valid is None else keep(data.valid, data.xs))
        check_returned(cell, "project", drive)
        noise = Noise(self.random, drawn, rows, data.noise)
        state, output = _masked_step(cell, noise, params, state, StepData(drive, data.valid, data.resets, data.noise))
        y = cast(cell.readout(params, output, drive), dtype)
        return (state, rows), (y if data.valid is None else keep(data.valid, y), None)


SURELY_MIXING = frozenset({"dot_general", "rev", "slice", "sort", "split", NUMBER})


def _check_apart(cell: "Cell", method: str, params: Params, *over_time: PyTree) -> None:
    """Raises if a method that gets all steps of a chunk at once mixes them, as far as its operations tell for sure."""
    still = jax.tree.map(lambda a: Spec(jnp.shape(a), jnp.result_type(a)), params)
    moving = jax.tree.map(lambda a: Spec(a.shape[1:], a.dtype), over_time)
    tree: Any = jax.tree.structure((still, moving))
    name = _mixer(cell, method, tree, tuple(jax.tree.leaves((still, moving))))
    # Others, such as a reshape, may join axes and part them again.
    if name in SURELY_MIXING or name.startswith(("reduce_", "arg", "cum")):
        raise ValueError(
            f"{method}: that of {cell} mixes time steps ({name}), needs to take each index of the leading axes by "
            "itself, without a look at their number: they are [T, *batch] in unroll and [*batch] in a call"
        )


@functools.lru_cache(maxsize=512)
def _mixer(cell: "Cell", method: str, tree: Any, specs: tuple[Spec, ...]) -> str:
    if not all(isinstance(n, int) for spec in specs for n in spec.shape):
        return ""  # of a symbolic shape
    still, moving = jax.tree.unflatten(tree, specs)
    with without_mesh():
        try:
            return mixer(with_axes(getattr(cell, method), (still,), moving))
        except Untraceable:  # the run raises it, too, but where the method takes one number of axes alone
            return ""


def begin_anew(layer: Layer, params: Params, state: State, options: Options, *, before: bool) -> State:
    """Resets the rows that `options.edges` flags, before or after a run."""
    if options.edges is None or (before and not options.reverse):
        return state
    edges = options.edges
    rows = edges.before_reverse if before else edges.after_reverse if options.reverse else edges.after_forward
    fresh = layer.restart(params, state, options.batch_shape)
    return jax.tree.map(functools.partial(select, rows), fresh, state)


def run_steps(cell: "Cell", params: Params, state: State, data: StepData, reverse: bool) -> tuple[State, PyTree]:
    """Runs the steps of a chunk one after the other: `(state after it, outputs [T, ...])`."""
    return _over_steps(recurrence, cell, params, state, data, reverse)


def _over_steps(
    run: Callable[..., Any], cell: "Cell", params: Params, state: State, data: StepData, reverse: bool
) -> Any:
    """Returns `run(step, reverse, params, state, drives)`, with input products hoisted out of the step."""
    step: Any = functools.partial(_masked_step, cell, data.noise)
    every: Any = data._replace(noise=data.noise.each)
    if found := hoist(step, params, state, jax.tree.map(lambda d: d[0], every)):
        ahead, step = found
        every = flat_products(jax.vmap(ahead, (None, 0)))(params, every)
    return run(step, reverse, params, state, every)


def take_step(cell: "Cell", params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
    """Takes one step of a cell; the new state keeps the dtypes of the old one."""
    with on_call_path("part"):
        new, output = check_step(cell, cell.step_with(params, state, drive, draw), state)
    return jax.tree.map(lambda n, s: cast(n, s.dtype), new, state), output


def read_out(cell: "Cell", params: Params, output: PyTree, drive: PyTree, x: PyTree) -> PyTree:
    """Returns the `y` of one step, in the dtype that parameters and input promote to."""
    return cast(cell.readout(params, output, drive), computation_dtype(params, x))


def _masked_step(cell: "Cell", noise: Noise, params: Params, state: State, data: StepData) -> tuple[State, PyTree]:
    """Takes one step, with resets before it and, on invalid rows, the old state after it.

    Selected by `where`, never multiplied, so that NaN cannot leak. On invalid rows the output is ignored.
    """
    drive, valid, reset, each = data
    old = state
    if reset is not None:
        fresh = cell.restart(params, state, reset.shape)
        state = jax.tree.map(functools.partial(select, reset), fresh, state)
    new, output = take_step(cell, params, state, drive, noise.answers(each))
    if valid is None:
        return new, output
    held = jax.tree.map(lambda n, o: select(valid, n, o), new, old)
    # An output that is a leaf of the state stays the same object, so `recurrence` keeps it once.
    return held, follow(new, held, output)
