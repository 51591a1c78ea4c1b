"""Lays out the scratch memory of a part."""

from dataclasses import dataclass

import jax

from jaxrnn.native.emit_products import Registers, round_up
from jaxrnn.native.plan import Plan
from jaxrnn.native.vectors import Index, Kind, Types

__all__ = ["Memory", "Place", "Sum"]


@dataclass(frozen=True)
class Place:
    """Where the two loops of a nest find a value: a pointer, and how far apart the turns of the loops are, in numbers.

    `padded` rows have room for a vector that begins in their last place.
    """

    pointer: str
    outer: Index
    inner: Index
    kind: Kind
    padded: bool = False


@dataclass(frozen=True)
class Sum:
    """Where a part adds up a sum: `offset` in bytes, and `ld`, how far apart its rows are, in numbers.

    `dense`: whether the result has the same layout, so that the first part adds up there.
    """

    offset: int
    rows: int
    columns: int
    ld: int
    dense: bool

    @property
    def size(self) -> int:
        """How many numbers it has room for."""
        return self.rows * self.ld


class Memory:
    """What a part has: its sums, then room for each row, then room for each row and step of a chunk.

    Attributes:
        sums: one a leaf, without memory where nothing is added up.
        sums_size: bytes of those that are not dense.
        dense_size: bytes of the dense ones, which all parts but the first have, after the parts' own memory.
        carry: two buffers of each leaf, in the room of a row, in bytes.
        offsets: homes in scratch memory, in the room of their row, or of their row and step, in bytes.
        of_row, of_cell: bytes of these rooms.
    """

    def __init__(self, plan: Plan, types: Types, registers: Registers) -> None:
        self.t = types
        self.sums: list[Sum] = []
        self.sums_size = self.dense_size = 0
        tile = registers.vectors(8) * types.w
        for total, spec in zip(plan.row.sums, jax.tree.leaves(plan.row.results[2]), strict=True):
            rows = 1 if not isinstance(total, tuple) else total[0].left.size or spec.shape[0]
            columns = spec.size // rows
            ld = round_up(columns, tile if rows > 1 else types.w)
            size = round_up(rows * ld * types.bytes, 64) if total is not None else 0
            dense = ld == columns
            self.sums.append(Sum(self.dense_size if dense else self.sums_size, rows, columns, ld, dense))
            self.dense_size += size * dense
            self.sums_size += size * (not dense)
        self.of_row = self.of_cell = 0
        self.carry = [[self._take(n.size, n.kind, of_row=True) for _ in range(2)] for n in plan.row.carry]
        self.offsets = {
            h: self._take(h.size, h.kind, of_row=h.of_step) for h in plan.homes.values() if h.where == "scratch"
        }
        # A tile of a product may begin in the last row's last places.
        self.slack = tile * types.bytes

    def ld(self, size: int) -> int:
        """Returns how far apart padded rows are, in numbers."""
        return round_up(size, self.t.w) + self.t.w if size else self.t.w

    def packed_at(self, parts: int, stride: int) -> int:
        """Returns where the packed weights begin, behind the memory of the parts: a multiple of 64."""
        return parts * stride + (parts - 1) * self.dense_size

    def stride(self, rows: int, chunk: int) -> int:
        """Returns the bytes of a part of at most so many rows, a multiple of 64."""
        return round_up(self.sums_size + rows * (self.of_row + chunk * self.of_cell) + self.slack, 64)

    def _take(self, size: int, kind: Kind, of_row: bool) -> int:
        taken = round_up(self.ld(size) * self.t.size(kind), 8)
        if of_row:
            self.of_row += taken
            return self.of_row - taken
        self.of_cell += taken
        return self.of_cell - taken
