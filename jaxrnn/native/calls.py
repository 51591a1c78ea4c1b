"""Runs a row function over time as one native call, and says when that pays."""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.native.compile import compile_handler, machine
from jaxrnn.native.emit import Module, emit
from jaxrnn.native.emit_products import Registers
from jaxrnn.native.plan import Plan
from jaxrnn.native.rows import Row
from jaxrnn.typing import PyTree

__all__ = ["Shifted", "fits", "reference", "walk"]


class Shifted(NamedTuple):
    """Values of `xs` that lie a step away: each step reads `after` of the step visited next, the last step `first`.

    A walk back in time thus reads the state before each step from the states after every step.
    """

    first: Any  # [B, ...]
    after: Any  # [T, B, ...]


class Split(NamedTuple):
    """How a call is divided.

    Attributes:
        chunk: steps of a chunk.
        parts: ranges of rows, each walked by one thread.
        team: threads that share the columns of every product, of one part.
    """

    chunk: int
    parts: int
    team: int


# Of the caches of a core, in bytes: what a part's chunk may take, and weights that streams of several cores slow down.
CHUNK = 2**18
SHARED_WEIGHTS = 2**23
# Weights that a team of few rows reads faster together.
TEAM_WEIGHTS = 2**19
LEAST_ROW_STEPS = 64


def walk(
    row: Row, consts: PyTree, carry: PyTree, xs: PyTree, *, reverse: bool = False
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs a row function over all steps of a batch as one native call.

    Args:
        row: from `trace`.
        consts: arrays that all rows share.
        carry: leaves `[B, ...]`.
        xs: leaves `[T, B, ...]`, or `Shifted` ones. T and B are at least 1.
        reverse: whether to go from the last step to the first.

    Returns:
        `(carry, ys, sums)`: leaves `[B, ...]`, `[T, B, ...]`, and those of the consts' terms, added up.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxrnn import native
        >>> scalar = jax.ShapeDtypeStruct((), jnp.float32)
        >>> row = native.trace(lambda a, h, x: (a * h + x, h, h), scalar, scalar, scalar)
        >>> args = jnp.float32(0.5), jnp.zeros(1), jnp.ones((3, 1))
        >>> carry, ys, total = jax.jit(lambda *args: native.walk(row, *args))(*args)
        >>> carry.tolist(), ys[:, 0].tolist(), float(total)
        ([1.75], [0.0, 1.0, 1.5], 2.5)
    """
    leaves = jax.tree.leaves(xs, is_leaf=_is_shifted)
    steps, batch = (leaves[0].after if _is_shifted(leaves[0]) else leaves[0]).shape[:2]
    split = _split(row, steps, batch)
    rows = -(-batch // split.parts)
    name, module = _kernel(row, tuple(map(_is_shifted, leaves)), reverse, 4 if rows >= 4 else 2 if rows >= 2 else 1)
    stride = module.memory.stride(rows, split.chunk)
    settings = np.array([*split, stride // 64], np.int32)

    results = [
        jax.ShapeDtypeStruct((*lead, *spec.shape), spec.dtype)
        for lead, tree in zip(((batch,), (steps, batch), ()), row.results, strict=True)
        for spec in jax.tree.leaves(tree)
    ]
    scratch = jax.ShapeDtypeStruct((split.parts * stride + module.packed,), jnp.uint8)
    operands = row.constants(jax.tree.leaves(consts))
    given = jax.tree.leaves((carry, leaves))
    *found, _ = jax.ffi.ffi_call(name, [*results, scratch])(settings, *operands, *given)
    return jax.tree.unflatten(jax.tree.structure(row.results), found)


def reference(
    row: Row, consts: PyTree, carry: PyTree, xs: PyTree, *, reverse: bool = False
) -> tuple[PyTree, PyTree, PyTree]:
    """Does what `walk` does by `lax.scan`."""

    def whole(x: Any) -> Any:
        if not _is_shifted(x):
            return x
        first = x.first[None]
        return jnp.concatenate([first, x.after[:-1]] if reverse else [x.after[1:], first])

    def step(carry: PyTree, x: PyTree) -> tuple[PyTree, tuple[PyTree, PyTree]]:
        carry, y, terms = jax.vmap(row.fun, (None, 0, 0))(consts, carry, x)
        return carry, (y, jax.tree.map(lambda term: term.sum(0), terms))

    carry, (ys, terms) = jax.lax.scan(step, carry, jax.tree.map(whole, xs, is_leaf=_is_shifted), reverse=reverse)
    return carry, ys, jax.tree.map(lambda term: term.sum(0), terms)


def fits(row: Row, steps: int, batch: int) -> str:
    """Returns why XLA is faster than a walk of this size, "" if it isn't."""
    if steps * batch < LEAST_ROW_STEPS:
        return f"fewer than {LEAST_ROW_STEPS} row steps"
    return ""


def _is_shifted(x: Any) -> bool:
    return isinstance(x, Shifted)


def _kernel(row: Row, shifted: tuple[bool, ...], reverse: bool, rows: int) -> tuple[str, Module]:
    """The registered target of a row, which serves all T and B with at least so many rows a part."""
    here = machine()
    key = here, shifted, reverse, rows
    if key not in row.kernels:
        registers = Registers(here.lanes(row.dtype), here.registers)
        module = emit(row, registers, shifted=shifted, reverse=reverse, rows=rows)
        row.kernels[key] = compile_handler(module.text), module
    found: tuple[str, Module] = row.kernels[key]
    return found


@functools.cache
def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Sizes(NamedTuple):
    """What the division depends on, in bytes: the weights of the recurrence, a row and step of a chunk, the sums."""

    weights: int
    cell: int
    sums: int


def _sizes(row: Row) -> _Sizes:
    if "sizes" not in row.kernels:
        plan = Plan(row)
        item = np.dtype(row.dtype).itemsize
        matrices = {n.attr for n in plan.nodes if n.op == "dot" and plan.phase[n] == 1}
        homes = [h for h in plan.homes.values() if h.where == "scratch" and not h.of_step]
        row.kernels["sizes"] = _Sizes(
            weights=sum(m.shape[0] * m.shape[1] for m in matrices) * item,
            cell=sum(max(h.size, 1) + 8 for h in homes) * item,
            sums=sum(spec.size for spec in jax.tree.leaves(row.results[2])) * item if plan.outers else 0,
        )
    sizes: _Sizes = row.kernels["sizes"]
    return sizes


_forced: list[Callable[[Row, int, int], Split]] = []


def _split(row: Row, steps: int, batch: int) -> Split:
    """Threads with rows of their own never wait, but each reads all weights at every step; chunks stay in the cache."""
    if _forced:
        return _forced[-1](row, steps, batch)
    threads, sizes = _threads(), _sizes(row)
    few = sizes.weights >= TEAM_WEIGHTS and batch <= 4 * threads
    together = threads > 1 and (few or sizes.weights >= SHARED_WEIGHTS)
    parts = 1 if together else min(threads, batch)
    rows = -(-batch // parts)
    chunk = max(1, CHUNK // (rows * max(sizes.cell, 64)))
    if sizes.sums:
        # Every chunk reads and writes the sums once.
        chunk = max(chunk, -(-(96 if sizes.sums < 2**22 else 384) // rows))
    chunks = -(-steps // min(chunk, steps))
    return Split(chunk=-(-steps // chunks), parts=parts, team=threads if together else 1)
