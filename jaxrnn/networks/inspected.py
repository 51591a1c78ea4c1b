"""A cell that shows its states and gates at every step, without a change to its equations."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.engine.jaxprs import bind, evaluate
from jaxrnn.engine.noise import Draw
from jaxrnn.networks.wrapper import StepWrapper
from jaxrnn.typing import Params, PyTree, State

__all__ = ["Inspected", "Inspection"]


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
        cell: any cell that runs step by step.

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
            return self.cell.step_with(params, state, drive, draw)

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
