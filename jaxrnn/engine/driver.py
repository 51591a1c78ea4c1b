"""`unroll` checks its arguments once and hands them to the layer; `run_cell` is how any cell runs over time.

Below `unroll` all is traced once for equal cells, options, shapes and dtypes (`_known_run`), outside of `jax.jit`, too.
A call of a cell, of a single step, may be a run as well (`step_by_kernel`).
"""

import functools
import math
from typing import TYPE_CHECKING, Any, get_args

import jax
import jax.numpy as jnp

from jaxrnn.checks import (
    check_bools,
    check_choice,
    check_flags,
    check_input,
    check_key,
    check_lengths,
    check_output,
    check_params,
    check_sizes,
    check_state,
    named_promotions,
)
from jaxrnn.engine.layer import Layer, call_path, check_layer, state_dtype
from jaxrnn.engine.machines import Machine, here
from jaxrnn.engine.newton import Convergence, Newton
from jaxrnn.engine.noise import Draw, Noise, draw_all
from jaxrnn.engine.options import Options, Path, Save, SaveName
from jaxrnn.engine.paths import record_scan, recording, run_on_path, step_on_path
from jaxrnn.engine.rows import jax_settings
from jaxrnn.engine.runs import CellRun, RunData, begin_anew
from jaxrnn.jaxprs import is_known
from jaxrnn.ops import spread_like
from jaxrnn.typing import Array, Key, P, Params, PyTree, S, State

if TYPE_CHECKING:
    from jaxrnn.cell import Cell

