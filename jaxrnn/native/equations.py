"""Primitives that are more than one instruction, as nodes of a graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import lax

from jaxrnn.native.graph import Node, Unsupported
from jaxrnn.native.vectors import Kind

if TYPE_CHECKING:
    from jaxrnn.native.rows import Tracer

__all__ = ["EQUATIONS", "MOST_TERMS", "NAMES", "is_vector"]

NAMES = {"f": "floats", "i": "int32", "b": "bools"}
MOST_TERMS = 32  # that are added up one by one

_Rule = Callable[["Tracer", Any, list[Node], int, Kind], Node]  # (tracer, equation, arguments, size, kind) -> result


def is_vector(aval: Any) -> bool:
    """Returns whether no more than one axis is longer than one."""
    return bool(math.prod(aval.shape) == max(aval.shape, default=1))


def _reduce(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """All places at once, or a few for each place of the result one after the other."""
    (a,) = args
    name, shape = _REDUCTIONS[eqn.primitive.name], eqn.invars[0].aval.shape
    if a.size == size:
        return a
    if size or kind != "f" or name == "mul":
        axes = eqn.params["axes"]
        places = np.moveaxis(np.arange(a.size).reshape(shape), axes, range(len(axes))).reshape(-1, max(size, 1))
        if len(places) > MOST_TERMS:
            raise Unsupported(f"primitive {eqn.primitive.name!r} of {NAMES[kind]} over {len(places)} places")
        first, *rest = (t.arrange([a], table) for table in places)
        return functools.reduce(lambda x, y: t.pointwise(name, [x, y], size, kind), rest, first)
    return t.node("reduce_" + name.replace("add", "sum"), (a,), None, 0, kind)


def _cumsum(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """As a product with a triangle of ones; a number that is not finite reaches all places."""
    if kind != "f" or not is_vector(eqn.invars[0].aval):
        raise Unsupported(f"primitive 'cumsum' of {NAMES[kind]} of the shape {eqn.invars[0].aval.shape}")
    if not size:
        return args[0]
    ones = np.ones((size, size), eqn.outvars[0].aval.dtype)
    triangle = np.tril(ones) if eqn.params["reverse"] else np.triu(ones)
    return t.node("dot", (t.stored(args[0]),), t.matrix(triangle, triangle, transposed=False), size, kind)


def _integer_pow(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """By squaring, as XLA does."""
    (base,), y = args, eqn.params["y"]
    result, exponent = t.literal(1, size, kind), abs(y)
    while exponent:
        result = t.pointwise("mul", [result, base], size, kind) if exponent % 2 else result
        exponent //= 2
        base = t.pointwise("mul", [base, base], size, kind) if exponent else base
    return result if y >= 0 else t.pointwise("div", [t.literal(1, size, kind), result], size, kind)


def _polynomial(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """By Horner's rule; the coefficient of the highest power is the last."""
    x, *coefficients = (t.spread(a, v.aval, eqn.outvars[0].aval) for a, v in zip(args, eqn.invars, strict=True))
    result = coefficients.pop()
    while coefficients:
        result = t.pointwise("mul", [result, x], size, kind)
        result = t.pointwise("add", [result, coefficients.pop()], size, kind)
    return result


def _clamp(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    low, x, high = (t.spread(a, v.aval, eqn.outvars[0].aval) for a, v in zip(args, eqn.invars, strict=True))
    return t.pointwise("min", [t.pointwise("max", [low, x], size, kind), high], size, kind)


def _select(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    if len(args) != 3 or args[0].kind != "b":
        raise Unsupported("primitive 'select_n' among more than two")
    which, off, on = (t.spread(a, v.aval, eqn.outvars[0].aval) for a, v in zip(args, eqn.invars, strict=True))
    return t.node("select", (which, on, off), None, size, kind)


def _atanh(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """(log(1 + x) - log(1 - x)) / 2, exact near 0 too."""
    minus = t.pointwise("neg", args, size, kind)
    logs = [t.pointwise("log1p", [x], size, kind) for x in (args[0], minus)]
    return t.pointwise("mul", [t.pointwise("sub", logs, size, kind), t.literal(0.5, size, kind)], size, kind)


def _log2(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    return t.pointwise(
        "mul", [t.pointwise("log", args, size, kind), t.literal(1 / math.log(2), size, kind)], size, kind
    )


def _round(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    even = eqn.params["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN
    return t.pointwise("round_even" if even else "round", args, size, kind)


def _convert(t: Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    return args[0] if args[0].kind == kind else t.pointwise(_CONVERSIONS[kind], args, size, kind)


_CONVERSIONS: dict[Kind, str] = {"f": "to_float", "i": "to_int", "b": "to_bool"}

EQUATIONS: dict[str, _Rule] = {
    "atanh": _atanh,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "cumsum": _cumsum,
    "integer_pow": _integer_pow,
    "log2": _log2,
    "one_minus_square": lambda t, eqn, args, size, kind: t.pointwise(
        "sub", [t.literal(1, size, kind), t.pointwise("mul", [args[0]] * 2, size, kind)], size, kind
    ),
    "polynomial": _polynomial,
    "round": _round,
    "select_n": _select,
    "square": lambda t, eqn, args, size, kind: t.pointwise("mul", [args[0]] * 2, size, kind),
}
_REDUCTIONS = {"reduce_sum": "add", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "mul"}
_REDUCTIONS |= {"reduce_or": "or", "reduce_and": "and"}
EQUATIONS |= dict.fromkeys(_REDUCTIONS, _reduce)
