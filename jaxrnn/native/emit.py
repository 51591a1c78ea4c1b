"""Writes the module of a row: the handler that XLA calls, and all that it calls."""

import re
from dataclasses import dataclass

import jax

from jaxrnn.native.elementary import define
from jaxrnn.native.emit_memory import Memory
from jaxrnn.native.emit_nests import take
from jaxrnn.native.emit_packing import packing
from jaxrnn.native.emit_part import Part, Variant
from jaxrnn.native.emit_products import Registers
from jaxrnn.native.emit_task import Operands, Task, handler, next_turn, wait, worker
from jaxrnn.native.graph import Row
from jaxrnn.native.plan import Plan
from jaxrnn.native.vectors import Fn, Kind, Types, declarations

__all__ = ["Module", "emit"]


@dataclass(frozen=True)
class Module:
    """The text of a module, and how much scratch memory its handler needs.

    Attributes:
        text: LLVM IR, with the FFI handler `@handler`.
        memory: of a part.
        packed: bytes of the packed weights.
    """

    text: str
    memory: Memory
    packed: int


def emit(row: Row, registers: Registers, variant: Variant) -> Module:
    """Returns the module of a row."""
    plan = Plan(row)
    registers = registers.holding(max((nest.size for nest in plan.nests), default=1))
    types = Types(row.dtype, registers.lanes)
    task = Task(Operands(len(row.given[0]), len(row.carry), variant.shifted, len(row.ys), len(row.sums)))
    part = Part(plan, types, registers, task, variant)
    written = [part.text(), part.products.text()]
    if part.products.panels:
        written.append(packing(types, task, part.products.panels))
    written += [
        worker(types, task, packs=bool(part.products.panels)),
        wait(types),
        next_turn(types, task),
        _total(types),
        _is_zero(types),
    ]
    written.append(
        handler(types, task, lambda f: _large_pages(f, plan, task, part.products.packed), lambda f: _finish(f, part))
    )
    kinds: tuple[Kind, ...] = ("f", "i", "b")
    written += [take(types, kind) for kind in kinds if f"@take_{kind}(" in written[0]]
    functions = sorted(set(re.findall(r"@v(\w+)\(", "".join(written))))
    text = [declarations(types), *(define(name, types) for name in functions), *written]
    return Module("\n\n".join(text), part.memory, part.products.packed)


def _large_pages(f: Fn, plan: Plan, task: Task, packed: int) -> None:
    """Asks for large pages under the results, which are new memory."""
    cells = f.mul(task.size(f, "steps"), task.size(f, "batch"))
    scratch = f.add(f.mul(task.size(f, "packed"), 64), packed)
    sizes = [("ys", i, f.mul(cells, max(n.size, 1) * f.t.size(n.kind))) for i, n in enumerate(plan.row.ys)]
    for name, index, size in [*sizes, ("scratch", 0, scratch)]:
        f.do(f"call void @huge_pages(ptr {task.pointer(f, name, index)}, i64 {size})")


def _finish(f: Fn, part: Part) -> None:
    """Adds up the sums of all parts; the result of a dense one holds the first part's."""
    task, specs = part.task, jax.tree.leaves(part.plan.row.results[2])
    scratch, parts = task.pointer(f, "scratch"), task.size(f, "parts")
    stride = f.mul(task.size(f, "stride"), 64)
    others, dense = f.sub(parts, 1), f.byte_ptr(scratch, f.mul(parts, stride))
    for i, (terms, s) in enumerate(zip(part.plan.row.sums, part.memory.sums, strict=True)):
        result = task.pointer(f, "sums", i)
        if terms is None:
            size = specs[i].size * specs[i].dtype.itemsize
            f.do(f"call void @llvm.memset.p0.i64(ptr {result}, i8 0, i64 {size}, i1 false)")
        else:
            first = result if s.dense else f.byte_ptr(scratch, s.offset)
            more = f.byte_ptr(dense, s.offset) if s.dense else f.byte_ptr(first, stride)
            apart = part.memory.dense_size if s.dense else stride
            sizes = ", ".join(f"i64 {n}" for n in (others, apart, s.rows, s.columns, s.ld))
            with f.loop(f.min(others, 1) if s.dense else 1):
                f.do(f"call void @total(ptr {first}, ptr {more}, {sizes}, ptr {result})")


def _total(t: Types) -> str:
    """A function that adds up a sum of all parts, in order: the first one's and those of the others."""
    sizes = "i64 %others, i64 %apart, i64 %rows, i64 %columns, i64 %ld"
    f = Fn(f"define internal void @total(ptr %first, ptr %more, {sizes}, ptr %result) noinline nounwind #0", t)
    total = f.alloca(t.v)
    with f.loop("%rows") as row, f.loop("%columns", 0, t.w) as column:
        place = f.add(f.mul(row, "%ld"), column)
        f.store(f.load(f.ptr("%first", place)), total)
        with f.loop("%others") as part:
            more = f.ptr(f.byte_ptr("%more", f.mul(part, "%apart")), place)
            f.store(f.f("fadd", f.load(total), f.load(more)), total)
        mask = f.below(f.sub("%columns", column))
        f.store(f.load(total), f.ptr("%result", f.add(f.mul(row, "%columns"), column)), mask)
    f.do("ret void")
    return f.text()


def _is_zero(t: Types) -> str:
    """A function that says whether so many rows of numbers are all zero."""
    f = Fn("define internal i1 @is_zero(ptr %first, i64 %rows, i64 %apart, i64 %size) noinline nounwind #0", t)
    found = f.alloca(t.vb)
    f.do(f"store {t.vb} zeroinitializer, ptr {found}")
    with f.loop("%rows") as row, f.loop("%size", 0, t.w) as column:
        x = f.load(f.ptr("%first", f.add(f.mul(row, "%apart"), column)), f.below(f.sub("%size", column)))
        more = f.cmp("une", x, "zeroinitializer")
        some = f.val(f"load {t.vb}, ptr {found}")
        f.do(f"store {t.vb} {f.val(f'or {t.vb} {some}, {more}')}, ptr {found}")
    some = f.any(f.val(f"load {t.vb}, ptr {found}"))
    f.do(f"ret i1 {f.val(f'xor i1 {some}, true')}")
    return f.text()
