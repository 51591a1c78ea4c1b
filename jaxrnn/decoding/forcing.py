"""Along given sequences: their log probabilities, and logits to train on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.checks import check_arrays, check_lengths
from jaxrnn.decoding.steps import Step, begin, check_tokens, draw, row_keys, wide
from jaxrnn.engine.masks import valid_steps
from jaxrnn.ops import keep
from jaxrnn.reinforce import categorical_log_prob
from jaxrnn.typing import Array, Key, State

__all__ = ["score", "teacher_forcing"]


def score(step: Step, state: State, token: Array, tokens: Array, lengths: Array | None = None) -> Array:
    """Gives the log probability of each token of given sequences, `[T, B]`; zero beyond the lengths.

    Where logits come from `unroll`, `reinforce.categorical_log_prob(logits, tokens)` gives the same faster.

    Args:
        step: as in `generate`.
        state: before the first step, leaves `[B, ...]`.
        token: `[B]` integers, the input of the first step.
        tokens: `[T, B]` integers, what follows `token`.
        lengths: `[B]` integers in 0..T; None: all T.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> step, state = decoding.make_step(net, net.init(jax.random.key(0))), net.initial_state((2,))
        >>> token = jnp.array([0, 1])
        >>> found = decoding.generate(step, state, token, 5)
        >>> bool(jnp.allclose(decoding.score(step, state, token, found.tokens), found.log_probs, atol=1e-6))
        True
    """
    step, state, token, _ = begin(step, state, token)
    tokens = _check_targets(tokens, token, "tokens")
    steps, rows = tokens.shape
    lengths = check_lengths(np.full(rows, steps) if lengths is None else lengths, steps, (rows,))
    return keep(valid_steps(jnp.arange(steps), lengths), _score(step, state, token, tokens))


@jax.jit
def _score(step: Any, state: State, token: Array, tokens: Array) -> Array:
    def one(state: State, pair: tuple[Array, Array]) -> tuple[State, Array]:
        state, logits = step(state, pair[0])
        return state, categorical_log_prob(wide(logits), pair[1])

    return lax.scan(one, state, (jnp.concatenate([token[None], tokens[:-1]]), tokens))[1]


def _check_targets(targets: Any, token: Array, name: str) -> Array:
    targets = check_tokens(targets, name, "[T, B]")
    if targets.shape[1:] != token.shape:
        raise ValueError(f"{name}: got the shape {targets.shape}, needs [T, B], B = {len(token)} as in token")
    return targets


def teacher_forcing(
    step: Step, state: State, token: Array, targets: Array, *, own: Array | float = 0.0, key: Key | None = None
) -> tuple[State, Array]:
    """Runs a step along given sequences: `(state, logits [T, B, V])`, each target the input after its step.

    With `key`, an input is at the rate `own` a draw from the logits of the step before instead: scheduled sampling. The
    draw passes no gradient. Without, `unroll` over the embedded targets gives the same faster.

    Args:
        step: as in `generate`.
        state: before the first step, leaves `[B, ...]`.
        token: `[B]` integers, the input of the first step.
        targets: `[T, B]` integers, what follows `token`.
        own: the rate in [0, 1], an array too, such as one of an Optax schedule.
        key: as in `generate`; None: only the targets.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> step, targets = decoding.make_step(net, net.init(jax.random.key(0))), jnp.ones((5, 2), jnp.int32)
        >>> start = net.initial_state((2,)), jnp.array([0, 1])
        >>> _, logits = decoding.teacher_forcing(step, *start, targets, own=0.25, key=jax.random.key(1))
        >>> logits.shape
        (5, 2, 7)

    Reference: Williams & Zipser 1989; Bengio, Vinyals, Jaitly & Shazeer 2015, "Scheduled sampling for sequence
    prediction with recurrent neural networks".
    """
    step, state, token, _ = begin(step, state, token)
    targets = _check_targets(targets, token, "targets")
    check_arrays(own=own)
    if jnp.shape(own) or (not isinstance(own, jax.Array) and not 0 <= own <= 1):
        raise ValueError(f"own: got {own!r}, needs a rate in [0, 1]")
    if key is None and (isinstance(own, jax.Array) or own):
        raise ValueError(f"key: got None, own = {own} needs one")
    return _teacher_forcing(step, state, token, targets, jnp.asarray(own), row_keys(key, len(token)))


@jax.jit
def _teacher_forcing(
    step: Any, state: State, token: Array, targets: Array, own: Array, keys: Key | None
) -> tuple[State, Array]:
    def one(carry: tuple[State, Array], at_step: tuple[Array, Array]) -> tuple[tuple[State, Array], Array]:
        state, token = carry
        number, target = at_step
        state, logits = step(state, token)
        if keys is not None:
            target = jnp.where(jax.vmap(coin, (0, None))(keys, number), draw(logits, keys, number), target)
        return (state, target), logits

    def coin(key: Key, number: Array) -> Array:
        # A key of its own; the one of this number draws the token.
        return jax.random.bernoulli(jax.random.fold_in(jax.random.fold_in(key, number), 0), own)

    (state, _), logits = lax.scan(one, (state, token), (jnp.arange(len(targets)), targets))
    return state, logits
