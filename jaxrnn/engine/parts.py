"""Complex numbers as their real and imaginary parts: kernels know real numbers alone."""

import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.jaxprs import IDENTITIES, any_equation, bind, interpret
from jaxrnn.places import PLACES
from jaxrnn.typing import Array, PyTree

__all__ = ["NoRule", "apart", "in_real_numbers", "is_complex", "together"]


class NoRule(Exception):
    """An operation on complex numbers is unknown here."""


class Parts(NamedTuple):
    """A complex number as two real ones; `im` None: 0."""

    re: Any
    im: Any


def is_complex(leaf: Any) -> bool:
    """Returns whether a leaf holds complex numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def apart(tree: PyTree) -> PyTree:
    """Returns the tree with `Parts` in place of its complex leaves."""
    return jax.tree.map(lambda a: Parts(jnp.real(a), jnp.imag(a)) if is_complex(a) else a, tree)


def together(tree: PyTree) -> PyTree:
    """Undoes `apart`."""
    return jax.tree.map(lambda a: lax.complex(*a) if _is_parts(a) else a, tree, is_leaf=_is_parts)


def in_real_numbers(closed: Any, fixed: int) -> Any:
    """Returns a program of real arguments and results without complex numbers between them.

    What sees the first `fixed` arguments alone stays as it is.

    Raises:
        NoRule: for an equation.
    """
    if not any_equation(closed, _has_complex):
        return closed
    avals = closed.in_avals
    tags = [None] * fixed + ["step"] * (len(avals) - fixed)
    return jax.make_jaxpr(lambda *args: interpret(closed, args, tags, _rule)[0])(*avals)


def _is_parts(value: Any) -> bool:
    return isinstance(value, Parts)


def _has_complex(eqn: Any) -> bool:
    return any(is_complex(v.aval) for v in (*eqn.invars, *eqn.outvars))


def _full(z: Parts) -> Parts:
    return z if z.im is not None else Parts(z.re, jnp.zeros_like(z.re))


def _parts(value: Any) -> Parts:
    """The parts of a value that may be known, or real."""
    if _is_parts(value):
        return value
    return Parts(jnp.real(value), jnp.imag(value)) if is_complex(jnp.asarray(value)) else Parts(value, None)


def _rule(eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[Any]]:
    """An equation in real numbers, if it reads or gives complex ones of a step."""
    tag = "step" if "step" in tags else None
    if tag is None or not _has_complex(eqn):
        return bind(eqn, values), [tag] * len(eqn.outvars)
    name = eqn.primitive.name
    if name in IDENTITIES and name != "stop_gradient":  # which a derivative of the program has to see
        return values, tags
    if name not in _RULES:
        raise NoRule(f"complex numbers in {name}")
    results = _RULES[name](eqn, *values)
    results = results if eqn.primitive.multiple_results else [results]
    return results, [tag] * len(results)


def _each(eqn: Any, *values: Any) -> Any:
    """An operation that does the same to both parts."""
    parts = [_parts(value) for value in values]
    re: Any = _apply(eqn, *(p.re for p in parts))
    im: Any = None
    if any(p.im is not None for p in parts):
        im = _apply(eqn, *(_full(p).im for p in parts))
    if eqn.primitive.multiple_results:
        return [Parts(*pair) for pair in zip(re, im or [None] * len(re), strict=True)]
    return Parts(re, im)


def _apply(eqn: Any, *values: Any) -> Array:
    return eqn.primitive.bind(*values, **eqn.params)


def _bilinear(product: Callable[[Any, Any], Any], a: Parts, b: Parts) -> Parts:
    """A product of complex numbers, from one of real ones."""

    def total(*terms: tuple[Any, Any]) -> Any:
        found = [product(x, y) for x, y in terms if x is not None and y is not None]
        return reduce(operator.add, found) if found else None

    minus = None if a.im is None else -a.im
    return Parts(total((a.re, b.re), (minus, b.im)), total((a.re, b.im), (a.im, b.re)))


def _product(eqn: Any, a: Any, b: Any) -> Parts:
    params = dict(eqn.params)
    if params.get("preferred_element_type") is not None:
        params["preferred_element_type"] = jnp.finfo(params["preferred_element_type"]).dtype
    return _bilinear(partial(eqn.primitive.bind, **params), _parts(a), _parts(b))


def _quotient(_: Any, a: Any, b: Any) -> Parts:
    a, b = _parts(a), _parts(b)
    if b.im is None:
        return Parts(a.re / b.re, None if a.im is None else a.im / b.re)
    size = jnp.maximum(jnp.abs(b.re), jnp.abs(b.im))  # so that no square overflows
    re, im = b.re / size, b.im / size
    square = size * (re * re + im * im)
    z = _bilinear(operator.mul, a, Parts(re, -im))
    return Parts(z.re / square, z.im / square)


def _select(eqn: Any, which: Any, *cases: Any) -> Parts:
    parts = [_full(_parts(case)) for case in cases]
    return Parts(_apply(eqn, which, *(p.re for p in parts)), _apply(eqn, which, *(p.im for p in parts)))


def _convert(eqn: Any, value: Any) -> Any:
    z, dtype = _parts(value), eqn.params["new_dtype"]
    part = jnp.finfo(dtype).dtype
    re = z.re.astype(part)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return re
    return Parts(re, None if z.im is None else z.im.astype(part))


def _exp(_: Any, value: Any) -> Parts:
    z = _full(_parts(value))
    size = jnp.exp(z.re)
    return Parts(size * jnp.cos(z.im), size * jnp.sin(z.im))


def _imag(_: Any, value: Any) -> Any:
    return _full(_parts(value)).im


def _conj(_: Any, value: Any) -> Parts:
    z = _parts(value)
    return Parts(z.re, None if z.im is None else -z.im)


_SAME = (*PLACES, "add", "add_any", "sub", "neg", "stop_gradient", "reduce_sum", "cumsum")
_RULES: dict[str, Callable[..., Any]] = dict.fromkeys(_SAME, _each) | {
    "complex": lambda _, re, im: Parts(re, im),
    "real": lambda _, value: _parts(value).re,
    "imag": _imag,
    "conj": _conj,
    "mul": lambda _, a, b: _bilinear(operator.mul, _parts(a), _parts(b)),
    "div": _quotient,
    "exp": _exp,
    "dot_general": _product,
    "select_n": _select,
    "convert_element_type": _convert,
}
