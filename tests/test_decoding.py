"""Decoding, against brute force, NumPy and loops of single steps."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import jaxrnn
import jaxrnn.nnx
from jaxrnn import decoding
from jaxrnn.decoding import MinP, RepetitionPenalty, Temperature, TopK, TopP

V, H = 5, 6
TOKEN = jnp.array([1, 3, 2])
KEY = jax.random.key(7)
RNG = np.random.default_rng(1)
WEIGHTS = tuple(RNG.normal(size=shape).astype(np.float32) for shape in ((V, H), (H, H), (H, V)))


def elman(weights, h, token):
    """The smallest recurrent step: the oracle below is the same in NumPy."""
    e, w, o = weights
    h = jnp.tanh(e[token] + h @ w)
    return h, h @ o


STEP = Partial(elman, jax.tree.map(jnp.asarray, WEIGHTS))


def start(rows=3):
    return jnp.zeros((rows, H)), TOKEN[:rows]


def read(h, tokens):
    """`elman` along tokens `[T, B]` in NumPy: the last state, log probabilities after each `[T, B, V]`."""
    e, w, o = WEIGHTS
    found = []
    for token in np.asarray(tokens):
        h = np.tanh(e[token] + h @ w)
        z = h @ o
        found.append(z - np.log(np.exp(z).sum(-1, keepdims=True)))
    return h, np.stack(found)


def log_probs_of(tokens, first=TOKEN):
    """Of each of `tokens` `[T, B]` that follow `first`."""
    tokens = np.asarray(tokens)
    _, log_p = read(np.zeros((tokens.shape[1], H)), [np.asarray(first)[: tokens.shape[1]], *tokens[:-1]])
    return np.take_along_axis(log_p, tokens[..., None], -1)[..., 0]


# Token after token.


def test_greedy_generation_takes_the_likeliest_token_at_each_step():
    found = decoding.generate(STEP, *start(), 6)
    assert (found.tokens.shape, found.lengths.tolist()) == ((6, 3), [6, 6, 6])
    _, log_p = read(np.zeros((3, H)), [np.asarray(TOKEN), *np.asarray(found.tokens)[:-1]])
    np.testing.assert_array_equal(found.tokens, log_p.argmax(-1))
    np.testing.assert_allclose(found.log_probs, log_probs_of(found.tokens), rtol=1e-5)
    # To go on from there: its state, and its last token.
    more = decoding.generate(STEP, found.state, found.tokens[-1], 6)
    _, log_p = read(np.zeros((3, H)), [np.asarray(TOKEN), *np.asarray(found.tokens), *np.asarray(more.tokens)[:-1]])
    np.testing.assert_array_equal(more.tokens, log_p[6:].argmax(-1))


def test_draws_of_a_row_follow_its_key_alone():
    sample = functools.partial(decoding.generate, STEP, steps=8)
    three = np.asarray(sample(*start(), key=KEY).tokens)
    assert len(np.unique(three)) > 2
    np.testing.assert_array_equal(sample(*start(1), key=KEY).tokens, three[:, :1])
    keys = jax.vmap(functools.partial(jax.random.fold_in, KEY))(jnp.arange(3))
    turned = sample(start()[0], TOKEN[::-1], key=keys[::-1])
    np.testing.assert_array_equal(turned.tokens[:, ::-1], three)
    assert not np.array_equal(sample(*start(), key=jax.random.key(8)).tokens, three)


def test_draws_have_the_probabilities_of_the_transformed_logits():
    rows, logits = 20_000, jnp.array([0.0, 1.0, 2.0, -1.0])
    found = decoding.generate(
        lambda state, token: (state, jnp.broadcast_to(logits[None], (rows, 4))),
        (),
        jnp.zeros(rows, jnp.int32),
        1,
        key=KEY,
        transforms=(Temperature(2.0), TopK(3)),
    )
    p = np.exp([0.0, 0.5, 1.0, -np.inf])
    p /= p.sum()
    frequencies = np.bincount(found.tokens[0], minlength=4) / rows
    np.testing.assert_allclose(frequencies, p, atol=5 * np.sqrt(0.25 / rows))
    assert not frequencies[3]
    # The log probability is that of the model, not of what was made of it.
    at = np.asarray(found.tokens[0])
    np.testing.assert_allclose(found.log_probs[0], np.log(np.exp(logits) / np.exp(logits).sum())[at], rtol=1e-5)


def test_a_row_ends_with_its_first_stop_symbol():
    whole = decoding.generate(STEP, *start(), 8, key=KEY)
    tokens = np.asarray(whole.tokens)
    stop = (int(tokens[2, 0]), int(tokens[4, 1]))
    ends = [np.flatnonzero(np.isin(row, stop)) for row in tokens.T]
    lengths = [int(end[0]) + 1 if len(end) else 8 for end in ends]
    assert len(set(lengths)) > 1
    found = decoding.generate(STEP, *start(), 8, key=KEY, stop=stop)
    valid = np.arange(8)[:, None] < lengths
    assert found.lengths.tolist() == lengths
    np.testing.assert_array_equal(found.tokens, np.where(valid, tokens, 0))
    np.testing.assert_allclose(found.log_probs, np.where(valid, whole.log_probs, 0), rtol=1e-5)
    # The state is the one after all tokens of the row but the last.
    for row, n in enumerate(lengths):
        h, _ = read(np.zeros(H), [TOKEN[row], *tokens[: n - 1, row]])
        np.testing.assert_allclose(found.state[row], h, rtol=1e-4, atol=1e-5)


def test_no_step_is_taken_once_all_rows_have_stopped():
    taken = []

    def step(state, token):
        jax.debug.callback(lambda number: taken.append(int(number)), state[0])
        return state + 1, jax.nn.one_hot(jnp.minimum(state, jnp.array([2, 3])), 4)

    found = decoding.generate(step, jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32), 1000, stop=(2, 3))
    jax.effects_barrier()
    assert found.lengths.tolist() == [3, 3]
    assert len(taken) == 3


def test_a_stream_yields_what_generate_gives():
    options = {"key": KEY, "transforms": (Temperature(0.8), TopP(0.9), RepetitionPenalty(1.3))}
    counts = decoding.count_tokens(TOKEN[None], V)
    for stop in ((), (0, 2)):
        found = decoding.generate(STEP, *start(), 6, **options, stop=stop, counts=counts)
        pieces = list(decoding.stream(STEP, *start(), 6, **options, stop=stop, counts=counts))
        np.testing.assert_array_equal(np.stack(pieces), found.tokens[: max(found.lengths)])
    assert len(list(itertools.islice(decoding.stream(STEP, *start()), 4))) == 4
    always = decoding.stream(lambda state, token: (state, jnp.array([[0.0, 1.0]])), (), jnp.array([0]), stop=(1,))
    assert [piece.tolist() for piece in always] == [[1]]


@pytest.mark.exhaustive
def test_prompts_of_different_length_are_read_by_unroll():
    net = jaxrnn.Stack((jaxrnn.Embedding(V, H), jaxrnn.Elman(H, H)))
    e, w, o = WEIGHTS
    params = ((e,), jaxrnn.cells.ElmanParams(np.eye(H, dtype=np.float32), w, np.zeros(H, np.float32)))
    params = jax.tree.unflatten(jax.tree.structure(net.init(jax.random.key(0))), jax.tree.leaves(params))
    prompt, lengths = jnp.array([[1, 3, 2], [2, 4, 0], [4, 0, 0]]), jnp.array([3, 2, 1])
    tokens, before, last = decoding.split_prompt(prompt, lengths)
    assert (before.tolist(), last.tolist()) == ([2, 1, 0], [4, 4, 2])
    state, _ = jaxrnn.unroll(net, params, tokens, lengths=before)
    found = decoding.generate(decoding.make_step(net, params, head=lambda y: y @ o), state, last, 4)
    for row, n in enumerate(lengths.tolist()):
        given = np.asarray(prompt[:n, row])
        _, log_p = read(np.zeros(H), [*given, *np.asarray(found.tokens)[:-1, row]])
        np.testing.assert_array_equal(log_p[n - 1 :].argmax(-1), found.tokens[:, row])
    one = decoding.split_prompt(prompt[:1])
    state, _ = jaxrnn.unroll(net, params, one.tokens, lengths=one.lengths)  # of no tokens
    assert not any(leaf.any() for leaf in jax.tree.leaves(state))


def test_a_large_repetition_penalty_allows_no_symbol_twice():
    prompt, lengths = jnp.array([[1, 3], [2, 0]]), jnp.array([2, 1])
    counts = decoding.count_tokens(prompt, V, lengths)
    assert counts.tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 0]]

    def step(state, token):
        return state, jnp.array([[5.0, 4.0, 3.0, 2.0, 1.0]] * 2)

    found = decoding.generate(
        step, (), jnp.array([2, 3]), 3, counts=counts, transforms=(RepetitionPenalty(1e6),)
    ).tokens
    assert found.T.tolist() == [[0, 3, 4], [0, 1, 2]]


# Transforms.


def test_transforms_are_those_of_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 12)).astype(np.float32) * 3
    logits[0] = 0  # all alike
    logits[1, 3:] = -np.inf
    counts = rng.integers(0, 2, (50, 12))
    transforms = Temperature(0.7), TopK(4), TopP(0.8), MinP(0.2), RepetitionPenalty(1.5)
    got = [np.asarray(t(logits, counts)) for t in transforms]
    np.testing.assert_allclose(got[0], logits / np.float32(0.7), rtol=1e-6)
    np.testing.assert_allclose(got[4], np.where(counts > 0, np.where(logits > 0, logits / 1.5, logits * 1.5), logits))
    for row, z in enumerate(logits.astype(np.float64)):
        p = np.exp(z - z.max())
        p /= p.sum()
        order = np.argsort(-z, kind="stable")
        nucleus = order[: np.searchsorted(np.cumsum(p[order]), 0.8 - 1e-7) + 1]
        wanted = order[:4], nucleus, np.flatnonzero(p >= 0.2 * p.max() * (1 - 1e-6))
        for found, want in zip(got[1:4], wanted, strict=True):
            kept = np.isfinite(found[row]) | (np.isin(np.arange(12), want) & np.isneginf(z))
            assert sorted(np.flatnonzero(kept)) == sorted(want)
            np.testing.assert_array_equal(found[row][np.isfinite(found[row])], logits[row][np.isfinite(found[row])])
    many = 3 * jax.random.normal(KEY, (2, 50_000))  # whose probabilities add up to 1 before the last ones
    np.testing.assert_array_equal(TopP(1.0)(many, None), many)
    assert Temperature(0.7) == Temperature(0.7)
    assert hash(TopK(3)) == hash(TopK(3))


def test_greedy_is_the_limit_of_every_transform():
    logits = RNG.normal(size=(20, V)).astype(np.float32)
    for transforms in ((Temperature(1e-4), TopK(2)), (TopK(1),), (TopP(1e-6), MinP(0.5)), (MinP(1.0),)):
        got = transforms[0](logits, None)
        for transform in transforms[1:]:
            got = transform(got, None)
        np.testing.assert_array_equal(jax.random.categorical(KEY, got), logits.argmax(-1))


# Beam search.


def every_sequence(steps, stop):
    """All sequences that end with their first stop symbol, or have `steps` tokens."""
    for n in range(1, steps + 1):
        for tokens in itertools.product(range(V), repeat=n):
            if not set(tokens[:-1]) & set(stop) and (tokens[-1] in stop or n == steps):
                yield tokens


@pytest.mark.parametrize(("stop", "alpha"), [((0,), 0.0), ((0, 2), 0.9), ((), 0.5), ((4,), 3.0)])
def test_beam_search_with_room_for_all_is_exact(stop, alpha):
    steps, n_best = 3, 6
    sequences = list(every_sequence(steps, stop))
    padded = np.zeros((steps, len(sequences)), np.int32)
    for i, tokens in enumerate(sequences):
        padded[: len(tokens), i] = tokens
    lengths = np.array([len(tokens) for tokens in sequences])
    found = decoding.beam_search(STEP, *start(2), steps, beams=V**2, n_best=n_best, stop=stop, length_penalty=alpha)
    for row in range(2):
        each = log_probs_of(padded, np.full(len(sequences), TOKEN[row]))
        log_p = np.where(np.arange(steps)[:, None] < lengths, each, 0).sum(0)
        scores = log_p / ((5 + lengths) / 6) ** alpha
        best = np.argsort(-scores)[:n_best]
        np.testing.assert_allclose(found.scores[row], scores[best], rtol=1e-5)
        np.testing.assert_allclose(found.log_probs[row], log_p[best], rtol=1e-5)
        assert found.lengths[row].tolist() == lengths[best].tolist()
        np.testing.assert_array_equal(found.tokens[:, row], padded[:, best])


def test_a_narrow_beam_search_is_that_of_lists():
    steps, beams, stop, alpha = 7, 3, 0, 0.6
    found = decoding.beam_search(STEP, *start(), steps, beams=beams, n_best=2, stop=(stop, stop), length_penalty=alpha)
    for row in range(3):
        live = [(0.0, (), np.zeros(H), int(TOKEN[row]))]
        ended = []
        for _ in range(steps):
            more = []
            for log_p, tokens, h, token in live:
                h, each = read(h, [token])
                more += [(log_p + each[0, v], (*tokens, v), h, v) for v in range(V)]
            ended += [(m[0] / ((5 + len(m[1])) / 6) ** alpha, m[1]) for m in more if m[3] == stop]
            live = sorted((m for m in more if m[3] != stop), key=lambda m: -m[0])[:beams]
        ended += [(m[0] / ((5 + steps) / 6) ** alpha, m[1]) for m in live]
        for n, (score, tokens) in enumerate(sorted(ended, key=lambda e: -e[0])[:2]):
            np.testing.assert_allclose(found.scores[row, n], score, rtol=1e-5)
            assert tuple(found.tokens[: found.lengths[row, n], row, n].tolist()) == tokens


def test_one_beam_without_stop_is_greedy():
    found = decoding.beam_search(STEP, *start(), 6, beams=1)
    greedy = decoding.generate(STEP, *start(), 6)
    np.testing.assert_array_equal(found.tokens[..., 0], greedy.tokens)
    np.testing.assert_allclose(found.log_probs[:, 0], greedy.log_probs.sum(0), rtol=1e-5)


def test_fewer_sequences_than_asked_for_are_marked():
    found = decoding.beam_search(
        lambda s, t: (s, jnp.array([[0.0, 1.0]] * t.shape[0])), (), jnp.array([0]), 1, beams=4, n_best=4
    )
    assert found.lengths.tolist() == [[1, 1, 0, 0]]
    assert np.isneginf(found.scores[0]).tolist() == [False, False, True, True]
    assert found.tokens[:, 0].tolist() == [[1, 0, 0, 0]]


# Steps of models.


class Model(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(V, 4, rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(jaxrnn.GRU(4, H), time_major=True, rngs=rngs)
        self.head = nnx.Linear(H, V, rngs=rngs)

    def __call__(self, tokens, carry=None):
        carry, ys = self.rnn(self.embed(tokens), initial_carry=carry)
        return carry, self.head(ys)

    def step(self, carry, token):
        carry, y = self.rnn.step(carry, self.embed(token))
        return carry, self.head(y)


@pytest.mark.exhaustive
def test_a_method_of_an_nnx_module_is_a_step_and_compiles_once(monkeypatch):
    with jax.numpy_rank_promotion("allow"):  # within Flax
        model = Model(nnx.Rngs(0))
        carry = model.rnn.initialize_carry((3, 4))
        traces, call = [], Model.step
        monkeypatch.setattr(Model, "step", lambda *args: traces.append(1) or call(*args))
        first = decoding.generate(model.step, carry, TOKEN, 5)
        tokens = np.asarray(first.tokens)
        logits = np.asarray(nnx.jit(Model.__call__)(model, jnp.concatenate([TOKEN[None], first.tokens[:-1]]))[1])
        np.testing.assert_array_equal(tokens, logits.argmax(-1))
        # Other values of the same parameters are seen, and the loop is not traced again.
        before = len(traces)
        model.head.bias[...] = jnp.array([0.0, 0.0, 0.0, 0.0, 100.0])
        assert (np.asarray(decoding.generate(model.step, carry, TOKEN, 5).tokens) == 4).all()
        assert len(traces) - before <= 1, "of the shape of its logits, no more"
        made = decoding.make_step(
            model.rnn.cell.cell, nnx.as_pure(model.rnn.cell.params), embed=model.embed, head=model.head
        )
        assert (np.asarray(made(carry, TOKEN)[1]).argmax(-1) == 4).all()


def test_a_function_that_closes_over_arrays_is_seen_as_it_is_now():
    held = {"bias": jnp.array([[1.0, 0.0]])}

    def step(state, token):
        return state, held["bias"]

    seen = []
    for bias in ([[1.0, 0.0]], [[0.0, 1.0]]):
        held["bias"] = jnp.array(bias)
        seen.append(
            (
                int(decoding.generate(step, (), jnp.array([0]), 1).tokens[0, 0]),
                int(next(decoding.stream(step, (), jnp.array([0]), 1))[0]),
            )
        )
    assert seen == [(0, 0), (1, 1)]


@pytest.mark.exhaustive
def test_the_state_of_an_attention_decoder_goes_with_its_beam():
    memory_size, places, rows = 4, 5, 2
    decoder = jaxrnn.Attention(jaxrnn.GRU(3 + memory_size, H), memory_size, places, "general")
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: 3 * w, decoder.init(jax.random.key(1)))
    table, head = (
        rng.normal(size=(V, 3)).astype(np.float32),
        rng.normal(size=(decoder.output_size.y, V)).astype(np.float32),
    )
    embed = Partial(lambda table, token: table[token], jnp.asarray(table))
    step = decoding.make_step(decoder, params, embed=embed, head=Partial(lambda w, y: y @ w, head))
    memory = rng.normal(size=(places, rows, memory_size)).astype(np.float32)
    state = decoder.attend(params, memory, np.arange(places)[:, None] < np.array([5, 3]))
    found = decoding.beam_search(step, state, TOKEN[:rows], 4, beams=6, n_best=2)
    # Each beam has looked at its own row's memory: `unroll` along it gives its log probability.
    attend = functools.partial(jaxrnn.unroll, decoder)
    for n in range(2):
        tokens = found.tokens[..., n]
        inputs = jnp.concatenate([TOKEN[None, :rows], tokens[:-1]])
        _, seen = jax.jit(attend)(params, jnp.asarray(table)[inputs], state)
        log_p = jaxrnn.reinforce.categorical_log_prob(seen.y @ head, tokens)
        np.testing.assert_allclose(found.log_probs[:, n], log_p.sum(0), rtol=1e-4)
    np.testing.assert_allclose(step(state, TOKEN[:rows])[1], seen.y[0] @ head, rtol=1e-4, atol=1e-5)


# Along given sequences.


def test_teacher_forcing_and_score_are_those_of_a_loop():
    targets = RNG.integers(0, V, (6, 3))
    state, logits = decoding.teacher_forcing(STEP, *start(), targets)
    h, log_p = read(np.zeros((3, H)), [np.asarray(TOKEN), *targets[:-1]])
    np.testing.assert_allclose(jax.nn.log_softmax(logits), log_p, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state, h, rtol=1e-4, atol=1e-5)
    lengths = np.array([6, 2, 0])
    want = np.where(np.arange(6)[:, None] < lengths, log_probs_of(targets), 0)
    np.testing.assert_allclose(decoding.score(STEP, *start(), targets, lengths), want, rtol=1e-4, atol=1e-5)


def test_gradients_pass_along_given_sequences():
    """The slope along a direction, by differences of the loop in NumPy."""
    targets, direction = RNG.integers(0, V, (4, 3)), RNG.normal(size=(H, H))

    def loss(w):
        step = Partial(elman, (jnp.asarray(WEIGHTS[0]), w, jnp.asarray(WEIGHTS[2])))
        return -jnp.sum(decoding.score(step, *start(), targets)), jnp.sum(
            decoding.teacher_forcing(step, *start(), targets, own=0.5, key=KEY)[1] ** 2
        )

    (by_score, by_logits) = jax.jit(jax.jacrev(loss))(jnp.asarray(WEIGHTS[1]))
    assert np.isfinite(by_logits).all()
    assert np.asarray(by_logits).any()
    ends = []
    for sign in (1, -1):
        moved = WEIGHTS[1] + sign * 1e-5 * direction
        h, total = np.zeros((3, H)), 0.0
        for token, target in itertools.pairwise([np.asarray(TOKEN), *targets]):
            h = np.tanh(WEIGHTS[0][token] + h @ moved)
            z = h @ WEIGHTS[2].astype(np.float64)
            total -= (np.take_along_axis(z, target[:, None], 1)[:, 0] - np.log(np.exp(z).sum(-1))).sum()
        ends.append(total)
    np.testing.assert_allclose((by_score * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-3)


def test_scheduled_sampling_feeds_its_own_draws_at_the_rate():
    """The logits of a step tell what it was fed with; its own draws are always the symbol after next."""
    steps, rows = 40, 200

    def step(state, token):
        return state, 50 * jax.nn.one_hot((token + 2) % V, V)

    targets = jnp.broadcast_to(jnp.arange(steps)[:, None] % V, (steps, rows))
    token, forced = jnp.full(rows, V - 1), decoding.teacher_forcing
    run = jax.jit(lambda own, key: jnp.argmax(forced(step, (), token, targets, own=own, key=key)[1], -1) - 2)
    fed = np.asarray(run(0.25, KEY)) % V
    true, own = np.asarray(targets[:-1]), (fed[:-1] + 2) % V
    assert ((fed[1:] == true) | (fed[1:] == own)).all()
    differ = true != own
    assert abs((fed[1:] == own)[differ].mean() - 0.25) < 0.02
    np.testing.assert_array_equal(np.asarray(run(0.0, KEY))[1:] % V, true)
    always = np.asarray(run(1.0, KEY)) % V
    np.testing.assert_array_equal(always, (V - 1 + 2 * np.arange(steps))[:, None].repeat(rows, 1) % V)
    np.testing.assert_array_equal(np.asarray(run(0.25, KEY)) % V, fed)


# Errors.


def fails(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: decoding.generate(STEP, *start(), 0), ValueError, "steps: got 0, needs a positive integer"),
        (
            lambda: decoding.generate(STEP, start()[0], TOKEN[:2], 3),
            ValueError,
            r"state: got the shape \(3, 6\), needs \[B",
        ),
        (
            lambda: decoding.generate(STEP, *start(), 3, stop=(5,)),
            ValueError,
            r"stop: got \(5,\), needs a tuple of tokens in 0..4",
        ),
        (
            lambda: decoding.generate(STEP, start()[0], jnp.ones(3), 3),
            TypeError,
            "token: got the dtype float32, needs integers",
        ),
        (
            lambda: decoding.generate(lambda s, t: (s, jnp.zeros(3)), *start(), 3),
            ValueError,
            r"step: got logits of the shape \(3,\), needs \[B, V\], B = 3",
        ),
        (
            lambda: decoding.generate(
                lambda s, t: (s.astype(jnp.float32), jnp.zeros((3, 2))), jnp.zeros((3, 1), jnp.int32), TOKEN, 3
            ),
            ValueError,
            "step: got the state .*float32.*, needs that before it, .*int32",
        ),
        (lambda: decoding.generate(STEP, *start(), 3, key=3), TypeError, "key: got 3, needs a key"),
        (
            lambda: decoding.generate(STEP, *start(), 3, key=KEY, transforms=(TopK(6),)),
            ValueError,
            "k: got 6, needs at most V = 5",
        ),
        (
            lambda: decoding.generate(STEP, *start(), 3, transforms=(RepetitionPenalty(2.0),)),
            ValueError,
            r"counts: got None, RepetitionPenalty needs \[B, V\]",
        ),
        (
            lambda: decoding.stream(STEP, *start(), 3, counts=jnp.ones((3, V))),
            ValueError,
            r"counts: got the shape \(3, 5\) of float32, needs integers",
        ),
        (lambda: Temperature(0.0), ValueError, "temperature: got 0.0, needs a positive number"),
        (lambda: MinP(1.5), ValueError, "p: got 1.5, needs at most 1"),
        (lambda: TopP(1.5), ValueError, "p: got 1.5, needs at most 1"),
        (
            lambda: decoding.beam_search(STEP, *start(), 3, beams=2, n_best=3),
            ValueError,
            "n_best: got 3, needs at most beams = 2",
        ),
        (
            lambda: decoding.beam_search(STEP, *start(), 3, beams=2, length_penalty=-1.0),
            ValueError,
            "length_penalty: got -1.0, needs a number of at least 0",
        ),
        (
            lambda: decoding.split_prompt(jnp.ones((3, 2), int), jnp.array([3, 0])),
            ValueError,
            r"lengths: got \[3, 0\], needs one token",
        ),
        (
            lambda: decoding.score(STEP, *start(), jnp.ones((4, 2), int)),
            ValueError,
            r"tokens: got the shape \(4, 2\), needs \[T, B\], B = 3",
        ),
        (
            lambda: decoding.teacher_forcing(STEP, *start(), jnp.ones((4, 3), int), own=0.5),
            ValueError,
            "key: got None, own = 0.5 needs one",
        ),
        (
            lambda: decoding.teacher_forcing(STEP, *start(), jnp.ones((4, 3), int), own=1.5, key=KEY),
            ValueError,
            r"own: got 1.5, needs a rate in \[0, 1\]",
        ),
        (lambda: decoding.make_step(Model, None), TypeError, "cell: got the class Model, needs a jaxrnn.Cell"),
        (
            lambda: decoding.make_step(jaxrnn.GRU(3, 4), None, head=np.ones((3, 4))),
            TypeError,
            "head: got ndarray, needs a function, such as lambda a: a @ table",
        ),
        (
            lambda: decoding.generate(None, *start(), 3),
            TypeError,
            r"step: got NoneType, needs a function \(state, token \[B\]\) -> .*, as make_step makes one of a cell",
        ),
        (
            lambda: decoding.generate(lambda s, t: jnp.zeros((3, V)), *start(), 3),
            TypeError,
            r"step: got \* from it, needs a function \(state, token \[B\]\) -> \(state, logits \[B, V\]\)",
        ),
        (
            lambda: decoding.generate(lambda tokens, state: tokens.h, *start(), 3),
            AttributeError,
            r"(?s)no attribute h.*Raised within step, which needs a function \(state, .* model\.step is one of",
        ),
        (
            lambda: decoding.generate(STEP, *start(), 3, transforms=Temperature(0.5)),
            TypeError,
            r"transforms: got Temperature\(temperature=0.5\), needs a tuple of functions",
        ),
        (lambda: decoding.generate(STEP, *start(), 3, stop=0), ValueError, "stop: got 0, needs a tuple of tokens"),
    ],
)
def test_bad_arguments_are_named(call, kind, message):
    fails(call, kind, message)
