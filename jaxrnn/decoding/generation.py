"""Token after token: all at once, or as a Python iterator."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.checks import check_sizes
from jaxrnn.decoding.steps import Step, begin, check_stop, draw, is_one_of, row_keys, wide
from jaxrnn.decoding.transforms import Transform, check_transforms, transformed
from jaxrnn.ops import keep, select
from jaxrnn.reinforce import categorical_log_prob
from jaxrnn.typing import Array, Key, State

__all__ = ["Generated", "generate", "stream"]


class Generated(NamedTuple):
    """What `generate` gives."""

    tokens: Array  # [T, B]; zero beyond the lengths
    lengths: Array  # [B], a stop symbol counted
    log_probs: Array  # [T, B], under the model's own logits; zero beyond the lengths
    state: State  # after all tokens but each row's last: to go on from there


class _Carry(NamedTuple):
    number: Array  # [], tokens so far
    state: State
    token: Array  # [B]
    counts: Array | None  # [B, V]
    stopped: Array  # [B] bool


def _advance(
    step: Step, before: _Carry, keys: Key | None, transforms: tuple[Transform, ...], stop: tuple[int, ...]
) -> tuple[_Carry, Array]:
    """One more token for each row that has not stopped, and its log probability."""
    number, state, token, counts, stopped = before
    new_state, logits = step(state, token)
    logits = wide(logits)
    new = draw(transformed(transforms, logits, counts), keys, number)
    log_prob = categorical_log_prob(logits, new)
    if stop:
        new_state = jax.tree.map(lambda n, s: select(stopped, s, n), new_state, state)
        new, log_prob = keep(~stopped, (new, log_prob))
    if counts is not None:
        counts = counts.at[jnp.arange(len(new)), new].add((~stopped).astype(counts.dtype))
    return _Carry(number + 1, new_state, new, counts, stopped | is_one_of(new, stop)), log_prob


def generate(
    step: Step,
    state: State,
    token: Array,
    steps: int,
    *,
    key: Key | None = None,
    transforms: tuple[Transform, ...] = (),
    stop: tuple[int, ...] = (),
    counts: Array | None = None,
) -> Generated:
    """Generates up to `steps` tokens for each row, each one the input of the next step.

    A token's draw depends on its row's key and its number alone, so neither the other rows nor their number matter.
    Memory does not grow with `steps`, but for the result. Once all rows have stopped, no further step is taken.

    Args:
        step: `(state, token [B]) -> (state, logits [B, V])`, pure.
        state: before the first step, leaves `[B, ...]`.
        token: `[B]` integers, the input of the first step.
        steps: T, the most tokens of a row.
        key: a typed key, or keys `[B]`, one for each row; None: greedy, the likeliest token at each step.
        transforms: functions `(logits, counts) -> logits`, applied in turn before a token is chosen: `Temperature`,
            `TopK`, `TopP`, `MinP`, `RepetitionPenalty`, or your own, which must hash.
        stop: tokens that end a row.
        counts: `[B, V]` integers: how often each row has had each symbol, for `RepetitionPenalty`, and kept up to date
            here; None: not counted.

    Raises:
        TypeError, ValueError: an argument of another shape or kind, or a step that changes those of its state.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> step = decoding.make_step(net, net.init(jax.random.key(0)))
        >>> state, token = net.initial_state((2,)), jnp.array([0, 1])
        >>> transforms = decoding.Temperature(0.7), decoding.TopK(3)
        >>> found = decoding.generate(step, state, token, 5, key=jax.random.key(1), transforms=transforms)
        >>> found.tokens.shape, found.lengths.tolist()
        ((5, 2), [5, 5])
    """
    check_sizes(steps=steps)
    step, state, token, vocabulary = begin(step, state, token)
    keys, counts = row_keys(key, len(token)), _check_counts(counts, len(token), vocabulary)
    return _generate(
        step, state, token, keys, counts, steps, check_transforms(transforms), check_stop(stop, vocabulary)
    )


def _check_counts(counts: Any, rows: int, vocabulary: int) -> Array | None:
    if counts is None:
        return None
    counts = jnp.asarray(counts)
    if counts.shape != (rows, vocabulary) or not jnp.issubdtype(counts.dtype, jnp.integer):
        raise ValueError(
            f"counts: got the shape {counts.shape} of {counts.dtype}, needs integers [B, V] = {(rows, vocabulary)}"
        )
    return counts


@functools.partial(jax.jit, static_argnames=("steps", "transforms", "stop"))
def _generate(
    step: Any,
    state: State,
    token: Array,
    keys: Key | None,
    counts: Array | None,
    steps: int,
    transforms: tuple[Transform, ...],
    stop: tuple[int, ...],
) -> Generated:
    rows = len(token)
    dtype = jax.eval_shape(lambda: wide(step(state, token)[1])).dtype

    def goes_on(carry: tuple[_Carry, Array, Array, Array]) -> Array:
        now = carry[0]
        return (now.number < steps) & ~jnp.all(now.stopped)

    def body(carry: tuple[_Carry, Array, Array, Array]) -> tuple[_Carry, Array, Array, Array]:
        now, tokens, log_probs, lengths = carry
        after, log_prob = _advance(step, now, keys, transforms, stop)
        tokens = lax.dynamic_update_index_in_dim(tokens, after.token, now.number, 0)
        log_probs = lax.dynamic_update_index_in_dim(log_probs, log_prob, now.number, 0)
        return after, tokens, log_probs, lengths + (~now.stopped).astype(jnp.int32)

    first = _Carry(jnp.zeros((), jnp.int32), state, token, counts, jnp.zeros(rows, bool))
    start = first, jnp.zeros((steps, rows), jnp.int32), jnp.zeros((steps, rows), dtype), jnp.zeros(rows, jnp.int32)
    last, tokens, log_probs, lengths = lax.while_loop(goes_on, body, start)
    return Generated(tokens, lengths, log_probs, last.state)


def stream(
    step: Step,
    state: State,
    token: Array,
    steps: int | None = None,
    *,
    key: Key | None = None,
    transforms: tuple[Transform, ...] = (),
    stop: tuple[int, ...] = (),
    counts: Array | None = None,
) -> Iterator[np.ndarray]:
    """Yields the tokens of `generate` one step at a time, `[B]` NumPy integers, zero for rows that have stopped.

    The next step runs while the caller looks at a token.

    Args:
        step: as in `generate`.
        state: before the first step, leaves `[B, ...]`.
        token: `[B]` integers, the input of the first step.
        steps: the most tokens of a row; None: until all rows have stopped.
        key: as in `generate`.
        transforms: as in `generate`.
        stop: as in `generate`.
        counts: as in `generate`.

    Raises:
        TypeError, ValueError: as in `generate`.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> step = decoding.make_step(net, net.init(jax.random.key(0)))
        >>> start = net.initial_state((2,)), jnp.array([0, 1])
        >>> pieces = list(decoding.stream(step, *start, steps=3))
        >>> bool((np.stack(pieces) == decoding.generate(step, *start, 3).tokens).all())
        True
    """
    if steps is not None:
        check_sizes(steps=steps)
    step, state, token, vocabulary = begin(step, state, token)
    keys, counts = row_keys(key, len(token)), _check_counts(counts, len(token), vocabulary)
    first = _Carry(jnp.zeros((), jnp.int32), state, token, counts, jnp.zeros(token.shape, bool))
    return _stream(step, first, keys, steps, check_transforms(transforms), check_stop(stop, vocabulary))


def _stream(
    step: Any,
    carry: _Carry,
    keys: Key | None,
    steps: int | None,
    transforms: tuple[Transform, ...],
    stop: tuple[int, ...],
) -> Iterator[np.ndarray]:
    # A pytree of many small parts takes longer to flatten than a small step to run.
    arrays, structure = jax.tree.flatten((step, keys))
    following = _stream_step(arrays, carry, structure, transforms, stop)
    for taken in itertools.count(1):
        carry = following
        if taken != steps:
            following = _stream_step(arrays, carry, structure, transforms, stop)  # runs while this token is looked at
        yield np.asarray(carry.token)
        if taken == steps or (stop and np.all(carry.stopped)):
            return


@functools.partial(jax.jit, static_argnames=("structure", "transforms", "stop"))
def _stream_step(
    arrays: list[Array], carry: _Carry, structure: Any, transforms: tuple[Transform, ...], stop: tuple[int, ...]
) -> _Carry:
    step, keys = jax.tree.unflatten(structure, arrays)
    return _advance(step, carry, keys, transforms, stop)[0]
