"""The training form of recurrent batch normalization: `unroll` with the statistics of the batch.

    mean_t, var_t = over the rows that are valid at step t
    population_t' = (1 - α) population_t + α (mean_t, var_t)

It is not a cell, because a cell acts on each row alone.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.cell import Cell
from jaxrnn.cells.batch_norm import BatchNormLSTM, BatchNormLSTMParams, BatchNormLSTMState, Moments, Spread, Statistics
from jaxrnn.checks import check_input, check_lengths, check_params, check_sizes, check_state
from jaxrnn.engine.layer import state_dtype
from jaxrnn.engine.masks import valid_steps
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import keep, select
from jaxrnn.typing import Array

__all__ = ["batch_unroll"]


def batch_unroll(
    cell: BatchNormLSTM,
    params: BatchNormLSTMParams,
    xs: Array,
    state: BatchNormLSTMState | None = None,
    *,
    lengths: Array | None = None,
    chunk: int | None = None,
) -> tuple[BatchNormLSTMState, Array, Statistics]:
    """Runs a batch-normalized cell over a sequence with the statistics of the batch: `(state, ys, statistics)`.

    Each step uses the moments of its valid rows. With fewer than two valid rows it uses `params.statistics` and does
    not update them. Gradients go through the moments of the batch. Discard the optimizer's update of
    `params.statistics`: `params._replace(statistics=statistics)`.

    Args:
        cell: a `BatchNormLSTM`.
        params: from `cell.init`.
        xs: `[T, *batch, I]`; the moments are over all batch axes.
        state: the state before the first step, all rows at the same step; None: the initial state.
        lengths: `[*batch]` integers in 0..T, as for `unroll`.
        chunk: as for `unroll`.

    Returns:
        `(state, ys, statistics)`: the final state, outputs `[T, *batch, H]`, and the moving averages after this batch:
        step t moves entry `min(t, S - 1)`, one step after the other.

    Raises:
        TypeError, ValueError: an argument is not of the needed structure, shape, dtype or range, or there are not two
            rows.

    Reference: Cooijmans et al. 2016, "Recurrent batch normalization".
    """
    if not isinstance(cell, BatchNormLSTM):
        raise TypeError(f"cell: got {type(cell).__name__}, needs a BatchNormLSTM")
    check_params(cell, params)
    steps, *rest = check_input(cell, xs, "xs", time=True)
    batch_shape = tuple(rest)
    rows = int(np.prod(batch_shape))
    if rows < 2:
        raise ValueError(f"xs: got the shape {jnp.shape(xs)} with fewer than two rows, which have no variance")
    if state is None:
        state = cell.initial_state(batch_shape, state_dtype(params, xs))
    else:
        check_state(cell, state, batch_shape)
    if chunk is not None:
        check_sizes(chunk=chunk)
    valid = jnp.ones((steps, *batch_shape), bool)
    if lengths is not None:
        valid = valid_steps(jnp.arange(steps), check_lengths(lengths, steps, batch_shape))
    start = jnp.max(state.t)

    flat = functools.partial(jax.tree.map, lambda a: a.reshape(rows, *a.shape[len(batch_shape) :]))
    flat_in_time = functools.partial(jax.tree.map, lambda a: a.reshape(steps, rows, *a.shape[len(batch_shape) + 1 :]))
    inputs = flat_in_time((keep(valid, xs), valid))
    state, (ys, seen) = _InBatch(cell).run(params, inputs, flat(state), Options(steps, (rows,), chunk=chunk))
    state = jax.tree.map(lambda a: a.reshape(*batch_shape, *a.shape[1:]), state)
    ys = keep(valid, ys.reshape(steps, *batch_shape, cell.hidden_size))
    counts = jnp.sum(valid, axis=tuple(range(1, valid.ndim)))
    entries = jnp.minimum(start + jnp.arange(steps, dtype=start.dtype), cell.steps - 1)
    known = lax.stop_gradient((params.statistics, seen))
    return state, ys, _moved(cell.momentum, *known, entries, counts >= 2)


_Drive = tuple[tuple[Array, ...], Array, Spread]


@dataclass(frozen=True)
class _InBatch(Cell, Wrapper):
    """The cell that `batch_unroll` runs: inputs `(x, valid)` `[rows, …]`, outputs `(h, moments of the rows [1, …])`."""

    cell: BatchNormLSTM
    apart: ClassVar[bool] = False

    @property
    def input_spec(self) -> Any:
        """The cell's, and a flag."""
        return self.cell.input_spec, jax.ShapeDtypeStruct((), jnp.bool_)

    def project(self, params: BatchNormLSTMParams, x: tuple[Array, Array]) -> _Drive:
        """The cell's, the flags, and the moments over the valid rows, the last of the leading axes."""
        z_x = self.cell.project(params, x[0])
        return z_x, x[1], _spread(z_x, x[1])

    def step(
        self, params: BatchNormLSTMParams, state: BatchNormLSTMState, drive: _Drive
    ) -> tuple[BatchNormLSTMState, tuple[Array, tuple[Spread, ...]]]:
        """One step with the moments of the valid rows; the others keep their state."""
        z_x, valid, of_x = drive
        enough = jnp.sum(valid) >= 2

        def choose(name: str, z: tuple[Array, ...], population: Spread) -> Spread:
            batch = of_x if name == "x" else _spread(z, valid)
            return jax.tree.map(lambda b, p: jnp.where(enough, b.astype(p.dtype), p), batch, population)

        new, spreads = self.cell.normalized_step(params, state, z_x, choose)
        held = jax.tree.map(lambda n, o: select(valid, n, o), new, state)
        return held, (held.h, jax.tree.map(lambda s: s[0], spreads))


def _spread(z: tuple[Array, ...], valid: Array) -> Spread:
    """Mean and variance `[..., 1, units]` of blocks `[..., rows, H]` over `valid` rows, in float32 or wider."""

    def one(z: Array) -> Spread:
        z = z.astype(np.promote_types(z.dtype, np.float32))
        count = jnp.maximum(jnp.sum(valid, axis=-1), 1).astype(z.dtype)[..., None, None]
        mean = jnp.sum(keep(valid, z), axis=-2, keepdims=True) / count
        centered = keep(valid, z - mean)
        return Spread(mean, jnp.sum(centered * centered, axis=-2, keepdims=True) / count)

    return jax.tree.map(lambda *blocks: jnp.concatenate(blocks, axis=-1), *map(one, z))


def _moved(
    momentum: float, population: Statistics, seen: tuple[Spread, ...], entries: Array, enough: Array
) -> Statistics:
    """The moving averages after what was `seen` `[T, …]`, each step moving its entry."""

    def one(population: Statistics, at: tuple[tuple[Spread, ...], Array, Array]) -> tuple[Statistics, None]:
        seen, entry, enough = at

        def move(kept: Moments, batch: Spread) -> Moments:
            mean, std = kept.mean[entry], kept.std[entry]
            new_mean = (1 - momentum) * mean + momentum * batch.mean.astype(mean.dtype)
            new_std = jnp.sqrt((1 - momentum) * std**2 + momentum * batch.var.astype(std.dtype))
            return Moments(
                kept.mean.at[entry].set(jnp.where(enough, new_mean, mean)),
                kept.std.at[entry].set(jnp.where(enough, new_std, std)),
            )

        return Statistics(*map(move, population, seen)), None

    return lax.scan(one, population, (seen, entries, enough))[0]
