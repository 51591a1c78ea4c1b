"""Sequences with gaps anywhere."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_choice
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.masks import at
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Edges, Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import keep, select
from jaxrnn.typing import Array, P, PyTree, S

__all__ = ["Masked"]


@dataclass(frozen=True)
class Masked(Wrapper[P, S]):
    """Skips the steps where a mask is false: the input is `(xs, mask)`, the mask `[T, *batch]`.

    The output of a skipped step is zero, and neither values nor gradients depend on its input. `unroll` moves the valid
    steps together, runs the cell over them as shorter sequences, and moves the outputs back.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too.
        policy: what a gap does to the state. "hold": the state stays as it was. "reset": it becomes the initial state,
            so a gap separates two sequences, and a row that ends in a gap ends in the initial state.

    Raises:
        ValueError: `policy` is neither.

    Example:
        >>> import jaxrnn
        >>> cell = Masked(jaxrnn.GRU(3, 4), policy="hold")
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> mask = jnp.ones((5, 2), bool).at[1, 0].set(False)
        >>> state, ys = jaxrnn.unroll(cell, params, (xs, mask))
        >>> bool((ys[1, 0] == 0).all()), bool((ys[2, 0] == ys[1, 1]).all())
        (True, True)
    """

    policy: Literal["hold", "reset"] = "hold"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(policy=self.policy, among=("hold", "reset"))

    @property
    def input_spec(self) -> PyTree:
        """The cell's input, and a boolean."""
        return self.cell.input_spec, jax.ShapeDtypeStruct((), jnp.bool_)

    def with_cells(self, function: Callable[[Layer], Layer]) -> Layer:
        """Returns `function` of itself, because its cell runs over other time steps."""
        return function(self)

    def advance(self, params: P, state: S, x: tuple[PyTree, Array], draw: Draw = nothing) -> tuple[S, PyTree]:
        """Runs one time step where the mask is true; elsewhere applies the policy and outputs zero."""
        x, mask = x
        new, y = self.cell.advance(params, state, keep(mask, x), draw)
        rest = state if self.policy == "hold" else self.cell.restart(params, state, mask.shape)
        return jax.tree.map(functools.partial(select, mask), new, rest), keep(mask, y)

    def run(self, params: P, xs: tuple[PyTree, Array], state: S, options: Options) -> tuple[S, PyTree]:
        """Runs the cell over the valid steps alone."""
        xs, mask = xs
        if options.steps == 0:
            return self.cell.run(params, xs, state, options)
        inside = jnp.ones_like(mask) if options.valid is None else options.valid
        mask = mask & inside
        gap = inside & ~mask
        xs = keep(mask, xs)
        order = jnp.argsort(~mask, axis=0, stable=True)  # the valid steps first, each row in its order
        done = jnp.cumsum(mask, axis=0)
        inner = options._replace(lengths=done[-1], resets=None)
        if self.policy == "reset" or options.resets is not None:
            inner = inner._replace(**self._resets(options, inside, gap, order, done))
        state, ys = self.cell.run(params, jax.tree.map(lambda x: at(x, order), xs), state, inner)
        place = jnp.maximum(done - 1, 0)
        return state, keep(mask, jax.tree.map(lambda y: at(y, place), ys))

    def _resets(self, options: Options, inside: Array, gap: Array, order: Array, done: Array) -> dict[str, Any]:
        """Returns the resets and edges of the compacted rows."""
        gaps = gap if self.policy == "reset" else jnp.zeros_like(gap)
        events = gaps if options.resets is None else gaps | (options.resets & inside)
        # A step resets if any event lies between it and the valid step before it.
        count = jnp.take_along_axis(jnp.cumsum(events, axis=0), order, axis=0)
        begins = jnp.concatenate([count[:1] > 0, count[1:] != count[:-1]])
        # Events in the gaps at both ends act before the first or after the last valid step, one on the first valid step
        # after it in reverse. There, a flag on the very first step acts where nothing runs.
        back = events.at[0].set(gaps[0])
        trailing, leading = gap & (done == done[-1:]), inside & (done == jnp.where(gap, 0, 1))
        edges = Edges(*(jnp.any(e, axis=0) for e in (events & trailing, back & trailing, back & leading)))
        if options.edges is not None:
            edges = jax.tree.map(jnp.logical_or, edges, options.edges)
        return {"resets": begins, "edges": edges}
