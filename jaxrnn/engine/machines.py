"""The machines that have kernels: what a room for one of them must be able to do."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax

from jaxrnn import mosaic, native
from jaxrnn.engine.meshes import without_mesh
from jaxrnn.engine.rows import RowFunction, of_cell
from jaxrnn.typing import PyTree

__all__ = ["MACHINES", "Machine", "here", "traced"]


class Machine(Protocol):
    """A room that makes kernels for one kind of machine."""

    @property
    def Unsupported(self) -> type[Exception]:
        """What `trace` raises where it cannot read a row function."""

    @property
    def sums(self) -> bool:
        """Whether kernels add up what row functions give, such as gradients of constants."""

    @property
    def shifts(self) -> bool:
        """Whether a run back in time finds the values before each step where they lie, by `native.Shifted`."""

    def __hash__(self) -> int: ...

    def obstacle(self) -> str:
        """Says why there are no kernels on this machine and in this process; empty if there are."""

    def trace(self, fun: Callable[..., Any], consts: PyTree, carry: PyTree, xs: PyTree) -> Any:
        """Reads a function of one row; raises `Unsupported`."""

    def fits(self, row: Any, steps: int, batch: int) -> str:
        """Says why there is no kernel for a run of this size; empty if there is."""

    def slower(self, row: Any, steps: int, batch: int) -> str:
        """Says why the scan is faster than a kernel for a run of this size; empty if it is not."""

    def slower_call(self, batch: int, parameters: int) -> str:
        """Says why XLA's operations are faster than a run of one step by so many parameters; empty if they may not."""

    def run(self, row: Any, consts: PyTree, carry: PyTree, xs: PyTree, *, reverse: bool, final: bool) -> Any:
        """Runs a row function over all steps of a batch: `(carry, ys, sums)`; not `final`: no carry is asked for."""


MACHINES: dict[str, Machine] = {"cpu": native, "tpu": mosaic}
"""The rooms, by the names of JAX's platforms."""


def here() -> Machine:
    """Returns the room of JAX's default backend, whatever `jax.default_device` says.

    Where there is none it is `native`, whose obstacle says so.
    """
    return MACHINES.get(jax.default_backend(), native)


@functools.lru_cache(maxsize=512)
def traced(machine: Machine, row: RowFunction) -> Any:
    """Returns a row function as a machine's room reads it; traces it once."""
    with without_mesh():
        return machine.trace(of_cell(row.fun), row.consts, row.carry, row.xs)
