"""Blocks of a step's Jacobian: sets of values in the state that do not see each other, found in the cell's equations.

Every element of every array in the step's linear program has a label: the number of a value of the state on which it
depends, -1 for none. Where it depends on several, their sets become one.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.jaxprs import CALLS, IDENTITIES, interpret
from jaxrnn.places import PLACES
from jaxrnn.typing import Array, PyTree, State

__all__ = ["Blocks", "find_blocks"]

LARGEST = 256
"""Values in a block beyond which no device gains: n of them cost n² numbers and n³ multiplications a step and row."""

ELEMENTWISE = frozenset(
    ("add", "add_any", "sub", "neg", "mul", "div", "select_n", "convert_element_type", "reduce_precision")
)


class Blocks(NamedTuple):
    """The values of one row's state, in sets of equal size that do not see each other: the blocks of its Jacobians."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]  # of the state's leaves
    order: tuple[int, ...]  # of all values, block after block
    size: int  # values in a block

    def __str__(self) -> str:
        blocks = len(self.order) // self.size
        return f"Jacobians of {f'{blocks} blocks of ' * (blocks > 1)}{self.size} x {self.size}"

    def pack(self, state: State) -> Array:
        """Leaves `[..., *shape]` as one array `[..., blocks, size]`, or `[..., blocks]` if the size is 1."""
        leaves = zip(jax.tree.leaves(state), self.shapes, strict=True)
        rows = [s.reshape(*s.shape[: s.ndim - len(shape)], math.prod(shape)) for s, shape in leaves]
        values = _ordered(jnp.concatenate(rows, axis=-1), self.order)
        shape = (len(self.order) // self.size, self.size)[: 1 + (self.size > 1)]
        return values.reshape(*values.shape[:-1], *shape)

    def unpack(self, packed: Array) -> State:
        """Undoes `pack`."""
        values = packed.reshape(*packed.shape[: packed.ndim - 1 - (self.size > 1)], len(self.order))
        values = _ordered(values, tuple(np.argsort(self.order).tolist()))
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1].tolist()
        parts = zip(jnp.split(values, ends, axis=-1), self.shapes, strict=True)
        return jax.tree.unflatten(self.tree, [part.reshape(*part.shape[:-1], *shape) for part, shape in parts])


def _ordered(values: Array, order: tuple[int, ...]) -> Array:
    return values if order == tuple(range(len(order))) else values[..., np.array(order)]


def find_blocks(advance: Callable[[PyTree, State], State], others: PyTree, state: State) -> tuple[Blocks, str]:
    """Returns the blocks of `advance(others, state)`, a step of one row, and why they are of no use; empty if they are.

    Of `others` and `state` only shapes and dtypes are read.
    """
    leaves, tree = jax.tree.flatten(state)
    shapes = tuple(leaf.shape for leaf in leaves)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    owns = [part.reshape(shape) for part, shape in zip(np.split(np.arange(ends[-1]), ends[:-1]), shapes, strict=True)]

    def tangent(others: PyTree, state: State, move: State) -> State:
        return jax.jvp(lambda state: advance(others, state), (state,), (move,))[1]

    closed = jax.make_jaxpr(tangent)(others, state, state)
    labels, given = _Labels(owns), [*[None] * (len(closed.jaxpr.invars) - len(owns)), *owns]
    _, seen = interpret(closed, [None] * len(given), given, labels.rule, CALLS)
    for own, label in zip(owns, seen, strict=True):
        if label is not None:
            labels.joined(np.stack([own, label], axis=-1))
    _, sizes = np.unique(labels.sets, return_counts=True)
    alike = len(set(sizes.tolist())) == 1
    order = np.argsort(labels.sets, kind="stable") if alike else np.arange(ends[-1])
    blocks = Blocks(tree, shapes, tuple(order.tolist()), int(sizes[0] if alike else ends[-1]))
    if labels.clipped:
        return blocks, "its cotangents are clipped at every step"
    return blocks, f"{blocks.size} values of its state see each other, more than {LARGEST}" * (blocks.size > LARGEST)


class _Labels:
    """Sets of values that see each other, found equation by equation."""

    def __init__(self, owns: list[Any]) -> None:
        self.sets = np.concatenate([own.ravel() for own in owns])  # of every value, the number of its set
        self.clipped = False

    def joined(self, labels: Any) -> Any:
        """Labels of what depends on all of the last axis."""
        most = labels.max(axis=-1)
        some = labels >= 0
        a, b = np.broadcast_to(most[..., None], labels.shape)[some], labels[some]
        apart = self.sets[a] != self.sets[b]
        for one, other in sorted(set(zip(a[apart].tolist(), b[apart].tolist(), strict=True))):
            self.sets[self.sets == self.sets[other]] = self.sets[one]
        return most

    def rule(self, eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[Any]]:
        """Returns the labels of an equation's results."""
        nothing = [None] * len(eqn.outvars)
        if all(tag is None for tag in tags):
            return nothing, nothing
        self.clipped = self.clipped or eqn.primitive.name == "clip_cotangent"
        return nothing, self._results(eqn, tags)

    def _results(self, eqn: Any, tags: list[Any]) -> list[Any]:
        name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
        if name in IDENTITIES:
            return tags
        linear = [tag for tag in tags if tag is not None]
        if name in ELEMENTWISE:
            return [self.joined(np.stack([np.broadcast_to(tag, shape) for tag in linear], axis=-1))]
        if name in PLACES:
            given = [np.full(v.aval.shape, -1) if t is None else t for t, v in zip(tags, eqn.invars, strict=True)]
            moved = PLACES[name](eqn, *given)
            return moved if isinstance(moved, list) else [moved]
        if name == "reduce_sum":
            axes = eqn.params["axes"]
            return [self.joined(np.moveaxis(linear[0], axes, range(-len(axes), 0)).reshape(*shape, -1))]
        if name == "dot_general" and len(linear) == 1:
            return [self._product(eqn, [tag is None for tag in tags].index(False), linear[0])]
        # Of anything else every result depends on every operand.
        label = self.joined(np.concatenate([tag.ravel() for tag in linear]))
        return [np.full(v.aval.shape, label) for v in eqn.outvars]

    def _product(self, eqn: Any, side: int, labels: Any) -> Any:
        contracted, batch = (axes[side] for axes in eqn.params["dimension_numbers"])
        free = [axis for axis in range(labels.ndim) if axis not in (*contracted, *batch)]
        shape = [labels.shape[axis] for axis in (*batch, *free)]
        labels = self.joined(labels.transpose(*batch, *free, *contracted).reshape(*shape, -1))
        others = len(eqn.outvars[0].aval.shape) - len(shape)  # free axes of the other side
        at = len(batch) if side else len(shape)
        return np.broadcast_to(np.expand_dims(labels, tuple(range(at, at + others))), eqn.outvars[0].aval.shape)
