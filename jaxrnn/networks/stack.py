"""Layers on top of each other."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_rate
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.engine.noise import Draw, Kept, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.compound import Compound
from jaxrnn.networks.stateless import Pointwise
from jaxrnn.ops import drop, dropout
from jaxrnn.typing import Params, PyTree, State

__all__ = ["Stack"]


@dataclass(frozen=True)
class Stack(Compound[tuple[Any, ...], tuple[Any, ...]]):
    """Stacks layers; `unroll` runs layer by layer, so that every layer's projection is hoisted.

    Parameters and states are tuples with one entry for each layer. An initializer goes to the layers that take it. A
    single step runs all layers, as in generation.

    Args:
        cells: the layers, first the one that sees the input; a layer's `output_size` is the next one's `input_size`. A
            function between layers, such as `jax.nn.relu`, becomes a `Pointwise` layer.
        dropout: rate at which outputs are dropped between layers, those of a function, too, when `unroll` is given a
            `key`; an independent mask for every step. Without a key nothing is dropped.

    Raises:
        ValueError: no cells, sizes that do not fit, or a rate outside of [0, 1).

    Example:
        >>> import jaxrnn
        >>> net = Stack((jaxrnn.LSTM(3, 8), jaxrnn.GRU(8, 4)), dropout=0.5)
        >>> params = net.init(jax.random.key(0))
        >>> (lstm, gru), ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> lstm.c.shape, gru.h.shape, ys.shape
        ((2, 8), (2, 4), (5, 2, 4))
    """

    cells: tuple[Any, ...]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.cells, tuple | list):
            raise TypeError(f"cells: got {type(self.cells).__name__}, needs a tuple of cells")
        if not self.cells:
            raise ValueError("cells: got none, needs at least one")
        cells: list[Layer] = []
        for i, cell in enumerate(self.cells):
            if cells and callable(cell) and not isinstance(cell, Layer | type):
                cell = Pointwise(cell, cells[-1].output_size)
            check_layer(cell, f"cells[{i}]")
            cells.append(cell)
        object.__setattr__(self, "cells", tuple(cells))
        for below, above in zip(self.cells, self.cells[1:], strict=False):
            if below.output_size != above.input_size:
                raise ValueError(
                    f"cells: {below} gives {below.output_size} values, {above} above it needs {above.input_size}"
                )
        check_rate(dropout=self.dropout)

    @property
    def output_size(self) -> Any:
        """Output size of the last layer."""
        return self.cells[-1].output_size

    def run(
        self, params: tuple[Params, ...], xs: PyTree, state: tuple[State, ...], options: Options
    ) -> tuple[tuple[State, ...], PyTree]:
        """Runs layer after layer, each over the whole sequence."""
        states = []
        for i, cell in enumerate(self.cells):
            key = between = None
            if options.key is not None:
                key, between = jax.random.split(jax.random.fold_in(options.key, i))
            if i:
                _check_fits(self.cells[i - 1], cell, xs)
            if i and between is not None and self.dropout:
                xs = dropout(between, self.dropout, xs)
            final, xs = cell.run(params[i], xs, state[i], options._replace(key=key))
            states.append(final)
        return tuple(states), xs

    def advance(
        self, params: tuple[Params, ...], state: tuple[State, ...], x: PyTree, draw: Draw = nothing
    ) -> tuple[tuple[State, ...], PyTree]:
        """Runs one time step of every layer, from the first to the last."""
        states = []
        for i, cell in enumerate(self.cells):
            if i:
                _check_fits(self.cells[i - 1], cell, x)
            if i and self.dropout:
                kept = jax.tree.map(lambda x: draw(Kept(self.dropout, (), x.shape)), x)
                x = jax.tree.map(lambda x, k: drop(k, self.dropout, x), x, kept) if jax.tree.leaves(kept) else x
            new, x = cell.advance(params[i], state[i], x, draw)
            states.append(new)
        return tuple(states), x

    def with_cells(self, function: Callable[[Layer], Layer]) -> Layer:
        """Returns the stack with `function` applied in every layer."""
        return dataclasses.replace(self, cells=tuple(cell.with_cells(function) for cell in self.cells))


def _check_fits(below: Layer, above: Layer, y: PyTree) -> None:
    """Raises where a layer gives other shapes than its `output_size` says."""
    for leaf, spec in zip(jax.tree.leaves(y), jax.tree.leaves(above.input_spec), strict=False):
        got = jnp.shape(leaf)[max(0, jnp.ndim(leaf) - len(spec.shape)) :]
        if got != spec.shape:
            raise ValueError(
                f"cells: {below} gives the shape [..., {', '.join(map(str, got))}], {above} above it needs "
                f"[..., {', '.join(map(str, spec.shape))}]; the property output_size has to say what a cell gives"
            )
