"""`unroll` checks its arguments once and hands them to the layer; `run_cell` is how any cell runs over time.

    for each chunk of steps:
        drives  = project(params, xs)        all steps of the chunk at once
        outputs = run_chunk(...)             step by step (`recurrence`), or as the cell does it faster
        ys      = readout(params, ...)       all steps of the chunk at once

Only one chunk of projected inputs exists at a time. In reverse mode a chunk keeps only its states and computes the rest
again, for all of its steps at once.
"""

import functools
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import (
    check_choice,
    check_flags,
    check_input,
    check_key,
    check_lengths,
    check_params,
    check_sizes,
    check_state,
    check_step,
)
from jaxrnn.engine.chunks import StepData, in_chunks
from jaxrnn.engine.hoist import hoist
from jaxrnn.engine.layer import Layer, check_layer, computation_dtype, state_dtype
from jaxrnn.engine.noise import Draw, Noise, draw_noise
from jaxrnn.engine.options import Options, Save
from jaxrnn.engine.recurrence import recurrence
from jaxrnn.jaxprs import flat_products
from jaxrnn.ops import cast, keep, select, spread_like
from jaxrnn.typing import Array, Key, Params, PyTree, State

if TYPE_CHECKING:
    from jaxrnn.cell import Cell

__all__ = ["begin_anew", "read_out", "run_cell", "run_steps", "take_step", "unroll"]

P = TypeVar("P")
S = TypeVar("S")


