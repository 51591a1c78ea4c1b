"""Networks made of cells: `Stack`, `Bidirectional`, `Residual`. Each is a cell itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.cell import Cell, advance, cast, check_cell, computation_dtype
from jaxrnn.checks import check_choice, check_rate
from jaxrnn.regularization import dropout
from jaxrnn.rows import Walk, keep, valid_steps
from jaxrnn.typing import Array, DTypeLike, Key, Params, PyTree, State
from jaxrnn.wrapper import Wrapper

__all__ = ["Bidirectional", "BidirectionalParams", "BidirectionalState", "Residual", "Stack"]


@dataclass(frozen=True)
class Stack(Cell):
    """Cells one above the other; `unroll` runs layer by layer, so that every layer's projection is hoisted.

    Parameters and states are tuples, one entry a layer. Called step by step, as in generation, it is one cell.

    Args:
        cells: the layers, first the one that sees the input; a layer's `output_size` is the next one's `input_size`.
        dropout: rate at which outputs are dropped between layers when `unroll` is given a `key`; an independent mask
            for every step. Without a key nothing is dropped.

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

    cells: tuple[Cell, ...]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.cells, tuple | list):
            raise TypeError(f"cells: got {type(self.cells).__name__}, needs a tuple of cells")
        object.__setattr__(self, "cells", tuple(self.cells))
        if not self.cells:
            raise ValueError("cells: got none, needs at least one")
        for i, cell in enumerate(self.cells):
            check_cell(cell, f"cells[{i}]")
        for below, above in zip(self.cells, self.cells[1:], strict=False):
            if below.output_size != above.input_size:
                raise ValueError(
                    f"cells: {below} gives {below.output_size} values, {above} above it needs {above.input_size}"
                )
        check_rate(dropout=self.dropout)

    @property
    def input_size(self) -> Any:
        """That of the first layer."""
        return self.cells[0].input_size

    @property
    def hidden_size(self) -> tuple[Any, ...]:
        """Those of the layers."""
        return tuple(cell.hidden_size for cell in self.cells)

    @property
    def input_spec(self) -> PyTree:
        """That of the first layer."""
        return self.cells[0].input_spec

    @property
    def output_size(self) -> Any:
        """That of the last layer."""
        return self.cells[-1].output_size

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> tuple[Params, ...]:
        """Fresh parameters of every layer; `initializers` go to each layer's `init`.

        For options of one layer alone, make the tuple: `(lstm.init(k1, forget_bias=2.0), gru.init(k2))`.
        """
        keys = jax.random.split(key, len(self.cells))
        return tuple(cell.init(k, dtype=dtype, **initializers) for cell, k in zip(self.cells, keys, strict=True))

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> tuple[State, ...]:
        """The zero state of every layer."""
        return tuple(cell.initial_state(batch_shape, dtype) for cell in self.cells)

    def project(self, params: tuple[Params, ...], x: PyTree) -> PyTree:
        """That of the first layer: the others wait for the layer below."""
        return self.cells[0].project(params[0], x)

    def step(
        self, params: tuple[Params, ...], state: tuple[State, ...], drive: PyTree
    ) -> tuple[tuple[State, ...], PyTree]:
        """One step of every layer, from the first to the last."""
        return self.step_by(advance, params, state, drive)

    def step_by(
        self,
        advance: Callable[[Cell, Params, State, PyTree], tuple[State, PyTree]],
        params: tuple[Params, ...],
        state: tuple[State, ...],
        drive: PyTree,
    ) -> tuple[tuple[State, ...], PyTree]:
        """One step, a layer's by `advance(cell, params, state, drive)`."""
        states, y = [], None
        for i, cell in enumerate(self.cells):
            drive = cell.project(params[i], y) if i else drive
            new, output = advance(cell, params[i], state[i], drive)
            y = cast(cell.readout(params[i], output, drive), computation_dtype(params[i], drive))
            states.append(new)
        return tuple(states), y

    def walk(
        self, params: tuple[Params, ...], xs: PyTree, state: tuple[State, ...], how: Walk
    ) -> tuple[tuple[State, ...], PyTree]:
        """Layer by layer."""
        states = []
        for i, cell in enumerate(self.cells):
            key = between = None
            if how.key is not None:
                key, between = jax.random.split(jax.random.fold_in(how.key, i))
            if i and between is not None and self.dropout:
                xs = dropout(between, self.dropout, xs)
            final, xs = cell.walk(params[i], xs, state[i], how._replace(key=key))
            states.append(final)
        return tuple(states), xs


class BidirectionalParams(NamedTuple):
    """Parameters of `Bidirectional`."""

    forward: Params
    backward: Params


class BidirectionalState(NamedTuple):
    """State of `Bidirectional`: after the last step, and after the first."""

    forward: State
    backward: State


