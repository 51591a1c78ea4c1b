"""The cell protocol: single steps, written as what sees the input, what sees the state, and what nothing waits for.

    drive         = project(params, x)             all that sees the input only
    state, output = step(params, state, drive)     all that sees the previous state
    y             = readout(params, output, drive) all that nothing later waits for

`unroll` runs `project` and `readout` for many time steps at once and only `step` in sequence.
"""

import abc
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_choice, check_returned
from jaxrnn.engine.associative import linear_states
from jaxrnn.engine.chunks import StepData, default_chunk
from jaxrnn.engine.driver import run_cell, step_by_kernel
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.engine.runs import read_out, run_steps, take_step
from jaxrnn.ops import cast, keep, select
from jaxrnn.typing import P, PyTree, S

__all__ = ["Cell", "LinearCell", "cast_coefficients"]


class Cell(Layer[P, S]):
    """A recurrent cell, by the equations of one time step. Abstract.

    A subclass is a `@dataclass(frozen=True)` with fields `input_size` and `hidden_size` (or properties of these names)
    that defines `init`, `initial_state`, `project`, `step` and, where something can be postponed, `readout`. The guide
    "Your own cell" goes from a paper's equations to a tested cell; `jaxrnn/cells/gru.py` is the model page. A cell
    with a faster way to the same values than step after step defines `run_chunk`, as `jaxrnn/cells/delta.py` does.
    `Cell[Params, State]` tells type checkers what `init` and `unroll` return.
    """

    asks: ClassVar[bool] = False
    """Whether steps ask for randomness or other data drawn before the loop; then `step_with` is defined too."""

    apart: ClassVar[bool] = True
    """Whether each row of a batch runs by itself, with parameters that all rows share, so that one row says it all.
    False for a cell that takes a mean over the batch."""

    alike: ClassVar[bool] = False
    """Whether all hidden units have the same equations and see each other by `recurrent` alone, so that they may be on
    several devices (`jaxrnn.sharding`)."""

    @abc.abstractmethod
    def project(self, params: P, x: PyTree) -> PyTree:
        """Returns what the step needs of the input, for any leading axes: a pytree, one array per gate."""

    @abc.abstractmethod
    def step(self, params: P, state: S, drive: PyTree) -> tuple[S, PyTree]:
        """Takes one step from the previous state: `(state, output)`."""

    def readout(self, params: P, output: PyTree, drive: PyTree) -> PyTree:
        """Returns `y`: what follows the step and nothing later waits for, for any leading axes; here the output."""
        del params, drive
        return output

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes one step with the data that it asks `draw` for; a cell without randomness asks for nothing."""
        del draw
        return self.step(params, state, drive)

    @final
    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Runs a sequence, as `unroll` after its checks."""
        check_returned(self, "init", params)
        return run_cell(self, params, xs, state, options)

    @final
    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Runs one time step, unchecked."""
        check_returned(self, "init", params)
        if draw is nothing and (done := step_by_kernel(self, params, state, x)) is not None:
            return done
        drive = self.project(params, x)
        check_returned(self, "project", drive)
        state, output = take_step(self, params, state, drive, draw)
        y = read_out(self, params, output, drive, x)
        check_returned(self, "step, readout: output", y)
        return state, y

    def run_chunk(self, params: P, state: S, data: StepData, reverse: bool) -> tuple[S, PyTree]:
        """Runs the sequential part of a chunk: `(state after it, outputs [T, ...])`, here step after step."""
        return run_steps(self, params, state, data, reverse)

    @property
    def chunkwise(self) -> bool:
        """True if `run_chunk` has a faster way than step after step."""
        return not self.stepped

    def chunk_size(self, steps: int, drive: PyTree, state: S) -> int:
        """Returns the default number of steps in a chunk, from one step's drive and state."""
        del state
        return default_chunk(steps, sum(d.size * d.dtype.itemsize for d in jax.tree.leaves(drive)))

    @property
    def stepped(self) -> bool:
        """True if the cell's options ask for single steps, so that a wrapper may change them."""
        return True


