"""Runs a row function over time as one native call."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.native.compile import Machine, compile_handler, machine, obstacle
from jaxrnn.native.division import divide
from jaxrnn.native.emit import emit
from jaxrnn.native.emit_memory import Memory
from jaxrnn.native.emit_part import Variant
from jaxrnn.native.emit_products import Registers
from jaxrnn.native.graph import Row
from jaxrnn.typing import PyTree

__all__ = ["Shifted", "fits", "run"]


class Shifted(NamedTuple):
    """Values of `xs` that lie a step away: each step reads `after` of the step visited next, the last step `first`.

    A run back in time thus reads the state before each step from the states after every step.
    """

    first: Any  # [B, ...]
    after: Any  # [T, B, ...]


def fits(row: Row, steps: int, batch: int) -> str:
    """Returns why there is no native call for a run of this size: in a process that has them there is one for any."""
    return obstacle()


def run(
    row: Row, consts: PyTree, carry: PyTree, xs: PyTree, *, reverse: bool = False, final: bool = True
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs a row function over all steps of a batch as one native call.

    Args:
        row: from `trace`.
        consts: arrays that all rows share.
        carry: leaves `[B, ...]`.
        xs: leaves `[T, B, ...]`, or `Shifted` ones.
        reverse: whether to go from the last step to the first.
        final: whether the last carry is asked for; some numbers stand in its place if it is not.

    Returns:
        `(carry, ys, sums)`: leaves `[B, ...]`, `[T, B, ...]`, and those of the consts' terms, added up.

    Raises:
        ValueError: T or B is 0, or an array has another shape or dtype than the row was traced for.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxrnn import native
        >>> scalar = jax.ShapeDtypeStruct((), jnp.float32)
        >>> row = native.trace(lambda a, h, x: (a * h + x, h, h), scalar, scalar, scalar)
        >>> args = jnp.float32(0.5), jnp.zeros(1), jnp.ones((3, 1))
        >>> carry, ys, total = jax.jit(lambda *args: native.run(row, *args))(*args)
        >>> carry.tolist(), ys[:, 0].tolist(), float(total)
        ([1.75], [0.0, 1.0, 1.5], 2.5)
    """
    leaves = jax.tree.leaves(xs, is_leaf=_is_shifted)
    steps, batch = (leaves[0].after if _is_shifted(leaves[0]) else leaves[0]).shape[:2]
    if not (steps and batch):
        raise ValueError(f"xs: got {steps} steps of {batch} rows, needs at least one of each")
    operands, states = row.constants(jax.tree.leaves(consts)), jax.tree.leaves(carry)
    shifts = [(x.first, spec) for x, spec in zip(leaves, row.given[2], strict=True) if _is_shifted(x)]
    _check("consts", operands, row.given[0])
    _check("carry", states, row.given[1], batch)
    _check("xs", [x.after if _is_shifted(x) else x for x in leaves], row.given[2], steps, batch)
    _check("xs: first", [first for first, _ in shifts], [spec for _, spec in shifts], batch)
    division = divide(row, steps, batch)
    rows = -(-batch // division.parts)
    least = 4 if rows >= 4 else 2 if rows >= 2 else 1
    variant = Variant(tuple(map(_is_shifted, leaves)), reverse, final, least)
    name, memory, packed = _kernel(row, machine(), variant)
    stride = memory.stride(rows, division.chunk)
    packed_at = memory.packed_at(division.parts, stride)
    settings = np.array([*division, stride // 64, packed_at // 64], np.int32)

    finals, ys, sums = (
        [jax.ShapeDtypeStruct((*lead, *spec.shape), spec.dtype) for spec in jax.tree.leaves(tree)]
        for lead, tree in zip(((batch,), (steps, batch), ()), row.results, strict=True)
    )
    once = [ys[row.places.index(i)] for i in range(len(row.ys))]
    scratch = jax.ShapeDtypeStruct((packed_at + packed,), jnp.uint8)
    arguments = settings, *operands, *states, *jax.tree.leaves(leaves)
    *found, _ = jax.ffi.ffi_call(name, [*finals, *once, *sums, scratch])(*arguments)
    over_time = slice(len(finals), len(finals) + len(once))
    found[over_time] = [found[over_time][i].reshape(spec.shape) for i, spec in zip(row.places, ys, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(row.results), found)


def _check(name: str, arrays: list[Any], specs: list[Any], *lead: int) -> None:
    """Raises unless the arrays are what the native code reads, which checks no bounds."""
    for array, spec in zip(arrays, specs, strict=True):
        got, needed = (array.dtype, *array.shape), (spec.dtype, *lead, *spec.shape)
        if got != needed:
            raise ValueError(f"{name}: got the dtype and shape {got}, needs {needed}")


def _is_shifted(x: Any) -> bool:
    return isinstance(x, Shifted)


@functools.lru_cache(maxsize=512)
def _kernel(row: Row, machine: Machine, variant: Variant) -> tuple[str, Memory, int]:
    """The registered target of a row, which serves all T and B; a part's memory; the bytes of the packed weights."""
    module = emit(row, Registers(machine.lanes(row.dtype), machine.registers), variant)
    return compile_handler(module.text), module.memory, module.packed
