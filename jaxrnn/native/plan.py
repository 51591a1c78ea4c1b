"""Orders the nodes of a row into loop nests.

Time is divided into chunks of steps. A chunk has three phases:

    0   what the carry does not reach (the input's products), for all steps of the chunk at once
    1   what the next carry needs, step by step, and the results that its values give place by place
    2   the rest (outputs of products, sums), at once again

Within a phase, a value that is needed as a whole, such as the left side of a product or a reduced vector, must be in
memory before it is used: it ends a *stage*. A *nest* is all that is stored in one stage of one phase for vectors of one
length: a loop over rows and places that computes each value in registers from what earlier stages have stored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from jaxrnn.native.graph import Node, Outer, Row
from jaxrnn.native.pointwise import POINTWISE
from jaxrnn.native.vectors import Kind

__all__ = ["Chain", "Home", "Nest", "Plan", "Store"]

REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min")
WHOLE = ("concat", *REDUCTIONS)  # all their places are stored before one is read
INDEXED = ("pick", "take")  # read other places of a stored value
OPERANDS = ("lit", "const")

Chain = tuple[tuple[Node, int], ...]
"""Products that are added up, each with the place where the nest's columns begin."""


@dataclass(eq=False)
class Home:
    """The memory of a stored value.

    `where` it lies: scratch memory of a chunk or, if no other phase reads it, of a step; a result. `index` is that of a
    result's leaf.
    """

    where: Literal["scratch", "ys", "carry", "sums"]
    size: int
    kind: Kind
    index: int = 0
    made: int = 0
    read: set[int] = field(default_factory=set)

    @property
    def of_step(self) -> bool:
        """Whether the value lives no longer than a step."""
        return self.made == 1 and self.read <= {1}


@dataclass(frozen=True)
class Store:
    """A value that a nest stores, `shift` places on; or adds to a sum or the row `index` of one, or reduces."""

    node: Node
    home: Home
    how: str = "store"
    shift: int = 0
    index: Node | None = None


@dataclass(eq=False)
class Nest:
    """A loop over rows and places. The accumulators of `chains` are computed first, by tiles of rows and columns."""

    phase: int
    stage: int
    size: int
    stores: list[Store] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)


