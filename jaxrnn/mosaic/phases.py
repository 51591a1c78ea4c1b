"""Divides a row function in phases: what waits for the carry, and what can be done for all steps before or after.

    ahead    consts             -> given         once
    before   consts, x          -> drive         products and look-ups that see only the input, and what is made of them
    step     given, carry, read -> carry, out    one step after the other; `read` are some of x and drive
    after    consts, seen       -> y             products that no later step waits for, and what is made of them;
                                                 `seen` are x, drive and out

Element-wise work without them stays in the step even where it could be done for all steps: there, its operands and
results would be written to memory and read again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import jax

from jaxrnn.jaxprs import has_products, inline, is_product, part, variables
from jaxrnn.typing import PyTree

__all__ = ["Row", "Unsupported", "trace"]

Leaves = list[Any]
Spec = Any  # with a shape and a dtype


class Unsupported(Exception):
    """No kernel can do what a row function does; the text says what."""


@dataclass(frozen=True, eq=False)
class Row:
    """A row function in phases, each a function of leaves that returns leaves.

    Attributes:
        constants: arrays that the function closes over; in all phases they come before the other constants.
        ahead: `(*consts) -> given`.
        before: `(*consts, *x) -> drive`.
        step: `(*given, *carry, *read) -> (*carry, *out)`.
        after: `(*consts, *x, *drive, *out) -> y`.
        reads: places in `(*x, *drive)` of what a step reads.
        given, carry, read, out: specs.
        results: specs of what the function returns, as trees.
    """

    constants: Leaves
    ahead: Callable[..., Leaves]
    before: Callable[..., Leaves]
    step: Callable[..., Leaves]
    after: Callable[..., Leaves]
    reads: list[int]
    given: list[Spec]
    carry: list[Spec]
    read: list[Spec]
    out: list[Spec]
    results: PyTree


class _Of(IntEnum):
    """What a value is made of."""

    CONSTS = 0
    INPUT = 1
    PRODUCT = 2  # or a look-up, that sees the input and not the carry
    CARRY = 3


# Done again in every step, rather than once: results of the first would take more memory, those of the second copies.
_REPEATED = {_Of.CONSTS: {"broadcast_in_dim", "iota"}, _Of.PRODUCT: {"split"}}


def trace(fun: Callable[..., Any], consts: PyTree, carry: PyTree, xs: PyTree) -> Row:
    """Returns the phases of a function of one row.

    Args:
        fun: `fun(consts, carry, x) -> (carry, y, ())` for one row of a batch.
        consts: specs of what all rows share.
        carry: specs of a row's state.
        xs: specs of a row's input at a step.

    Raises:
        Unsupported: no kernel can do it.
    """
    closed, results = jax.make_jaxpr(fun, return_shape=True)(consts, carry, xs)
    closed = inline(closed)
    if any(isinstance(c, jax.core.Tracer) for c in closed.consts):
        raise Unsupported("a traced value that the row function closes over")
    if closed.effects:
        raise Unsupported(f"the effects {closed.effects}")
    n, m = (len(jax.tree.leaves(tree)) for tree in (consts, carry))
    shared = [*closed.jaxpr.constvars, *closed.jaxpr.invars[:n]]
    states, inputs = closed.jaxpr.invars[n : n + m], closed.jaxpr.invars[n + m :]
    new, ys = closed.jaxpr.outvars[:m], closed.jaxpr.outvars[m:]

    of = dict.fromkeys(shared, _Of.CONSTS) | dict.fromkeys(states, _Of.CARRY) | dict.fromkeys(inputs, _Of.INPUT)
    repeated = _spread(closed, of)
    late = _late(closed, of, new)

    def crosses(v: Any) -> bool:
        """Whether a step reads a value that it does not compute."""
        return of[v] in (_Of.CONSTS, _Of.PRODUCT) and v not in repeated

    def precedes(v: Any) -> bool:
        """Whether what comes after all steps reads a value that it does not compute."""
        return of[v] == _Of.PRODUCT or (of[v] == _Of.CARRY and v not in late)

    seen, after = part(closed, ys, precedes)
    out = [v for v in seen if of[v] == _Of.CARRY]
    reads, step = part(closed, [*new, *out], crosses)
    given = [v for v in reads if of[v] == _Of.CONSTS]
    read = [v for v in reads if of[v] in (_Of.INPUT, _Of.PRODUCT)]
    drive = [v for v in dict.fromkeys([*read, *seen]) if of[v] == _Of.PRODUCT]
    if not (states and read):
        raise Unsupported("a step without state or input")

    def function(made: tuple[list[Any], Callable[..., Leaves]], *groups: list[Any]) -> Callable[..., Leaves]:
        """A part as a function of the values in the groups."""
        reads, values = made
        at = [[v for group in groups for v in group].index(v) for v in reads]
        return lambda *args: values(*(args[i] for i in at))

    return Row(
        constants=closed.consts,
        ahead=function(part(closed, given, lambda v: False), shared),
        before=function(part(closed, drive, lambda v: False), shared, inputs),
        step=function((reads, step), given, states, read),
        after=function((seen, after), shared, inputs, drive, out),
        reads=[[*inputs, *drive].index(v) for v in read],
        given=[v.aval for v in given],
        carry=[v.aval for v in states],
        read=[v.aval for v in read],
        out=[v.aval for v in out],
        results=results,
    )


def _spread(closed: Any, of: dict[Any, _Of]) -> set[Any]:
    """Adds to `of` what computed values are made of; returns those that every step computes again."""
    repeated: set[Any] = set()
    for eqn in closed.jaxpr.eqns:
        made = max((of[v] for v in variables(eqn.invars)), default=_Of.CONSTS)
        if made == _Of.INPUT and _is_wide(eqn):
            made = _Of.PRODUCT
        of |= dict.fromkeys(eqn.outvars, made)
        if eqn.primitive.name in _REPEATED.get(made, ()):
            repeated.update(eqn.outvars)
    return repeated


def _late(closed: Any, of: dict[Any, _Of], new: list[Any]) -> set[Any]:
    """Products that the new carry is not made of, and what is made of them."""
    awaited = set(variables(new))
    for eqn in reversed(closed.jaxpr.eqns):
        if awaited.intersection(eqn.outvars):
            awaited.update(variables(eqn.invars))
    late: set[Any] = set()
    for eqn in closed.jaxpr.eqns:
        free = of[eqn.outvars[0]] == _Of.CARRY and not awaited.intersection(eqn.outvars)
        if free and (_is_wide(eqn) or late.intersection(variables(eqn.invars))):
            late.update(eqn.outvars)
    return late


def _is_wide(eqn: Any) -> bool:
    """Whether an equation is a product or a look-up, better done for all steps at once."""
    return is_product(eqn) or has_products(eqn) or eqn.primitive.name in ("gather", "dynamic_slice")
