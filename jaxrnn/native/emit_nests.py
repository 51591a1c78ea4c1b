"""Writes a nest: its products tile by tile, then, vector by vector, what it computes and stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jaxrnn.native.emit_memory import Place
from jaxrnn.native.emit_products import Factor, Tiling
from jaxrnn.native.graph import Node
from jaxrnn.native.plan import REDUCTIONS, Chain, Nest, Store, arguments
from jaxrnn.native.pointwise import POINTWISE
from jaxrnn.native.vectors import Fn, Index, Kind, Types

if TYPE_CHECKING:
    from jaxrnn.native.emit_part import Part

__all__ = ["NestWriter", "take"]

_FILLS = {"reduce_sum": 0.0, "reduce_max": float("-inf"), "reduce_min": float("inf")}
_COMBINE: dict[str, Callable[[Fn, str, str], str]] = {
    "reduce_sum": lambda f, a, b: f.f("fadd", a, b),
    "reduce_max": Fn.maximum,
    "reduce_min": Fn.minimum,
}


def take(t: Types, kind: Kind) -> str:
    """Returns a function that loads a vector from places that a table lists; behind its end the table has zeros."""
    element, vector = t.element(kind), "poison"
    f = Fn(f"define internal {t.memory(kind)} @take_{kind}(ptr %row, ptr %table) noinline nounwind #0", t)
    for lane in range(t.w):
        place = f.val(f"sext i32 {f.field('%table', 4 * lane, 'i32')} to i64")
        number = f.val(f"load {element}, ptr {f.ptr('%row', place, kind)}")
        vector = f.val(f"insertelement {t.memory(kind)} {vector}, {element} {number}, i64 {lane}")
    f.do(f"ret {t.memory(kind)} {vector}")
    return f.text()


class NestWriter:
    """Writes one nest into a part; it takes room for the weights and for the sums of its tiles at once."""

    def __init__(self, part: Part, nest: Nest) -> None:
        self.part, self.nest, self.f, self.t = part, nest, part.f, part.t
        self.plan = part.plan
        self.places: dict[Node, Place] = {}
        self.tiling: Tiling | None = None
        self.sums_at: dict[Chain, int] = {}  # in a tile's sums for a row
        if nest.chains:
            rows = part.variant.rows if nest.phase == 1 else 8
            self.tiling = tiling = Tiling(nest.chains, nest.size, part.registers, rows)
            self.panels = [part.products.panel(tiling, group, nest.size) for group in tiling.groups]
            self.sums_at = {chain: i * tiling.width for i, chain in enumerate(tiling.chains)}
            part.reserve(tiling.height * tiling.row_of_sums)

    def write(self, turn: Index) -> None:
        """Writes a turn's share of the columns; all of them for the first turn where rows are reduced."""
        part, f, w, nest = self.part, self.f, self.t.w, self.nest
        reductions = [(s, part.place_of(s.home)) for s in nest.stores if s.how in REDUCTIONS]
        targets = [part.place_of(s.home) for s in nest.stores]
        for store in nest.stores:
            self._find(store.node)
            if store.index:
                self._find(store.index)
        tiling = self.tiling
        tiles = tiling.tiles if tiling else -(-nest.size // w)
        low, high = (0, part.first(turn, tiles)) if reductions else part.share(turn, tiles)
        outer, inner = part.loops
        for store, place in reductions:
            with f.loop(part.first(turn, outer)) as o, f.loop(inner) as r:
                f.store(self.t.splat(_FILLS[store.how]), self.at(place, o, r))
        if tiling:
            self._lefts = {group.left: part.place(group.left) for group in tiling.groups}
            self._depths = [part.depth(group) for group in tiling.groups]
            with f.loop(high, low) as tile, f.loop(outer) as o:
                part.products.tiles(
                    f, inner, tiling.height, lambda r, rows: self._tile(tiling, tile, o, r, rows, targets)
                )
        else:
            with f.loop(outer) as o, f.loop(inner) as r, f.loop(high, low) as j:
                self._vector(o, r, f.mul(j, w), targets, "")
        for store, place in reductions:
            how = store.how.removeprefix("reduce_")
            with f.loop(part.first(turn, outer)) as o, f.loop(inner) as r:
                at = self.at(place, o, r)
                f.do(f"store {self.t.s} {f.reduce(how, f.load(at))}, ptr {at}")  # type: ignore[arg-type]

    def at(self, place: Place, o: Index, r: Index) -> str:
        """Returns the pointer of a row."""
        f = self.f
        return f.ptr(place.pointer, f.add(f.mul(o, place.outer), f.mul(r, place.inner)), place.kind)

    def _tile(self, tiling: Tiling, tile: Index, o: Index, first: Index, rows: Index, targets: list[Place]) -> None:
        """The products of a tile of rows, then its vectors."""
        part, f, w = self.part, self.f, self.t.w
        for group, panel, depth in zip(tiling.groups, self.panels, self._depths, strict=True):
            left = self._lefts[group.left]
            weights = f.ptr(f.byte_ptr(part.packed, panel.offset), f.mul(tile, panel.tile_size(w)))
            part.products.call(
                f,
                len(group.products) * tiling.vectors,
                tiling.height,
                rows,
                a=Factor(self.at(left, o, first), left.inner, 1),
                w=weights,
                w_step=len(group.products) * tiling.width,
                k=depth,
                c=f.ptr(part.accumulators, group.first * tiling.width),
                c_row=tiling.row_of_sums,
                more=not group.begins,
            )
        left_over = f.sub(-(-self.nest.size // w), f.mul(tile, tiling.vectors))
        whole = self.nest.size % tiling.width == 0
        with f.loop(rows) as q, f.loop(tiling.vectors if whole else f.min(tiling.vectors, left_over)) as v:
            sums = f.ptr(part.accumulators, f.add(f.mul(q, tiling.row_of_sums), f.mul(v, w)))
            column = f.mul(f.add(f.mul(tile, tiling.vectors), v), w)
            self._vector(o, f.add(first, q), column, targets, sums)

    def _vector(self, o: Index, r: Index, column: Index, targets: list[Place], sums: str) -> None:
        """All that the nest stores for one vector of one row; `sums` points to the vector of the first chain."""
        f = self.f
        self._values: dict[tuple[Node, int], str] = {}
        self._rows: dict[Place, str] = {}
        self._here, self._sums = (o, r, column), sums
        self._mask = f.below(f.sub(self.nest.size, column)) if self.nest.size % self.t.w else None
        for store, target in zip(self.nest.stores, targets, strict=True):
            self._store(store, target, self._value(store.node, 0))

    def _store(self, store: Store, target: Place, v: str) -> None:
        f = self.f
        if store.how == "store":
            f.store(v, self._at(target, store.shift), self._mask, target.kind)
        elif store.how in ("sum", "row"):
            at = self._at(target)
            if store.index:
                sums = self.part.memory.sums[store.home.index]
                at = f.ptr(at, f.mul(self._number(store.index, sums.rows), sums.ld))
            f.store(f.f("fadd", f.load(at), v), at)
        else:
            at = self._row(target)
            old = f.load(at)
            new = _COMBINE[store.how](f, old, v)
            f.store(f.select(self._mask, new, old) if self._mask else new, at)

    # values

    def _find(self, node: Node) -> None:
        """Finds the places of all that is loaded for a node."""
        if node in self.places or node.op == "lit":
            return
        if self.plan.loads(self.nest, node):
            self.places[node] = self.part.place(node)
        elif node.op != "dot":
            for arg in node.args:
                self._find(arg)

    def _value(self, node: Node, shift: int) -> str:
        """The vector of a node at this column, `shift` places on."""
        key = node, shift
        if key not in self._values:
            self._values[key] = self._compute(node, shift)
        return self._values[key]

    def _compute(self, node: Node, shift: int) -> str:
        f = self.f
        if node.op == "lit":
            return self.t.splat(node.attr, node.kind)
        if self.plan.loads(self.nest, node):
            return self._load(node, shift)
        chain, rest = self.plan.terms(self.nest, node, shift)
        if chain:
            value = f.load(f.ptr(self._sums, self.sums_at[chain]))
            for n, s in rest:
                value = f.f("fadd", value, self._value(n, s))
            return value
        if node.op == "row":
            return self._look_up(node, shift)
        args = [self._value(n, s) for n, s in arguments(node, shift)]
        if node.op in ("slice", "splat", "copy"):
            return args[0]
        return POINTWISE[node.op, node.args[-1].kind](f, *args)

    def _load(self, node: Node, shift: int) -> str:
        place = self.places[node]
        if node.size == 0:
            return self.f.broadcast(self._row(place), node.kind)
        if node.op == "take":
            return self._take(node, place, shift)
        return self.f.load(self._at(place, shift), None if place.padded else self._mask, node.kind)

    def _take(self, node: Node, place: Place, shift: int) -> str:
        """The numbers at the places that a table lists."""
        f, t = self.f, self.t
        table = f.ptr(self.part.pointers["const", node.attr], f.add(self._here[2], shift), "i")
        vector = f.val(f"call {t.memory(node.kind)} @take_{node.kind}(ptr {self._row(place)}, ptr {table})")
        return f.val(f"icmp ne {t.memory(node.kind)} {vector}, zeroinitializer") if node.kind == "b" else vector

    def _number(self, index: Node, count: int) -> str:
        """A row's index, the nearest of those that there are."""
        number = self.f.val(f"extractelement {self.t.vector('i')} {self._value(index, 0)}, i64 0")
        number = self.f.val(f"call i32 @llvm.smax.i32(i32 {number}, i32 0)")
        number = self.f.val(f"call i32 @llvm.smin.i32(i32 {number}, i32 {count - 1})")
        return self.f.val(f"sext i32 {number} to i64")

    def _look_up(self, node: Node, shift: int) -> str:
        """The row of a matrix that an index names."""
        f, (rows, columns) = self.f, node.attr.shape
        number = f.mul(self._number(node.args[0], rows), columns)
        row = f.ptr(self.part.pointers["const", node.attr.operand], number, node.kind)
        if node.size == 0:
            return f.broadcast(row, node.kind)
        return f.load(f.ptr(row, f.add(self._here[2], shift), node.kind), self._mask, node.kind)

    def _row(self, place: Place) -> str:
        """The pointer of this row."""
        if place not in self._rows:
            self._rows[place] = self.at(place, *self._here[:2])
        return self._rows[place]

    def _at(self, place: Place, shift: int = 0) -> str:
        """The pointer of this vector, `shift` places on."""
        return self.f.ptr(self._row(place), self.f.add(self._here[2], shift), place.kind)
