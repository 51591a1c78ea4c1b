"""`unroll`, the only driver: a cell over a whole sequence, in chunks of time, with every derivative.

    for each chunk of steps:
        drives  = project(params, xs)        all steps of the chunk at once
        outputs = recurrence(...)            step by step (`jaxrnn/recurrence.py`)
        ys      = readout(params, ...)       all steps of the chunk at once

A chunk bounds the projected inputs that exist at one time. Under reverse mode a chunk keeps its states only and
computes the rest again, for all of its steps at once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.cell import Cell, advance, cast, check_cell, computation_dtype, state_dtype
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
from jaxrnn.hoist import hoist
from jaxrnn.jaxprs import flat_products
from jaxrnn.recurrence import STATES, recurrence
from jaxrnn.rows import Save, Walk, keep, select, starts, valid_steps
from jaxrnn.typing import Array, Key, Params, PyTree, State

__all__ = ["POLICIES", "Save", "Walk", "default_chunk", "even_chunk", "in_chunks", "unroll", "walk"]

POLICIES: dict[Save, Any] = {
    "states": jax.checkpoint_policies.save_only_these_names(STATES),
    "boundaries": jax.checkpoint_policies.nothing_saveable,
}
"""What `jax.checkpoint` keeps of a chunk."""


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
        chunk: time steps whose projections exist at one time; None: chosen from the shapes. It changes speed and
            memory, not values.
        save: what reverse mode keeps of the forward pass. "states": the state after every step, from which the rest
            is computed again for a chunk of steps at once. "boundaries": the state before every chunk alone, for
            very long sequences: chunks are then walked again too, and memory grows with T / chunk + chunk. Like
            `chunk` it changes no value.

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
    check_choice(save=save, among=tuple(POLICIES))
    return walk(cell, params, xs, state, Walk(lengths, resets, reverse, key, chunk, save))


@functools.singledispatch
def walk(cell: Cell, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
    """How a cell walks a sequence, arguments checked; what is made of several cells registers its own way."""
    steps, *_ = check_input(cell, xs, "xs", time=True)
    dtype = computation_dtype(params, xs)
    resets = starts(how, steps)

    @functools.partial(jax.checkpoint, policy=POLICIES[how.save], prevent_cse=False)
    def segment(params: Params, state: State, part: tuple[PyTree, Array, Array | None]) -> tuple[State, PyTree]:
        xs, times, resets = part
        valid = None
        if how.lengths is not None:
            valid = valid_steps(times, how.lengths)
            xs = keep(valid, xs)
        drives = flat_products(cell.project)(params, xs)
        step: Any = functools.partial(_step, cell)
        at_every_step: Any = (drives, valid, resets)
        if found := hoist(step, params, state, jax.tree.map(lambda d: d[0], at_every_step)):
            ahead, step = found
            at_every_step = flat_products(jax.vmap(ahead, (None, 0)))(params, at_every_step)
        state, outputs = recurrence(step, how.reverse, params, state, at_every_step)
        ys = cast(flat_products(cell.readout)(params, outputs, drives), dtype)
        if valid is not None:
            ys = keep(valid, ys)
        return state, ys

    if steps == 0:
        ys = jax.eval_shape(segment, params, state, _one_step(xs, resets))[1]
        return state, jax.tree.map(lambda y: jnp.zeros((0, *y.shape[1:]), y.dtype), ys)
    if (chunk := how.chunk) is None:
        drive = jax.eval_shape(cell.project, params, jax.tree.map(lambda x: x[0], xs))
        chunk = default_chunk(steps, sum(d.size * d.dtype.itemsize for d in jax.tree.leaves(drive)))
    return in_chunks(segment, params, state, (xs, jnp.arange(steps), resets), chunk, how.reverse)


def default_chunk(steps: int, bytes_per_step: int) -> int:
    """Steps whose drives fill the cache (CPU) or the cores (elsewhere): a divisor of `steps` where one is near.

    On the CPU a chunk of 1 MiB also keeps many programs' temporary memory below the 32 MB from which glibc gives
    memory back after every call, to be paid for in page faults at the next.
    """
    budget = 2**20 if jax.default_backend() == "cpu" else 2**25
    return even_chunk(steps, max(8, min(256, budget // max(bytes_per_step, 1))))


def even_chunk(steps: int, wanted: int) -> int:
    """About `wanted` steps: a divisor of `steps` where one is near, so that no shorter chunk is left over."""
    wanted = min(steps, wanted)
    near = [c for c in range(wanted, wanted // 2, -1) if steps % c == 0]
    near += [c for c in range(wanted, 2 * wanted) if steps % c == 0]
    return near[0] if near else wanted


def in_chunks(
    segment: Any, params: Params, state: State, whole: PyTree, chunk: int, reverse: bool
) -> tuple[State, PyTree]:
    """`segment` over consecutive chunks of the leading axis; the last chunk may be shorter."""
    steps = jax.tree.leaves(whole)[0].shape[0]
    full = steps - steps % chunk
    if steps <= chunk:
        return segment(params, state, whole)

    def many(state: State, whole: PyTree) -> tuple[State, PyTree]:
        folded = jax.tree.map(lambda x: x.reshape(full // chunk, chunk, *x.shape[1:]), whole)
        state, ys = lax.scan(functools.partial(segment, params), state, folded, reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(full, *y.shape[2:]), ys)

    if full == steps:
        return many(state, whole)
    body, tail = (jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(full), slice(full, None)))
    if reverse:
        state, ys_tail = segment(params, state, tail)
        state, ys_body = many(state, body)
    else:
        state, ys_body = many(state, body)
        state, ys_tail = segment(params, state, tail)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys_body, ys_tail)


def _step(
    cell: Cell, params: Params, state: State, drive: tuple[PyTree, Array | None, Array | None]
) -> tuple[State, PyTree]:
    """One step with resets before it and, on invalid rows, the old state after it.

    Selected by `where`, never multiplied, so that NaN cannot leak. On invalid rows the output is of no account.
    """
    drive, valid, reset = drive
    old = state
    if reset is not None:
        start = cell.initial_state(reset.shape)
        state = jax.tree.map(lambda a, s: select(reset, a.astype(s.dtype), s), start, state)
    new, output = advance(cell, params, state, drive)
    if valid is None:
        return new, output
    held = jax.tree.map(lambda n, o: select(valid, n, o), new, old)
    # An output that is a part of the state stays that part: `recurrence` then keeps it once.
    same = {id(n): h for n, h in zip(jax.tree.leaves(new), jax.tree.leaves(held), strict=True)}
    return held, jax.tree.map(lambda o: same.get(id(o), o), output)


def _one_step(xs: PyTree, resets: Array | None) -> PyTree:
    def spec(a: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype)

    return jax.tree.map(spec, (xs, jnp.zeros(0, jnp.int32), resets))