__all__ = ["checked_options", "for_all_rows", "run_and_tell", "run_cell", "step_by_kernel", "unroll"]


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
    save: Save = "auto",
    path: Path = "auto",
    solver: Newton | None = None,
) -> tuple[S, PyTree]:
    """Runs a cell or network over a sequence: `(state, ys)`, each row's last valid state and all outputs.

    Values and derivatives equal those of calling `cell(params, state, x)` step by step; `unroll` is faster.

    Args:
        cell: any cell or network, such as a `Stack` or a `Bidirectional`.
        params: from `cell.init`.
        xs: inputs, time first: leaves `[T, *batch, *cell.input_spec.shape]`. Of several leaves, some may be alike for
            all rows, such as times: `[T, *shape]`.
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
        save: what reverse mode keeps of the forward pass. It changes speed and memory, not values.
            "states": the state after every step; the rest is computed again, for a chunk of steps at once.
            "boundaries": only the state before every chunk, for very long sequences; chunks run again too, and memory
            grows with T / chunk + chunk.
            "residuals": everything that derivatives need; nothing is computed again. On the scan path that takes
            several times the memory and, on a CPU, more time.
            "auto": the fastest of them. On the native path that is "residuals", and on both paths for a state with a
            buffer (an array of which a step reads and writes only some places); else it is "states".
            A policy of `jax.checkpoint_policies`: the states, and what it says of the products and readouts of all
            steps at once; the path is the scan.
        path: what runs the time steps. Values agree up to rounding.
            "native": one kernel of the machine for each cell's run: a native loop on a CPU (with the extra `cpu`), a
            Pallas kernel on a TPU. It chooses its own chunks.
            "scan": a loop of JAX's. A program that `jax.export` makes for a CPU always has this one.
            "auto": native where that can be done and is faster; `jaxrnn.explain` tells which, and why.
        solver: a `jaxrnn.Newton` finds all states of a chunk at once, in rounds; without `chunk` those of all T steps.
            It pays on accelerators, for long sequences and small states (`help(jaxrnn.Newton)`). Cells that run many
            steps at once anyway, such as an `MLSTM`, do so. None: one step after the other.

    Returns:
        `(state, ys)`: the final state, and `ys` with leaves `[T, *batch, ...]` in the dtype that `params` and `xs`
        promote to.

    Raises:
        TypeError, ValueError: an argument is not of the needed structure, shape, dtype or range, or the path "native"
            or the solver cannot be taken.

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
    xs = for_all_rows(cell, xs)
    options = checked_options(
        cell,
        xs,
        state,
        lengths=lengths,
        resets=resets,
        reverse=reverse,
        key=key,
        chunk=chunk,
        save=save,
        path=path,
        solver=solver,
    )
    begin = None if state is None else jax.tree.map(jnp.asarray, state)
    arrays = (cell, params, xs, begin, options.lengths, options.resets, options.key)
    run: Any = _known_run if all(map(is_known, jax.tree.leaves(arrays))) else _inlined_run
    if recording():  # a trace that is known already would record no choice
        run = _run
    with named_promotions(params, state, xs=xs):
        return run(*arrays, options._replace(lengths=None, resets=None, key=None), (jax.default_backend(), here()))


def for_all_rows(cell: Layer, xs: PyTree, *, batch_major: bool = False) -> PyTree:
    """Gives leaves with time alone the batch axes of the others."""
    spec, leaves = cell.input_spec, jax.tree.leaves(xs)
    tree: Any = jax.tree.structure(xs)
    if tree != jax.tree.structure(spec) or not leaves:
        return xs  # which the checks refuse
    examples = [one.shape for one in jax.tree.leaves(spec)]
    leading = [jnp.shape(x)[: jnp.ndim(x) - len(one)] for x, one in zip(leaves, examples, strict=True)]
    most = max(leading, key=len)
    time = most[-1:] if batch_major else most[:1]
    rows = () if batch_major else range(1, len(most))

    def spread(x: Any, axes: tuple[int, ...], one: tuple[int, ...]) -> Any:
        return x if axes == most or axes != time else jnp.broadcast_to(jnp.expand_dims(x, rows), (*most, *one))

    return tree.unflatten(map(spread, leaves, leading, examples))


def checked_options(
    cell: Layer,
    xs: PyTree,
    state: State | None,
    *,
    lengths: Any = None,
    resets: Any = None,
    reverse: Any = False,
    key: Any = None,
    chunk: Any = None,
    save: Any = "auto",
    path: Any = "auto",
    solver: Any = None,
) -> Options:
    """Returns the options of a run; raises as `unroll` unless they fit the cell and its inputs."""
    steps, *rest = check_input(cell, xs, "xs", time=True)
    batch_shape = tuple(rest)
    if state is not None:
        check_state(cell, state, batch_shape)
    elif cell.needs_state:
        raise ValueError(f"state: got None, {cell} needs one: {cell.needs_state}")
    check_bools(reverse=reverse)
    if chunk is not None:
        check_sizes(chunk=chunk)
    if not callable(save):
        check_choice(save=save, among=get_args(SaveName))
    check_choice(path=path, among=get_args(Path))
    if not (solver is None or isinstance(solver, Newton)):
        raise TypeError(f"solver: got {solver!r}, needs a jaxrnn.Newton, or None")
    if solver is not None and path == "native":
        raise ValueError(f"path: got 'native' and the solver {solver}, needs one of the two; use 'auto' with a solver")
    return Options(
        steps,
        batch_shape,
        lengths=None if lengths is None else check_lengths(lengths, steps, batch_shape),
        resets=None if resets is None else check_flags(resets, (steps, *batch_shape), "resets"),
        reverse=bool(reverse),
        key=check_key(key, optional=True),
        chunk=chunk,
        save=save,
        path=path,
        solver=solver,
    )


def _run(
    cell: Layer[P, S],
    params: P,
    xs: PyTree,
    state: S | None,
    lengths: Array | None,
    resets: Array | None,
    key: Key | None,
    options: Options,
    machine: tuple[str, Machine],
) -> tuple[S, PyTree]:
    del machine  # a trace depends on it, so it is a part of what the trace is known by
    if state is None:
        state = _fresh_state(cell, params, xs, options.batch_shape)
    return cell.run(params, xs, state, options._replace(lengths=lengths, resets=resets, key=key))


# Outside of `jax.jit` a run is a program: its loops, and those of its derivatives, would be compiled anew at each call.
_known_run = jax.jit(_run, static_argnames=("options", "machine"))
# In a program of the user's it is inlined: the derivative of a call would keep more than `save` says.
_inlined_run = jax.jit(_run, static_argnames=("options", "machine"), inline=True)


def _fresh_state(cell: Layer[P, S], params: P, xs: PyTree, batch_shape: tuple[int, ...]) -> S:
    """Returns the state in which a sequence begins, spread over devices as the inputs are."""
    state = cell.initial_state(batch_shape, state_dtype(params, xs))
    x = jnp.asarray(jax.tree.leaves(xs)[0])
    if not jax.typeof(x).sharding.mesh.empty:
        rows = jnp.any(x.astype(bool), axis=(0, *range(1 + len(batch_shape), x.ndim)))
        state = jax.tree.map(lambda s: spread_like(s, rows), state)
    return cell.restart(params, state, batch_shape)


def run_cell(cell: "Cell", params: Params, xs: PyTree, state: State, options: Options) -> tuple[State, PyTree]:
    """Runs a cell over a sequence: `(final state, ys [T, *batch, ...])`."""
    return run_and_tell(cell, params, xs, state, options)[:2]


def run_and_tell(
    cell: "Cell", params: Params, xs: PyTree, state: State, options: Options
) -> tuple[State, PyTree, Convergence | None]:
    """Runs a cell as `run_cell`, and tells how its solver converged; None without a solver."""
    noise = Noise()
    if cell.asks:
        x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
        noise = draw_all(lambda draw: jax.eval_shape(functools.partial(_one, cell, draw), params, state, x), options)
    state = begin_anew(cell, params, state, options, before=True)
    run = CellRun(cell, options.reverse, options.chunk, options.save, noise.random, settings=jax_settings())
    data = RunData(xs, options.valid, options.resets_before, noise.each)
    (state, _), (ys, how) = run_on_path(run, (params, noise.run), (state, noise.rows), data, options)
    if cell.apart:
        check_output(cell, ys, (options.steps, *options.batch_shape))
    return begin_anew(cell, params, state, options, before=False), ys, how


def _one(cell: "Cell", draw: Draw, params: Params, state: State, x: PyTree) -> PyTree:
    return cell.step_with(params, state, cell.project(params, x), draw)


def step_by_kernel(cell: "Cell", params: Params, state: State, x: PyTree) -> tuple[State, PyTree] | None:
    """Takes one step without randomness as a kernel: `(state, y)`; None where there is none, or it is no faster."""
    if (path := call_path()) == "part":
        return None
    spec, leaf = jax.tree.leaves(cell.input_spec)[0], jax.tree.leaves(x)[0]
    batch_shape = jnp.shape(leaf)[: jnp.ndim(leaf) - len(spec.shape)]
    options = Options(1, batch_shape, path=path)
    if reason := "asked for" if path == "scan" else _call_obstacle(params, batch_shape):
        record_scan(cell, options, reason)
        return None
    params, state, xs = jax.tree.map(jnp.asarray, (params, state, jax.tree.map(lambda x: jnp.asarray(x)[None], x)))
    run = CellRun(cell, settings=jax_settings())
    if (found := step_on_path(run, (params, ()), (state, ()), RunData(xs, None, None, ()), options)) is None:
        return None
    (state, _), (ys, _) = found
    check_output(cell, ys, (1, *batch_shape))
    return state, jax.tree.map(lambda y: y[0], ys)


def _call_obstacle(params: Params, batch_shape: tuple[Any, ...]) -> str:
    """Returns why a call is no kernel, from what is known without a look at its step: every call asks."""
    if not all(isinstance(n, int) for n in batch_shape):
        return "a symbolic number of rows"
    if jax.device_count() > 1:
        return "with several devices, XLA may divide the program among them"
    parameters = sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))
    return here().slower_call(math.prod(batch_shape), parameters)
