"""One Pallas kernel for all steps of a batch.

The grid is blocks of steps, one after the other. What all steps share stays in VMEM for the whole run, and so does the
carry. Pallas copies what a step reads and makes from and to HBM, a block ahead and a block behind.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxrnn.mosaic.memory import Layout, Memory
from jaxrnn.mosaic.phases import Row
from jaxrnn.mosaic.rules import rewritten
from jaxrnn.typing import Array

__all__ = ["loop"]

Leaves = list[Any]


def loop(
    row: Row,
    memory: Memory,
    given: Leaves,
    carry: Leaves,
    read: Leaves,
    *,
    reverse: bool = False,
    interpret: bool = False,
) -> tuple[Leaves, Leaves]:
    """Runs the step of a row function for all rows and steps.

    Args:
        row: whose step.
        memory: from `plan`.
        given: arrays that all rows and steps share.
        carry: arrays `[B, ...]`.
        read: arrays `[T, B, ...]`.
        reverse: whether the last step comes first.
        interpret: whether JAX carries the kernel out.

    Returns:
        `(carry, out)`: arrays `[B, ...]` and `[T, B, ...]`.
    """
    steps, block = len(read[0]), memory.block
    blocks = -(-steps // block)
    step = rewritten(jax.vmap(row.step, [None] * len(given) + [0] * (len(carry) + len(read))))
    # In the order in which Pallas hands them over.
    groups = memory.given, memory.carry, memory.read, memory.carry, memory.out
    ends = list(itertools.accumulate(map(len, groups)))

    def kernel(*refs: Any) -> None:
        given, first, read, carry, out = (refs[a:b] for a, b in zip([0, *ends], ends, strict=False))
        visit = pl.program_id(0)
        rest = steps - at(visit) * block
        count = jnp.minimum(block, rest) if steps % block else block

        @pl.when(visit == 0)
        def begin() -> None:
            for ref, value in zip(carry, first, strict=True):
                ref[...] = value[...]

        def one(i: Array, _: None) -> None:
            t = count - 1 - i if reverse else i
            # Weights are read in every step: what is read before the loop is copied.
            found = step(*_load(memory.given, given), *_load(memory.carry, carry), *_load(memory.read, read, t))
            _store(memory.carry, carry, found[: len(carry)])
            _store(memory.out, out, found[len(carry) :], t)

        lax.fori_loop(0, count, one, None)

    def at(visit: Array) -> Array:
        return blocks - 1 - visit if reverse else visit

    def streamed(k: Layout) -> pl.BlockSpec:
        return pl.BlockSpec((block, *k.kept), lambda visit: (at(visit), *[0] * len(k.kept)))

    def made(k: Layout, *lead: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *k.kept), k.stored, manual_axis_type=jax.typeof(carry[0]).mat)

    resident = pl.BlockSpec(memory_space=pltpu.VMEM)
    results = pl.pallas_call(
        kernel,
        grid=(blocks,),
        in_specs=[*[resident] * (len(given) + len(carry)), *map(streamed, memory.read)],
        out_specs=[*[resident] * len(carry), *map(streamed, memory.out)],
        out_shape=[*map(made, memory.carry), *(made(k, steps) for k in memory.out)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",), vmem_limit_bytes=memory.size),
        interpret=interpret,
    )(
        *(k.store(a) for k, a in zip([*memory.given, *memory.carry], [*given, *carry], strict=True)),
        *(k.store(a, (steps,)) for k, a in zip(memory.read, read, strict=True)),
    )
    last = [k.load(a) for k, a in zip(memory.carry, results, strict=False)]
    return last, [k.load(a, (steps,)) for k, a in zip(memory.out, results[len(last) :], strict=True)]


def _load(kept: list[Layout], refs: Any, at: Any = ...) -> Leaves:
    """The values that references hold, or hold for one step."""
    return [k.load(ref[at]) for k, ref in zip(kept, refs, strict=True)]


def _store(kept: list[Layout], refs: Any, values: Leaves, at: Any = ...) -> None:
    """Gives references their values, or those of one step."""
    for k, ref, value in zip(kept, refs, values, strict=True):
        ref[at] = k.store(value)
