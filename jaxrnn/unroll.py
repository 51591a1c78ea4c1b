"""`unroll`, the only driver: a cell over a whole sequence, in chunks of time, with every derivative.

    for each chunk of steps:
        drives  = project(params, xs)        all steps of the chunk at once
        outputs = walk_chunk(...)            step by step (`jaxrnn/recurrence.py`), or at once
        ys      = readout(params, ...)       all steps of the chunk at once

A chunk bounds the projected inputs that exist at one time. Under reverse mode a chunk keeps its states only and
computes the rest again, for all of its steps at once.
"""

from typing import get_args

import jax
import jax.numpy as jnp

from jaxrnn.cell import Cell, check_cell, state_dtype
from jaxrnn.checks import (
    check_choice,
    check_flags,
    check_input,
    check_key,
    check_lengths,
    check_params,
    check_sizes,
    check_state,
)
from jaxrnn.rows import Save, Walk
from jaxrnn.typing import Array, Key, Params, PyTree, State

__all__ = ["unroll"]


def unroll(
    cell: Cell,
    params: Params,
    xs: PyTree,
    state: State | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    key: Key | None = None,
    chunk: int | None = None,
    save: Save = "states",
) -> tuple[State, PyTree]:
    """Run a cell over a sequence: `(state, ys)`, the state after each row's last valid step and all outputs.

    Equal to calling `cell(params, state, x)` step by step, in values and in every derivative, and faster.

    Args:
        cell: any `Cell`, a `Stack` or a `Bidirectional`.
        params: from `cell.init`.
        xs: inputs, time first: leaves `[T, *batch, *cell.input_spec.shape]`.
        state: the state before the first step, leaves `[*batch, ...]`, kept in its dtypes; None: the cell's initial
            state, in float32 or wider. It receives gradients, so a learned initial state is an argument like others.
        lengths: `[*batch]` integers in 0..T; None: all T. Beyond its length a row holds its state and its output is
            zero; neither values nor gradients depend on what `xs` holds there. Values that are only known when a
            compiled function runs cannot be checked: below 0 they act as 0, above T as T.
        resets: `[T, *batch]` booleans: a flagged step is the first of a new sequence, so that between it and the
            step before it, in either direction of time, the row's state becomes `cell.initial_state`; selected, so
            that not even a NaN passes into later values.
        reverse: walk from each row's last valid step to its first; `ys` stays in the order of `xs`.
        key: a typed key for cells with randomness (dropout); None: their deterministic expectation. Cells without
            randomness ignore it.
        chunk: time steps whose projections exist at one time; None: chosen from the shapes, of a symbolic T
            (`jax.export`) all. It changes speed and memory, not values.
        save: what reverse mode keeps of the forward pass. "states": the state after every step, from which the rest
            is computed again for a chunk of steps at once. "boundaries": the state before every chunk alone, for
            very long sequences: chunks are then walked again too, and memory grows with T / chunk + chunk.
            "residuals": all that derivatives need, so that nothing is computed again; several times the memory, and
            on a CPU more time too. Like `chunk` it changes no value.

    Returns:
        `(state, ys)`: the final state, and `ys` with leaves `[T, *batch, ...]` in the dtype that `params` and `xs`
        promote to.

    Raises:
        TypeError, ValueError: an argument is not of the needed structure, shape, dtype or range.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(input_size=3, hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> xs = jax.random.normal(jax.random.key(1), (5, 2, 3))
        >>> state, ys = jaxrnn.unroll(cell, params, xs, lengths=jnp.array([5, 2]))
        >>> ys.shape, bool(jnp.all(state.h[1] == ys[1, 1])), bool(jnp.all(ys[2:, 1] == 0))
        ((5, 2, 4), True, True)
    """
    check_cell(cell)
    check_params(cell, params)
    steps, *rest = check_input(cell, xs, "xs", time=True)
    batch_shape = tuple(rest)
    if state is None:
        state = cell.initial_state(batch_shape, state_dtype(params, xs))
    else:
        check_state(cell, state, batch_shape)
        state = jax.tree.map(jnp.asarray, state)
    lengths = None if lengths is None else check_lengths(lengths, steps, batch_shape)
    resets = None if resets is None else check_flags(resets, (steps, *batch_shape), "resets")
    if not isinstance(reverse, bool):
        raise TypeError(f"reverse: got {type(reverse).__name__}, needs a bool")
    check_key(key, optional=True)
    if chunk is not None:
        check_sizes(chunk=chunk)
    check_choice(save=save, among=get_args(Save))
    return cell.walk(params, xs, state, Walk(lengths, resets, reverse, key, chunk, save))