def unroll(
    cell: Layer[P, S],
    params: P,
    xs: PyTree,
    state: S | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    key: Key | None = None,
    chunk: int | None = None,
    save: Save = "states",
) -> tuple[S, PyTree]:
    """Runs a cell or network over a sequence: `(state, ys)`, each row's last valid state and all outputs.

    Values and derivatives equal those of calling `cell(params, state, x)` step by step; `unroll` is faster.

    Args:
        cell: any cell or network, such as a `Stack` or a `Bidirectional`.
        params: from `cell.init`.
        xs: inputs, time first: leaves `[T, *batch, *cell.input_spec.shape]`.
        state: the state before the first step, leaves `[*batch, ...]`; it keeps its dtypes and gets gradients. None:
            the cell's initial state, in float32 or wider.
        lengths: `[*batch]` integers in 0..T; None: all T. Beyond its length a row holds its state and its output is
            zero; neither values nor gradients depend on what `xs` holds there. Lengths that are traced cannot be
            checked: below 0 they act as 0, above T as T.
        resets: `[T, *batch]` booleans: a flagged step is the first of a new sequence. Between it and the step before
            it, in either direction of time, the row's state becomes the initial state. The state is selected, not
            multiplied by zero, so a NaN does not pass either.
        reverse: run from each row's last valid step to its first; `ys` stays in the order of `xs`.
        key: a typed key for cells with randomness (dropout); None: the deterministic network. Cells without
            randomness ignore it.
        chunk: number of time steps that are projected at once; None: chosen from the shapes, or all of a symbolic T
            (`jax.export`). It changes speed and memory, not values.
        save: what reverse mode keeps of the forward pass. "states": the state after every step; the rest is computed
            again, for a chunk of steps at once. "boundaries": only the state before every chunk, for very long
            sequences; chunks run again too, and memory grows with T / chunk + chunk. "residuals": everything that
            derivatives need; nothing is computed again, at several times the memory and, on a CPU, more time. Like
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
    check_layer(cell)
    check_params(cell, params)
    steps, *rest = check_input(cell, xs, "xs", time=True)
    batch_shape = tuple(rest)
    if state is None and cell.needs_state:
        raise ValueError(f"state: got None, {cell} needs one: {cell.needs_state}")
    if state is None:
        state = _fresh_state(cell, params, xs, batch_shape)
    else:
        check_state(cell, state, batch_shape)
        state = jax.tree.map(jnp.asarray, state)
    lengths = None if lengths is None else check_lengths(lengths, steps, batch_shape)
    resets = None if resets is None else check_flags(resets, (steps, *batch_shape), "resets")
    if not isinstance(reverse, bool | np.bool_):
        raise TypeError(f"reverse: got {type(reverse).__name__}, needs a bool")
    key = check_key(key, optional=True)
    if chunk is not None:
        check_sizes(chunk=chunk)
    check_choice(save=save, among=get_args(Save))
    static: dict[str, Any] = {
        "steps": steps,
        "batch_shape": batch_shape,
        "reverse": bool(reverse),
        "chunk": chunk,
        "save": save,
    }
    given = (cell, params, xs, state, lengths, resets, key)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
        return _run(*given, **static)
    return _compiled_run(*given, **static)


def _run(
    cell: Layer[P, S],
    params: P,
    xs: PyTree,
    state: S,
    lengths: Array | None,
    resets: Array | None,
    key: Key | None,
    **static: Any,
) -> tuple[S, PyTree]:
    return cell.run(params, xs, state, Options(lengths=lengths, resets=resets, key=key, **static))


# Outside of `jax.jit`, where every loop would be compiled anew at each call.
_compiled_run = jax.jit(_run, static_argnames=("steps", "batch_shape", "reverse", "chunk", "save"))


def _fresh_state(cell: Layer[P, S], params: P, xs: PyTree, batch_shape: tuple[int, ...]) -> S:
    """Returns the state in which a sequence begins, spread over devices as the inputs are."""
    state = cell.initial_state(batch_shape, state_dtype(params, xs))
    x = jnp.asarray(jax.tree.leaves(xs)[0])
    if not jax.typeof(x).sharding.mesh.empty:
        rows = jnp.any(x.astype(bool), axis=(0, *range(1 + len(batch_shape), x.ndim)))
        state = jax.tree.map(lambda s: spread_like(s, rows), state)
    return cell.restart(params, state, batch_shape)


def run_cell(cell: "Cell", params: Params, xs: PyTree, state: State, options: Options) -> tuple[State, PyTree]:
    """Runs a cell over a sequence, chunk by chunk: `(final state, ys [T, *batch, ...])`."""
    steps, reverse = options.steps, options.reverse
    dtype = computation_dtype(params, xs)
    resets, valid = options.resets_before, options.valid
    noise = Noise()
    if cell.asks:
        x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
        noise = draw_noise(lambda draw: jax.eval_shape(functools.partial(_one, cell, draw), params, state, x), options)

    def segment(params: Params, state: State, part: tuple[PyTree, Any, Array | None, Any]) -> tuple[State, PyTree]:
        xs, valid, resets, each = part
        if valid is not None:
            xs = keep(valid, xs)
        drives = flat_products(cell.project)(params, xs)
        data = StepData(drives, valid, resets, noise._replace(each=each))
        state, outputs = cell.run_chunk(params, state, data, reverse)
        ys = cast(flat_products(cell.readout)(params, outputs, drives), dtype)
        return state, ys if valid is None else keep(valid, ys)

    state = begin_anew(cell, params, state, options, before=True)
    whole = (xs, valid, resets, noise.each)
    if steps == 0:
        one_step = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), whole)
        ys = jax.eval_shape(segment, params, state, one_step)[1]
        ys = jax.tree.map(lambda y: jnp.zeros((0, *y.shape[1:]), y.dtype), ys)
    else:
        if (chunk := options.chunk) is None:
            drive = jax.eval_shape(cell.project, params, jax.tree.map(lambda x: x[0], xs))
            chunk = cell.chunk_size(steps, drive, state)
        state, ys = in_chunks(segment, params, state, whole, chunk, reverse=reverse, save=options.save)
    return begin_anew(cell, params, state, options, before=False), ys


def begin_anew(layer: Layer, params: Params, state: State, options: Options, *, before: bool) -> State:
    """Resets the rows that `options.edges` flags, before or after a run."""
    if options.edges is None or (before and not options.reverse):
        return state
    edges = options.edges
    rows = edges.before_reverse if before else edges.after_reverse if options.reverse else edges.after_forward
    fresh = layer.restart(params, state, options.batch_shape)
    return jax.tree.map(functools.partial(select, rows), fresh, state)


def run_steps(cell: "Cell", params: Params, state: State, data: StepData, reverse: bool) -> tuple[State, PyTree]:
    """Runs the steps of a chunk one after the other: `(state after it, outputs [T, ...])`."""
    step: Any = functools.partial(_masked_step, cell, data.noise)
    every: Any = data._replace(noise=data.noise.each)
    if found := hoist(step, params, state, jax.tree.map(lambda d: d[0], every)):
        ahead, step = found
        every = flat_products(jax.vmap(ahead, (None, 0)))(params, every)
    return recurrence(step, reverse, params, state, every)


def take_step(cell: "Cell", params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
    """Takes one step of a cell; the new state keeps the dtypes of the old one."""
    new, output = check_step(cell, cell.step_with(params, state, drive, draw), state)
    return jax.tree.map(lambda n, s: cast(n, s.dtype), new, state), output


def read_out(cell: "Cell", params: Params, output: PyTree, drive: PyTree, x: PyTree) -> PyTree:
    """Returns the `y` of one step, in the dtype that parameters and input promote to."""
    return cast(cell.readout(params, output, drive), computation_dtype(params, x))


def _one(cell: "Cell", draw: Draw, params: Params, state: State, x: PyTree) -> PyTree:
    return cell.step_with(params, state, cell.project(params, x), draw)


def _masked_step(cell: "Cell", noise: Noise, params: Params, state: State, data: StepData) -> tuple[State, PyTree]:
    """Takes one step, with resets before it and, on invalid rows, the old state after it.

    Selected by `where`, never multiplied, so that NaN cannot leak. On invalid rows the output is ignored.
    """
    drive, valid, reset, each = data
    old = state
    if reset is not None:
        fresh = cell.restart(params, state, reset.shape)
        state = jax.tree.map(functools.partial(select, reset), fresh, state)
    new, output = take_step(cell, params, state, drive, noise.answers(each))
    if valid is None:
        return new, output
    held = jax.tree.map(lambda n, o: select(valid, n, o), new, old)
    # An output that is a leaf of the state stays the same object, so `recurrence` keeps it once.
    same = {id(n): h for n, h in zip(jax.tree.leaves(new), jax.tree.leaves(held), strict=True)}
    return held, jax.tree.map(lambda o: same.get(id(o), o), output)
