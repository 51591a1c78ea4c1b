"""Where the values of a graph's tensors come from: numbers in place of values, moved as the graph moves values."""

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from jaxrnn.convert.layers import Direction
from jaxrnn.engine.layer import Layer
from jaxrnn.networks import Bidirectional, BidirectionalParams, Embedding, Linear, Pointwise, Residual, Reversed, Stack

__all__ = ["Moved", "Source", "Trace", "network"]


class Moved:
    """Where the values of a tensor come from: numbers that a `Source` explains."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids


@dataclass(frozen=True, eq=False)
class Source:
    """What gives values: an input of the graph, or the last layer of a chain.

    The value of row r and feature f has the number `base + r * size + f`.
    """

    base: int
    rows: int
    size: int
    chain: tuple[Direction, ...]
    steps: tuple[int, int] | None = None
    """(T, B), from the first recurrent layer on. Row `t * B + b` is step t of b; row `T * B + b` its last valid one."""
    nodes: frozenset[int] = frozenset()
    """The recurrent nodes in the chain, in the order in which they were read."""
    final: frozenset[int] = frozenset()
    """The numbers of what the final state holds too."""
    kind: str = "values"
    """"tokens" of an integer input; "state" of `Y_c`, which no layer may see; else "values"."""
    name: str = ""
    """Of the input at the bottom of the chain."""

    def outputs(self, rows: np.ndarray) -> Moved:
        """Returns all values of the rows `[...]`, a tensor `[..., F]`."""
        return Moved(self.base + rows[..., None] * self.size + np.arange(self.size))


@dataclass
class Trace:
    """The sources of all numbers so far."""

    sources: list[Source] = field(default_factory=list)
    joined: dict[tuple[Any, ...], Source] = field(default_factory=dict)
    """Branches that came together, so that all that see them see the same layer."""
    order: tuple[bool, int, int] | None = None
    """Whether the rows of the input are `b * T + t`, T and B; known from the first recurrent layer on."""
    lengths: list[str] = field(default_factory=list)
    """Of each recurrent node, the input that gives its lengths, or nothing."""

    @property
    def next_number(self) -> int:
        """The first number of the next source."""
        return self.sources[-1].base + self.sources[-1].rows * self.sources[-1].size if self.sources else 0

    def add(self, rows: int, size: int, chain: tuple[Direction, ...], **more: Any) -> Source:
        """Adds a source with numbers of its own."""
        self.sources.append(Source(self.next_number, rows, size, chain, **more))
        return self.sources[-1]

    def add_beside(self, source: Source, chain: tuple[Direction, ...], size: int) -> Source:
        """Adds a source of the same rows as another one, by another chain."""
        return self.add(source.rows, size, chain, steps=source.steps, nodes=source.nodes, name=source.name)

    def source_of(self, number: int) -> Source:
        """Returns the source of a number."""
        return self.sources[bisect.bisect_right(self.sources, number, key=lambda source: source.base) - 1]

    def rows(self, value: Any) -> tuple[Source, np.ndarray]:
        """Returns whose outputs a tensor `[..., F]` holds, and their rows `[...]`; joins branches side by side."""
        if not isinstance(value, Moved) or value.ids.ndim < 1:
            raise ValueError("got constants, needs the outputs of a layer")
        ids = value.ids
        lines = ids.reshape(-1, ids.shape[-1])
        found, start = [], 0
        while start < ids.shape[-1]:
            source = self.source_of(lines[0, start])
            part = lines[:, start : start + source.size] - source.base
            rows = part[:, :1] // source.size
            whole = np.array_equal(part, rows * source.size + np.arange(source.size))
            if not whole or source.kind != "values" or rows.min() < 0 or rows.max() >= source.rows:
                raise ValueError(
                    "got a part of the outputs of a layer, or of different time steps, needs all of them at each step; "
                    "the argument output cuts the model before"
                )
            found.append((source, rows.reshape(ids.shape[:-1])))
            start += source.size
        return functools.reduce(lambda a, b: self.join("concat", a, b), found)

    def in_steps(self, source: Source, rows: np.ndarray) -> np.ndarray:
        """Returns rows as `t * B + b`, as soon as it is known which axis is time."""
        if source.steps is not None or self.order is None or not self.order[0]:
            return rows
        _, steps, batch = self.order
        return rows % steps * batch + rows // steps

    def join(
        self, merge: Literal["concat", "sum"], one: tuple[Source, np.ndarray], other: tuple[Source, np.ndarray]
    ) -> tuple[Source, np.ndarray]:
        """Joins two branches over the same inputs."""
        sources = one[0], other[0]
        steps = one[0].steps or other[0].steps
        rows, others = (self.in_steps(*pair) if steps else pair[1] for pair in (one, other))
        if not np.array_equal(rows, others) or one[0].name != other[0].name:
            raise ValueError("got two branches of different steps or inputs, needs those of the same")
        key = (merge, *sources)
        if key not in self.joined:
            chains = [source.chain for source in sources]
            n = next((i for i, (a, b) in enumerate(zip(*chains, strict=False)) if a is not b), min(map(len, chains)))
            self.joined[key] = self.add(
                max(source.rows for source in sources),
                sources[0].size + sources[1].size if merge == "concat" else sources[0].size,
                (*chains[0][:n], _joined(merge, [chain[n:] for chain in chains], [s.size for s in sources])),
                steps=steps,
                nodes=sources[0].nodes | sources[1].nodes,
                name=one[0].name,
            )
        return self.joined[key], rows

    def above(self, source: Source, rows: np.ndarray, layer: Direction, size: int) -> Moved:
        """Puts a layer without a state on a chain, and returns its outputs in the order of `rows`."""
        return self.add_beside(source, (*source.chain, layer), size).outputs(rows)

    def is_flipped(self, source: Source, rows: np.ndarray) -> bool:
        """Returns whether the steps `[T, B]` of a chain are reversed; finds out which axis of the input is time."""
        steps, batch = rows.shape
        if source.steps is not None and source.steps != (steps, batch):
            raise ValueError(f"X: got {rows.shape} steps and rows of a sequence of {source.steps}, needs all")
        orders = [False, True] if self.order is None else [self.order[0]]
        for batch_major in [False] if source.steps else orders:
            numbers = np.arange(steps * batch)
            expected = numbers.reshape(batch, steps).T if batch_major else numbers.reshape(steps, batch)
            for flipped in (False, True):
                whole = source.steps is not None or source.rows == rows.size
                if whole and np.array_equal(rows, expected[::-1] if flipped else expected):
                    if self.order and self.order[1:] != (steps, batch):
                        raise ValueError(f"X: got {rows.shape} steps and rows, after {self.order[1:]}, needs the same")
                    self.order = self.order or (batch_major, steps, batch)
                    return flipped
        raise ValueError("X: got steps in another order than that of time, or not all of them")

    def is_output(self, source: Source, ids: np.ndarray, has_lengths: bool) -> bool:
        """Returns whether numbers are a layer's outputs, all or those of the first or last step, features in order."""
        steps, batch = source.steps or (0, 0)
        rows = (ids.ravel() - source.base) // source.size
        numbers = ids.ravel()[np.argsort(rows, kind="stable")] - source.base
        last = {steps} if has_lengths else {steps - 1, steps}
        parts = [(0, steps), *((step, step + 1) for step in {0, *last})]
        width = batch * source.size
        return any(np.array_equal(numbers, np.arange(start * width, end * width)) for start, end in parts)

    def is_state(self, main: Source, sources: set[Source], ids: np.ndarray) -> bool:
        """Returns whether numbers are parts of the final state of a network."""
        if not all(source.nodes <= main.nodes for source in sources):
            return False
        final = frozenset().union(*(source.final for source in sources))
        return all(i in final or self.source_of(i).kind == "state" for i in np.unique(ids).tolist())


def _joined(merge: Literal["concat", "sum"], tails: Sequence[Sequence[Direction]], sizes: Sequence[int]) -> Direction:
    """Returns the layer of two branches."""
    if merge == "sum" and bool(tails[0]) != bool(tails[1]):
        layer, params = network(tails[0] or tails[1])
        return Residual(layer), params
    (forward, there), (backward, back) = (
        network(tail or [(Pointwise(jax.nn.identity, size), ())]) for tail, size in zip(tails, sizes, strict=True)
    )
    backward = _turned(backward)
    pair = Bidirectional(forward, None if forward == backward else backward, merge)
    return pair, BidirectionalParams(there, back)


def _turned(layer: Layer) -> Layer:
    """Returns a layer in the other direction of time."""
    match layer:
        case Reversed():
            return layer.cell
        case Pointwise() | Linear() | Embedding():
            return layer
        case Stack() if not any(isinstance(_turned(cell), Reversed) for cell in layer.cells):
            return Stack(tuple(map(_turned, layer.cells)))
    return Reversed(layer)


def network(chain: Sequence[Direction]) -> Direction:
    """Returns the layers of a chain as one network."""
    if len(chain) == 1:
        return chain[0]
    cells, params = zip(*chain, strict=True)
    return Stack(cells), params