class Plan:
    """The nests of a row.

    Attributes:
        nests: in order.
        homes: where the nodes that are stored lie.
        outers: the outer products `(index of the sum, left, right)` that follow phase 2.
        passing: nodes that the next carry alone needs.
    """

    def __init__(self, row: Row) -> None:
        self.row = row
        self.nodes = list(row.nodes)
        self.homes: dict[Node, Home] = {}
        self._nests: dict[tuple[int, int, int], Nest] = {}
        self._todo: list[tuple[Nest, Node, int]] = []
        self._results = {n: i for i, n in enumerate(row.ys) if n.op not in (*OPERANDS, *WHOLE, *INDEXED, "xs", "carry")}
        self.outers = [
            (i, self._factor(left), self._factor(right))
            for i, terms in enumerate(row.sums)
            if isinstance(terms, tuple)
            for left, right in terms
            if left.size
        ]
        lasting = _needed([*row.ys, *(n for terms in row.sums for n in _of_sum(terms))])
        self.passing = {n for n in self.nodes if n not in lasting}
        self.phase: dict[Node, int] = {}
        self.stage: dict[Node, int] = {}
        self._early_stage: dict[Node, int] = {}  # in phase 1, of nodes that are computed again there
        self._date()
        self._store_results()
        while self._todo:
            self._visit(*self._todo.pop())
        self.nests = sorted(self._nests.values(), key=lambda n: (n.phase, n.stage, n.size))

    def _factor(self, node: Node) -> Node:
        """A factor of outer products, in scratch memory, where the rows of a chunk follow each other."""
        if node.op in (*OPERANDS, *INDEXED, "xs") or node in self._results:
            node = Node("copy", (node,), None, node.size, node.kind, len(self.nodes))
            self.nodes.append(node)
        return node

    # phases and stages

    def _date(self) -> None:
        """Finds each node's phase and stage."""
        reached = set[Node]()
        for n in self.nodes:
            if n.op == "carry" or any(a in reached for a in n.args):
                reached.add(n)
        needed = _needed(self.row.carry)
        for n in self.nodes:
            self.phase[n] = 0 if n not in reached else 1 if n in needed or n.op == "carry" else 2
        for n in self._early():
            self.phase[n] = 1
        for n in self.nodes:
            self.stage[n] = max((self._ready(n, a) for a in n.args), default=0)
            self._early_stage[n] = max((self._first(a, 1) for a in n.args), default=0)

    def _early(self) -> set[Node]:
        """Returns results of phase 2 that are computed in phase 1, as its values need not be stored for them then.

        With them go the nodes that they alone are computed from.
        """
        place_by_place = {*OPERANDS, "xs", "carry", "slice", "copy"} | {name for name, _ in POINTWISE}
        able, late = set[Node](), {n for terms in self.row.sums for n in _of_sum(terms)}
        for n in self.nodes:
            if self.phase[n] < 2 or (n.op in place_by_place and all(a in able for a in n.args)):
                able.add(n)
        early = set[Node]()
        for n in reversed(self.nodes):
            if self.phase[n] == 2:
                if n in able and (n in self._results or n not in late):
                    early.add(n)
                else:
                    late.update(n.args)
        return early

    def _ready(self, node: Node, arg: Node) -> int:
        """The first stage, in the phase of a node, in which it can read an argument."""
        phase = self.phase[node]
        if node.op in ("dot", *INDEXED):  # all places of it, or others
            stored = self.phase[arg] != phase or arg.op in (*OPERANDS, "xs", "carry")
            return 0 if stored else self.stage[arg] + (arg.op not in WHOLE)
        return self._first(arg, phase) + (node.op in WHOLE)

    def _first(self, node: Node, phase: int) -> int:
        """The first stage of a phase in which a node is known, or can be computed again for an early result."""
        if self.phase[node] > phase:
            return self._early_stage[node]
        return self.stage[node] if self.phase[node] == phase else 0

    # what is stored

    def _store_results(self) -> None:
        row = self.row
        for i, node in enumerate(row.ys):
            if node in self._results:
                self._require(node)
            else:
                self._store(node, self.phase[node], Home("ys", node.size, node.kind, i))
        for i, node in enumerate(row.carry):
            self._store(node, 1, Home("carry", node.size, node.kind, i))
        for i, total in enumerate(row.sums):
            home = Home("sums", 0, "f", i)
            if isinstance(total, Node):
                self._store(total, 2, home, "sum")
            for index, right in total if isinstance(total, tuple) else ():
                if not index.size:
                    stage = max(self._first(n, 2) for n in (index, right))
                    self._store(right, 2, home, "row", stage=stage, index=index)
        for _, *factors in self.outers:
            for node in factors:
                self._read(node, 2)

    def _store(
        self,
        node: Node,
        phase: int,
        home: Home,
        how: str = "store",
        shift: int = 0,
        stage: int = 0,
        index: Node | None = None,
    ) -> None:
        key = phase, max(stage, self._first(node, phase)), max(node.size, 1)
        nest = self._nests.setdefault(key, Nest(*key))
        nest.stores.append(Store(node, home, how, shift, index))
        self._todo += [(nest, n, 0) for n in (node, index) if n is not None]

    def _require(self, node: Node) -> Home:
        """Has a node stored."""
        if node in self.homes:
            return self.homes[node]
        phase = self.phase[node]
        home = Home("scratch", node.size, node.kind, made=phase)
        if node in self._results:
            home = Home("ys", node.size, node.kind, self._results[node], made=phase)
        self.homes[node] = home
        if node.op == "concat":
            start = 0
            for part in node.args:
                self._store(part, phase, home, shift=start)
                start += max(part.size, 1)
        elif node.op in REDUCTIONS:
            self._store(node.args[0], phase, home, node.op, stage=self.stage[node] - 1)
        else:
            self._store(node, phase, home)
        return home

    def _read(self, node: Node, phase: int) -> None:
        """Has a node in memory for a phase that loads it."""
        if node.op in INDEXED:
            self._read(node.args[0], phase)
        elif node.op not in (*OPERANDS, "xs") and not (node.op == "carry" and phase == 1):
            self._require(node).read.add(phase)

    # what a nest computes

    def loads(self, nest: Nest, node: Node) -> bool:
        """Returns whether a nest loads a node rather than computing it."""
        if node.op in ("const", "xs", "carry", *INDEXED, *WHOLE):
            return True
        return node.op != "lit" and (self.phase[node], self.stage[node]) < (nest.phase, nest.stage)

    def _visit(self, nest: Nest, node: Node, shift: int) -> None:
        """Finds what a nest needs for a node."""
        if node.op in OPERANDS:
            return
        if self.loads(nest, node):
            self._read(node, nest.phase)
            return
        chain, rest = self.terms(nest, node, shift)
        if chain:
            if chain not in nest.chains:
                nest.chains.append(chain)
            for dot, _ in chain:
                self._read(dot.args[0], nest.phase)
        for n, s in rest if chain else arguments(node, shift):
            self._visit(nest, n, s)

    def terms(self, nest: Nest, node: Node, shift: int) -> tuple[Chain, list[tuple[Node, int]]]:
        """Splits a sum with products in it into its products and its other terms; no products if it has none."""
        chain: list[tuple[Node, int]] = []
        rest: list[tuple[Node, int]] = []

        def visit(n: Node, s: int) -> None:
            computed = not self.loads(nest, n) and n.kind == "f"
            if computed and n.op == "dot":
                chain.append((n, s))
            elif computed and n.op in ("slice", "add"):
                for argument in arguments(n, s):
                    visit(*argument)
            else:
                rest.append((n, s))

        visit(node, shift)
        return tuple(chain), rest


def _needed(results: Iterable[Node]) -> set[Node]:
    """The nodes that these are computed from, and themselves."""
    needed, todo = set[Node](), list(results)
    while todo:
        n = todo.pop()
        if n not in needed:
            needed.add(n)
            todo += n.args
    return needed


def _of_sum(terms: tuple[Outer, ...] | Node | None) -> Iterator[Node]:
    """The nodes that a sum adds up."""
    if isinstance(terms, Node):
        yield terms
    for outer in terms if isinstance(terms, tuple) else ():
        yield from outer


def arguments(node: Node, shift: int) -> Iterator[tuple[Node, int]]:
    """Returns the arguments of a node, each with the place from which on it is read; scalars have one place."""
    for arg in node.args:
        yield arg, 0 if arg.size == 0 else shift + (node.attr if node.op == "slice" else 0)
