"""Writes LLVM IR as text: functions, loops, vectors of numbers, and elementary functions of vectors.

A vector has as many lanes as the machine's registers hold numbers of the loop's dtype. Its lanes are of one kind:

    kind    holds                            in a register    in memory
    f       float32 or float64               <8 x float>      float, double
    i       int32                            <8 x i32>        i32
    b       bool                             <8 x i1>         i8, zero or one

A value is the text that stands for it, such as `%t7` or `splat (i1 true)`. Sizes and offsets are `Index`es: a number
that Python knows, which needs no instruction, or the name of an i64.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

__all__ = ["FUNCTIONS", "Fn", "Index", "Kind", "Types", "declarations", "define"]

Kind = Literal["f", "i", "b"]
Index = int | str


class Types:
    """The names that LLVM has for the types of a kernel.

    Args:
        dtype: of floating-point numbers, "float32" or "float64".
        lanes: of a vector.

    Attributes:
        w: lanes of a vector.
        bytes: of a floating-point number.
        s, v: a floating-point number and a vector of them.
        i, vi: an integer of the same width and a vector of them, for work on bits.
        vb: a vector of bools.
        suffix: the end of an intrinsic's name for vectors of floating-point numbers.

    Example:
        >>> t = Types("float32", 8)
        >>> t.v, t.vi, t.vector("i"), t.element("b"), t.splat(1.0)
        ('<8 x float>', '<8 x i32>', '<8 x i32>', 'i8', 'splat (float 0x3FF0000000000000)')
    """

    def __init__(self, dtype: str, lanes: int) -> None:
        self.f64 = dtype == "float64"
        self.s, self.i = ("double", "i64") if self.f64 else ("float", "i32")
        self.w, self.bytes = lanes, 8 if self.f64 else 4
        self.v, self.vi, self.vb = f"<{lanes} x {self.s}>", f"<{lanes} x {self.i}>", f"<{lanes} x i1>"
        self.suffix = self.suffix_of("f")

    def vector(self, kind: Kind) -> str:
        """Returns the type of a vector in a register."""
        return {"f": self.v, "i": f"<{self.w} x i32>", "b": self.vb}[kind]

    def element(self, kind: Kind) -> str:
        """Returns the type of one number in memory."""
        return {"f": self.s, "i": "i32", "b": "i8"}[kind]

    def memory(self, kind: Kind) -> str:
        """Returns the type of a vector in memory."""
        return f"<{self.w} x {self.element(kind)}>"

    def size(self, kind: Kind) -> int:
        """Returns the bytes of one number in memory."""
        return {"f": self.bytes, "i": 4, "b": 1}[kind]

    def suffix_of(self, kind: Kind) -> str:
        """Returns the end of an intrinsic's name for vectors in registers."""
        return f"v{self.w}" + {"f": f"f{8 * self.bytes}", "i": "i32", "b": "i1"}[kind]

    def memory_suffix_of(self, kind: Kind) -> str:
        """Returns the end of an intrinsic's name for vectors in memory."""
        return f"v{self.w}i8" if kind == "b" else self.suffix_of(kind)

    def const(self, x: float) -> str:
        """Returns a floating-point constant; LLVM wants a double's bits, also for a float."""
        number = float(x) if self.f64 else float(np.float32(x))
        return "0x" + struct.pack(">d", number).hex().upper()

    def splat(self, x: float, kind: Kind = "f") -> str:
        """Returns a constant in all lanes."""
        text = {"f": lambda: self.const(x), "i": lambda: str(int(x)), "b": lambda: "true" if x else "false"}[kind]()
        return f"splat ({'i1' if kind == 'b' else self.element(kind)} {text})"


