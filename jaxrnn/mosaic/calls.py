"""Runs a row function over time around one kernel, and says whether there is one."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxrnn.mosaic.kernel import loop
from jaxrnn.mosaic.memory import MIB, SHARE, on_tpu, plan
from jaxrnn.mosaic.phases import Row
from jaxrnn.typing import Array, PyTree

__all__ = ["fits", "obstacle", "run", "slower", "slower_call"]


def obstacle() -> str:
    """Returns why kernels cannot run on this machine, empty if they can."""
    return "" if (backend := jax.default_backend()) == "tpu" else f"JAX runs on {backend!r}, these kernels on 'tpu'"


@functools.lru_cache(maxsize=512)
def fits(row: Row, steps: int, batch: int) -> str:
    """Returns why there is no kernel for a run of this size, empty if there is.

    Mosaic is asked: it lowers the kernel that runs forward in time and, on a TPU, compiles it.
    """
    groups = ((), row.given), ((batch,), row.carry), ((steps, batch), row.read)
    args = [[jax.ShapeDtypeStruct((*lead, *spec.shape), spec.dtype) for spec in specs] for lead, specs in groups]
    memory = plan(row, steps, batch)
    if not memory.block:
        return f"{memory.needed / MIB:.0f} MiB for one step, and kernels keep {SHARE * memory.size / MIB:.0f} in VMEM"
    # Of one device: a thread of its own is within no `jax.set_mesh` and no `jax.shard_map`.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_refusal, functools.partial(loop, row, memory), args, jax.enable_x64.value).result()


def _refusal(kernel: Callable[..., Any], args: list[Any], x64: bool) -> str:
    with jax.enable_x64(x64):
        traced = jax.jit(kernel).trace(*args)
        try:
            lowered = traced.lower(lowering_platforms=("tpu",))
            if on_tpu():
                lowered.compile()
        except Exception as error:  # Mosaic's are of many kinds, and private
            text = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
            return f"Mosaic cannot compile it: {text[:200]}"
    return ""


def slower(row: Row, steps: int, batch: int) -> str:
    """Returns why XLA is faster than a run of this size, empty if it is not: no such size is known."""
    return ""


def slower_call(batch: int, parameters: int) -> str:
    """Returns why XLA is taken to be faster than a run of one step."""
    return "not measured on a TPU"


def run(
    row: Row,
    consts: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    reverse: bool = False,
    final: bool = True,
    interpret: bool = False,
) -> PyTree:
    """Runs a row function over all steps of a batch.

    Args:
        row: from `trace`.
        consts: arrays that all rows share.
        carry: leaves `[B, ...]`.
        xs: leaves `[T, B, ...]`.
        reverse: whether to go from the last step to the first.
        final: whether the last carry is asked for; it is right even if it is not.
        interpret: whether JAX carries the kernel out, on any device and slowly, for tests.

    Returns:
        `(carry, ys, ())`: leaves `[B, ...]` and `[T, B, ...]`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxrnn import mosaic
        >>> scalar = jax.ShapeDtypeStruct((), jnp.float32)
        >>> row = mosaic.trace(lambda a, h, x: (a * h + x, h, ()), scalar, scalar, scalar)
        >>> carry, ys, _ = mosaic.run(row, jnp.float32(0.5), jnp.zeros(1), jnp.ones((3, 1)), interpret=True)
        >>> carry.tolist(), ys[:, 0].tolist()
        ([1.75], [0.0, 1.0, 1.5])
    """
    shared, first, inputs = [*row.constants, *jax.tree.leaves(consts)], jax.tree.leaves(carry), jax.tree.leaves(xs)
    steps, batch = inputs[0].shape[:2]

    def at_once(function: Callable[..., list[Any]], seen: list[Array]) -> list[Array]:
        axes = [None] * len(shared) + [0] * len(seen)
        rows = jax.vmap(function, axes, axis_size=batch)
        return jax.vmap(rows, axes, axis_size=steps)(*shared, *seen)

    seen = [*inputs, *at_once(row.before, inputs)]
    read = [seen[i] for i in row.reads]
    memory = plan(row, steps, batch)
    last, out = loop(row, memory, row.ahead(*shared), first, read, reverse=reverse, interpret=interpret)
    return jax.tree.unflatten(jax.tree.structure(row.results), [*last, *at_once(row.after, [*seen, *out])])
