"""Cells around cells: `Wrapper` passes everything on, `StepWrapper` changes single steps by data drawn before the loop.

A step wrapper's equations ask for the data they need by a `Draw`:

    kept = draw(Kept(rate, share, shape))        booleans, drawn anew for every step; None without a key
    cut  = draw(Boundary(every))                 whether a step is the first of a stretch

`unroll` asks once what a step will ask for, draws all of it before the loop, and hands it to the steps as data. So
there is no random generator in the loop, and wrappers around wrappers need no order of their own.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrnn.cell import Cell, check_cell
from jaxrnn.checks import check_input
from jaxrnn.rows import Walk
from jaxrnn.typing import Array, DTypeLike, Key, Params, PyTree, State

__all__ = ["Boundary", "Draw", "Kept", "StepWrapper", "Wrapper"]


@dataclass(frozen=True)
class Kept:
    """A request for booleans, each true with probability 1 - `rate`, independent but for the axes in `share`."""

    rate: float
    share: tuple[str, ...]  # of "time" and "batch"
    shape: tuple[int, ...]  # [*batch, ...], of one step
    random: ClassVar[bool] = True

    @property
    def constant(self) -> bool:
        """Whether one draw serves all steps."""
        return "time" in self.share

    def one(self, batch_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one step's draw."""
        if self.shape[: len(batch_shape)] != batch_shape:
            raise ValueError(f"cell: got an operand of the shape {self.shape} in its step, needs [*batch, ...]")
        return self.shape

    def data(self, key: Key | None, steps: int, batch_shape: tuple[int, ...], reverse: bool) -> Array:
        """The draw for a sequence: `shape`, or `[T, *shape]`."""
        del reverse
        assert key is not None, "without a key nothing is asked for"
        axes = len(batch_shape)
        time = () if self.constant else (steps,)
        drawn = (1,) * axes + self.shape[axes:] if "batch" in self.share else self.shape
        return jnp.broadcast_to(jax.random.bernoulli(key, 1 - self.rate, (*time, *drawn)), (*time, *self.shape))


