"""Writes the products of the nests: micro kernels whose sums stay in registers, and the weights packed for them.

    micro_N_M    c[M rows, N vectors] (+)= a[M rows, K] w[K, N vectors]

A matrix is packed once a call: for each tile of columns and each k, the vectors that a micro kernel reads together lie
side by side, padded with zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from jaxrnn.native.graph import Matrix, Node
from jaxrnn.native.plan import Chain
from jaxrnn.native.vectors import Fn, Index, Types

__all__ = ["Factor", "Group", "Panel", "Products", "Registers", "Tiling", "round_up", "share"]


def round_up(n: int, multiple: int) -> int:
    """Returns the least multiple that is not below `n`."""
    return -(-n // multiple) * multiple


def share(f: Fn, n: Index, member: Index, members: Index) -> tuple[Index, Index]:
    """Returns the range of `n` things that is a member's, of as many members."""
    return f.div(f.mul(member, n), members), f.div(f.mul(f.add(member, 1), n), members)


@dataclass(frozen=True)
class Registers:
    """The vector registers of a machine, on which the tiles depend."""

    lanes: int
    count: int

    def holding(self, size: int) -> "Registers":
        """Returns those with the shortest vectors, of four lanes and more, that hold so many numbers, or as it is.

        Longer ones would be mostly padding, and many processors compute long vectors in halves.
        """
        lanes = self.lanes
        while lanes > max(4, 2 * size - 1):
            lanes //= 2
        return replace(self, lanes=lanes)

    def vectors(self, rows: int) -> int:
        """Returns the vectors of a row that a tile has: more where few rows would leave the adders waiting."""
        n = 4 if self.count >= 32 else 2
        while n < 8 and n * min(rows, 6) < 8:
            n *= 2
        return n

    def height(self, vectors: int) -> int:
        """Returns the rows of a tile, whose sums, weights and one number of the left side are in registers."""
        return max(1, min(8, (self.count - 2 - vectors) // vectors))


class Factor(NamedTuple):
    """The left side of a product: the distances from row to row, and from place to place, in numbers."""

    pointer: str
    row: Index
    place: Index


@dataclass(frozen=True)
class Panel:
    """A packed weight: `tiles` x K x the vectors of the products that a micro kernel computes together."""

    offset: int  # in bytes
    tiles: int
    k: int
    vectors: int  # of each product
    columns: list[tuple[Matrix, int]]
    size: int  # columns that are not padding

    def tile_size(self, lanes: int) -> int:
        """Returns the numbers of a tile."""
        return self.k * len(self.columns) * self.vectors * lanes


class Group(NamedTuple):
    """Products of one left side that a micro kernel computes together, for the chains from `first` on."""

    left: Node
    products: list[tuple[Node, int]]
    first: int
    begins: bool  # whether the chains' sums begin here


class Tiling:
    """How the products of a nest are computed: tiles of `height` rows by `vectors` vectors of every chain.

    Of each chain a tile has `width` sums for a row, those of the first chain first.
    """

    def __init__(self, chains: list[Chain], size: int, registers: Registers, rows: int) -> None:
        self.chains = sorted(chains, key=lambda chain: [dot.args[0].index for dot, _ in chain])
        most = registers.vectors(rows)
        self.vectors = min(max(1, most // len(chains)), -(-size // registers.lanes))
        self.width = self.vectors * registers.lanes
        self.row_of_sums = len(chains) * self.width
        self.tiles = -(-size // self.width)
        self.groups = list(self._groups(most))
        self.height = min(registers.height(len(g.products) * self.vectors) for g in self.groups)

    def _groups(self, most: int) -> list[Group]:
        groups, begun = [], set[int]()
        for left in dict.fromkeys(dot.args[0] for chain in self.chains for dot, _ in chain):
            waiting = [[p for p in chain if p[0].args[0] is left] for chain in self.chains]
            while any(waiting):
                # Chains that follow each other, all new or all begun.
                start = next(i for i, products in enumerate(waiting) if products)
                begins = start not in begun
                stop = start
                while stop < len(waiting) and waiting[stop] and (stop not in begun) == begins:
                    stop += 1
                run = [products.pop(0) for products in waiting[start:stop]]
                begun.update(range(start, stop))
                # Parts of about equal width.
                parts = -(-len(run) * self.vectors // most)
                width = -(-len(run) // parts)
                groups += [Group(left, run[i : i + width], start + i, begins) for i in range(0, len(run), width)]
        return groups


class Products:
    """The micro kernels and packed weights of a module."""

    def __init__(self, types: Types) -> None:
        self.t = types
        self.panels: list[Panel] = []
        self.packed = 0  # bytes
        self._micros: set[tuple[int, int]] = set()

    def panel(self, tiling: Tiling, group: Group, size: int) -> Panel:
        """Returns room for the weights of a group."""
        columns: list[tuple[Matrix, int]] = [(dot.attr, shift) for dot, shift in group.products]
        panel = Panel(self.packed, tiling.tiles, group.left.size, tiling.vectors, columns, size)
        self.panels.append(panel)
        self.packed += round_up(panel.tiles * panel.tile_size(self.t.w) * self.t.bytes, 64)
        return panel

    def call(
        self,
        f: Fn,
        vectors: int,
        height: int,
        rows: Index,
        a: Factor,
        w: str,
        w_step: Index,
        k: Index,
        c: str,
        c_row: Index,
        more: bool,
    ) -> None:
        """Writes a call of the micro kernel for a number of rows, at most `height`, that is known when it runs."""
        left, weights = f"ptr {a.pointer}, i64 {a.row}, i64 {a.place}", f"ptr {w}, i64 {w_step}, i64 {k}"
        args = f"({left}, {weights}, ptr {c}, i64 {c_row}, i1 {int(more)})"
        if isinstance(rows, int):
            self._micros.add((vectors, rows))
            f.do(f"call void @micro_{vectors}_{rows}{args}")
            return
        tag = f.name()[1:]
        cases = range(1, height + 1)
        self._micros |= {(vectors, m) for m in cases}
        f.do(f"switch i64 {rows}, label %end_{tag} [" + " ".join(f"i64 {m}, label %case{m}_{tag}" for m in cases) + "]")
        for m in cases:
            f.label(f"case{m}_{tag}")
            f.do(f"call void @micro_{vectors}_{m}{args}")
            f.do(f"br label %end_{tag}")
        f.label(f"end_{tag}")

    def tiles(self, f: Fn, rows: Index, height: int, body: Callable[[Index, Index], None]) -> None:
        """Writes `body(first row, rows)` for tiles of about equal height, a constant where it is known."""
        if isinstance(rows, int):
            alike = -(-rows // -(-rows // height))
            whole = rows // alike * alike
            with f.loop(whole, 0, alike) as r:
                body(r, alike)
            if rows > whole:
                body(whole, rows - whole)
            return
        count = f.div(f.add(rows, height - 1), height)
        least = f.div(rows, count)
        longer = f.sub(rows, f.mul(count, least))  # tiles with a row more than the others
        with f.loop(count) as i:
            more = f.val(f"zext i1 {f.test('slt', i, longer)} to i64")
            body(f.add(f.mul(i, least), f.min(i, longer)), f.add(least, more))

    def text(self) -> str:
        """Returns the micro kernels that were called."""
        return "\n\n".join(self._micro(*m) for m in sorted(self._micros))

    def _micro(self, vectors: int, rows: int) -> str:
        t = self.t
        cells = [(r, v) for r in range(rows) for v in range(vectors)]
        f = Fn(
            f"define internal void @micro_{vectors}_{rows}(ptr noalias %a, i64 %a_row, i64 %a_place, ptr noalias %w, "
            "i64 %w_step, i64 %K, ptr noalias %c, i64 %c_row, i1 %more) noinline nounwind #0",
            t,
        )
        a_rows = [f.mul("%a_row", r) for r in range(rows)]
        at = {(r, v): f.ptr(f.ptr("%c", f.mul("%c_row", r)), v * t.w) for r, v in cells}
        f.do("br i1 %more, label %load, label %zero")
        f.label("load")
        old = {cell: f.load(at[cell]) for cell in cells}
        f.do("br label %head")
        f.label("zero")
        f.do("br label %head")
        f.label("head")

        def phi(type: str, name: str, loaded: Index, zero: Index, following: str) -> None:
            f.do(f"{name} = phi {type} [{loaded}, %load], [{zero}, %zero], [{following}, %head]")

        phi("i64", "%k", 0, 0, "%next_k")
        phi("ptr", "%a_k", "%a", "%a", "%next_a")
        phi("ptr", "%w_k", "%w", "%w", "%next_w")
        for r, v in cells:
            phi(t.v, f"%s{r}_{v}", old[r, v], "zeroinitializer", f"%n{r}_{v}")
        w = [f.load(f.ptr("%w_k", v * t.w)) for v in range(vectors)]
        for r in range(rows):
            x = f.broadcast(f.ptr("%a_k", a_rows[r]))
            for v in range(vectors):
                f.do(f"%n{r}_{v} = call {t.v} @llvm.fma.{t.suffix}({t.v} {x}, {t.v} {w[v]}, {t.v} %s{r}_{v})")
        f.do("%next_k = add nuw i64 %k, 1")
        f.do(f"%next_a = getelementptr {t.s}, ptr %a_k, i64 %a_place")
        f.do(f"%next_w = getelementptr {t.s}, ptr %w_k, i64 %w_step")
        f.do("%again = icmp slt i64 %next_k, %K")
        f.do("br i1 %again, label %head, label %end")
        f.label("end")
        for r, v in cells:
            f.store(f"%n{r}_{v}", at[r, v])
        f.do("ret void")
        return f.text()
