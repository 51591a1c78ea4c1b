"""The ways to run a cell over time: a loop of JAX's, a kernel of the machine, or a solver; and why not another.

scan        always
native      where there is a kernel and it is faster, or where it is asked for
newton      where it is asked for
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from jaxrnn.engine.blocks import Blocks, find_blocks
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.meshes import Placement, place
from jaxrnn.engine.operation import obstacle, run_as_one, slower
from jaxrnn.engine.options import Options, Path
from jaxrnn.engine.parts import together
from jaxrnn.engine.rows import kernel_run
from jaxrnn.engine.runs import CellRun
from jaxrnn.typing import PyTree, State

__all__ = ["Choice", "record_scan", "recorded_choices", "recording", "run_on_path", "step_on_path"]


class Choice(NamedTuple):
    """The path on which a cell runs, "native" or "scan", or "newton" by its solver, and why it is not native."""

    cell: Layer
    path: Literal[Path, "newton"]
    reason: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.path}" + (f" ({self.reason})" if self.reason else "")


_choices: ContextVar[list[Choice] | None] = ContextVar("choices", default=None)


def _record(choice: Choice) -> None:
    if (choices := _choices.get()) is not None:
        choices.append(choice)


def recording() -> bool:
    """Returns whether choices are recorded."""
    return _choices.get() is not None


@contextmanager
def recorded_choices() -> Iterator[list[Choice]]:
    """Collects the choices of the runs that are traced within."""
    choices: list[Choice] = []
    token = _choices.set(choices)
    try:
        yield choices
    finally:
        _choices.reset(token)


def run_on_path(run: CellRun, consts: PyTree, carry: PyTree, data: PyTree, options: Options) -> tuple[PyTree, PyTree]:
    """Runs on the path that was asked for, or on the fastest that there is."""
    cell, given = run.cell, (consts, carry, data)
    if options.solver is not None and not cell.chunkwise:
        blocks = _blocks(run, *given, options)
        _record(Choice(cell, "newton", f"asked for; {blocks}"))
        chunk = run.chunk or options.steps
        return dataclasses.replace(run, solver=(options.solver, blocks), chunk=chunk).whole(*given)
    where = Placement() if options.path == "scan" else place(*given, options.batch_shape)
    reason = "asked for" if options.path == "scan" else _obstacle(run, *given, options, where)
    if reason:
        _refuse_native(cell, options, reason)
        if recording() and options.steps != 0 and run.with_buffers(*given).buffered:
            reason += "; its state has a buffer, so the derivative is JAX's own"
    _record(Choice(cell, "scan" if reason else "native", reason))
    if reason:
        return run.whole(*given)

    return _by_kernel(run, given, options, where)


def step_on_path(run: CellRun, consts: PyTree, carry: PyTree, data: PyTree, options: Options) -> Any:
    """Runs a single step as a kernel, as `run_on_path`; None where it is faster without, or there is no kernel."""
    given = consts, carry, data
    where = place(*given, options.batch_shape)
    reason = _obstacle(run, *given, options, where)
    _record(Choice(run.cell, "scan" if reason else "native", reason))
    return None if reason else _by_kernel(run, given, options, where)


def _by_kernel(run: CellRun, given: tuple[PyTree, PyTree, PyTree], options: Options, where: Placement) -> Any:
    def way(consts: PyTree, carry: PyTree, data: PyTree) -> tuple[PyTree, PyTree]:
        real, parts = kernel_run(run, (consts, carry, data))
        return together(run_as_one(real, *parts, len(options.batch_shape), where.spread))

    if run.save == "boundaries":
        return where.map(lambda *given: run.in_chunks(way, *given), *given)
    return where.map(way, *given)


def record_scan(layer: Layer, options: Options, reason: str) -> None:
    """Records that a layer which runs itself over time takes the scan."""
    _record(Choice(layer, "scan", "asked for" if options.path == "scan" else reason))


def _refuse_native(layer: Layer, options: Options, reason: str) -> None:
    if options.path == "native":
        raise ValueError(f"path: got 'native', but {layer} cannot take it: {reason}; use 'auto'")


def _refuse_solver(layer: Layer, options: Options, reason: str) -> NoReturn:
    raise ValueError(f"solver: got {options.solver}, but {layer} cannot take it: {reason}; leave it out")


def _obstacle(run: CellRun, consts: PyTree, carry: PyTree, data: PyTree, options: Options, where: Placement) -> str:
    """Returns why there is no kernel for a run, or, unless it is asked for, why it would be slower; empty otherwise."""
    cell = run.cell
    if 0 in (options.steps, *options.batch_shape):
        return "there are no steps or no rows"
    if cell.chunkwise:
        return "it runs many steps at once"
    if not cell.apart:
        return "its rows see each other"
    if callable(options.save):
        return "a kernel has no values for a checkpoint policy"
    if where.obstacle:
        return where.obstacle
    if where.spread and run.save == "boundaries":
        return "on a mesh with an Auto axis every chunk would add up gradients over devices"
    real, given = kernel_run(run, (consts, carry, data))
    rows = where.local(options.batch_shape)
    if options.path == "native":
        return obstacle(real, *given, rows)
    return obstacle(real, *given, rows) or slower(real, *given, rows)


def _blocks(run: CellRun, consts: PyTree, carry: PyTree, data: PyTree, options: Options) -> Blocks:
    """Returns the blocks of the Jacobians of a run's steps; raises if a solver cannot take it."""
    cell, axes = run.cell, len(options.batch_shape)
    dtypes = sorted({str(s.dtype) for s in jax.tree.leaves(carry[0])})
    if not all(isinstance(n, int) for n in (options.steps, *options.batch_shape)):
        _refuse_solver(cell, options, "the number of its time steps or rows is symbolic")
    if not cell.apart:
        _refuse_solver(cell, options, "its rows see each other")
    if len(dtypes) != 1 or not jnp.issubdtype(dtypes[0], jnp.floating):
        _refuse_solver(cell, options, f"its state has values of {' and '.join(dtypes)}, not real numbers of one dtype")

    def advance(others: tuple[PyTree, PyTree, Any], state: State) -> State:
        consts, rows, data = others
        return run.row(consts, (state, rows), data)[0][0]

    state, rows = _one_row(carry, axes)
    blocks, reason = find_blocks(advance, (_one_row(consts, 0), rows, _one_row(data, axes + 1)), state)
    if reason:
        _refuse_solver(cell, options, reason)
    return blocks


def _one_row(tree: PyTree, axes: int) -> PyTree:
    """Shapes without the leading axes of time and rows."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[axes:], a.dtype), tree)