@dataclass(frozen=True)
class Bidirectional(Cell):
    """Two cells over the same sequence, one in each direction of time, the second within each row's length.

    Only `unroll` can run it: a single time step of it does not exist. Its final state holds both directions' states:
    the forward one's after a row's last valid step, the backward one's after its first.

    Args:
        forward: the cell that walks from first to last.
        backward: the cell that walks from last to first; None: one like `forward`, with parameters of its own.
        merge: "concat" on the last axis, "sum", or a function `(forward ys, backward ys) -> ys`.

    Raises:
        ValueError: the cells' input sizes differ, their output sizes differ under "sum", or `merge` is unknown.

    Example:
        >>> import jaxrnn
        >>> net = Bidirectional(jaxrnn.GRU(3, 4))
        >>> params = net.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)), lengths=jnp.array([5, 3]))
        >>> ys.shape, bool(jnp.all(ys[0, :, 4:] == state.backward.h))
        ((5, 2, 8), True)

    Reference: Schuster & Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    forward: Cell
    backward: Cell | None = None
    merge: Literal["concat", "sum"] | Callable[[Array, Array], Array] = "concat"

    def __post_init__(self) -> None:
        forward, backward = self.cells
        check_cell(forward, "forward")
        check_cell(backward, "backward")
        if forward.input_spec != backward.input_spec:
            raise ValueError(
                f"backward: got inputs {backward.input_spec}, needs those of forward, {forward.input_spec}"
            )
        if not callable(self.merge):
            check_choice(merge=self.merge, among=("concat", "sum"))
        if self.merge == "sum" and forward.output_size != backward.output_size:
            raise ValueError(
                f"merge: got 'sum' of {forward.output_size} and {backward.output_size} values, needs equal output sizes"
            )

    @property
    def input_size(self) -> Any:
        """That of either cell."""
        return self.forward.input_size

    @property
    def hidden_size(self) -> tuple[Any, Any]:
        """Those of the two cells."""
        forward, backward = self.cells
        return forward.hidden_size, backward.hidden_size

    @property
    def input_spec(self) -> PyTree:
        """That of either cell."""
        return self.forward.input_spec

    @property
    def output_size(self) -> Any:
        """What `merge` makes of the two output sizes."""
        sizes = (c.output_size if isinstance(c.output_size, tuple) else (c.output_size,) for c in self.cells)
        shape = jax.eval_shape(self._merge, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in sizes)).shape
        return shape if len(shape) > 1 else shape[0]

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """The forward and the backward cell."""
        return self.forward, self.forward if self.backward is None else self.backward

    def _merge(self, forward: Array, backward: Array) -> Array:
        if self.merge == "concat":
            return jnp.concatenate([forward, backward], axis=-1)
        return forward + backward if self.merge == "sum" else self.merge(forward, backward)

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> BidirectionalParams:
        """Fresh parameters of both directions; `initializers` go to each cell's `init`.

        For options of one direction alone, make the `BidirectionalParams` of the two.
        """
        keys = jax.random.split(key)
        return BidirectionalParams(
            *(c.init(k, dtype=dtype, **initializers) for c, k in zip(self.cells, keys, strict=True))
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> BidirectionalState:
        """The zero states of both directions."""
        return BidirectionalState(*(c.initial_state(batch_shape, dtype) for c in self.cells))

    def project(self, params: BidirectionalParams, x: PyTree) -> PyTree:
        """There is none: a TypeError."""
        raise TypeError(_NO_STEP)

    def step(self, params: BidirectionalParams, state: BidirectionalState, drive: PyTree) -> Any:
        """There is none: a TypeError."""
        raise TypeError(_NO_STEP)

    def walk(
        self, params: BidirectionalParams, xs: PyTree, state: BidirectionalState, how: Walk
    ) -> tuple[BidirectionalState, PyTree]:
        """Both cells, each in its direction."""
        keys = (None, None) if how.key is None else tuple(jax.random.split(how.key))
        there, back = how._replace(key=keys[0]), how._replace(key=keys[1], reverse=not how.reverse)
        forward, ys = self.cells[0].walk(params.forward, xs, state.forward, there)
        backward, zs = self.cells[1].walk(params.backward, xs, state.backward, back)
        ys = jax.tree.map(self._merge, ys, zs)
        if how.lengths is not None:  # a function need not merge zeros into zero
            ys = keep(valid_steps(jnp.arange(jax.tree.leaves(ys)[0].shape[0]), how.lengths), ys)
        return BidirectionalState(forward, backward), ys


_NO_STEP = "Bidirectional: has no single step, its backward cell needs the whole sequence; use unroll"


@dataclass(frozen=True)
class Residual(Wrapper):
    """A cell whose output is added to its input: `y = x + cell(x)`.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too, whose outputs are as long as its inputs.

    Raises:
        ValueError: `cell.output_size` is not `cell.input_size`.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.GRU(3, 4), Residual(jaxrnn.GRU(4, 4))))
        >>> state, ys = jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> ys.shape
        (5, 2, 4)

    Reference: He et al. 2016, "Deep residual learning"; in recurrent stacks: Wu et al. 2016, section 3.1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell.output_size != self.cell.input_size:
            raise ValueError(
                f"cell: {self.cell} turns {self.cell.input_size} values into {self.cell.output_size}, needs equal sizes"
            )

    def project(self, params: Params, x: Array) -> tuple[PyTree, Array]:
        """The cell's drive, and the input for `readout`."""
        return self.cell.project(params, x), x

    def step(self, params: Params, state: State, drive: tuple[PyTree, Array]) -> tuple[State, PyTree]:
        """That of the cell."""
        return self.cell.step(params, state, drive[0])

    def readout(self, params: Params, output: PyTree, drive: tuple[PyTree, Array]) -> Array:
        """The input and the cell's output."""
        return drive[1] + self.cell.readout(params, output, drive[0])

    def walk(self, params: Params, xs: Array, state: State, how: Walk) -> tuple[State, Array]:
        """The inputs, and the outputs of the cell over them."""
        state, ys = self.cell.walk(params, xs, state, how)
        if how.lengths is not None:
            xs = keep(valid_steps(jnp.arange(xs.shape[0]), how.lengths), xs)
        return state, xs + ys
