"""Base classes of wrappers: `Wrapper` around whole runs, `StepWrapper` around single steps."""

import abc
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxrnn.cell import Cell
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.typing import DTypeLike, Key, P, PyTree, S

__all__ = ["StepWrapper", "Wrapper"]


@dataclass(frozen=True)
class Wrapper(Layer[P, S]):
    """Base class for wrappers around whole runs: forwards every method to `self.cell`.

    A subclass overrides what differs:

        def run(self, params, xs, state, options):
            state, ys = self.cell.run(params, xs, state, options)
            return state, 2 * ys

    What `run` changes, `advance` changes for a single time step. `class Doubled(Wrapper[P, S])`, with the type
    variables of `jaxrnn.typing`, tells type checkers that parameters and state are the cell's.

    Args:
        cell: any cell or network.

    Raises:
        TypeError: `cell` is neither.
    """

    cell: Layer[P, S]

    def __post_init__(self) -> None:
        check_layer(self.cell)

    @property
    def input_size(self) -> Any:
        return self.cell.input_size

    @property
    def hidden_size(self) -> Any:
        return self.cell.hidden_size

    @property
    def needs_state(self) -> str:
        return self.cell.needs_state

    @property
    def init_names(self) -> frozenset[str]:
        return super().init_names | self.cell.init_names

    @property
    def input_spec(self) -> PyTree:
        return self.cell.input_spec

    @property
    def output_size(self) -> Any:
        return self.cell.output_size

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> P:
        """Returns fresh parameters of the cell; `initializers` are keyword arguments of its `init`."""
        return self.cell.init(key, dtype=dtype, **initializers)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> S:
        return self.cell.initial_state(batch_shape, dtype)

    def restart(self, params: P, state: S, batch_shape: tuple[int, ...]) -> S:
        return self.cell.restart(params, state, batch_shape)

    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        return self.cell.run(params, xs, state, options)

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        return self.cell.advance(params, state, x, draw)

    def with_cells(self, function: Callable[[Layer], Layer]) -> Layer:
        return dataclasses.replace(self, cell=self.cell.with_cells(function))


@dataclass(frozen=True)
class StepWrapper(Cell[P, S], Wrapper[P, S]):
    """Base class for wrappers around single steps: a subclass defines `step_with`. Abstract.

    The wrapped cell runs step by step, even if it has a faster way (`run_chunk`). Put step wrappers inside networks,
    around their cells.

    Args:
        cell: any `Cell`.

    Raises:
        TypeError: `cell` is no cell.
        ValueError: `cell` is a network, or one of its options needs another way to run.
    """

    cell: Cell[P, S]
    asks: ClassVar[bool] = True
    outermost: ClassVar[bool] = False
    """If True, only another `outermost` step wrapper may wrap this one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if not (isinstance(self.cell, Cell) and self.cell.stepped):
            raise ValueError(
                f"cell: got {self.cell}, which runs a sequence in its own way; {name} changes single steps and needs "
                "to be inside of it, around its cells, or around jaxrnn.networks.Stepped of it"
            )
        if isinstance(self.cell, StepWrapper) and self.cell.outermost and not self.outermost:
            raise ValueError(f"cell: got {self.cell}, needs {name} inside of it, not around it")

    def project(self, params: P, x: PyTree) -> PyTree:
        return self.cell.project(params, x)

    @abc.abstractmethod
    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes one step with what `draw` gives; calls `self.cell.step_with` for the wrapped cell's step."""

    def step(self, params: P, state: S, drive: PyTree) -> tuple[S, PyTree]:
        """Takes one step of the deterministic network."""
        return self.step_with(params, state, drive, nothing)

    def readout(self, params: P, output: PyTree, drive: PyTree) -> PyTree:
        return self.cell.readout(params, output, drive)

    def with_cells(self, function: Callable[[Layer], Layer]) -> Layer:
        return function(self)  # it is one cell
