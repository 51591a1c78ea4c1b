"""The most probable sequences."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.checks import check_at_least, check_sizes
from jaxrnn.decoding.steps import Step, begin, check_stop, wide
from jaxrnn.typing import Array, State

__all__ = ["Beams", "beam_search"]


class Beams(NamedTuple):
    """Each row's best sequences, the best first."""

    tokens: Array  # [T, B, N]; zero beyond the lengths
    lengths: Array  # [B, N], a stop symbol counted; 0 where there are fewer than N
    scores: Array  # [B, N], log probability over the length's penalty; -inf where there are fewer
    log_probs: Array  # [B, N]


class _Ended(NamedTuple):
    """The best sequences that have ended, by where they did."""

    score: Array  # [B, N]
    log_prob: Array
    step: Array  # of the last token
    parent: Array  # the beam that it follows
    token: Array


def beam_search(
    step: Step,
    state: State,
    token: Array,
    steps: int,
    *,
    beams: int,
    n_best: int = 1,
    stop: tuple[int, ...] = (),
    length_penalty: float = 0.0,
) -> Beams:
    """Searches for the sequences of the greatest score, keeping the `beams` most probable unfinished ones at each step.

        score = log p(tokens) / ((5 + n) / 6)^α                 of n tokens, a stop symbol counted

    A sequence ends with a stop symbol, or has `steps` tokens. The search ends once no unfinished sequence can get among
    the best. With as many beams as there are sequences it is exact.

    Args:
        step: as in `generate`.
        state: before the first step, leaves `[B, ...]`. It is copied for each beam, an `Attention`'s memory included.
        token: `[B]` integers, the input of the first step.
        steps: T, the most tokens of a sequence.
        beams: K, unfinished sequences of a row.
        n_best: N, sequences given back for a row, at most K.
        stop: tokens that end a sequence.
        length_penalty: α; 0 favors short sequences, 1 about evens lengths out.

    Raises:
        TypeError, ValueError: an argument of another shape, kind or range.

    Example:
        >>> import jaxrnn
        >>> from jaxrnn import decoding
        >>> net = jaxrnn.Stack((jaxrnn.Embedding(7, 3), jaxrnn.GRU(3, 7)))
        >>> step = decoding.make_step(net, net.init(jax.random.key(0)))
        >>> start = net.initial_state((2,)), jnp.array([0, 1])
        >>> found = decoding.beam_search(step, *start, 5, beams=4, n_best=3, stop=(0,))
        >>> found.tokens.shape, bool((found.scores[:, 0] >= found.scores[:, 1]).all())
        ((5, 2, 3), True)

    Reference: Wu et al. 2016, "Google's neural machine translation system", section 7.
    """
    check_sizes(steps=steps, beams=beams, n_best=n_best)
    check_at_least(0, length_penalty=length_penalty)
    if n_best > beams:
        raise ValueError(f"n_best: got {n_best}, needs at most beams = {beams}")
    step, state, token, vocabulary = begin(step, state, token)
    stop = check_stop(stop, vocabulary)
    return _beam_search(step, state, token, steps, beams, n_best, stop, float(length_penalty))


@functools.partial(jax.jit, static_argnames=("steps", "beams", "n_best", "stop", "alpha"))
def _beam_search(
    step: Any, state: State, token: Array, steps: int, beams: int, n_best: int, stop: tuple[int, ...], alpha: float
) -> Beams:
    logits = jax.eval_shape(lambda: wide(step(state, token)[1]))
    (rows, vocabulary), dtype = logits.shape, logits.dtype
    first_beam = jnp.arange(rows)[:, None] * beams

    def penalty(length: Array | int) -> Array:
        return ((5 + jnp.asarray(length, dtype)) / 6) ** alpha

    def best_of(ended: _Ended, more: _Ended) -> _Ended:
        """Of equal scores, those that were there before."""
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), ended, more)
        _, which = lax.top_k(both.score, n_best)
        return jax.tree.map(lambda leaf: jnp.take_along_axis(leaf, which, axis=1), both)

    def goes_on(carry: Any) -> Array:
        number, _, _, live, _, _, ended = carry
        # A log probability only falls, and the penalty is greatest for the longest.
        hopeless = live[:, 0] / penalty(steps) <= ended.score[:, -1]
        return (number < steps) & ~jnp.all(hopeless)

    def body(carry: Any) -> Any:
        number, state, token, live, tokens, parents, ended = carry
        state, logits = step(state, token)
        log_p = jax.nn.log_softmax(wide(logits)).reshape(rows, beams, vocabulary)
        log_p = log_p + jnp.broadcast_to(live[:, :, None], log_p.shape)
        if stop:
            symbols = jnp.array(stop)
            ending = log_p[:, :, symbols].reshape(rows, -1)
            number_of = functools.partial(jnp.broadcast_to, shape=ending.shape)
            more = _Ended(
                score=ending / penalty(number + 1),
                log_prob=ending,
                step=number_of(number),
                parent=number_of(jnp.repeat(jnp.arange(beams), len(stop))[None]),
                token=number_of(jnp.tile(symbols, beams)[None]),
            )
            ended = best_of(ended, more)
            log_p = log_p.at[:, :, symbols].set(-jnp.inf)
        live, which = lax.top_k(log_p.reshape(rows, beams * vocabulary), beams)
        parent, token = which // vocabulary, which % vocabulary
        from_row = (first_beam + parent).reshape(-1)
        state = jax.tree.map(lambda leaf: leaf[from_row], state)
        tokens = lax.dynamic_update_index_in_dim(tokens, token, number, 0)
        parents = lax.dynamic_update_index_in_dim(parents, parent, number, 0)
        return number + 1, state, token.reshape(-1), live, tokens, parents, ended

    # All beams of a row begin alike, so only the first counts.
    live = jnp.where(jnp.arange(beams)[None] == jnp.zeros((rows, 1), jnp.int32), 0.0, -jnp.inf).astype(dtype)
    nothing = jnp.zeros((rows, n_best), jnp.int32)
    none = _Ended(*[jnp.full((rows, n_best), -jnp.inf, dtype)] * 2, *[nothing] * 3)
    lattice = jnp.zeros((steps, rows, beams), jnp.int32)
    state = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), state)
    start = jnp.zeros((), jnp.int32), state, jnp.repeat(token, beams), live, lattice, lattice, none
    number, _, _, live, tokens, parents, ended = lax.while_loop(goes_on, body, start)

    # Those of full length; after fewer steps none of them would be among the best.
    live = jnp.where(number == steps, live, -jnp.inf)
    whole = _Ended(live / penalty(steps), live, jnp.full(live.shape, steps - 1), parents[-1], tokens[-1])
    ended = best_of(ended, whole)
    found = ended.score > -jnp.inf

    def back(beam: Array, at_step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        """The token of each sequence at a step, and the beam that it follows."""
        number, tokens, parents = at_step
        is_last, before = number == ended.step, number < ended.step
        token = jnp.where(is_last, ended.token, jnp.take_along_axis(tokens, beam, axis=1))
        beam = jnp.where(is_last, ended.parent, jnp.where(before, jnp.take_along_axis(parents, beam, axis=1), beam))
        return beam, jnp.where(found & (is_last | before), token, 0)

    _, sequences = lax.scan(back, nothing, (jnp.arange(steps), tokens, parents), reverse=True)
    return Beams(sequences, jnp.where(found, ended.step + 1, 0), ended.score, ended.log_prob)
