"""Equations that Mosaic has no code for, in a form that it takes."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.jaxprs import IDENTITIES, bind, evaluate, operation
from jaxrnn.typing import Array

__all__ = ["rewritten"]


def rewritten(fun: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Returns a function of arrays with such equations rewritten."""
    return lambda *args: evaluate(jax.make_jaxpr(fun)(*args), args, _rule)


def _rule(eqn: Any, values: list[Any]) -> list[Any]:
    name = operation(eqn)
    if name in IDENTITIES:
        return values
    if name in _MOVES and values[0].dtype == jnp.bool_:
        return [eqn.primitive.bind(values[0].astype(jnp.int32), **eqn.params) != 0]
    rule = _RULES.get(name)
    return [rule(eqn, *values)] if rule else bind(eqn, values)


_MOVES = {"broadcast_in_dim", "expand_dims", "reshape", "squeeze"}  # of booleans, which have no shape in memory


def _dot_general(eqn: Any, a: Array, b: Array) -> Array:
    """The units add up in float32 and return float32. Where nothing is added up there is no unit."""
    out = eqn.outvars[0].aval.dtype
    (added, _), batch = eqn.params["dimension_numbers"]
    if not added:
        a, b = (jnp.moveaxis(x.astype(out), axes, range(len(axes))) for x, axes in zip((a, b), batch, strict=True))
        inner = len(batch[0])
        a = a.reshape(*a.shape, *[1] * (b.ndim - inner))
        return a * b.reshape(*b.shape[:inner], *[1] * (a.ndim - b.ndim), *b.shape[inner:])
    kept = jnp.float32 if out == jnp.bfloat16 else out
    return lax.dot_general(a, b, **eqn.params | {"preferred_element_type": jnp.dtype(kept)}).astype(out)


def _expm1(eqn: Any, x: Array) -> Array:
    """exp(x) - 1 = 2t / (1 - t) with t = tanh(x / 2), which is exact near 0."""
    t = jnp.tanh(jnp.minimum(x, 1) / 2)
    return jnp.where(x < 1, 2 * t / (1 - t), jnp.exp(x) - 1)


def _cumsum(eqn: Any, x: Array) -> Array:
    """A product with a triangle of ones."""
    axis, n = eqn.params["axis"], x.shape[eqn.params["axis"]]
    before, after = (lax.broadcasted_iota(jnp.int32, (n, n), i) for i in (0, 1))
    ones = (before >= after if eqn.params["reverse"] else before <= after).astype(x.dtype)
    sums = jnp.matmul(jnp.moveaxis(x, axis, -1), ones, precision="highest")
    return jnp.moveaxis(sums, -1, axis)


def _pad(eqn: Any, x: Array, fill: Array) -> Array:
    """What is cut off is a slice; lengths are Python's integers."""
    config = [(int(low), int(high), int(inner)) for low, high, inner in eqn.params["padding_config"]]
    if not any(inner for *_, inner in config):
        ends = zip(x.shape, config, strict=True)
        x = lax.slice(x, *zip(*((max(-low, 0), n - max(-high, 0)) for n, (low, high, _) in ends), strict=True))
        config = [(max(low, 0), max(high, 0), 0) for low, high, _ in config]
    return lax.pad(x, fill, config)


def _iota(eqn: Any) -> Array:
    """Mosaic has integers of two axes and more."""
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    counted = lax.broadcasted_iota(jnp.int32, (1, *shape), 1 + axis)
    return counted.reshape(shape).astype(eqn.params["dtype"])


def _asin(eqn: Any, x: Array) -> Array:
    return lax.atan2(x, jnp.sqrt((1 - x) * (1 + x)))


def _acos(eqn: Any, x: Array) -> Array:
    return lax.atan2(jnp.sqrt((1 - x) * (1 + x)), x)


def _sinh(eqn: Any, x: Array) -> Array:
    """Of exp(x) - 1 near 0; half of exp(x) elsewhere, before it overflows."""
    e, half = _expm1(eqn, jnp.clip(x, -1, 1)), math.log(0.5)
    return jnp.where(jnp.abs(x) < 1, (e + e / (e + 1)) / 2, jnp.exp(x + half) - jnp.exp(half - x))


def _cosh(eqn: Any, x: Array) -> Array:
    half = math.log(0.5)
    return jnp.exp(x + half) + jnp.exp(half - x)


def _erfc(eqn: Any, x: Array) -> Array:
    """exp(-x²) / |x| times a polynomial of 1 / x² beyond 1, by Cephes (Moshier 1989), as XLA has it in float32."""
    if x.dtype == jnp.float64:
        return lax.erfc(x)
    a = jnp.maximum(jnp.abs(x.astype(jnp.float32)), 0.5)
    y = 1 / (a * a)
    great = jnp.exp(-a * a) / a * jnp.where(a < 2, _polynomial(_ERFC_TO_2, y), _polynomial(_ERFC_FROM_2, y))
    great = jnp.where(x < 0, 2 - great, great)
    return jnp.where(jnp.abs(x) > 1, great, 1 - lax.erf(x)).astype(x.dtype)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    return functools.reduce(lambda result, c: result * x + c, coefficients[1:], jnp.full_like(x, coefficients[0]))


_ERFC_TO_2 = (
    2.326819970068386e-2,
    -1.387039388740657e-1,
    3.687424674597105e-1,
    -5.824733027278666e-1,
    6.210004621745983e-1,
    -4.944515323274145e-1,
    3.404879937665872e-1,
    -2.741127028184656e-1,
    5.638259427386472e-1,
)
_ERFC_FROM_2 = (
    -1.047766399936249e1,
    1.297719955372516e1,
    -7.495518717768503e0,
    2.921019019210786e0,
    -1.015265279202700e0,
    4.218463358204948e-1,
    -2.820767439740514e-1,
    5.641895067754075e-1,
)


def _sign(eqn: Any, x: Array) -> Array:
    """Mosaic asks the device for its kind, and there may be none; NaN and both zeros are their own signs."""
    one = jnp.ones_like(x)
    return jnp.where(x > 0, one, jnp.where(x < 0, -one, x))


_RULES: dict[str, Callable[..., Array]] = {
    "acos": _acos,
    "asin": _asin,
    "atan": lambda eqn, x: lax.atan2(x, jnp.ones_like(x)),
    "atanh": lambda eqn, x: (jnp.log1p(x) - jnp.log1p(-x)) / 2,
    "cosh": _cosh,
    "cumsum": _cumsum,
    "dot_general": _dot_general,
    "erfc": _erfc,
    "exp_neg_sq": lambda eqn, x: jnp.exp(-x * x),
    "expm1": _expm1,
    "iota": _iota,
    "pad": _pad,
    "sign": _sign,
    "sinh": _sinh,
}
