"""Truncated and clipped gradients through time."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.checks import check_positive, check_sizes
from jaxrnn.engine.noise import Boundary, Draw
from jaxrnn.jaxprs import clip_cotangent
from jaxrnn.networks.wrapper import StepWrapper
from jaxrnn.ops import select
from jaxrnn.typing import P, PyTree, S

__all__ = ["ClippedGradient", "Truncated"]


@dataclass(frozen=True)
class Truncated(StepWrapper[P, S]):
    """A cell whose gradients end at every `every`-th step: truncated backpropagation within one `unroll`.

    Values do not change. Between steps `k every - 1` and `k every` the state passes as a constant, in either direction
    of time. Single steps are not truncated.

    Args:
        cell: any cell that runs step by step; in a `Stack`, each layer is truncated.
        every: steps from one boundary to the next.

    Raises:
        ValueError: `every` is not a positive integer.

    Example:
        >>> import jaxrnn
        >>> cell = Truncated(jaxrnn.GRU(3, 4), every=2)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 3))
        >>> grads = jax.jit(jax.grad(lambda xs: jnp.sum(jaxrnn.unroll(cell, params, xs)[1][-1])))(xs)
        >>> (grads != 0).any(-1).tolist()
        [False, False, False, False, True]

    Reference: Williams & Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories".
    """

    every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(every=self.every)

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes the cell's step; at a boundary, from a constant."""
        cut = draw(Boundary(self.every))
        if cut is not None:
            state = jax.tree.map(lambda s: select(cut, lax.stop_gradient(s), s), state)
        return self.cell.step_with(params, state, drive, draw)


@dataclass(frozen=True)
class ClippedGradient(StepWrapper[P, S]):
    """Clips the state's cotangents between each step and the one before, element-wise.

    Values and forward-mode derivatives do not change.

    Args:
        cell: any cell that runs step by step.
        limit: the greatest absolute value.

    Raises:
        ValueError: `limit` is not a positive number, or the cell's state is complex.

    Example:
        >>> import jaxrnn
        >>> cell = ClippedGradient(jaxrnn.LSTM(3, 4), limit=1.0)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> grads = jax.jit(jax.grad(lambda params: jnp.sum(jaxrnn.unroll(cell, params, xs)[1])))(params)

    Reference: Graves 2013, "Generating sequences with recurrent neural networks", section 2.1.
    """

    limit: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(limit=self.limit)
        dtypes = [s.dtype for s in jax.tree.leaves(jax.eval_shape(self.cell.initial_state))]
        if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes):
            raise ValueError(f"cell: got {self.cell}, whose state has the dtypes {dtypes}, needs none that is complex")

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes the cell's step; in the backward pass, clips the state's cotangents."""
        state = jax.tree.map(
            lambda s: clip_cotangent(s, self.limit) if jnp.issubdtype(s.dtype, jnp.floating) else s, state
        )
        return self.cell.step_with(params, state, drive, draw)
