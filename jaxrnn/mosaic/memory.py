"""What a kernel keeps in VMEM, the memory beside a TPU's units: how, and how many bytes."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from jaxrnn.mosaic.phases import Row
from jaxrnn.typing import Array

__all__ = ["Layout", "Memory", "on_tpu", "plan"]

MIB = 2**20
V5E = 128 * MIB  # of VMEM, where there is no TPU to ask
SHARE = 0.75  # of VMEM for what is kept; the rest is for the values of a step
BLOCK = 16  # steps, at most: there, the first block and the start of each one cost little


class Layout:
    """How an array is kept: with two axes at least, and booleans as int32."""

    def __init__(self, spec: Any, rows: int | None = None) -> None:
        self.shape, self.dtype = (spec.shape if rows is None else (rows, *spec.shape)), jnp.dtype(spec.dtype)
        self.stored = jnp.dtype(jnp.int32) if self.dtype == jnp.bool_ else self.dtype
        ones = (1,) * (2 - len(self.shape))
        self.kept = (*ones, *self.shape) if rows is None else (*self.shape, *ones)

    @property
    def bytes(self) -> int:
        """Bytes of its tiles, which have 128 columns of 32 bytes."""
        *outer, rows, columns = self.kept
        height = 32 // self.stored.itemsize
        return math.prod(outer) * -(-rows // height) * -(-columns // 128) * 32 * 128

    def store(self, a: Array, time: tuple[int, ...] = ()) -> Array:
        """Returns the array as it is kept."""
        return a.astype(self.stored).reshape(*time, *self.kept)

    def load(self, a: Array, time: tuple[int, ...] = ()) -> Array:
        """Returns the array as it was."""
        a = a.reshape(*time, *self.shape)
        return a != 0 if self.dtype == jnp.bool_ else a


class Memory(NamedTuple):
    """The memory of a kernel.

    Attributes:
        given, carry, read, out: how the values that a step reads and makes are kept, `read` and `out` of one step.
        block: steps whose `read` and `out` are there at once; 0: there is no room for one.
        needed: bytes, with blocks of one step.
        size: bytes of VMEM.
    """

    given: list[Layout]
    carry: list[Layout]
    read: list[Layout]
    out: list[Layout]
    block: int
    needed: int
    size: int


def plan(row: Row, steps: int, batch: int) -> Memory:
    """Returns how the memory of a run is used."""
    given = [Layout(spec) for spec in row.given]
    carry, read, out = ([Layout(spec, batch) for spec in specs] for specs in (row.carry, row.read, row.out))
    size = pltpu.get_tpu_info().vmem_capacity_bytes if on_tpu() else V5E
    # The carry is there before and after. One block is copied while another is used.
    whole = sum(k.bytes for k in [*given, *carry, *carry])
    one = 2 * sum(k.bytes for k in [*read, *out])
    block = max(0, min((int(SHARE * size) - whole) // one, steps, BLOCK))
    return Memory(given, carry, read, out, block, whole + one, size)


def on_tpu() -> bool:
    """Returns whether there is a TPU, to be asked and to compile for."""
    return jax.devices()[0].platform == "tpu"