@dataclass(frozen=True)
class Boundary:
    """A request for flags `[*batch]`: whether a multiple of `every` steps lies between this step and the one before."""

    every: int
    random: ClassVar[bool] = False
    constant: ClassVar[bool] = False

    def one(self, batch_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one step's flags."""
        return batch_shape

    def data(self, key: Key | None, steps: int, batch_shape: tuple[int, ...], reverse: bool) -> Array:
        """The flags `[T, *batch]`."""
        del key
        boundary = jnp.arange(steps) + (1 if reverse else 0)  # number b lies between the steps b - 1 and b
        flags = (boundary % self.every == 0) & (boundary > 0) & (boundary < steps)
        return jnp.broadcast_to(flags.reshape(steps, *(1 for _ in batch_shape)), (steps, *batch_shape))


Draw = Callable[[Kept | Boundary], Array | None]
"""Answers a step's requests; with None where there is nothing to draw."""


@dataclass(frozen=True)
class Wrapper(Cell):
    """A cell around a cell: all of it is the inner cell's, and a subclass defines what differs.

    Around cells that walk a sequence in their own way, such as a `Stack` or a `Dropout`, it also defines `walk`:

        def walk(self, params, xs, state, how):
            state, ys = self.cell.walk(params, xs, state, how)
            return state, 2 * ys
    """

    cell: Cell
    outermost: ClassVar[bool] = False
    """If True, only another `outermost` step wrapper may wrap this one."""

    def __post_init__(self) -> None:
        check_cell(self.cell)

    @property
    def input_size(self) -> Any:
        """That of the cell."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> Any:
        """That of the cell."""
        return self.cell.hidden_size

    @property
    def input_spec(self) -> PyTree:
        """That of the cell."""
        return self.cell.input_spec

    @property
    def output_size(self) -> Any:
        """That of the cell."""
        return self.cell.output_size

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> Params:
        """Those of the cell."""
        return self.cell.init(key, dtype=dtype, **initializers)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """That of the cell."""
        return self.cell.initial_state(batch_shape, dtype)

    def project(self, params: Params, x: PyTree) -> PyTree:
        """That of the cell."""
        return self.cell.project(params, x)

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """That of the cell."""
        return self.cell.step(params, state, drive)

    def readout(self, params: Params, output: PyTree, drive: PyTree) -> PyTree:
        """That of the cell."""
        return self.cell.readout(params, output, drive)

    @property
    def stepped(self) -> bool:
        """Whether neither the wrapper nor the cell has a walk of its own."""
        return type(self).walk is Wrapper.walk and self.cell.stepped

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """Step by step."""
        if how.key is not None and not self.cell.stepped:
            raise ValueError(
                f"key: {type(self).__name__} takes single steps of {self.cell}, which takes a key in its own walk "
                f"only; leave the key out, put {type(self).__name__} inside of it, or define `walk`"
            )
        return super().walk(params, xs, state, how)


@dataclass(frozen=True)
class StepWrapper(Wrapper):
    """A wrapper that changes single steps, in `step_with`. Abstract.

    The cell in it must be walked step by step: a step wrapper stands inside of a `Stack`, around its layers, and inside
    of what transforms parameters. A cell that has a faster way (`walk_chunk`) is stepped in it, too.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.cell, Wrapper) and self.cell.outermost and not self.outermost:
            raise ValueError(f"cell: got {self.cell}, needs {type(self).__name__} inside of it, not around it")
        if not (self.cell.stepped or isinstance(self.cell, StepWrapper)):
            raise ValueError(
                f"cell: got {self.cell}, which walks a sequence in its own way; {type(self).__name__} changes single "
                "steps and needs to be inside of it, around its cells"
            )

    @abc.abstractmethod
    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """One step, with what `draw` gives."""

    def inner_step(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """One step of the cell inside, with what it draws itself."""
        if isinstance(self.cell, StepWrapper):
            return self.cell.step_with(params, state, drive, draw)
        return self.cell.step(params, state, drive)

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """One step with nothing drawn: the deterministic one."""
        return self.step_with(params, state, drive, lambda request: None)

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """Step by step, everything drawn before."""
        steps, *rest = check_input(self, xs, "xs", time=True)
        batch_shape = tuple(rest)
        requests: list[Kept | Boundary] = []

        def record(request: Kept | Boundary) -> Array | None:
            if request.random and how.key is None:
                return None
            requests.append(request)
            return jnp.zeros(request.one(batch_shape), bool)

        x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
        jax.eval_shape(lambda p, s, x: self.step_with(p, s, self.project(p, x), record), params, state, x)
        if not requests:
            return Cell.walk(self, params, xs, state, how)
        keys = [None] * len(requests) if how.key is None else list(jax.random.split(how.key, len(requests)))
        drawn = [r.data(k, steps, batch_shape, how.reverse) for r, k in zip(requests, keys, strict=True)]
        constant = [d for r, d in zip(requests, drawn, strict=True) if r.constant]
        each = [d for r, d in zip(requests, drawn, strict=True) if not r.constant]
        inner = _Drawn(self, tuple(requests), len(batch_shape))
        return inner.walk((params, constant), (xs, each), state, how)


@dataclass(frozen=True)
class _Drawn(Wrapper):
    """A step wrapper and what was drawn for it: constants beside its parameters, the rest beside its input."""

    cell: StepWrapper
    requests: tuple[Kept | Boundary, ...]
    batch_axes: int

    @property
    def input_spec(self) -> PyTree:
        """The cell's, and one step's draws."""
        shapes = [
            () if isinstance(r, Boundary) else r.shape[self.batch_axes :] for r in self.requests if not r.constant
        ]
        return self.cell.input_spec, [jax.ShapeDtypeStruct(shape, jnp.bool_) for shape in shapes]

    def project(self, params: Params, x: PyTree) -> PyTree:
        """The cell's drive, and the draws."""
        return self.cell.project(params[0], x[0]), x[1]

    def step(self, params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """The cell's step, its requests answered in the order in which they come."""
        constant, each = iter(params[1]), iter(drive[1])

        def draw(request: Kept | Boundary) -> Array | None:
            if request not in self.requests:  # without a key
                return None
            return next(constant if request.constant else each)

        return self.cell.step_with(params[0], state, drive[0], draw)

    def readout(self, params: Params, output: PyTree, drive: PyTree) -> PyTree:
        """That of the cell."""
        return self.cell.readout(params[0], output, drive[0])

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """Step by step: what is drawn is data."""
        return Cell.walk(self, params, xs, state, how)