class Fn:
    """A function of a module, written instruction by instruction; `text()` is the whole.

    Args:
        head: the line that defines it, without the brace.
        types: of its vectors.

    Example:
        >>> f = Fn("define void @double(ptr %p)", Types("float32", 4))
        >>> x = f.load("%p")
        >>> f.store(f.f("fadd", x, x), "%p")
        >>> f.do("ret void")
        >>> print(f.text())
        define void @double(ptr %p) {
        entry:
          br label %start
        start:
          %t1 = load <4 x float>, ptr %p, align 4
          %t2 = fadd contract <4 x float> %t1, %t1
          store <4 x float> %t2, ptr %p, align 4
          ret void
        }
    """

    def __init__(self, head: str, types: Types) -> None:
        self.t, self.head = types, head
        self.entry: list[str] = []
        self.lines: list[str] = []
        self.n = 0

    def text(self) -> str:
        """Returns the function."""
        return "\n".join([self.head + " {", "entry:", *self.entry, "  br label %start", "start:", *self.lines, "}"])

    def name(self) -> str:
        """Returns a name that no other value of the function has."""
        self.n += 1
        return f"%t{self.n}"

    def do(self, text: str) -> None:
        """Writes an instruction without a result."""
        self.lines.append("  " + text)

    def val(self, text: str) -> str:
        """Writes an instruction; returns the name of its result."""
        name = self.name()
        self.do(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        """Begins a block."""
        self.lines.append(f"{name}:")

    def alloca(self, type: str, count: int = 1, align: int = 64) -> str:
        """Returns a pointer to memory on the stack, taken once, however often this place is passed."""
        name = self.name()
        self.entry.append(f"  {name} = alloca {type}, i64 {count}, align {align}")
        return name

    # indices

    def bin(self, op: str, a: Index, b: Index) -> Index:
        """Returns `a op b` of indices, `op` one of add, sub, mul, sdiv; what Python can work out, it does."""
        if isinstance(a, int) and isinstance(b, int):
            return {"add": a + b, "sub": a - b, "mul": a * b}[op] if op != "sdiv" else a // b
        if op == "add" and 0 in (a, b):
            return b if a == 0 else a
        if op == "mul" and 0 in (a, b):
            return 0
        if op == "mul" and 1 in (a, b):
            return b if a == 1 else a
        if (op == "sub" and b == 0) or (op == "sdiv" and b == 1):
            return a
        return self.val(f"{op} i64 {a}, {b}")

    def add(self, a: Index, b: Index) -> Index:
        """Returns `a + b`."""
        return self.bin("add", a, b)

    def sub(self, a: Index, b: Index) -> Index:
        """Returns `a - b`."""
        return self.bin("sub", a, b)

    def mul(self, a: Index, b: Index) -> Index:
        """Returns `a b`."""
        return self.bin("mul", a, b)

    def div(self, a: Index, b: Index) -> Index:
        """Returns `a / b` without its fraction."""
        return self.bin("sdiv", a, b)

    def min(self, a: Index, b: Index) -> Index:
        """Returns the lesser of two indices."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.val(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def ptr(self, base: str, offset: Index, kind: Kind = "f") -> str:
        """Returns a pointer `offset` numbers on."""
        return base if offset == 0 else self.val(f"getelementptr {self.t.element(kind)}, ptr {base}, i64 {offset}")

    def field(self, base: str, offset: int, type: str = "ptr") -> str:
        """Returns what lies `offset` bytes on."""
        return self.val(f"load {type}, ptr {self.byte_ptr(base, offset)}")

    def byte_ptr(self, base: str, offset: Index) -> str:
        """Returns a pointer `offset` bytes on."""
        return base if offset == 0 else self.val(f"getelementptr i8, ptr {base}, i64 {offset}")

    @contextmanager
    def loop(self, stop: Index, start: Index = 0, step: int = 1) -> Iterator[Index]:
        """Repeats what is written inside for indices from `start` to below `stop`; one turn needs no loop."""
        if isinstance(stop, int) and isinstance(start, int) and 0 < stop - start <= step:
            yield start
            return
        slot, tag = self.alloca("i64", 1, 8), self.name()[1:]
        self.do(f"store i64 {start}, ptr {slot}")
        self.do(f"br label %head_{tag}")
        self.label(f"head_{tag}")
        i = self.val(f"load i64, ptr {slot}")
        more = self.val(f"icmp slt i64 {i}, {stop}")
        self.do(f"br i1 {more}, label %body_{tag}, label %end_{tag}")
        self.label(f"body_{tag}")
        yield i
        self.do(f"store i64 {self.add(i, step)}, ptr {slot}")
        self.do(f"br label %head_{tag}")
        self.label(f"end_{tag}")

    # vectors of any kind

    def load(self, p: str, mask: str | None = None, kind: Kind = "f") -> str:
        """Returns the vector at `p`; lanes that the mask leaves out are zero, their memory is not touched."""
        t, memory = self.t, self.t.memory(kind)
        if mask is None:
            v = self.val(f"load {memory}, ptr {p}, align {t.size(kind)}")
        else:
            call = f"call {memory} @llvm.masked.load.{t.memory_suffix_of(kind)}.p0"
            v = self.val(f"{call}(ptr {p}, i32 {t.size(kind)}, {t.vb} {mask}, {memory} zeroinitializer)")
        return self.val(f"icmp ne {memory} {v}, zeroinitializer") if kind == "b" else v

    def store(self, v: str, p: str, mask: str | None = None, kind: Kind = "f") -> None:
        """Writes a vector to `p`, but for lanes that the mask leaves out."""
        t, memory = self.t, self.t.memory(kind)
        if kind == "b":
            v = self.val(f"zext {t.vb} {v} to {memory}")
        if mask is None:
            self.do(f"store {memory} {v}, ptr {p}, align {t.size(kind)}")
        else:
            call = f"call void @llvm.masked.store.{t.memory_suffix_of(kind)}.p0"
            self.do(f"{call}({memory} {v}, ptr {p}, i32 {t.size(kind)}, {t.vb} {mask})")

    def broadcast(self, p: str, kind: Kind = "f") -> str:
        """Returns the number at `p` in all lanes."""
        element = self.t.element(kind)
        x = self.val(f"load {element}, ptr {p}")
        return self.spread(self.val(f"icmp ne {element} {x}, 0") if kind == "b" else x, kind)

    def spread(self, x: str, kind: Kind = "f") -> str:
        """Returns a single number in all lanes."""
        return self._spread(x, "i1" if kind == "b" else self.t.element(kind))

    def _spread(self, x: Index, element: str) -> str:
        vector = f"<{self.t.w} x {element}>"
        one = self.val(f"insertelement {vector} poison, {element} {x}, i64 0")
        return self.val(f"shufflevector {vector} {one}, {vector} poison, <{self.t.w} x i32> zeroinitializer")

    def below(self, count: Index) -> str:
        """Returns the mask of the first `count` lanes."""
        lanes = f"<{self.t.w} x i64>"
        numbers = "<" + ", ".join(f"i64 {i}" for i in range(self.t.w)) + ">"
        return self.val(f"icmp slt {lanes} {numbers}, {self._spread(count, 'i64')}")

    def cmp(self, how: str, a: str, b: str, kind: Kind = "f") -> str:
        """Returns a comparison by LLVM's name for it: `olt`, `une`, … of floats, `slt`, `ne`, … of ints and bools."""
        return self.val(f"{'fcmp' if kind == 'f' else 'icmp'} {how} {self.t.vector(kind)} {a}, {b}")

    def select(self, c: str, a: str, b: str, kind: Kind = "f") -> str:
        """Returns `a` where `c`, else `b`."""
        vector = self.t.vector(kind)
        return self.val(f"select {self.t.vb} {c}, {vector} {a}, {vector} {b}")

    def maximum(self, a: str, b: str, kind: Kind = "f") -> str:
        """Returns the greater; NaN if either is NaN."""
        return self._of_two({"f": "maximum", "i": "smax", "b": "umax"}[kind], a, b, kind)

    def minimum(self, a: str, b: str, kind: Kind = "f") -> str:
        """Returns the lesser; NaN if either is NaN."""
        return self._of_two({"f": "minimum", "i": "smin", "b": "umin"}[kind], a, b, kind)

    def _of_two(self, name: str, a: str, b: str, kind: Kind) -> str:
        vector = self.t.vector(kind)
        return self.val(f"call {vector} @llvm.{name}.{self.t.suffix_of(kind)}({vector} {a}, {vector} {b})")

    def reduce(self, how: Literal["sum", "max", "min"], v: str, kind: Kind = "f") -> str:
        """Returns one number made of all lanes, always added up in the same order; of bools "max" is any, "min" all."""
        t = self.t
        name = {
            "f": {"sum": "fadd", "max": "fmaximum", "min": "fminimum"},
            "i": {"sum": "add", "max": "smax", "min": "smin"},
            "b": {"max": "or", "min": "and"},
        }[kind][how]
        element = "i1" if kind == "b" else t.element(kind)
        # With a start the sum would go from lane to lane, but for this permission.
        start, permission = (f"{t.s} {t.const(-0.0)}, ", "reassoc ") if name == "fadd" else ("", "")
        call = f"call {permission}{element} @llvm.vector.reduce.{name}.{t.suffix_of(kind)}"
        return self.val(f"{call}({start}{t.vector(kind)} {v})")

    def convert(self, v: str, kind: Kind, to: Kind) -> str:
        """Returns a vector of another kind, by XLA's rules: to int NaN is 0 and numbers too great the greatest."""
        t, source, target = self.t, self.t.vector(kind), self.t.vector(to)
        if kind == to:
            return v
        if to == "b":
            return self.cmp("une" if kind == "f" else "ne", v, "zeroinitializer", kind)
        if kind == "f":
            return self.val(f"call {target} @llvm.fptosi.sat.{t.suffix_of('i')}.{t.suffix}({source} {v})")
        if kind == "b":
            return self.select(v, t.splat(1, to), t.splat(0, to), to)
        return self.val(f"sitofp {source} {v} to {target}")

    # floating-point numbers

    def f(self, op: str, a: str, b: str) -> str:
        """Returns `fadd`, `fsub`, `fmul`, `fdiv` or `frem` of vectors; a product may go into a multiply-add."""
        return self.val(f"{op} contract {self.t.v} {a}, {b}")

    def exactly(self, op: str, a: str, b: str) -> str:
        """Returns `a op b`, rounded by itself."""
        return self.val(f"{op} {self.t.v} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """Returns `a b + c`, rounded once."""
        return self.intrinsic("fma", a, b, c)

    def neg(self, x: str) -> str:
        """Returns `-x`."""
        return self.val(f"fneg {self.t.v} {x}")

    def intrinsic(self, name: str, *args: str) -> str:
        """Returns an LLVM intrinsic of vectors, such as "sqrt", "floor", "copysign", "pow"."""
        v = self.t.v
        return self.val(f"call {v} @llvm.{name}.{self.t.suffix}({', '.join(f'{v} {a}' for a in args)})")

    def poly(self, x: str, *coefficients: float) -> str:
        """Returns a polynomial by Horner's rule, the highest coefficient first."""
        p = self.t.splat(coefficients[0])
        for c in coefficients[1:]:
            p = self.fma(p, x, self.t.splat(c))
        return p

    def clamp(self, x: str, low: float, high: float) -> str:
        """Returns `x` within limits; NaN stays NaN."""
        low_splat, high_splat = self.t.splat(low), self.t.splat(high)
        x = self.select(self.cmp("olt", x, low_splat), low_splat, x)
        return self.select(self.cmp("ogt", x, high_splat), high_splat, x)

    def bits(self, x: str) -> str:
        """Returns the bits of floating-point numbers as integers of their width."""
        return self.val(f"bitcast {self.t.v} {x} to {self.t.vi}")

    def from_bits(self, n: str) -> str:
        """Returns the floating-point numbers that have these bits."""
        return self.val(f"bitcast {self.t.vi} {n} to {self.t.v}")

    # int32

    def integer(self, op: str, a: str, b: str) -> str:
        """Returns `add`, `sub`, `mul`, `and`, `or` or `xor` of vectors of int32, modulo 2^32."""
        return self.val(f"{op} {self.t.vector('i')} {a}, {b}")

    def integer_div(self, a: str, b: str) -> str:
        """Returns `a / b` without its fraction; by XLA's rules a / 0 is -1 and -2^31 / -1 is -2^31."""
        quotient = self.integer("sdiv", a, self._divisor(a, b))
        return self.select(self.cmp("eq", b, self.t.splat(0, "i"), "i"), self.t.splat(-1, "i"), quotient, "i")

    def integer_rem(self, a: str, b: str) -> str:
        """Returns the rest of `a / b`, with the sign of `a`; by XLA's rules that of a / 0 is a."""
        rest = self.integer("srem", a, self._divisor(a, b))
        return self.select(self.cmp("eq", b, self.t.splat(0, "i"), "i"), a, rest, "i")

    def _divisor(self, a: str, b: str) -> str:
        """`b`, or 1 where the processor would stop the program: at 0, and at -2^31 / -1, where 1 gives the result."""
        s, vb = (lambda n: self.t.splat(n, "i")), self.t.vb
        least = self.val(f"and {vb} {self.cmp('eq', a, s(-(2**31)), 'i')}, {self.cmp('eq', b, s(-1), 'i')}")
        stops = self.val(f"or {vb} {least}, {self.cmp('eq', b, s(0), 'i')}")
        return self.select(stops, s(1), b, "i")


# Elementary functions. Each takes and returns a vector of floating-point numbers. Denormal results of exp and exp2 are
# zero: XLA's programs run with denormals flushed.


def _exp_reduced(f: Fn, r: str) -> str:
    """exp(r) - 1 for |r| <= ln(2) / 2: Cephes' polynomial `expf` and rational function `exp` (Moshier 1989)."""
    rr = f.f("fmul", r, r)
    if f.t.f64:
        p = f.poly(rr, 1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
        q = f.poly(rr, 3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.0)
        p = f.f("fmul", r, p)
        p = f.f("fdiv", p, f.f("fsub", q, p))
        return f.f("fadd", p, p)
    p = f.poly(
        r,
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
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
    """exp(x)."""
    low, high = (-708.3964185322641, 709.782712893384) if f.t.f64 else (-87.33654, 88.72283172607422)
    return _exp_result(f, x, *_reduce(f, f.clamp(x, low, high)), low, high)


def exp2(f: Fn, x: str) -> str:
    """2^x."""
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
    """exp(x) - 1, exact to the last places near 0 too."""
    s = f.t.splat
    high, tiny = (709.782712893384, 2.0**-54) if f.t.f64 else (88.72283172607422, 2.0**-25)
    e = _expm1(f, f.clamp(x, -50.0, high))
    e = f.select(f.cmp("ogt", x, s(high)), s(float("inf")), e)
    return f.select(f.cmp("olt", f.intrinsic("fabs", x), s(tiny)), x, e)


def logistic(f: Fn, x: str) -> str:
    """1 / (1 + exp(-x))."""
    one = f.t.splat(1.0)
    return f.f("fdiv", one, f.f("fadd", one, exp(f, f.neg(x))))


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
    """erfc(a) as exp(-a^2) P(a) / Q(a): Cephes (Moshier 1989), with what a^2 loses by rounding put back.

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
    square = f.exactly("fmul", y, y)
    rest = f.fma(y, y, f.neg(square))
    e = exp(f, f.neg(square))
    e = f.f("fsub", e, f.f("fmul", e, rest))
    return f.f("fmul", e, f.f("fdiv", p, q))


def erf(f: Fn, x: str) -> str:
    """The error function."""
    one, a = f.t.splat(1.0), f.intrinsic("fabs", x)
    great = f.intrinsic("copysign", f.f("fsub", one, _erfc_great(f, a)), x)
    y = f.clamp(x, -1.0, 1.0)
    return f.select(f.cmp("olt", a, one), f.f("fmul", y, _erf_ratio(f, y)), great)


def erfc(f: Fn, x: str) -> str:
    """The complement of the error function, exact to the last places where it is small too."""
    t, one = f.t, f.t.splat(1.0)
    a = f.intrinsic("fabs", x)
    y = f.clamp(x, -1.0, 1.0)
    small = f.fma(f.neg(y), _erf_ratio(f, y), one)
    great = _erfc_great(f, a)
    great = f.select(f.cmp("olt", x, t.splat(0.0)), f.f("fsub", t.splat(2.0), great), great)
    return f.select(f.cmp("olt", a, t.splat(1.0 if t.f64 else 0.5)), small, great)


def _of_libm(name: str) -> Callable[[Fn, str], str]:
    """A function of the C library, which LLVM calls lane by lane: right and slow, for what cells seldom need."""
    return lambda f, x: f.intrinsic(name, x)


FUNCTIONS: dict[str, Callable[[Fn, str], str]] = {
    "erf": erf,
    "erfc": erfc,
    "exp": exp,
    "exp2": exp2,
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


def declarations(t: Types) -> str:
    """Returns what a module that uses these functions must declare; LLVM knows its other intrinsics by itself.

    Masked loads and stores are declared as LLVM 20 has them; newer ones read that form as well.
    """
    lines = []
    for kind in ("f", "i", "b"):
        v, suffix = t.memory(kind), t.memory_suffix_of(kind)
        lines.append(f"declare {v} @llvm.masked.load.{suffix}.p0(ptr, i32, {t.vb}, {v})")
        lines.append(f"declare void @llvm.masked.store.{suffix}.p0({v}, ptr, i32, {t.vb})")
    return "\n".join(lines)
