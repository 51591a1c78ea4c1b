"""Vectors of native loops: elementary functions by their error in ulp, operations beside NumPy's and XLA's."""

import ctypes
import functools
import shutil
import subprocess

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special
from jax import lax

from jaxrnn.native import compile as native
from jaxrnn.native.elementary import FUNCTIONS, define
from jaxrnn.native.vectors import Fn, Types, declarations

pytestmark = pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle())


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
        assert (out[n:] == out.dtype.type(77)).all()
        return out[:n]


# Largest error in ulp, float32 and float64. XLA's is of the same size: tanh 4.4 and 6.5, logistic 2.3 and 2.1.
ULPS = {
    "erf": (3, 4.5),
    "erfc": (7, 8),
    "exp": (1.1, 2),
    "exp2": (1.1, 2),
    "exp_neg_sq": (2.5, 2.5),
    "expm1": (1.5, 4.5),
    "log": (0.9, 1),
    "log1p": (2.5, 2.5),
    "logistic": (2.6, 2.6),
    "tanh": (5, 4.5),
} | dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"), (2.5, 2.5))
assert ULPS.keys() == FUNCTIONS.keys()

FLOAT64 = {name: getattr(np, name) for name in ULPS if hasattr(np, name)} | {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "exp_neg_sq": lambda x: np.exp(-x * x),
    "logistic": scipy.special.expit,
}
EXACT = {name: getattr(mpmath, name) for name in ULPS if hasattr(mpmath, name)} | {
    "exp2": lambda x: mpmath.power(2, x),
    "exp_neg_sq": lambda x: mpmath.exp(-x * x),
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
}
DOMAINS = {"log": (0, np.inf), "log1p": (-1, np.inf), "asin": (-1, 1), "acos": (-1, 1), "erfc": (-1e9, 1e9)}


class Emulated:
    """Compiled loops on a 64-bit ARM that isn't there; a call gives NumPy arrays and takes them."""

    def __init__(self, texts, result_dtypes, folder):
        import llvmlite.binding as llvm

        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        arm = native.Machine("aarch64-linux-gnu", "neoverse-n1", "", vector_bits=128, registers=32)
        calls = "".join(
            f'if (!strcmp(argv[1], "{name}")) {name}(out, in, n / {np.dtype(dtype).itemsize});'
            for name, dtype in result_dtypes.items()
        )
        prototypes = "".join(f"void {name}(void *, void *, long);\n" for name in result_dtypes)
        (folder / "main.c").write_text(f"""
            #include <stdio.h>
            #include <string.h>
            {prototypes}
            static char in[1 << 20], out[1 << 20];
            int main(int argc, char **argv) {{
                long n = fread(in, 1, sizeof in, stdin);
                {calls}
                fwrite(out, 1, n, stdout);
            }}
        """)
        (folder / "loops.o").write_bytes(native.emit_object("\n\n".join(texts), arm))
        build = ["aarch64-linux-gnu-gcc", "-static", "main.c", "loops.o", "-lm", "-o", "main"]
        subprocess.run(build, cwd=folder, check=True)
        self.program, self.result_dtypes = str(folder / "main"), result_dtypes

    def __call__(self, name, x):
        run = ["qemu-aarch64", self.program, name]
        printed = subprocess.run(run, input=x.tobytes(), capture_output=True, check=True).stdout
        return np.frombuffer(printed, self.result_dtypes[name])


def emulator():
    return shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-gcc")


def all_functions(lanes):
    """A module of all elementary functions, of both dtypes."""
    texts = []
    for dtype in ("float32", "float64"):
        t = Types(dtype, lanes)
        texts += [line for line in declarations(t).splitlines() if line not in texts]
        for name in FUNCTIONS:
            texts.append(define(name, t).replace(f"@v{name}(", f"@v{name}_{dtype}("))
            call = f"call {t.v} @v{name}_{dtype}({t.v} %s)"
            texts.append(loop(f"{name}_{dtype}", t, "f", "f", lambda f, x, call=call: f.val(call.replace("%s", x))))
    return texts


