"""Randomness as data: draws what the steps of a cell ask for before the loop.

A step asks by a `Draw`:

    kept = draw(Kept(rate, share, shape))        booleans, fresh at every step; None without a key
    cut  = draw(Boundary(every))                 whether gradients end before this step

The driver traces one step to record its requests, draws all of them, and hands each step its part. The loop holds no
random generator, and nested wrappers need no agreed order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from jaxrnn.engine.options import Options
from jaxrnn.typing import Array, Key

__all__ = ["Boundary", "Draw", "Kept", "KeptWeights", "Noise", "NormalWeights", "draw_all", "nothing"]

Per = Literal["run", "row", "step"]
"""What has a draw of its own."""


@dataclass(frozen=True)
class Kept:
    """A request for booleans, each true with probability 1 - `rate`; the axes in `share` have one draw for all."""

    rate: float
    share: tuple[str, ...]  # of "time" and "batch"
    shape: tuple[int, ...]  # [*batch, ...], of one step
    random: ClassVar[bool] = True

    @property
    def per(self) -> Per:
        """One draw for each step, or for each row."""
        return "row" if "time" in self.share else "step"

    def example(self, batch_shape: tuple[int, ...]) -> Array:
        """Returns a value of one step's shape and dtype."""
        if self.shape[: len(batch_shape)] != batch_shape:
            raise ValueError(f"cell: got an operand of the shape {self.shape} in its step, needs [*batch, ...]")
        return jnp.zeros(self.shape, bool)

    def data(self, key: Key, options: Options) -> Array:
        """Draws for a sequence: `shape`, or `[T, *shape]`."""
        axes = len(options.batch_shape)
        time = () if self.per == "row" else (options.steps,)
        drawn = (1,) * axes + self.shape[axes:] if "batch" in self.share else self.shape
        return jnp.broadcast_to(jax.random.bernoulli(key, 1 - self.rate, (*time, *drawn)), (*time, *self.shape))


@dataclass(frozen=True)
class KeptWeights:
    """A request for booleans of a parameter's shape, each true with probability 1 - `rate`, the same at every step."""

    rate: float
    shape: tuple[int, ...]
    random: ClassVar[bool] = True
    per: ClassVar[Per] = "run"

    def example(self, batch_shape: tuple[int, ...]) -> Array:
        """Returns a value of the shape and dtype."""
        return jnp.zeros(self.shape, bool)

    def data(self, key: Key, options: Options) -> Array:
        """Draws the mask."""
        return jax.random.bernoulli(key, 1 - self.rate, self.shape)


@dataclass(frozen=True)
class NormalWeights:
    """A request for normal values of a parameter's shape, the same at every step."""

    shape: tuple[int, ...]
    dtype: Any
    random: ClassVar[bool] = True
    per: ClassVar[Per] = "run"

    def example(self, batch_shape: tuple[int, ...]) -> Array:
        """Returns a value of the shape and dtype."""
        return jnp.zeros(self.shape, self.dtype)

    def data(self, key: Key, options: Options) -> Array:
        """Draws the noise."""
        return jax.random.normal(key, self.shape, self.dtype)


@dataclass(frozen=True)
class Boundary:
    """A request for flags `[*batch]`: whether gradients end before this step, as at every `every`-th step."""

    every: int
    random: ClassVar[bool] = False
    per: ClassVar[Per] = "step"

    def example(self, batch_shape: tuple[int, ...]) -> Array:
        """Returns a value of one step's shape and dtype."""
        return jnp.zeros(batch_shape, bool)

    def data(self, key: Key | None, options: Options) -> Array:
        """Returns the flags `[T, *batch]`."""
        del key
        steps, batch_shape = options.steps, options.batch_shape
        boundary = jnp.arange(steps) + (1 if options.reverse else 0)  # number b lies between the steps b - 1 and b
        flags = (boundary % self.every == 0) & (boundary > 0) & (boundary < steps)
        return jnp.broadcast_to(flags.reshape(steps, *(1 for _ in batch_shape)), (steps, *batch_shape))


Request = Kept | KeptWeights | NormalWeights | Boundary
Draw = Callable[[Request], Array | None]
"""Answers a step's request with what was drawn for it; None if nothing was."""


def nothing(request: Request) -> None:
    """Answers every request with None: the deterministic network."""
    del request


class Noise(NamedTuple):
    """What was drawn for a sequence, in the order in which a step asks for it."""

    random: bool = False  # whether there was a key
    run: tuple[Array, ...] = ()  # one draw for the run
    rows: tuple[Array, ...] = ()  # [*batch, ...], one draw for all steps of a row
    each: tuple[Array, ...] = ()  # [T, *batch, ...]

    def answers(self, each: tuple[Array, ...]) -> Draw:
        """Returns the answers to one step's requests, from that step's part of `self.each`."""
        sources = {"run": iter(self.run), "row": iter(self.rows), "step": iter(each)}
        return lambda request: next(sources[request.per]) if self.random or not request.random else None


def draw_all(ask: Callable[[Draw], Any], options: Options) -> Noise:
    """Draws everything that a step asks for over a sequence; `ask(draw)` traces one step."""
    requests: list[Request] = []

    def record(request: Request) -> Array | None:
        if request.random and options.key is None:
            return None
        requests.append(request)
        return request.example(options.batch_shape)

    ask(record)
    keys: Any = [None] * len(requests) if options.key is None else jax.random.split(options.key, len(requests))
    drawn = [(r.per, r.data(k, options)) for r, k in zip(requests, keys, strict=True)]
    run, rows, each = (tuple(d for found, d in drawn if found == per) for per in get_args(Per))
    return Noise(options.key is not None, run, rows, each)
