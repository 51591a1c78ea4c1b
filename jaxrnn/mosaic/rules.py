"""Equations that Mosaic has no code for, in a form that it takes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.jaxprs import bind, evaluate
from jaxrnn.typing import Array

__all__ = ["rewritten"]


def rewritten(fun: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Returns a function of arrays with such equations rewritten."""
    return lambda *args: evaluate(jax.make_jaxpr(fun)(*args), args, _rule)


def _rule(eqn: Any, values: list[Any]) -> list[Any]:
    name = eqn.primitive.name
    if name in _MOVES and values[0].dtype == jnp.bool_:
        return [eqn.primitive.bind(values[0].astype(jnp.int32), **eqn.params) != 0]
    rule = _RULES.get(name)
    return [rule(eqn, *values)] if rule else bind(eqn, values)


_MOVES = {"broadcast_in_dim", "expand_dims", "reshape", "squeeze"}  # of booleans, which have no shape in memory


def _dot_general(eqn: Any, a: Array, b: Array) -> Array:
    """The units add up in float32 and return float32."""
    out = eqn.outvars[0].aval.dtype
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


def _sign(eqn: Any, x: Array) -> Array:
    """Mosaic asks the device for its kind, and there may be none; NaN and both zeros are their own signs."""
    one = jnp.ones_like(x)
    return jnp.where(x > 0, one, jnp.where(x < 0, -one, x))


_RULES: dict[str, Callable[..., Array]] = {
    "cumsum": _cumsum,
    "dot_general": _dot_general,
    "expm1": _expm1,
    "sign": _sign,
}
