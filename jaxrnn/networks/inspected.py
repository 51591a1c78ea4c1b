"""States and gates of any cell at every step, found in its equations."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.engine.noise import Draw
from jaxrnn.jaxprs import IDENTITIES, RESHAPES, bind, interpret
from jaxrnn.networks.wrapper import StepWrapper
from jaxrnn.places import PLACES
from jaxrnn.typing import P, PyTree, S, State

__all__ = ["Inspected", "Inspection"]


class Inspection(NamedTuple):
    """The output of `Inspected`."""

    y: PyTree  # of the cell; all is zero beyond `lengths`, as outputs are
    state: State  # after the step
    gates: PyTree  # in the structure of the cell's drive: i, f, g, o of an LSTM; None where no gate was found


@dataclass(frozen=True)
class Inspected(StepWrapper[P, S]):
    """A cell that shows what it does: its output is an `Inspection` of the output, the state and the gates.

    `project` gives one array for each gate. The gate is the first function that the step applies to this array, after
    adding the recurrent product and the bias.

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
        """Sizes of output and state; sizes of gates are known only when the cell runs."""
        return Inspection(self.cell.output_size, self.cell.hidden_size, None)

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, Inspection]:
        """Takes the cell's step, equation by equation."""

        def inner(params: P, state: S, drive: PyTree) -> tuple[S, PyTree]:
            return self.cell.step_with(params, state, drive, draw)

        closed, shapes = jax.make_jaxpr(inner, return_shape=True)(params, state, drive)
        drives, tree = jax.tree.flatten(drive)
        gates: list[Any] = [None] * len(drives)

        def rule(eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[Any]]:
            results, name = bind(eqn, values), eqn.primitive.name
            drawn = [tag for tag in tags if tag is not None]
            if len(drawn) != 1 or len(results) != 1:
                return results, [None] * len(results)
            (tag,) = drawn
            if name in _LINEAR or (name == "sub" and tags[0] is not None):
                return results, [tag]
            others = [v for v, other in zip(values, tags, strict=True) if other is None]
            alone = all(jnp.ndim(v) == 0 for v in others) and results[0].shape == values[tags.index(tag)].shape
            if alone and name not in PLACES and name not in ("mul", "div") and gates[tag] is None:
                gates[tag] = results[0]
            return results, [None]

        before = jax.tree.leaves((params, state))
        # A part of the drive, and what is added to it, has its number.
        tags = [*[None] * len(before), *range(len(drives))]
        leaves, _ = interpret(closed, [*before, *drives], tags, rule)
        new, y = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        return new, Inspection(y, new, jax.tree.unflatten(tree, gates))

    def readout(self, params: P, output: Inspection, drive: PyTree) -> Inspection:
        """Applies the cell's readout to its output."""
        return output._replace(y=self.cell.readout(params, output.y, drive))


_LINEAR = IDENTITIES | RESHAPES | {"add", "add_any"}