@dataclass(frozen=True, kw_only=True)
class LinearCell(Cell[P, S]):
    """A cell with `h' = a ⊙ h + b`: a subclass defines `init`, `initial_state`, `project`, `coefficients`, `readout`.

    Args:
        scan: how `unroll` runs: "sequential" (least work and memory, a step after the other) or "associative" (about
            twice the work, in a number of rounds that grows with the logarithm of T; for accelerators and long
            sequences). Values and derivatives are the same up to rounding. Chunks (`unroll`) run one after the
            other; without the argument an accelerator has one chunk of all T steps, the CPU what its cache holds.

    Raises:
        ValueError: `scan` is neither.
    """

    scan: Literal["sequential", "associative"] = "sequential"

    def __post_init__(self) -> None:
        check_choice(scan=self.scan, among=("sequential", "associative"))

    @abc.abstractmethod
    def coefficients(self, params: P, drive: PyTree) -> tuple[S, S]:
        """Returns `(a, b)` for any leading axes, trees like the state; axes of length one in `a` broadcast against `b`.

        `drive` is that of `project` in the precision of the state.
        """

    def step(self, params: P, state: S, drive: PyTree) -> tuple[S, S]:
        """Returns `a ⊙ h + b`; the output is the new state, for `readout`."""
        a, b = cast_coefficients(self, params, state, drive)
        new = jax.tree.map(lambda a, b, h: a * h + b, a, b, state)
        return new, new

    @property
    def stepped(self) -> bool:
        """True if the run is sequential."""
        return self.scan == "sequential"

    def run_chunk(self, params: P, state: S, data: StepData, reverse: bool) -> tuple[S, PyTree]:
        """Returns the state after a chunk and all of its states, in the way that `scan` says."""
        if self.scan == "sequential":
            return super().run_chunk(params, state, data, reverse)
        drives, valid, resets, _ = data
        steps = jax.tree.leaves(data)[0].shape[0]
        if not isinstance(steps, int):
            raise ValueError(f"xs: got {steps} steps, {self} needs a number that is known; scan='sequential' takes any")
        a, b = cast_coefficients(self, params, state, drives)
        if any(
            k.ndim != h.ndim + 1 for tree in (a, b) for k, h in zip(*map(jax.tree.leaves, (tree, state)), strict=True)
        ):
            raise ValueError(f"coefficients: got arrays without T from {self}, needs [T, *batch, ...], of its drives")
        if valid is not None:
            a = jax.tree.map(lambda k: select(valid, k, jnp.ones_like(k)), a)
            b = keep(valid, b)
        start = None
        if resets is not None:
            start = self.restart(params, state, resets.shape[1:])
            start = jax.tree.map(lambda s: jnp.broadcast_to(s[None], (len(resets), *s.shape)), start)
        states = linear_states(a, b, state, resets, start, reverse)
        return jax.tree.map(lambda h: h[0 if reverse else -1], states), states

    def chunk_size(self, steps: int, drive: PyTree, state: S) -> int:
        """Returns the default number of steps in a chunk."""
        if self.scan == "sequential":
            return super().chunk_size(steps, drive, state)
        # More at once than the cache holds gains nothing on the CPU, and everything elsewhere.
        bytes_per_step = 2 * sum(h.size * h.dtype.itemsize for h in jax.tree.leaves(state))
        return default_chunk(steps, bytes_per_step) if jax.default_backend() == "cpu" else steps


def cast_coefficients(cell: LinearCell, params: P, state: S, drive: PyTree) -> tuple[S, S]:
    """Returns `cell.coefficients`, computed in the precision of the state, in its dtypes."""
    precision = jnp.finfo(jax.tree.leaves(state)[0].dtype).dtype
    pair = cell.coefficients(params, cast(drive, precision))
    a, b = (jax.tree.map(lambda k, h: k.astype(h.dtype), tree, state) for tree in pair)
    return a, b
