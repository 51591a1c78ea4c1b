"""The primitives that act place by place, as instructions on vectors."""

from collections.abc import Callable

from jaxrnn.native.elementary import FUNCTIONS
from jaxrnn.native.vectors import Fn, Kind

__all__ = ["POINTWISE"]

_Rule = Callable[..., str]  # (function, *vectors) -> vector


def _sign(f: Fn, x: str) -> str:
    """-1, 1, or what is neither less nor greater than 0: zeros and NaN as they are."""
    return f.select(f.cmp("one", x, f.t.splat(0.0)), f.intrinsic("copysign", f.t.splat(1.0), x), x)


def _int_abs(f: Fn, x: str) -> str:
    return f.maximum(x, f.integer("sub", f.t.splat(0, "i"), x), "i")


def _int_sign(f: Fn, x: str) -> str:
    return f.minimum(f.maximum(x, f.t.splat(-1, "i"), "i"), f.t.splat(1, "i"), "i")


def _call(name: str) -> _Rule:
    return lambda f, x: f.val(f"call {f.t.v} @v{name}({f.t.v} {x})")


def _float(op: str) -> _Rule:
    return lambda f, a, b: f.f(op, a, b)


def _int(op: str) -> _Rule:
    return lambda f, a, b: f.integer(op, a, b)


def _bool(op: str) -> _Rule:
    return lambda f, a, b: f.val(f"{op} {f.t.vb} {a}, {b}")


def _intrinsic(name: str) -> _Rule:
    return lambda f, x: f.intrinsic(name, x)


def _compare(how: str, kind: Kind) -> _Rule:
    return lambda f, a, b: f.cmp(how, a, b, kind)


def _select(kind: Kind) -> _Rule:
    return lambda f, c, a, b: f.select(c, a, b, kind)


def _convert(kind: Kind, to: Kind) -> _Rule:
    return lambda f, x: f.convert(x, kind, to)


POINTWISE: dict[tuple[str, Kind], _Rule] = {
    ("add", "f"): _float("fadd"),
    ("sub", "f"): _float("fsub"),
    ("mul", "f"): _float("fmul"),
    ("div", "f"): _float("fdiv"),
    ("rem", "f"): _float("frem"),
    ("max", "f"): lambda f, a, b: f.maximum(a, b),
    ("min", "f"): lambda f, a, b: f.minimum(a, b),
    ("pow", "f"): lambda f, a, b: f.intrinsic("pow", a, b),
    ("atan2", "f"): lambda f, a, b: f.intrinsic("atan2", a, b),
    ("neg", "f"): lambda f, x: f.neg(x),
    ("abs", "f"): _intrinsic("fabs"),
    ("sign", "f"): _sign,
    ("floor", "f"): _intrinsic("floor"),
    ("ceil", "f"): _intrinsic("ceil"),
    ("round", "f"): _intrinsic("round"),
    ("round_even", "f"): _intrinsic("roundeven"),
    ("sqrt", "f"): _intrinsic("sqrt"),
    ("rsqrt", "f"): lambda f, x: f.f("fdiv", f.t.splat(1.0), f.intrinsic("sqrt", x)),
    ("is_finite", "f"): lambda f, x: f.cmp("olt", f.intrinsic("fabs", x), f.t.splat(float("inf"))),
    ("add", "i"): _int("add"),
    ("sub", "i"): _int("sub"),
    ("mul", "i"): _int("mul"),
    ("div", "i"): lambda f, a, b: f.integer_div(a, b),
    ("rem", "i"): lambda f, a, b: f.integer_rem(a, b),
    ("max", "i"): lambda f, a, b: f.maximum(a, b, "i"),
    ("min", "i"): lambda f, a, b: f.minimum(a, b, "i"),
    ("neg", "i"): lambda f, x: f.integer("sub", f.t.splat(0, "i"), x),
    ("abs", "i"): _int_abs,
    ("sign", "i"): _int_sign,
    ("not", "i"): lambda f, x: f.integer("xor", x, f.t.splat(-1, "i")),
    ("not", "b"): lambda f, x: f.val(f"xor {f.t.vb} {x}, {f.t.splat(1, 'b')}"),
    ("max", "b"): _bool("or"),
    ("min", "b"): _bool("and"),
}
POINTWISE |= {(op, "i"): _int(op) for op in ("and", "or", "xor")} | {
    (op, "b"): _bool(op) for op in ("and", "or", "xor")
}
for _op in ("lt", "le", "gt", "ge"):
    POINTWISE |= {
        (_op, "f"): _compare("o" + _op, "f"),
        (_op, "i"): _compare("s" + _op, "i"),
        (_op, "b"): _compare("u" + _op, "b"),
    }
POINTWISE |= {("eq", "f"): _compare("oeq", "f"), ("ne", "f"): _compare("une", "f")}
POINTWISE |= {(op, kind): _compare(op, kind) for op in ("eq", "ne") for kind in ("i", "b")}
POINTWISE |= {("select", kind): _select(kind) for kind in ("f", "i", "b")}
_CONVERSIONS: tuple[tuple[str, Kind], ...] = ("to_float", "f"), ("to_int", "i"), ("to_bool", "b")
POINTWISE |= {(name, kind): _convert(kind, to) for name, to in _CONVERSIONS for kind in ("f", "i", "b") if kind != to}
POINTWISE |= {(name, "f"): _call(name) for name in FUNCTIONS}
