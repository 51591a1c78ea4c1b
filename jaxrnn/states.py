"""Where a row starts: states that are zero, constant, learned or noisy, and states that are carried over calls.

zero        `state=None`, or `cell.initial_state(batch_shape)`
constant    `unroll(..., state=constant_state(...))`
learned     `LearnedState(cell)`, or an argument `state` that is differentiated
noisy       `noisy_state(key, std, state)`
carried     the state that a call gives is an argument of the next; `remember` says in which phase
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_choice, check_key
from jaxrnn.rows import select
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State
from jaxrnn.wrapper import Draw, StepWrapper

__all__ = ["LearnedState", "LearnedStateParams", "LearnedStateState", "constant_state", "noisy_state", "remember"]


def constant_state(
    cell: Cell, value: float, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32
) -> State:
    """A state of the cell with `value` in all of its real leaves.

    Example:
        >>> import jaxrnn
        >>> constant_state(jaxrnn.GRU(3, 2), 0.5, (1,)).h.tolist()
        [[0.5, 0.5]]
    """
    zero = cell.initial_state(batch_shape, dtype)
    return jax.tree.map(lambda s: jnp.full_like(s, value) if jnp.issubdtype(s.dtype, jnp.inexact) else s, zero)


def noisy_state(key: Key, std: float, state: State) -> State:
    """`state + std ε` in its real and complex leaves; with 0.1 before batch-normalized steps, in Cooijmans et al. 2016.

    Example:
        >>> import jaxrnn
        >>> zero = jaxrnn.GRU(3, 4).initial_state((2,))
        >>> bool((noisy_state(jax.random.key(0), 0.1, zero).h != zero.h).all())
        True
    """
    check_key(key)
    keys = iter(jax.random.split(key, len(jax.tree.leaves(state))))

    def one(leaf: Array) -> Array:
        k = next(keys)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf + std * jax.random.normal(k, leaf.shape, leaf.dtype)

    return jax.tree.map(one, state)


def remember(mode: str, training: bool, state: State) -> State | None:
    """What the next call starts from: the state of the last one, as a constant, or None for a fresh start.

    Only values cross a call, no gradients do: truncated backpropagation with windows of the calls' length. Between
    training and evaluation, start from None, as Element-Research/rnn does.

    Args:
        mode: in which phase states are kept: "both", "train", "eval" or "neither".
        training: whether the next call is one of training.
        state: from the last call.

    Example:
        >>> import jaxrnn
        >>> cell, xs = jaxrnn.GRU(3, 4), jnp.ones((5, 2, 3))
        >>> params, state = cell.init(jax.random.key(0)), None
        >>> for _ in range(2):
        ...     state, ys = jaxrnn.unroll(cell, params, xs, remember("eval", training=False, state=state))

    Reference: Element-Research/rnn, `AbstractSequencer.remember`.
    """
    check_choice(mode=mode, among=("both", "train", "eval", "neither"))
    if mode not in ("both", "train" if training else "eval"):
        return None
    return jax.tree.map(jax.lax.stop_gradient, state)


class LearnedStateParams(NamedTuple):
    """Parameters of `LearnedState`."""

    cell: Params
    start: State  # of one row


class LearnedStateState(NamedTuple):
    """State of `LearnedState`."""

    cell: State
    fresh: Array  # [*batch] bool, whether the next step is a row's first


@dataclass(frozen=True)
class LearnedState(StepWrapper):
    """A cell that starts every row from a learned state: at the first step of a call without `state`, and at resets.

    Args:
        cell: any cell that is walked step by step and whose state is all real or complex; in a `Stack`, each layer has
            its own.

    Raises:
        ValueError: an integer in the cell's state.

    Example:
        >>> import jaxrnn
        >>> cell = LearnedState(jaxrnn.GRU(3, 4))
        >>> params = cell.init(jax.random.key(0), start_init=jaxrnn.initializers.uniform(0.1))
        >>> params.start.h.shape
        (4,)
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> state.cell.h.shape, state.fresh.tolist()
        ((2, 4), [False, False])
    """

    outermost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        dtypes = [s.dtype for s in jax.tree.leaves(jax.eval_shape(self.cell.initial_state))]
        if not all(jnp.issubdtype(dtype, jnp.inexact) for dtype in dtypes):
            raise ValueError(f"cell: got {self.cell}, whose state has the dtypes {dtypes}, needs real or complex ones")

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        start_init: Initializer = initializers.zeros,
        **initializers: Any,
    ) -> LearnedStateParams:
        """The cell's parameters, and a start whose leaves are `start_init(key, shape, dtype)`."""
        key, *keys = jax.random.split(key, 1 + len(jax.tree.leaves(jax.eval_shape(self.cell.initial_state))))
        leaves, tree = jax.tree.flatten(jax.eval_shape(lambda: self.cell.initial_state((), dtype)))
        start = [start_init(k, s.shape, s.dtype) for k, s in zip(keys, leaves, strict=True)]
        return LearnedStateParams(self.cell.init(key, dtype=dtype, **initializers), jax.tree.unflatten(tree, start))

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> LearnedStateState:
        """The cell's zero state (unused) and `fresh=True`."""
        return LearnedStateState(self.cell.initial_state(batch_shape, dtype), jnp.ones(batch_shape, bool))

    def project(self, params: LearnedStateParams, x: PyTree) -> PyTree:
        """That of the cell."""
        return self.cell.project(params.cell, x)

    def step_with(
        self, params: LearnedStateParams, state: LearnedStateState, drive: PyTree, draw: Draw
    ) -> tuple[LearnedStateState, PyTree]:
        """The step of the cell, from the start where a row is fresh."""

        def begin(start: Array, s: Array) -> Array:
            return select(state.fresh, jnp.broadcast_to(start.astype(s.dtype), s.shape), s)

        new, output = self.inner_step(params.cell, jax.tree.map(begin, params.start, state.cell), drive, draw)
        return LearnedStateState(new, jnp.zeros_like(state.fresh)), output

    def readout(self, params: LearnedStateParams, output: PyTree, drive: PyTree) -> PyTree:
        """That of the cell."""
        return self.cell.readout(params.cell, output, drive)
