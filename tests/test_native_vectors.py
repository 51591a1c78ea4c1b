"""Vectors of native loops: elementary functions by their error in ulp, operations beside NumPy's and XLA's."""

import ctypes

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax

from jaxrnn.native import compile as native
from jaxrnn.native.vectors import FUNCTIONS, Fn, Types, declarations, define

pytestmark = pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle())

MEMORY = {("f", "float32"): np.float32, ("f", "float64"): np.float64, "i": np.int32, "b": np.bool_}


def loop(name, t, kinds, result, body):
    """A function `name(out, *inputs, n)` that applies `body` to vectors, the rest of n masked off."""
    inputs = [f"%in{i}" for i in range(len(kinds))]
    f = Fn(f"define void @{name}(ptr %out, {', '.join(f'ptr {i}' for i in inputs)}, i64 %n) #0", t)
    with f.loop("%n", 0, t.w) as i:
        mask = f.below(f.sub("%n", i))
        vectors = [f.load(f.ptr(p, i, kind), mask, kind) for p, kind in zip(inputs, kinds, strict=True)]
        f.store(body(f, *vectors), f.ptr("%out", i, result), mask, result)
    f.do("ret void")
    return f.text()


class Library:
    """Compiled loops; a call gives NumPy arrays and takes them."""

    def __init__(self, texts, result_dtypes):
        self.engine = native.load(native.emit_object("\n\n".join(texts), native.host()), native.host())
        self.result_dtypes = result_dtypes

    def __call__(self, name, *inputs):
        address = self.engine.get_function_address(name)
        assert address, name
        n = len(inputs[0])
        # What lies behind the results must stay as it is.
        out = np.full(n + 64, 77, self.result_dtypes[name])
        arrays = [np.ascontiguousarray(x) for x in inputs]
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (1 + len(arrays)), ctypes.c_int64)(address)
        call(out.ctypes.data, *[x.ctypes.data for x in arrays], n)
        assert (out[n:] == np.full(64, 77, out.dtype)).all()
        return out[:n]


# Largest error in ulp, float32 and float64. XLA's are of the same size: tanh 4.4 and 6.5, logistic 2.3 and 2.1, expm1 5.2.
ULPS = {
    "erf": (3, 4.5),
    "erfc": (7, 8),
    "exp": (1.1, 2),
    "exp2": (1.1, 2),
    "expm1": (1.5, 4.5),
    "log": (0.9, 1),
    "log1p": (2.5, 2.5),
    "logistic": (2.6, 2.6),
    "tanh": (5, 4.5),
} | dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"), (2.5, 2.5))
assert ULPS.keys() == FUNCTIONS.keys()

EXACT = {
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "exp2": lambda x: mpmath.power(2, x),
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
}


def exact(name, x):
    with mpmath.workprec(120):
        return np.array([float(EXACT.get(name, getattr(mpmath, name, None))(mpmath.mpf(float(v)))) for v in x])