@pytest.fixture(scope="module", params=["here", "ARM"])
def functions(request, tmp_path_factory):
    """Here vectors of eight: in float64 two registers of AVX2, one of AVX-512."""
    results = {f"{name}_{dtype}": dtype for name in FUNCTIONS for dtype in ("float32", "float64")}
    if request.param == "here":
        return Library(all_functions(8), results)
    if not emulator():
        pytest.skip("no emulator of ARM or no compiler for it")
    return Emulated(all_functions(4), results, tmp_path_factory.mktemp("arm"))


def samples(name, dtype, n):
    """All orders of magnitude from denormal to the greatest, and more where the functions bend; sorted."""
    info = np.finfo(dtype)
    exponents = np.linspace(np.log2(float(info.smallest_subnormal)), info.maxexp, n, endpoint=False)
    great = info.maxexp * 1.1
    parts = [2**exponents, -(2**exponents), *(np.linspace(-edge, edge, n) for edge in (1, 20, 0.7 * great, great))]
    x = np.unique(np.concatenate(parts).astype(dtype))
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    return x[(x >= low) & (x <= high)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_in_float32(functions, name):
    x = samples(name, np.float32, 20_000)
    y = functions(f"{name}_float32", x).astype(np.float64)
    with np.errstate(all="ignore"):
        want = FLOAT64[name](x.astype(np.float64))
        check_ulps(y, want, (y - want), np.float32, ULPS[name][0])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_in_float64(functions, name):
    x = samples(name, np.float64, 120)
    y = functions(f"{name}_float64", x)
    with mpmath.workprec(200), np.errstate(all="ignore"):
        values = exact_values(name, tuple(x.tolist()))
        want = np.array([float(v) for v in values])
        error = [float(mpmath.mpf(float(a)) - v) if np.isfinite(a) else np.inf for a, v in zip(y, values, strict=True)]
        check_ulps(y, want, np.array(error), np.float64, ULPS[name][1])


@functools.cache
def exact_values(name, x):
    return [EXACT[name](mpmath.mpf(v)) for v in x]


def check_ulps(y, want, error, dtype, most):
    info = np.finfo(dtype)
    infinite = np.abs(want) > float(info.max) * (1 - 2 * float(info.eps))
    np.testing.assert_array_equal(y[infinite & ~np.isfinite(want.astype(dtype))], want.astype(dtype)[infinite])
    ulps = np.abs(error) / np.maximum(np.spacing(np.abs(want.astype(dtype))), info.smallest_subnormal)
    # Results below the normal numbers may be zero.
    flushed = (np.abs(want) < info.smallest_normal) & (y == 0)
    ulps = ulps[~infinite & ~flushed]
    assert ulps.max() < most
    assert ulps.max() > 0.4, "an error below half an ulp everywhere: is this a comparison with itself?"
    assert ulps.mean() < 0.4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(functions, dtype):
    """Zeros with their signs, denormals, infinities and NaN, beside NumPy's."""
    tiny = np.finfo(dtype).smallest_subnormal
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -tiny, 1.0, -1.0, 2.0, -2.0], dtype)
    for name in FUNCTIONS:
        y = functions(f"{name}_{np.dtype(dtype).name}", special)
        with np.errstate(all="ignore"):
            want = FLOAT64[name](special.astype(np.float64)).astype(dtype)
        np.testing.assert_allclose(y, want, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(np.signbit(y), np.signbit(want) & ~np.isnan(want) | np.signbit(y) & np.isnan(y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["exp", "exp2", "expm1"])
def test_edges_of_the_exponentials(functions, name, dtype):
    """The last finite result and the first infinite one, the first normal result and what is flushed."""
    info = np.finfo(dtype)
    log = (lambda v: np.log2(v)) if name == "exp2" else np.log
    for edge in (log(np.longdouble(info.max)), log(np.longdouble(info.smallest_normal))):
        x = dtype(edge) + np.arange(-40, 41).astype(dtype) * np.spacing(dtype(edge))
        y = functions(f"{name}_{np.dtype(dtype).name}", x)
        with np.errstate(all="ignore"):
            want = FLOAT64[name](x.astype(np.longdouble))
        np.testing.assert_array_equal(np.isinf(y), want > np.longdouble(info.max) * (1 + np.longdouble(info.eps) / 4))
        normal = np.isfinite(y) & (want >= np.longdouble(info.smallest_normal))
        np.testing.assert_allclose(y[normal], want[normal].astype(dtype), rtol=4 * info.eps)
        if name != "expm1":
            assert (y[want < np.longdouble(info.smallest_normal) * (1 - info.eps)] <= info.smallest_normal).all()


KINDS = {"f": np.float32, "i": np.int32, "b": np.bool_}
T8 = Types("float32", 8)
# name: (kinds of the inputs, kind of the result, code, the same in NumPy)
OPERATIONS = {
    "add": ("ii", "i", lambda f, a, b: f.integer("add", a, b), np.add),
    "sub": ("ii", "i", lambda f, a, b: f.integer("sub", a, b), np.subtract),
    "mul": ("ii", "i", lambda f, a, b: f.integer("mul", a, b), np.multiply),
    "and": ("ii", "i", lambda f, a, b: f.integer("and", a, b), np.bitwise_and),
    "max": ("ii", "i", lambda f, a, b: f.maximum(a, b, "i"), np.maximum),
    "min": ("ii", "i", lambda f, a, b: f.minimum(a, b, "i"), np.minimum),
    "less": ("ii", "b", lambda f, a, b: f.cmp("slt", a, b, "i"), np.less),
    "equal": ("ii", "b", lambda f, a, b: f.cmp("eq", a, b, "i"), np.equal),
    "choose_int": ("bii", "i", lambda f, c, a, b: f.select(c, a, b, "i"), np.where),
    "choose_bool": ("bbb", "b", lambda f, c, a, b: f.select(c, a, b, "b"), np.where),
    "choose_float": ("bff", "f", lambda f, c, a, b: f.select(c, a, b), np.where),
    "int_of_bool": ("b", "i", lambda f, a: f.convert(a, "b", "i"), lambda a: a.astype(np.int32)),
    "float_of_int": ("i", "f", lambda f, a: f.convert(a, "i", "f"), lambda a: a.astype(np.float32)),
    "float_of_bool": ("b", "f", lambda f, a: f.convert(a, "b", "f"), lambda a: a.astype(np.float32)),
    "bool_of_float": ("f", "b", lambda f, a: f.convert(a, "f", "b"), lambda a: a.astype(bool)),
    "bool_of_int": ("i", "b", lambda f, a: f.convert(a, "i", "b"), lambda a: a.astype(bool)),
    "fadd": ("ff", "f", lambda f, a, b: f.f("fadd", a, b), np.add),
    "neg": ("f", "f", lambda f, a: f.neg(a), np.negative),
    "round_even": ("f", "f", lambda f, a: f.intrinsic("roundeven", a), np.round),
    "clamp": ("f", "f", lambda f, a: f.clamp(a, -1.5, 2.0), lambda a: np.clip(a, -1.5, 2.0)),
    "constant": ("i", "i", lambda f, a: f.integer("add", a, T8.splat(-7, "i")), lambda a: a - np.int32(7)),
}
# Those that have rules of their own in XLA: division by zero, NaN, signs of zeros.
OF_XLA = {
    "div": ("ii", "i", lambda f, a, b: f.integer_div(a, b), lax.div),
    "rem": ("ii", "i", lambda f, a, b: f.integer_rem(a, b), lax.rem),
    "int_of_float": ("f", "i", lambda f, a: f.convert(a, "f", "i"), lambda a: a.astype(jnp.int32)),
    "fmax": ("ff", "f", lambda f, a, b: f.maximum(a, b), lax.max),
    "fmin": ("ff", "f", lambda f, a, b: f.minimum(a, b), lax.min),
    "frem": ("ff", "f", lambda f, a, b: f.f("frem", a, b), lax.rem),
    "pow": ("ff", "f", lambda f, a, b: f.intrinsic("pow", a, b), lax.pow),
    "round": ("f", "f", lambda f, a: f.intrinsic("round", a), lax.round),
}


@pytest.fixture(scope="module")
def operations():
    every = OPERATIONS | OF_XLA
    texts = [declarations(T8), *(loop(name, T8, kinds, kind, code) for name, (kinds, kind, code, _) in every.items())]
    texts += [reduction(how, kind) for how, kind in REDUCTIONS] + [broadcast(kind) for kind in KINDS]
    results = {name: KINDS[kind] for name, (_, kind, *_) in every.items()}
    results |= {f"{how}_{kind}": KINDS[kind] for how, kind in REDUCTIONS} | {f"all_{k}": KINDS[k] for k in KINDS}
    return Library(texts, results)


def test_operations(operations):
    """Integers at their limits and divided by zero, NaN, infinities, bools from bytes."""
    rng = np.random.default_rng(0)
    limits = np.array([0, 1, -1, 2, -7, 13, 2**31 - 1, -(2**31), 1000, -1000, 3, 5, 7, -3, 17, 64], np.int32)
    numbers = [0.0, -0.0, 1, -1, 0.5, 2.5, -2.5, 3e9, -3e9, 1e-3, np.inf, -np.inf, np.nan, 7, -7, 3]
    pairs = {
        "i": [np.append(x.ravel(), limits[:3]) for x in np.meshgrid(limits, limits)],
        "f": [np.append(x.ravel(), x[0, :3]) for x in np.meshgrid(*[np.array(numbers, np.float32)] * 2)],
        "b": list(rng.integers(0, 2, (3, 16 * 16 + 3)).astype(bool)),
    }

    def inputs(kinds):
        sources = {kind: iter(arrays) for kind, arrays in pairs.items()}
        return [next(sources[kind]) for kind in kinds]

    given = {name: inputs(kinds) for name, (kinds, *_) in (OPERATIONS | OF_XLA).items()}
    # As arguments of the program: XLA's own folding of -2^31 / -1 would stop the process.
    want = jax.jit(lambda given: {name: OF_XLA[name][3](*given[name]) for name in OF_XLA})(given)
    with np.errstate(all="ignore"):
        want |= {name: operation[3](*given[name]) for name, operation in OPERATIONS.items()}
    for name in given:
        got = operations(name, *given[name])
        if got.dtype == np.float32:
            np.testing.assert_allclose(got, want[name], rtol=2e-6, err_msg=name)
            zeros = got == 0
            np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(want[name])[zeros], err_msg=name)
        else:
            np.testing.assert_array_equal(got, want[name], err_msg=name)


REDUCTIONS = [("sum", "f"), ("max", "f"), ("min", "f"), ("any", "b")]


def reduction(how, kind):
    """One result for every eight numbers; a loop of indices known as it runs, that another is added to."""
    f = Fn(f"define void @{how}_{kind}(ptr %out, ptr %in, i64 %n) #0", T8)
    with f.loop(f.div("%n", 8)) as i:
        x = f.load(f.ptr("%in", f.mul(i, 8), kind), None, kind)
        x = f.val(f"zext i1 {f.any(x)} to i8") if how == "any" else f.reduce(how, x)
        f.do(f"store {T8.element(kind)} {x}, ptr {f.ptr('%out', i, kind)}")
    f.do("ret void")
    return f.text()


def broadcast(kind):
    """The number in place 3 everywhere."""
    return loop(f"all_{kind}", T8, kind, kind, lambda f, x: f.broadcast(f.ptr("%in0", 3, kind), kind))


def test_reductions_and_broadcasts(operations):
    rng = np.random.default_rng(0)
    data = {"f": rng.normal(size=24), "i": rng.integers(-99, 99, 24), "b": rng.integers(0, 3, 24) > 0}
    for how, kind in REDUCTIONS:
        x = data[kind].astype(KINDS[kind])
        want = getattr(x.reshape(3, 8), how)(1)
        np.testing.assert_allclose(operations(f"{how}_{kind}", x)[:3], want, rtol=1e-6, err_msg=f"{how} {kind}")
    for kind, dtype in KINDS.items():
        x = data[kind].astype(dtype)
        assert (operations(f"all_{kind}", x) == x[3]).all()


def test_what_python_knows_needs_no_instruction():
    f = Fn("define void @f(ptr %p)", T8)
    assert (f.add(2, 3), f.sub(7, 3), f.mul(2, 5), f.div(9, 2), f.min(4, 3)) == (5, 4, 10, 4, 3)
    assert (f.add("%a", 0), f.add(0, "%a"), f.mul("%a", 1), f.mul(1, "%a"), f.sub("%a", 0), f.div("%a", 1)) == (
        "%a",
    ) * 6
    assert f.mul("%a", 0) == f.mul(0, "%a") == 0
    assert f.ptr("%p", 0) == "%p"
    with f.loop(4, 0, 8) as i:
        assert i == 0
    assert not f.lines
    assert f.add("%a", 2) == "%t1"
    assert f.lines == ["  %t1 = add i64 %a, 2"]
