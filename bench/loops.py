"""What the loops of a program hold: their equations and products, read in its jaxpr."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

__all__ = ["carried", "equations", "innermost_loops", "products"]

PRODUCTS = ("dot_general", "conv_general_dilated")


def inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs among the parameters of an equation."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else [value]:
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """All equations, those inside of others too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in inner(eqn.params):
            yield from equations(sub)


def innermost_loops(fn: Callable, *args: Any) -> list[tuple[Any, list[Any]]]:
    """The loops that hold no other loop and their equations, in the order of the program."""
    loops = [e for e in equations(jax.make_jaxpr(fn)(*args).jaxpr) if e.primitive.name in ("scan", "while")]
    assert all(e.primitive.name == "scan" for e in loops)
    bodies = [(e, list(equations(e.params["jaxpr"].jaxpr))) for e in loops]
    return [(e, body) for e, body in bodies if not any(b.primitive.name == "scan" for b in body)]


def products(fn: Callable, *args: Any) -> list[int]:
    """Matrix products and convolutions in each innermost loop."""
    return [sum(b.primitive.name in PRODUCTS for b in body) for _, body in innermost_loops(fn, *args)]


def carried(loop: Any) -> list[Any]:
    """The variables that a loop carries from round to round, those from outside of it.

    JAX names their number differently from version to version. What a loop reads or writes a part of in every round has
    an axis more outside of its body; the constants stand before what is carried.
    """
    body = loop.params["jaxpr"].jaxpr

    def alike(outside: list[Any], inside: list[Any]) -> int:
        return sum(o.aval.shape == i.aval.shape for o, i in zip(outside, inside, strict=True))

    whole, n = alike(loop.invars, body.invars), alike(loop.outvars, body.outvars)
    return loop.invars[whole - n : whole]
