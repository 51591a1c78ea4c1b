"""The options of `unroll`, checked, as they travel down to every cell."""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from jaxrnn.engine.masks import valid_steps
from jaxrnn.typing import Array, Key

__all__ = ["Edges", "Options", "Save"]

Save = Literal["states", "boundaries", "residuals"]


class Edges(NamedTuple):
    """Which rows `[*batch]` begin anew before the first step of a run or after its last, by its direction."""

    after_forward: Array
    before_reverse: Array
    after_reverse: Array


class Options(NamedTuple):
    """How a sequence is run, and its sizes."""

    steps: int
    batch_shape: tuple[int, ...]
    lengths: Array | None = None  # [*batch]
    resets: Array | None = None  # [T, *batch], a flagged step begins a new sequence in its row
    reverse: bool = False
    key: Key | None = None
    chunk: int | None = None
    save: Save = "states"
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
        # A flag stands between two steps: seen from the later one, it stands before the earlier one.
        return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])]) if self.reverse else resets
