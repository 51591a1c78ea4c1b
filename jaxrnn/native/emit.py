"""Writes the module of a row: the handler that XLA calls, and all that it calls."""

import re
from dataclasses import dataclass

import jax

from jaxrnn.native.elementary import define
from jaxrnn.native.emit_memory import Memory
from jaxrnn.native.emit_nests import take
from jaxrnn.native.emit_packing import packing
from jaxrnn.native.emit_part import Part
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


def emit(row: Row, registers: Registers, *, shifted: tuple[bool, ...], reverse: bool, rows: int) -> Module:
    """Returns the module of a row.

    Args:
        row: the row function.
        registers: of the machine.
        shifted: which leaves of `xs` are pairs (first, after).
        reverse: whether time runs from the last step to the first.
        rows: of a part, at least.
    """
    types = Types(row.dtype, registers.lanes)
    plan = Plan(row)
    task = Task(Operands(len(row.given[0]), len(row.carry), shifted, len(row.ys), len(row.sums)))
    part = Part(plan, types, registers, task, shifted, reverse, rows)
    written = [part.text(), part.products.text()]
    if part.products.panels:
        written.append(packing(types, task, part.products.panels))
    written += [
        worker(types, task, packs=bool(part.products.panels)),
        wait(types),
        next_turn(types, task),
        _total(types),
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
    scratch = f.add(f.mul(f.mul(task.size(f, "parts"), task.size(f, "stride")), 64), packed)
    sizes = [("ys", i, f.mul(cells, max(n.size, 1) * f.t.size(n.kind))) for i, n in enumerate(plan.row.ys)]
    for name, index, size in [*sizes, ("scratch", 0, scratch)]:
        f.do(f"call void @huge_pages(ptr {task.pointer(f, name, index)}, i64 {size})")


def _finish(f: Fn, part: Part) -> None:
    """Adds up the sums of all parts."""
    task, specs = part.task, jax.tree.leaves(part.plan.row.results[2])
    scratch, parts = task.pointer(f, "scratch"), task.size(f, "parts")
    stride = f.mul(task.size(f, "stride"), 64)
    for i, (terms, s) in enumerate(zip(part.plan.row.sums, part.memory.sums, strict=True)):
        result = task.pointer(f, "sums", i)
        if terms is None:
            size = specs[i].size * specs[i].dtype.itemsize
            f.do(f"call void @llvm.memset.p0.i64(ptr {result}, i8 0, i64 {size}, i1 false)")
        else:
            sizes = ", ".join(f"i64 {n}" for n in (parts, stride, s.rows, s.columns, s.ld))
            f.do(f"call void @total(ptr {f.byte_ptr(scratch, s.offset)}, {sizes}, ptr {result})")


def _total(t: Types) -> str:
    """A function that adds up a sum of all parts, in order."""
    sizes = "i64 %parts, i64 %stride, i64 %rows, i64 %columns, i64 %ld"
    f = Fn(f"define internal void @total(ptr %own, {sizes}, ptr %result) noinline nounwind #0", t)
    total = f.alloca(t.v)
    with f.loop("%rows") as row, f.loop("%columns", 0, t.w) as column:
        own = f.ptr("%own", f.add(f.mul(row, "%ld"), column))
        f.store(f.load(own), total)
        with f.loop("%parts", 1) as part:
            f.store(f.f("fadd", f.load(total), f.load(f.byte_ptr(own, f.mul(part, "%stride")))), total)
        mask = f.below(f.sub("%columns", column))
        f.store(f.load(total), f.ptr("%result", f.add(f.mul(row, "%columns"), column)), mask)
    f.do("ret void")
    return f.text()
