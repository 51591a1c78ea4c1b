"""Writes the packing of the weights, once a call: a panel is laid out as the micro kernels read it."""

from jaxrnn.native.emit_products import Panel, share
from jaxrnn.native.emit_task import Task
from jaxrnn.native.vectors import Fn, Index, Types

__all__ = ["packing"]

_ROWS = 16  # of a matrix that are read side by side: so many streams the processor foresees
_SIZES = ("width", "column", "count", "K", "step")


def packing(t: Types, task: Task, panels: list[Panel]) -> str:
    """Returns `@pack(task, member, members)`, which packs a member's share of the tiles, and what it calls."""
    f = Fn("define internal void @pack(ptr %task, i64 %member, i64 %members) noinline nounwind #0", t)
    packed = f.byte_ptr(task.pointer(f, "scratch"), f.mul(task.size(f, "packed"), 64))
    for panel in panels:
        _panel(f, task, panel, f.byte_ptr(packed, panel.offset))
    f.do("ret void")
    return "\n\n".join([_rows(t), _columns(t), f.text()])


def _panel(f: Fn, task: Task, panel: Panel, to: str) -> None:
    w = f.t.w
    step = len(panel.columns) * panel.vectors * w
    low, high = share(f, panel.tiles, "%member", "%members")
    sources = [task.pointer(f, "const", matrix.operand) for matrix, _ in panel.columns]
    # The columns of a transposed matrix are its rows, each in one piece.
    block = panel.k if any(matrix.transposed for matrix, _ in panel.columns) else _ROWS
    with f.loop(panel.k, 0, block) as row, f.loop(high, low) as tile, f.loop(panel.vectors) as v:
        rows = f.min(f.sub(panel.k, row), block)
        column = f.mul(f.add(f.mul(tile, panel.vectors), v), w)
        first = f.add(f.add(f.mul(tile, panel.tile_size(w)), f.mul(v, w)), f.mul(row, step))
        for i, ((matrix, shift), source) in enumerate(zip(panel.columns, sources, strict=True)):
            columns = matrix.shape[0] if matrix.transposed else matrix.shape[1]
            count = f.sub(min(panel.size, columns - shift), column)  # below zero: nothing but padding
            numbers: tuple[Index, ...] = matrix.shape[1], f.add(column, shift), count, rows, step
            sizes = ", ".join(f"i64 {n}" for n in numbers)
            start = f.ptr(source, row if matrix.transposed else f.mul(row, matrix.shape[1]))
            target = f.ptr(to, f.add(first, i * panel.vectors * w))
            f.do(f"call void @pack_{'columns' if matrix.transposed else 'rows'}(ptr {start}, {sizes}, ptr {target})")


def _function(name: str, t: Types) -> Fn:
    sizes = ", ".join(f"i64 %{size}" for size in _SIZES)
    return Fn(f"define internal void @{name}(ptr %source, {sizes}, ptr %target) noinline nounwind #0", t)


def _rows(t: Types) -> str:
    """A function that packs a vector of each of K rows."""
    f = _function("pack_rows", t)
    mask = f.below("%count")
    with f.loop("%K") as k:
        vector = f.load(f.ptr("%source", f.add(f.mul(k, "%width"), "%column")), mask)
        f.store(vector, f.ptr("%target", f.mul(k, "%step")))
    f.do("ret void")
    return f.text()


def _columns(t: Types) -> str:
    """The same of a transposed matrix: a lane is a row of it. Beyond the count, row 0 is read and not kept."""
    f = _function("pack_columns", t)
    mask, rows = f.below("%count"), []
    for lane in range(t.w):
        row = f.choose(f.test("slt", lane, "%count"), f.add("%column", lane), 0)
        rows.append(f.ptr("%source", f.mul(row, "%width")))
    whole = f.mul(f.div("%K", t.w), t.w)
    with f.loop(whole, 0, t.w) as k:
        for i, vector in enumerate(f.transpose([f.load(f.ptr(row, k)) for row in rows])):
            f.store(f.select(mask, vector, t.splat(0.0)), f.ptr("%target", f.mul(f.add(k, i), "%step")))
    with f.loop("%K", whole) as k:
        vector = "poison"
        for lane, row in enumerate(rows):
            x = f.val(f"load {t.s}, ptr {f.ptr(row, k)}")
            vector = f.val(f"insertelement {t.v} {vector}, {t.s} {x}, i64 {lane}")
        f.store(f.select(mask, vector, t.splat(0.0)), f.ptr("%target", f.mul(k, "%step")))
    f.do("ret void")
    return f.text()
