"""Writes the loop of a part: a range of rows from the first step to the last, chunk by chunk, phase by phase."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from jaxrnn.native.emit_memory import Memory, Place
from jaxrnn.native.emit_nests import NestWriter
from jaxrnn.native.emit_products import Factor, Group, Products, Registers, share
from jaxrnn.native.emit_task import Task
from jaxrnn.native.graph import Node
from jaxrnn.native.plan import Home, Plan
from jaxrnn.native.vectors import Fn, Index, Kind, Types

__all__ = ["Part", "Variant"]

PACKED_BYTES = 32 * 1024
"""Of the rows of a sum's right factors that are packed together: they stay in a core's nearest caches."""


@dataclass(frozen=True)
class Variant:
    """What the kernels of a row on a machine differ by.

    Attributes:
        shifted: which leaves of `xs` are pairs (first, after).
        reverse: whether time runs from the last step to the first.
        final: whether the last carry is asked for.
        rows: of a part, at least; with few rows tiles are wider.
    """

    shifted: tuple[bool, ...]
    reverse: bool
    final: bool
    rows: int


class Part:
    """The function `@part(task, member)`.

    Args:
        plan: the nests.
        types: of the vectors.
        registers: for the tiles.
        task: where sizes and pointers lie.
        variant: which of the row's kernels.
    """

    def __init__(self, plan: Plan, types: Types, registers: Registers, task: Task, variant: Variant) -> None:
        self.plan, self.t, self.registers, self.task, self.variant = plan, types, registers, task, variant
        self.memory = Memory(plan, types, registers)
        self.products = Products(types)
        self.f = Fn("define internal void @part(ptr %task, i64 %member) noinline nounwind #0", types)
        self.accumulators, self._accumulators_size = self.f.name(), 1
        self._begin()
        self._carry_in()
        self._loop()
        self._carry_out()
        self.f.do("ret void")

    def text(self) -> str:
        """Returns the function."""
        self.f.entry.append(f"  {self.accumulators} = alloca {self.t.s}, i64 {self._accumulators_size}, align 64")
        return self.f.text()

    def reserve(self, size: int) -> None:
        """Has room for the sums of a tile."""
        self._accumulators_size = max(self._accumulators_size, size)

    def _begin(self) -> None:
        """Finds the part's rows and memory."""
        f, memory = self.f, self.memory
        self.steps, self.batch, self.chunk, parts, self.team, units, packed = (
            self.task.size(f, n) for n in self.task.sizes
        )
        self.pointers = {name: self.task.pointer(f, *name) for name in self.task.names}
        self.state = f.alloca("i64", 3, 8)
        f.do(f"call void @llvm.memset.p0.i64(ptr {self.state}, i8 0, i64 24, i1 false)")
        number = f.choose(f.test("eq", self.team, 1), "%member", 0)
        self.row, end = share(f, self.batch, number, parts)
        self.count = f.sub(end, self.row)
        most = f.div(f.add(self.batch, f.sub(parts, 1)), parts)
        self.one_part = f.test("eq", parts, 1)
        self.swapped = f.choose(self.one_part, "false", f.test("slt", most, 4), "i1")

        stride, scratch = f.mul(units, 64), self.pointers["scratch", 0]
        self.own = f.byte_ptr(scratch, f.mul(number, stride))
        self.packed = f.byte_ptr(scratch, f.mul(packed, 64))
        dense = f.byte_ptr(scratch, f.add(f.mul(parts, stride), f.mul(f.sub(number, 1), memory.dense_size)))
        first = f.test("eq", number, 0)
        self.sums = []
        for i, total in enumerate(memory.sums):
            pointer = f.byte_ptr(self.own, total.offset)
            if total.dense:
                result, other = self.pointers["sums", i], f.byte_ptr(dense, total.offset)
                pointer = f.choose(first, result, other, "ptr")
            self.sums.append(pointer)
        self.most, self.most_cells = most, f.mul(most, self.chunk)
        self.of_rows = f.byte_ptr(self.own, memory.sums_size)
        self.of_cells = f.byte_ptr(self.of_rows, f.mul(most, memory.of_row))

    # the carry, of which two buffers take turns

    def _carry_in(self) -> None:
        f, memory = self.f, self.memory
        places = [[f.byte_ptr(self.of_rows, f.mul(self.most, o)) for o in pair] for pair in memory.carry]
        with self.stage() as turn, f.loop(self.first(turn, 1)):
            for pointer, total, terms in zip(self.sums, memory.sums, self.plan.row.sums, strict=True):
                if terms is not None:
                    f.do(
                        f"call void @llvm.memset.p0.i64(ptr {pointer}, i8 0, i64 {total.size * self.t.bytes}, i1 false)"
                    )
            for i, node in enumerate(self.plan.row.carry):
                self._copy(self._given("carry", i, node), self._padded(places[i][0], node), node.size)
        self.buffers = [[f.alloca("ptr", 1, 8) for _ in pair] for pair in places]
        for slots, pair in zip(self.buffers, places, strict=True):
            for slot, place in zip(slots, pair, strict=True):
                f.do(f"store ptr {place}, ptr {slot}")

    def _carry_out(self) -> None:
        f = self.f
        with self.stage() as turn, f.loop(self.first(turn, 1)):
            for i, node in enumerate(self.plan.row.carry):
                current = f.val(f"load ptr, ptr {self.buffers[i][0]}")
                self._copy(self._padded(current, node), self._given("final", i, node), node.size)

    def _padded(self, pointer: str, node: Node) -> Place:
        return Place(pointer, 0, self.memory.ld(node.size), node.kind, padded=True)

    def _given(self, name: str, index: int, node: Node) -> Place:
        """The part's rows of a leaf of the carry, as it is given or returned."""
        size = max(node.size, 1)
        pointer = self.f.ptr(self.pointers[name, index], self.f.mul(self.row, size), node.kind)
        return Place(pointer, 0, size, node.kind)

    def _copy(self, source: Place, target: Place, size: int) -> None:
        f, w, n = self.f, self.t.w, max(size, 1)
        with f.loop(self.count) as r, f.loop(-(-n // w) * w, 0, w) as column:
            mask = f.below(f.sub(n, column)) if n % w else None
            at = [f.ptr(p.pointer, f.add(f.mul(r, p.inner), column), p.kind) for p in (source, target)]
            f.store(f.load(at[0], mask, source.kind), at[1], mask, source.kind)

    def _is_zero(self, place: Place, rows: Index, size: int) -> str:
        """Whether these rows are all zero."""
        sizes = ", ".join(f"i64 {n}" for n in (rows, place.inner, size))
        return self.f.val(f"call i1 @is_zero(ptr {place.pointer}, {sizes})")

    def depth(self, group: Group) -> Index:
        """How many places of their left side products read, found in a turn: a late member may read no array.

        One is enough in the first step where a state begins as zeros, as most do, and in the last step for a carry that
        nobody asks for.
        """
        f, left, enough = self.f, group.left, []
        depth: Index = left.size
        if self.phase == 1 and left.op == "carry":
            seen = f.choose(self.begins, self.count, 0)
            zero = self._is_zero(self._given("carry", left.attr, left), seen, left.size)
            enough.append(f.val(f"and i1 {self.begins}, {zero}"))
        if self.phase == 1 and not self.variant.final and all(dot in self.plan.passing for dot, _ in group.products):
            enough.append(self.ends)
        for flag in enough:
            depth = f.choose(flag, 1, depth)
        return depth

    # time

    def _loop(self) -> None:
        """The chunks. The last step visited is one by itself if some input of it lies elsewhere."""
        f, edge = self.f, int(any(self.variant.shifted))
        inner = f.sub(self.steps, edge)
        chunks = f.add(f.div(f.add(inner, f.sub(self.chunk, 1)), self.chunk), edge)
        with f.loop(chunks) as j:
            self.visited = visited = f.min(f.mul(j, self.chunk), inner)
            self.length = f.min(self.chunk, f.sub(inner, visited))
            if edge:
                self.at_edge = f.test("eq", visited, inner)
                self.length = f.choose(self.at_edge, 1, self.length)
            self.start = f.sub(f.sub(self.steps, visited), self.length) if self.variant.reverse else visited
            self._chunk()

    def _chunk(self) -> None:
        f = self.f
        # The rows of all steps follow each other if there is one part; else the longer loop is the inner one.
        span = f.choose(self.swapped, self.count, self.length)
        other = f.choose(self.swapped, self.length, self.count)
        all_rows = f.mul(self.length, self.count)
        whole = f.choose(self.one_part, 1, span), f.choose(self.one_part, all_rows, other)
        self._nests(0, whole)
        with f.loop(self.length) as k:
            last = f.sub(f.add(self.start, self.length), 1)
            self.time = f.sub(last, k) if self.variant.reverse else f.add(self.start, k)
            visited = f.add(self.visited, k)
            self.begins = f.test("eq", visited, 0)
            self.ends = f.test("eq", visited, f.sub(self.steps, 1))
            self.now, self.next = ([f.val(f"load ptr, ptr {slots[i]}") for slots in self.buffers] for i in (0, 1))
            self._nests(1, (1, self.count))
            for slots, now, following in zip(self.buffers, self.now, self.next, strict=True):
                f.do(f"store ptr {following}, ptr {slots[0]}")
                f.do(f"store ptr {now}, ptr {slots[1]}")
        self._nests(2, whole)
        if self.plan.outers:
            with self.stage() as turn:
                for outer in self.plan.outers:
                    self._outer(turn, *outer, rows=all_rows)

    def _nests(self, phase: int, loops: tuple[Index, Index]) -> None:
        self.phase, self.loops = phase, loops
        nests = [nest for nest in self.plan.nests if nest.phase == phase]
        for _, together in groupby(nests, lambda nest: nest.stage):
            writers = [NestWriter(self, nest) for nest in together]
            with self.stage() as turn:
                for writer in writers:
                    writer.write(turn)

    def _outer(self, turn: Index, index: int, left: Node, right: Node, rows: Index) -> None:
        """Adds the outer products of the rows of a chunk to a sum: a product of matrices.

        Each tile of columns is packed, some rows at a time: they are far apart, and every tile of the sum reads them.
        """
        f, w, total = self.f, self.t.w, self.memory.sums[index]
        a, c = (self._cells(self.plan.homes[node]) for node in (left, right))
        vectors = min(self.registers.vectors(8), -(-total.columns // w))
        height = self.registers.height(vectors)
        most = max(1, PACKED_BYTES // (vectors * w * self.t.bytes))
        panel = f.alloca(self.t.s, most * vectors * w, 64)
        low, high = self.share(turn, -(-total.columns // (vectors * w)))
        if left.op == "copy" and left.args[0].op == "xs" and self.variant.shifted[left.args[0].attr]:
            # The state before the first step, which adds nothing where it is zero; no other chunk is looked at.
            seen = f.choose(self.at_edge, rows, 0)
            zero = self._is_zero(Place(a, 0, self.memory.ld(left.size), "f"), seen, left.size)
            rows = f.choose(f.val(f"and i1 {self.at_edge}, {zero}"), 0, rows)
        with f.loop(high, low) as j, f.loop(rows, 0, most) as first:
            column = f.mul(j, vectors * w)
            target = f.ptr(self.sums[index], column)
            count = f.min(most, f.sub(rows, first))
            with f.loop(count) as row:
                source = f.ptr(c, f.add(f.mul(f.add(first, row), self.memory.ld(right.size)), column))
                for v in range(vectors):
                    f.store(f.load(f.ptr(source, v * w)), f.ptr(panel, f.add(f.mul(row, vectors * w), v * w)))
            left_rows = f.ptr(a, f.mul(first, self.memory.ld(left.size)))

            def tile(k: Index, m: Index) -> None:
                self.products.call(
                    f,
                    vectors,
                    height,
                    m,
                    a=Factor(f.ptr(left_rows, k), 1, self.memory.ld(left.size)),
                    w=panel,
                    w_step=vectors * w,
                    k=count,
                    c=f.ptr(target, f.mul(k, total.ld)),
                    c_row=total.ld,
                    more=True,
                )

            self.products.tiles(f, total.rows, height, tile)

    # a team

    @contextmanager
    def stage(self) -> Iterator[Index]:
        """Work that a team shares; a member does it once for each turn that it gets."""
        f = self.f
        tag = f.name()[1:]
        f.do(f"br label %turn_{tag}")
        f.label(f"turn_{tag}")
        turn = f.val(f"call i64 @next_turn(ptr %task, i64 %member, ptr {self.state})")
        f.do(f"br i1 {f.test('sge', turn, 0)}, label %work_{tag}, label %done_{tag}")
        f.label(f"work_{tag}")
        yield turn
        f.do(f"br label %turn_{tag}")
        f.label(f"done_{tag}")

    def first(self, turn: Index, n: Index) -> Index:
        """Returns `n` in the first turn, else 0."""
        return self.f.choose(self.f.test("eq", turn, 0), n, 0)

    def share(self, turn: Index, n: Index) -> tuple[Index, Index]:
        """Returns a turn's range of `n` things."""
        return share(self.f, n, turn, self.team)

    # places

    def place(self, node: Node) -> Place:
        """Returns where nests of this phase load a node."""
        f = self.f
        if node.op == "const":
            return Place(self.pointers["const", node.attr], 0, 0, node.kind)
        if node.op == "xs":
            return self._over_time("xs", node.attr, node.size, node.kind)
        if node.op == "carry" and self.phase == 1:
            return self._padded(self.now[node.attr], node)
        if node.op == "take":
            return self.place(node.args[0])
        if node.op == "pick":
            vector = self.place(node.args[0])
            return Place(f.ptr(vector.pointer, node.attr, node.kind), vector.outer, vector.inner, node.kind)
        return self.place_of(self.plan.homes[node])

    def place_of(self, home: Home) -> Place:
        """Returns where nests of this phase find a stored value."""
        f = self.f
        if home.where == "ys":
            return self._over_time("ys", home.index, home.size, home.kind)
        if home.where == "carry":
            return Place(self.next[home.index], 0, self.memory.ld(home.size), home.kind, padded=True)
        if home.where == "sums":
            return Place(self.sums[home.index], 0, 0, home.kind, padded=True)
        ld = self.memory.ld(home.size)
        if home.of_step:
            offset = f.mul(self.most, self.memory.offsets[home])
            return Place(f.byte_ptr(self.of_rows, offset), 0, ld, home.kind, padded=True)
        step = f.mul(self.count, ld)
        pointer = self._cells(home)
        if self.phase == 1:
            pointer = f.ptr(pointer, f.mul(f.sub(self.time, self.start), step), home.kind)
        return Place(pointer, *self._strides(ld, step), home.kind, padded=True)

    def _cells(self, home: Home) -> str:
        """The memory of a value of every row and step of a chunk."""
        return self.f.byte_ptr(self.of_cells, self.f.mul(self.most_cells, self.memory.offsets[home]))

    def _over_time(self, name: str, index: int, size: int, kind: Kind) -> Place:
        """An array [steps, batch, size]."""
        f, n = self.f, max(size, 1)
        array = self.pointers[name, index]
        time = self.time if self.phase == 1 else self.start
        shifted = name == "xs" and self.variant.shifted[index]
        if shifted:
            time = f.add(time, -1 if self.variant.reverse else 1)
        pointer = f.ptr(array, f.mul(f.add(f.mul(time, self.batch), self.row), n), kind)
        if shifted:
            first = f.ptr(self.pointers["first", index], f.mul(self.row, n), kind)
            pointer = f.choose(self.at_edge, first, pointer, "ptr")
        return Place(pointer, *self._strides(n, f.mul(self.batch, n)), kind)

    def _strides(self, row: Index, step: Index) -> tuple[Index, Index]:
        """How far apart the turns of the outer and of the inner loop are."""
        f = self.f
        if self.phase == 1:
            return 0, row
        outer = f.choose(self.swapped, row, step)
        return outer, f.choose(self.swapped, step, row)
