"""What becomes of logits before a token is drawn: functions `(logits [B, V], counts [B, V] or None) -> logits`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.checks import check_positive, check_sizes
from jaxrnn.typing import Array

__all__ = ["MinP", "RepetitionPenalty", "Temperature", "TopK", "TopP"]

Transform = Callable[[Array, Array | None], Array]


@dataclass(frozen=True)
class Temperature:
    """Divides logits: below 1 what is likely becomes likelier, above 1 all becomes more alike.

    Example:
        >>> Temperature(0.5)(jnp.array([[1.0, 3.0]]), None).tolist()
        [[2.0, 6.0]]
    """

    temperature: float

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(self, logits: Array, counts: Array | None) -> Array:
        del counts
        return logits / self.temperature


@dataclass(frozen=True)
class TopK:
    """Leaves the k greatest logits, of equal ones the first; the rest becomes -inf.

    Example:
        >>> TopK(2)(jnp.array([[1.0, 3.0, 2.0]]), None).tolist()
        [[-inf, 3.0, 2.0]]

    Reference: Fan, Lewis & Dauphin 2018, "Hierarchical neural story generation".
    """

    k: int

    def __post_init__(self) -> None:
        check_sizes(k=self.k)

    def __call__(self, logits: Array, counts: Array | None) -> Array:
        del counts
        if self.k > logits.shape[-1]:
            raise ValueError(f"k: got {self.k}, needs at most V = {logits.shape[-1]}")
        least = lax.top_k(logits, self.k)[0][..., -1:]
        return _leave(self.k, least, logits)


@dataclass(frozen=True)
class TopP:
    """Leaves the fewest most probable symbols whose probabilities add up to p; the rest becomes -inf.

    Example:
        >>> TopP(0.7)(jnp.log(jnp.array([[0.2, 0.5, 0.3]])), None).argsort()[:, 0].tolist()
        [0]

    Reference: Holtzman et al. 2020, "The curious case of neural text degeneration".
    """

    p: float

    def __post_init__(self) -> None:
        _check_p(self.p)

    def __call__(self, logits: Array, counts: Array | None) -> Array:
        del counts
        if self.p == 1:
            return logits  # of many symbols, the sum below is 1 before the last ones
        falling = -jnp.sort(-logits, axis=-1)
        p = jax.nn.softmax(falling)
        above = jnp.cumsum(p, axis=-1) - p  # the probability of all that is likelier
        count = jnp.sum(above < self.p, axis=-1, keepdims=True)
        return _leave(count, jnp.take_along_axis(falling, count - 1, axis=-1), logits)


@dataclass(frozen=True)
class MinP:
    """Leaves the symbols that are at least p times as probable as the likeliest; the rest becomes -inf.

    Example:
        >>> MinP(0.5)(jnp.log(jnp.array([[0.2, 0.5, 0.3]])), None)[0, 0].tolist()
        -inf

    Reference: Nguyen et al. 2025, "Turning up the heat: min-p sampling for creative and coherent LLM outputs".
    """

    p: float

    def __post_init__(self) -> None:
        _check_p(self.p)

    def __call__(self, logits: Array, counts: Array | None) -> Array:
        del counts
        least = jnp.max(logits, axis=-1, keepdims=True) + float(np.log(self.p))
        return jnp.where(logits >= least, logits, -jnp.inf)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Makes the symbols that a row already has less likely: positive logits over the penalty, negative ones times it.

    Needs `counts`, so that it is known what counts as seen.

    Example:
        >>> RepetitionPenalty(2.0)(jnp.array([[3.0, -1.0, 3.0]]), jnp.array([[1, 2, 0]])).tolist()
        [[1.5, -2.0, 3.0]]

    Reference: Keskar et al. 2019, "CTRL: a conditional transformer language model for controllable generation".
    """

    penalty: float

    def __post_init__(self) -> None:
        check_positive(penalty=self.penalty)

    def __call__(self, logits: Array, counts: Array | None) -> Array:
        if counts is None:
            raise ValueError(
                "counts: got None, RepetitionPenalty needs [B, V], such as count_tokens(prompt, V, lengths)"
            )
        less = jnp.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return jnp.where(counts > 0, less, logits)


def check_transforms(transforms: Any) -> tuple[Transform, ...]:
    """Returns the transforms; raises unless a tuple of functions."""
    if not isinstance(transforms, tuple | list) or not all(map(callable, transforms)):
        raise TypeError(f"transforms: got {transforms!r}, needs a tuple of functions, such as (Temperature(0.7),)")
    for i, transform in enumerate(transforms):
        if isinstance(transform, type):
            raise TypeError(f"transforms[{i}]: got the class {transform.__name__}, needs one made of it")
    return tuple(transforms)


def transformed(transforms: tuple[Transform, ...], logits: Array, counts: Array | None) -> Array:
    """Returns what the transforms make of logits, one after the other; raises unless each gives logits."""
    for i, transform in enumerate(transforms):
        new = transform(logits, counts)
        if jnp.shape(new) != logits.shape:
            got = f"the shape {jnp.shape(new)}" if isinstance(new, jax.Array) else type(new).__name__
            raise TypeError(f"transforms[{i}]: got {got} from it, needs logits [B, V] = {logits.shape}")
        logits = new
    return logits


def _leave(count: Array | int, least: Array, logits: Array) -> Array:
    """Leaves the `count` greatest logits, the last of which is `least`; of equal ones the first."""
    above, equal = logits > least, logits == least
    left = count - jnp.sum(above, axis=-1, keepdims=True)
    return jnp.where(above | (equal & (jnp.cumsum(equal, axis=-1) <= left)), logits, -jnp.inf)


def _check_p(p: float) -> None:
    check_positive(p=p)
    if p > 1:
        raise ValueError(f"p: got {p}, needs at most 1")
