"""What a cell does inside: its states and gates at every step, of any cell, without a change to its equations."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.cell import Cell, check_cell
from jaxrnn.jaxprs import bind, evaluate
from jaxrnn.networks import Bidirectional, Residual, Stack
from jaxrnn.parametrizations import Parametrized
from jaxrnn.regularization import Dropout, WeightDrop, WeightNoise
from jaxrnn.rows import Walk, select, valid_steps
from jaxrnn.typing import Array, Params, PyTree, State
from jaxrnn.unroll import unroll
from jaxrnn.wrapper import Draw, StepWrapper, Wrapper

__all__ = ["Inspected", "Inspection", "state_history"]


class Inspection(NamedTuple):
    """The output of `Inspected`."""

    y: PyTree  # of the cell; all is zero beyond `lengths`, as outputs are
    state: State  # after the step
    gates: PyTree  # like the cell's drive: i, f, g, o of an LSTM; None where nothing was found


@dataclass(frozen=True)
class Inspected(StepWrapper):
    """A cell that shows what it does: its output is an `Inspection` of the output, the state and the gates.

    A gate is the first function applied to a part of the drive, with what the recurrent product and bias add to it:
    a cell's `project` gives one array for each gate, and so are the gates found in its equations.

    Args:
        cell: any cell that is walked step by step.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.LSTM(3, 4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, seen = jaxrnn.unroll(Inspected(cell), params, jnp.ones((5, 2, 3)))
        >>> i, f, g, o = seen.gates
        >>> seen.state.c.shape, f.shape, bool(((0 < f) & (f < 1)).all())
        ((5, 2, 4), (5, 2, 4), True)
    """

    outermost: ClassVar[bool] = True

    @property
    def output_size(self) -> Inspection:
        """Of the output and of the state; those of the gates are known when it runs."""
        return Inspection(self.cell.output_size, self.cell.hidden_size, None)

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, Inspection]:
        """The step of the cell, equation by equation."""

        def inner(params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
            return self.inner_step(params, state, drive, draw)

        closed, shapes = jax.make_jaxpr(inner, return_shape=True)(params, state, drive)
        drives, tree = jax.tree.flatten(drive)
        gates: list[Any] = [None] * len(drives)

        def rule(eqn: Any, values: list[Any]) -> list[Any]:
            tags = [v.tag for v in values if isinstance(v, _Sum)]
            plain = [v.value if isinstance(v, _Sum) else v for v in values]
            results = bind(eqn, plain)
            name = eqn.primitive.name
            if len(tags) != 1 or len(results) != 1:
                return results
            if name in _LINEAR or (name == "sub" and isinstance(values[0], _Sum)):
                return [_Sum(results[0], tags[0])]
            others = [v for v in values if not isinstance(v, _Sum)]
            if name not in ("mul", "div") and gates[tags[0]] is None and all(jnp.ndim(v) == 0 for v in others):
                gates[tags[0]] = results[0]
            return results

        args = [*jax.tree.leaves((params, state)), *(_Sum(leaf, i) for i, leaf in enumerate(drives))]
        results = evaluate(closed.jaxpr, closed.consts, args, rule)
        leaves = [r.value if isinstance(r, _Sum) else r for r in results]
        new, y = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        return new, Inspection(y, new, jax.tree.unflatten(tree, gates))

    def readout(self, params: Params, output: Inspection, drive: PyTree) -> Inspection:
        """The cell's for its output."""
        return output._replace(y=self.cell.readout(params, output.y, drive))


class _Sum(NamedTuple):
    """A part of the drive, numbered by `tag`, and what was added to it."""

    value: Any
    tag: int


_LINEAR = ("add", "add_any", "convert_element_type", "broadcast_in_dim", "reshape", "squeeze", "copy")


def state_history(cell: Cell, params: Params, xs: PyTree, state: State | None = None, **options: Any) -> State:
    """All states, the one before the first step included: leaves `[T + 1, *batch, ...]`; held beyond `lengths`.

    Entry t lies between the steps t - 1 and t: a walk goes through the entries from the first to the last, with
    `reverse`, and in the backward cell of a `Bidirectional`, from the last to the first.

    Args:
        cell: any cell that is walked step by step; a `Stack` or a `Bidirectional` of such, also in `Residual`, in a
            `Dropout` or around other parameters.
        params: from `cell.init`.
        xs: as for `unroll`.
        state: the state before the first step; None: the initial state.
        **options: as for `unroll`.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.GRU(4, 2)))
        >>> lstm, gru = state_history(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> lstm.c.shape, gru.h.shape, bool((gru.h[0] == 0).all())
        ((6, 2, 4), (6, 2, 2), True)
    """
    check_cell(cell)
    return unroll(_remembering(cell), params, xs, state, **options)[0]


def _remembering(cell: Cell) -> Cell:
    """The cell with all states in the place of the last."""
    if isinstance(cell, Stack):
        return dataclasses.replace(cell, cells=tuple(map(_remembering, cell.cells)))
    if isinstance(cell, Bidirectional):
        forward, backward = map(_remembering, cell.cells)
        return dataclasses.replace(cell, forward=forward, backward=backward)
    # Their walks hand on the state of the cell in them as it is.
    if isinstance(cell, Residual | Dropout | WeightDrop | WeightNoise | Parametrized):
        return dataclasses.replace(cell, cell=_remembering(cell.cell))
    return _Remembering(cell)


@dataclass(frozen=True)
class _Remembering(Wrapper):
    """A cell whose walk gives all states in the place of the last."""

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """The cell over the sequence, all states with the one before it."""
        final, seen = Inspected(self.cell).walk(params, xs, state, how)
        states = seen.state
        if how.lengths is not None:
            # A walk back begins beyond the lengths.
            rest, steps = state if how.reverse else final, jax.tree.leaves(states)[0].shape[0]
            valid = valid_steps(jnp.arange(steps), how.lengths)
            states = jax.tree.map(lambda s, r: select(valid, s, jnp.broadcast_to(r[None], s.shape)), states, rest)

        def joined(before: Array, states: Array) -> Array:
            parts = [jnp.asarray(before)[None].astype(states.dtype), states]
            return jnp.concatenate(parts[::-1] if how.reverse else parts)

        return jax.tree.map(joined, state, states), seen.y

    def __repr__(self) -> str:
        """That of the cell, of which errors speak."""
        return repr(self.cell)
