"""Elementary functions of vectors, in LLVM IR: exp, tanh, log, …

Each takes and returns a vector of floating-point numbers, float32 or float64. Errors are a few units in the last place
at most, as XLA's are; `tests/test_native_vectors.py` lists them. NaN, infinities, signs of zero and denormal arguments
are right. Denormal results of exp and exp2 are zero: XLA's programs run with denormals flushed.

Coefficients: Cephes (Moshier 1989, Methods and Programs for Mathematical Functions), and Eigen's tanh.
"""

from collections.abc import Callable

from jaxrnn.native.vectors import Fn, Types

__all__ = ["FUNCTIONS", "define"]


def _exp_reduced(f: Fn, r: str) -> str:
    """exp(r) - 1 for |r| <= ln(2) / 2.

    In float32 r + r^2 P(r), whose P is the polynomial with the least error relative to exp(r), 3e-9; in float64 the
    rational function of Cephes' `exp` (Moshier 1989).
    """
    rr = f.f("fmul", r, r)
    if f.t.f64:
        p = f.poly(rr, 1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
        q = f.poly(rr, 3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.0)
        p = f.f("fmul", r, p)
        p = f.f("fdiv", p, f.f("fsub", q, p))
        return f.f("fadd", p, p)
    p = f.poly(r, 1.3814546e-3, 8.3687454e-3, 4.1668389e-2, 1.6666521e-1, 4.9999994e-1)
    return f.fma(p, rr, r)


def _reduce(f: Fn, y: str) -> tuple[str, str]:
    """(n 2^k, r) of y = n ln(2) + r, with ln(2) in two parts; see `_rounded`."""
    s = f.t.splat
    n, shifted = _rounded(f, y, 1.4426950408889634073599)
    high, low = (6.93145751953125e-1, 1.42860682030941723212e-6) if f.t.f64 else (0.693359375, -2.12194440e-4)
    return shifted, f.fma(n, s(-low), f.fma(n, s(-high), y))


def _rounded(f: Fn, y: str, factor: float) -> tuple[str, str]:
    """n, the integer next to `factor y`, and n 2^k, which added to a number's bits multiplies it by 2^n.

    Numbers from 2^k on have no fraction, so that the sum with 3/2 2^k ends in the bits of n. To convert n would take
    longer, and with 64 bits AVX2 does it lane by lane.
    """
    t = f.t
    k = 52 if t.f64 else 23
    magic = t.splat(1.5 * 2.0**k)
    raised = f.fma(y, t.splat(factor), magic)
    return f.exactly("fsub", raised, magic), f.val(f"shl {t.vi} {f.bits(raised)}, splat ({t.i} {k})")


def _exp_result(f: Fn, x: str, shifted: str, r: str, low: float, high: float) -> str:
    """2^n exp(r), the exponential of x; 0 below `low`, infinite above `high`."""
    s = f.t.splat
    p = f.f("fadd", _exp_reduced(f, r), s(1.0))
    e = f.from_bits(f.val(f"add {f.t.vi} {f.bits(p)}, {shifted}"))
    e = f.select(f.cmp("olt", x, s(low)), s(0.0), e)
    e = f.select(f.cmp("ogt", x, s(high)), s(float("inf")), e)
    return f.select(f.cmp("uno", x, x), x, e)


def exp(f: Fn, x: str) -> str:
    """Returns exp(x)."""
    low, high = (-708.3964185322641, 709.782712893384) if f.t.f64 else (-87.33654, 88.72283172607422)
    return _exp_result(f, x, *_reduce(f, f.clamp(x, low, high)), low, high)


def exp2(f: Fn, x: str) -> str:
    """Returns 2^x."""
    low, high = (-1022.0, 1023.9999999999999) if f.t.f64 else (-126.0, 127.99999237060547)
    y = f.clamp(x, low, high)
    n, shifted = _rounded(f, y, 1.0)
    r = f.f("fmul", f.f("fsub", y, n), f.t.splat(0.69314718055994530942))
    return _exp_result(f, x, shifted, r, low, high)


def _expm1(f: Fn, y: str) -> str:
    """exp(y) - 1 for y within exp's limits and above -50, as 2 (h (exp(r) - 1) + h - 1/2), h = 2^(n - 1).

    2^n itself may overflow where the result does not.
    """
    s = f.t.splat
    shifted, r = _reduce(f, y)
    h = f.from_bits(f.val(f"add {f.t.vi} {f.bits(s(0.5))}, {shifted}"))
    half = f.fma(h, _exp_reduced(f, r), f.f("fsub", h, s(0.5)))
    return f.f("fadd", half, half)


def expm1(f: Fn, x: str) -> str:
    """Returns exp(x) - 1, exact to the last places near 0 too."""
    s = f.t.splat
    high, tiny = (709.782712893384, 2.0**-54) if f.t.f64 else (88.72283172607422, 2.0**-25)
    e = _expm1(f, f.clamp(x, -50.0, high))
    e = f.select(f.cmp("ogt", x, s(high)), s(float("inf")), e)
    return f.select(f.cmp("olt", f.intrinsic("fabs", x), s(tiny)), x, e)


def logistic(f: Fn, x: str) -> str:
    """Returns 1 / (1 + exp(-x)).

    At the limits 2^n, as the bits that stand for it, is infinite, which makes the result zero, and zero. NaN stays NaN,
    as 2^n is a factor here, not added to bits.
    """
    one, (low, high) = f.t.splat(1.0), (-710.0, 709.0) if f.t.f64 else (-89.0, 88.0)
    shifted, r = _reduce(f, f.neg(f.clamp(x, low, high)))
    scale = f.from_bits(f.val(f"add {f.t.vi} {f.bits(one)}, {shifted}"))
    return f.f("fdiv", one, f.fma(f.f("fadd", _exp_reduced(f, r), one), scale, one))


def tanh(f: Fn, x: str) -> str:
    """tanh(x): Eigen's rational function in float32, which XLA has too; e / (e + 2), e = exp(2|x|) - 1, in float64."""
    s = f.t.splat
    a = f.intrinsic("fabs", x)
    if f.t.f64:
        # From 22 on the result is 1.
        e = _expm1(f, f.clamp(f.f("fadd", a, a), 0.0, 44.0))
        return f.intrinsic("copysign", f.f("fdiv", e, f.f("fadd", e, s(2.0))), x)
    y = f.clamp(x, -7.99881172180175781, 7.99881172180175781)
    z = f.f("fmul", y, y)
    p = f.poly(
        z,
        -2.76076847742355e-16,
        2.00018790482477e-13,
        -8.60467152213735e-11,
        5.12229709037114e-08,
        1.48572235717979e-05,
        6.37261928875436e-04,
        4.89352455891786e-03,
    )
    q = f.poly(z, 1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
    return f.select(f.cmp("olt", a, s(0.0004)), x, f.f("fdiv", f.f("fmul", y, p), q))


def log(f: Fn, x: str) -> str:
    """The natural logarithm: Cephes' polynomial `logf` and rational function `log` (Moshier 1989)."""
    t, s = f.t, f.t.splat
    # A denormal number is brought into the range of normal ones.
    least, lift = (2.2250738585072014e-308, 54) if t.f64 else (1.17549435e-38, 25)
    denormal = f.cmp("olt", x, s(least))
    bits = f.bits(f.select(denormal, f.f("fmul", x, s(2.0**lift)), x))
    # x = m 2^e with m in [1/2, 1)
    k, bias, integral = (52, 1022, 2.0**52) if t.f64 else (23, 126, 2.0**23)
    # Numbers from 2^k on end in the bits of an integer.
    e = f.val(f"lshr {t.vi} {bits}, splat ({t.i} {k})")
    e = f.from_bits(f.val(f"or {t.vi} {e}, {f.bits(s(integral))}"))
    e = f.exactly("fsub", e, s(integral + bias))
    e = f.select(denormal, f.f("fsub", e, s(float(lift))), e)
    m = f.val(f"and {t.vi} {bits}, splat ({t.i} {(1 << k) - 1})")
    m = f.from_bits(f.val(f"or {t.vi} {m}, splat ({t.i} {bias << k})"))
    # ... or m in [sqrt(1/2), sqrt(2)), less 1
    small = f.cmp("olt", m, s(0.70710678118654752440))
    e = f.select(small, f.f("fsub", e, s(1.0)), e)
    m = f.f("fsub", f.select(small, f.f("fadd", m, m), m), s(1.0))
    z = f.f("fmul", m, m)
    if t.f64:
        p = f.poly(
            m,
            1.01875663804580931796e-4,
            4.97494994976747001425e-1,
            4.70579119878881725854e0,
            1.44989225341610930846e1,
            1.79368678507819816313e1,
            7.70838733755885391666e0,
        )
        q = f.poly(
            m,
            1.0,
            1.12873587189167450590e1,
            4.52279145837532221105e1,
            8.29875266912776603211e1,
            7.11544750618563894466e1,
            2.31251620126765340583e1,
        )
        p = f.f("fmul", m, f.f("fmul", z, f.f("fdiv", p, q)))
    else:
        p = f.poly(
            m,
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        )
        p = f.f("fmul", p, f.f("fmul", m, z))
    # log(m) + e ln(2), with ln(2) in two parts
    p = f.fma(z, s(-0.5), f.fma(e, s(-2.121944400546905827679e-4), p))
    r = f.fma(e, s(0.693359375), f.f("fadd", m, p))
    r = f.select(f.cmp("oeq", x, s(0.0)), s(float("-inf")), r)
    r = f.select(f.cmp("oeq", x, s(float("inf"))), x, r)
    return f.select(f.cmp("ult", x, s(0.0)), s(float("nan")), r)


def log1p(f: Fn, x: str) -> str:
    """log(1 + x) as log(u) x / (u - 1), u = 1 + x: the errors of u cancel (Kahan; Goldberg 1991, theorem 4)."""
    s = f.t.splat
    u = f.exactly("fadd", s(1.0), x)
    d = f.exactly("fsub", u, s(1.0))
    r = f.f("fmul", log(f, u), f.f("fdiv", x, d))
    r = f.select(f.cmp("oeq", d, s(0.0)), x, r)
    return f.select(f.cmp("oeq", u, s(float("inf"))), x, r)


def _erf_ratio(f: Fn, x: str) -> str:
    """erf(x) / x for |x| <= 1: Cephes' polynomial `erff` and rational function `erf` (Moshier 1989)."""
    z = f.f("fmul", x, x)
    if not f.t.f64:
        return f.poly(
            z,
            7.853861353153693e-5,
            -8.010193625184903e-4,
            5.188327685732524e-3,
            -2.685381193529856e-2,
            1.128358514861418e-1,
            -3.761262582423300e-1,
            1.128379165726710e0,
        )
    p = f.poly(
        z,
        9.60497373987051638749e0,
        9.00260197203842689217e1,
        2.23200534594684319226e3,
        7.00332514112805075473e3,
        5.55923013010394962768e4,
    )
    q = f.poly(
        z,
        1.0,
        3.35617141647503099647e1,
        5.21357949780152679795e2,
        4.59432382970980127987e3,
        2.26290000613890934246e4,
        4.92673942608635921086e4,
    )
    return f.f("fdiv", p, q)


def _erfc_great(f: Fn, a: str) -> str:
    """erfc(a) as exp(-a^2) P(a) / Q(a): Cephes (Moshier 1989).

    Cephes has it from 1 on; from 1/2 on it is right to 1e-11, enough for float32.
    """
    # At 28 exp(-a^2) is zero.
    y = f.clamp(a, 0.5, 28.0)
    p = f.poly(
        y,
        2.46196981473530512524e-10,
        5.64189564831068821977e-1,
        7.46321056442269912687e0,
        4.86371970985681366614e1,
        1.96520832956077098242e2,
        5.26445194995477358631e2,
        9.34528527171957607540e2,
        1.02755188689515710272e3,
        5.57535335369399327526e2,
    )
    q = f.poly(
        y,
        1.0,
        1.32281951154744992508e1,
        8.67072140885989742329e1,
        3.54937778887819891062e2,
        9.75708501743205489753e2,
        1.82390916687909736289e3,
        2.24633760818710981792e3,
        1.65666309194161350182e3,
        5.57535340817727675546e2,
    )
    if f.t.f64:  # float32 needs no more: there erfc(9.2) is zero
        beyond = f.cmp("oge", y, f.t.splat(8.0))
        p_beyond = f.poly(
            y,
            5.64189583547755073984e-1,
            1.27536670759978104416e0,
            5.01905042251180477414e0,
            6.16021097993053585195e0,
            7.40974269950448939160e0,
            2.97886665372100240670e0,
        )
        q_beyond = f.poly(
            y,
            1.0,
            2.26052863220117276590e0,
            9.39603524938001434673e0,
            1.20489539808096656605e1,
            1.70814450747565897222e1,
            9.60896809063285878198e0,
            3.36907645100081516050e0,
        )
        p, q = f.select(beyond, p_beyond, p), f.select(beyond, q_beyond, q)
    return f.f("fmul", _exp_neg_square(f, y), f.f("fdiv", p, q))


def _exp_neg_square(f: Fn, y: str) -> str:
    """exp(-y^2), with what y^2 loses by rounding put back."""
    square = f.exactly("fmul", y, y)
    rest = f.fma(y, y, f.neg(square))
    e = exp(f, f.neg(square))
    return f.f("fsub", e, f.f("fmul", e, rest))


def erf(f: Fn, x: str) -> str:
    """Returns the error function of x."""
    one, a = f.t.splat(1.0), f.intrinsic("fabs", x)
    great = f.intrinsic("copysign", f.f("fsub", one, _erfc_great(f, a)), x)
    y = f.clamp(x, -1.0, 1.0)
    return f.select(f.cmp("olt", a, one), f.f("fmul", y, _erf_ratio(f, y)), great)


def erfc(f: Fn, x: str) -> str:
    """Returns the complement of the error function, exact to the last places where it is small too."""
    t, one = f.t, f.t.splat(1.0)
    a = f.intrinsic("fabs", x)
    y = f.clamp(x, -1.0, 1.0)
    small = f.fma(f.neg(y), _erf_ratio(f, y), one)
    great = _erfc_great(f, a)
    great = f.select(f.cmp("olt", x, t.splat(0.0)), f.f("fsub", t.splat(2.0), great), great)
    return f.select(f.cmp("olt", a, t.splat(1.0 if t.f64 else 0.5)), small, great)


def exp_neg_square(f: Fn, x: str) -> str:
    """Returns exp(-x^2), exact to the last places where it is small too."""
    return _exp_neg_square(f, f.clamp(x, -28.0, 28.0))


def _of_libm(name: str) -> Callable[[Fn, str], str]:
    """A function of the C library, which LLVM calls lane by lane: right and slow, for what cells seldom need."""
    return lambda f, x: f.intrinsic(name, x)


FUNCTIONS: dict[str, Callable[[Fn, str], str]] = {
    "erf": erf,
    "erfc": erfc,
    "exp": exp,
    "exp2": exp2,
    "exp_neg_sq": exp_neg_square,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "logistic": logistic,
    "tanh": tanh,
} | {name: _of_libm(name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh")}


def define(name: str, t: Types) -> str:
    """Returns the elementary function as a function `@v<name>` of a module, which LLVM writes into its callers."""
    f = Fn(f"define internal {t.v} @v{name}({t.v} %x) alwaysinline nounwind #0", t)
    f.do(f"ret {t.v} {FUNCTIONS[name](f, '%x')}")
    return f.text()
