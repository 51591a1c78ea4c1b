"""Writes LLVM IR as text: functions, loops, and vectors of numbers.

A vector has as many lanes as the machine's registers hold numbers of the loop's dtype. Its lanes are of one kind:

    kind    holds                            in a register    in memory
    f       float32 or float64               <8 x float>      float, double
    i       int32                            <8 x i32>        i32
    b       bool                             <8 x i1>         i8, zero or one

A value is the text that stands for it, such as `%t7` or `splat (i1 true)`. Sizes and offsets are `Index`es: a number
that Python knows, which needs no instruction, or the name of an i64.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

__all__ = ["Fn", "Index", "Kind", "Types", "declarations"]

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

    def test(self, how: str, a: Index, b: Index) -> str:
        """Returns a flag, an i1: a comparison of indices by LLVM's name for it, such as `eq`, `slt`, `sge`."""
        return self.val(f"icmp {how} i64 {a}, {b}")

    def choose(self, flag: str, a: Index, b: Index, type: str = "i64") -> str:
        """Returns `a` if the flag is set, else `b`: indices, or what else is of this type."""
        return self.val(f"select i1 {flag}, {type} {a}, {type} {b}")

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
        more = self.test("slt", i, stop)
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
        """Returns the greater of floats or ints; NaN if either is NaN."""
        return self._of_two("maximum" if kind == "f" else "smax", a, b, kind)

    def minimum(self, a: str, b: str, kind: Kind = "f") -> str:
        """Returns the lesser of floats or ints; NaN if either is NaN."""
        return self._of_two("minimum" if kind == "f" else "smin", a, b, kind)

    def _of_two(self, name: str, a: str, b: str, kind: Kind) -> str:
        vector = self.t.vector(kind)
        return self.val(f"call {vector} @llvm.{name}.{self.t.suffix_of(kind)}({vector} {a}, {vector} {b})")

    def reduce(self, how: Literal["sum", "max", "min"], v: str) -> str:
        """Returns one float made of all lanes, always added up in the same order."""
        t = self.t
        name = {"sum": "fadd", "max": "fmaximum", "min": "fminimum"}[how]
        # With a start the sum would go from lane to lane, but for this permission.
        start, permission = (f"{t.s} {t.const(-0.0)}, ", "reassoc ") if how == "sum" else ("", "")
        return self.val(f"call {permission}{t.s} @llvm.vector.reduce.{name}.{t.suffix}({start}{t.v} {v})")

    def any(self, v: str) -> str:
        """Returns whether a lane of bools is true, as a flag."""
        return self.val(f"call i1 @llvm.vector.reduce.or.{self.t.suffix_of('b')}({self.t.vb} {v})")

    def transpose(self, rows: list[str]) -> list[str]:
        """Returns the columns of as many vectors as each has lanes, by mixing two halves of them until they are."""
        w, v, half = self.t.w, self.t.v, self.t.w // 2
        mixed = [", ".join(f"i32 {n}" for i in range(half) for n in (i + at, i + at + w)) for at in (0, half)]
        for _ in range(w.bit_length() - 1):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [self.val(f"shufflevector {v} {a}, {v} {b}, <{w} x i32> <{m}>") for a, b in pairs for m in mixed]
        return rows

    def convert(self, v: str, kind: Kind, to: Kind) -> str:
        """Returns a vector in another kind, by XLA's rules: to int NaN is 0 and numbers too great the greatest."""
        t, source, target = self.t, self.t.vector(kind), self.t.vector(to)
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
