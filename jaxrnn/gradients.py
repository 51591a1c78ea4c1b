"""The flow of gradients through time: where it ends, how large it may be, and how large it is.

Truncated               no gradient crosses every k-th step
ClippedGradient         what a step sends to the one before is clipped
state_gradient_norms    the norm of the loss's derivative with respect to the state, at every step
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxrnn.cell import Cell, advance, check_cell, state_dtype
from jaxrnn.checks import check_input, check_positive, check_sizes
from jaxrnn.regularization import follow
from jaxrnn.rows import select
from jaxrnn.typing import Array, Params, PyTree, State
from jaxrnn.unroll import unroll
from jaxrnn.wrapper import Boundary, Draw, StepWrapper, Wrapper

__all__ = ["ClippedGradient", "Truncated", "state_gradient_norms"]


@dataclass(frozen=True)
class Truncated(StepWrapper):
    """A cell whose gradients end at every `every`-th step: truncated backpropagation within one `unroll`.

    Values are those of the cell. Between steps `k every - 1` and `k every` the state passes as a constant, in either
    direction of time; called step by step, the cell is not truncated.

    Args:
        cell: any cell that is walked step by step; in a `Stack`, each layer is truncated.
        every: steps from one boundary to the next.

    Raises:
        ValueError: `every` is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> cell = Truncated(jaxrnn.GRU(3, 4), every=2)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 3))
        >>> grads = jax.grad(lambda xs: jnp.sum(jaxrnn.unroll(cell, params, xs)[1][-1]))(xs)
        >>> (grads != 0).any(-1).tolist()
        [False, False, False, False, True]

    Reference: Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories".
    """

    every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(every=self.every)

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """The step of the cell, from a constant at a boundary."""
        cut = draw(Boundary(self.every))
        if cut is not None:
            state = jax.tree.map(lambda s: select(cut, lax.stop_gradient(s), s), state)
        return self.inner_step(params, state, drive, draw)


@dataclass(frozen=True)
class ClippedGradient(StepWrapper):
    """A cell whose state cotangents are clipped on their way from each step to the one before, value by value.

    Values and forward-mode derivatives are those of the cell: only what travels backwards is clipped.

    Args:
        cell: any cell that is walked step by step.
        limit: the greatest absolute value.

    Raises:
        ValueError: `limit` is not a positive number, or the cell's state is complex.

    Example:
        >>> import jaxrnn
        >>> cell = ClippedGradient(jaxrnn.LSTM(3, 4), limit=1.0)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> grads = jax.grad(lambda params: jnp.sum(jaxrnn.unroll(cell, params, xs)[1]))(params)

    Reference: Graves 2013, "Generating sequences with recurrent neural networks", section 2.1.
    """

    limit: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(limit=self.limit)
        dtypes = [s.dtype for s in jax.tree.leaves(jax.eval_shape(self.cell.initial_state))]
        if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes):
            raise ValueError(f"cell: got {self.cell}, whose state has the dtypes {dtypes}, needs none that is complex")

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """The step of the cell."""
        clipped = [
            _clip_cotangent.bind(s, limit=float(self.limit)) if jnp.issubdtype(s.dtype, jnp.floating) else s
            for s in jax.tree.leaves(state)
        ]
        return self.inner_step(params, jax.tree.unflatten(jax.tree.structure(state), clipped), drive, draw)


# The identity, as a linear map whose transpose clips: reverse mode is made of transposes, so it takes a primitive.
_clip_cotangent = Primitive("clip_cotangent")
_clip_cotangent.def_impl(lambda x, *, limit: x)
_clip_cotangent.def_abstract_eval(lambda x, *, limit: x)
ad.deflinear2(_clip_cotangent, lambda ct, x, *, limit: [jnp.clip(ct, -limit, limit)])
batching.defvectorized(_clip_cotangent)
mlir.register_lowering(_clip_cotangent, mlir.lower_fun(lambda x, *, limit: x, multiple_results=False))


@dataclass(frozen=True)
class _Perturbed(Wrapper):
    """A cell whose new state is moved by a part of the input: `s' = step(s) + ε`, at the real leaves."""

    @property
    def input_spec(self) -> PyTree:
        """The cell's, and the ε of one example."""
        return self.cell.input_spec, _reals(jax.eval_shape(self.cell.initial_state))

    def project(self, params: Params, x: tuple[PyTree, list[Array]]) -> tuple[PyTree, list[Array]]:
        """The cell's drive, and ε."""
        return self.cell.project(params, x[0]), x[1]

    def step(self, params: Params, state: State, drive: tuple[PyTree, list[Array]]) -> tuple[State, PyTree]:
        """The cell's step, moved; an output that is a part of the state moves with it."""
        new, output = advance(self.cell, params, state, drive[0])
        moves = iter(drive[1])
        moved = jax.tree.map(lambda s: s + next(moves) if jnp.issubdtype(s.dtype, jnp.inexact) else s, new)
        return moved, follow(new, moved, output)

    def readout(self, params: Params, output: PyTree, drive: tuple[PyTree, list[Array]]) -> PyTree:
        """That of the cell."""
        return self.cell.readout(params, output, drive[0])


def _reals(tree: PyTree) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def state_gradient_norms(
    cell: Cell,
    params: Params,
    xs: PyTree,
    loss: Callable[[PyTree], Array],
    state: State | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
) -> Array:
    """`‖∂loss/∂s_t‖₂` at every step, `[T, *batch]`: whether gradients vanish or explode on their way back in time.

    The derivative goes through all that comes after `s_t`: later steps, and the output at t where that is a part of the
    state, as it is in most cells.

    Args:
        cell: any cell that can be stepped, a `Stack` too: the norm is over all of its state.
        params: from `cell.init`.
        xs: as for `unroll`.
        loss: `ys -> scalar`.
        state: as for `unroll`, like the rest; there is no `key`: of a cell with randomness, the deterministic network.
        lengths: `[*batch]` integers.
        resets: `[T, *batch]` booleans.
        reverse: walk from the last step to the first.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.Elman(3, 4)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> norms = state_gradient_norms(cell, params, xs, lambda ys: jnp.sum(ys[-1]))
        >>> norms.shape, norms[-1].tolist()                  # 4 ones: the norm 2
        ((5, 2), [2.0, 2.0])

    Reference: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks".
    """
    check_cell(cell)
    leading = check_input(cell, xs, "xs", time=True)
    spec = _reals(jax.eval_shape(lambda: cell.initial_state(leading, state_dtype(params, xs))))

    def moved(moves: list[Array]) -> Array:
        moving = _Perturbed(cell)
        _, ys = unroll(moving, params, (xs, moves), state, lengths=lengths, resets=resets, reverse=reverse)
        return loss(ys)

    grads = jax.grad(moved)([jnp.zeros(s.shape, s.dtype) for s in spec])
    squares = [jnp.sum(jnp.abs(g).reshape(*leading, -1) ** 2, axis=-1) for g in grads]
    return jnp.sqrt(sum(squares[1:], squares[0]))
