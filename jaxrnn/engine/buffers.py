"""Finds buffers: arrays of a state which a step reads and writes by index alone.

`recurrence` keeps the state after every step for its derivatives, and computes a tangent of all of it. Of a buffer of N
places that is N times what a step touches. The loop's own derivative by JAX keeps what was read; with lengths or resets
also a boolean for each place, of the selection between old and new.
"""

from typing import Any

import jax

from jaxrnn.engine.recurrence import is_real
from jaxrnn.jaxprs import CALLS, IDENTITIES, RESHAPES, interpret
from jaxrnn.typing import PyTree

__all__ = ["has_buffer"]

_WRITES = frozenset({"dynamic_update_slice", "scatter", "scatter-add"})
_READS = frozenset({"dynamic_slice", "gather"})


def has_buffer(step: Any, params: PyTree, state: PyTree, data: PyTree) -> bool:
    """Returns whether real numbers in the state are a buffer of `step(params, state, data) -> (state, output)`."""
    leaves = jax.tree.leaves(state)
    if _size(state) <= _size(data):
        return False  # not worth looking at
    closed = jax.make_jaxpr(step)(params, state, data)
    before = len(jax.tree.leaves(params))
    after = len(closed.jaxpr.invars) - before - len(leaves)
    written: set[int] = set()
    whole: set[int | None] = set()

    def rule(eqn: Any, _: Any, tags: list[int | None]) -> tuple[list[None], list[int | None]]:
        """Tags what holds the places of an array of the state with the number of the array."""
        name, (first, *rest), count = eqn.primitive.name, tags or [None], len(eqn.outvars)
        if name in IDENTITIES:
            return [None] * count, tags
        tag = None
        if name in _WRITES | _READS:
            whole.update(rest)
            if name in _WRITES and first is not None:
                tag = first
                written.add(first)
        elif name in RESHAPES and eqn.invars[0].aval.size == eqn.outvars[0].aval.size:
            tag = first
        elif name == "select_n" and first is None and len({*rest} - {None}) == 1:
            tag = next(t for t in rest if t is not None)
        else:
            whole.update(tags)
        return [None] * count, [tag] * count

    numbers = [i if is_real(leaf) else None for i, leaf in enumerate(leaves)]
    given = [*[None] * before, *numbers, *[None] * after]
    _, tags = interpret(closed, [None] * len(given), given, rule, CALLS)
    whole.update(tags[len(leaves) :])
    return any(tags[i] == i and i not in whole for i in written)


def _size(tree: PyTree) -> int:
    return sum(a.size for a in jax.tree.leaves(tree))
