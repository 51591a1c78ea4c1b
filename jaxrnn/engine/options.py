"""The checked options of `unroll`, which every layer hands down to its cells."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxrnn.engine.masks import valid_steps
from jaxrnn.engine.newton import Newton
from jaxrnn.typing import Array, Key

__all__ = ["Edges", "Options", "Path", "Save", "SaveName"]

SaveName = Literal["auto", "states", "boundaries", "residuals"]
Save = SaveName | Callable[..., Any]  # a policy of `jax.checkpoint`
Path = Literal["auto", "scan", "native"]


class Edges(NamedTuple):
    """Rows `[*batch]` that reset before the first step of a run or after its last one, for each direction."""

    after_forward: Array
    before_reverse: Array
    after_reverse: Array


class Options(NamedTuple):
    """The sizes of a sequence and how to run it."""

    steps: int
    batch_shape: tuple[int, ...]
    lengths: Array | None = None  # [*batch]
    resets: Array | None = None  # [T, *batch], a flagged step begins a new sequence in its row
    reverse: bool = False
    key: Key | None = None
    chunk: int | None = None
    save: Save = "auto"
    path: Path = "auto"
    solver: Newton | None = None
    edges: Edges | None = None

    @property
    def valid(self) -> Array | None:
        """Which steps lie within their row's length, `[T, *batch]`; None: all."""
        return None if self.lengths is None else valid_steps(jnp.arange(self.steps), self.lengths)

    @property
    def resets_before(self) -> Array | None:
        """The steps `[T, *batch]` before which, in the direction of the run, a row is reset; None: there are none."""
        resets = self.resets
        if resets is None:
            return None
        if (valid := self.valid) is not None:
            resets = resets & valid
        # A flag acts between two steps. In reverse, the earlier step is the one that follows it.
        return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])]) if self.reverse else resets
