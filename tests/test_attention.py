"""Attention: a loop in NumPy for every score and query, and what the loop of `unroll` carries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import networks
from tests.registry import draw, example, rare, unrolled
from tests.test_guards import carried_shapes, gradient

S, B, M, H, T = 6, 2, 5, 4, 3
LENGTHS = np.array([6, 4])
MASK = np.arange(S)[:, None] < LENGTHS
VARIANTS = [(score, query) for score in ("additive", "general", "dot", "location") for query in ("before", "after")]


def decoder(score, query, **options):
    m = H if score == "dot" else M
    return jaxrnn.Attention(jaxrnn.GRU(3 + (m if query == "before" else H), H), m, S, score, query, **options)


WRAPPED = jaxrnn.Attention(jaxrnn.LearnedState(jaxrnn.Zoneout(jaxrnn.GRU(3 + M, H), 0.5)), M, S)


def case(net, dtype=jnp.float32):
    params = draw(0, jax.eval_shape(net.init, jax.random.key(0)), dtype)
    xs = draw(1, jax.ShapeDtypeStruct((T, B, 3), dtype), dtype, 1.0)
    memory = draw(2, jax.ShapeDtypeStruct((S, B, net.memory_size), dtype), dtype, 1.0)
    return params, xs, memory


def by_hand(net, params, xs, memory):
    """Row by row, from the papers' equations; the cell's own step is taken from the library."""
    ys, alignments = np.zeros((T, B, net.output_size.y)), np.zeros((T, B, S))
    p, xs, memory, zero = jax.tree.map(
        np.asarray, (params, xs, memory, net.cell.restart(params.cell, net.cell.initial_state(), ()))
    )
    call = jax.jit(net.cell)
    for b in range(B):
        places = [memory[s, b] for s in range(LENGTHS[b])]
        state, fed = zero, np.zeros(H, np.float32)

        def attend(q, places=places):
            scores = {
                "additive": lambda s, m: p.v @ np.tanh(q @ p.w_q + m @ p.w_k),
                "general": lambda s, m: q @ (m @ p.w_k),
                "dot": lambda s, m: q @ m,
                "location": lambda s, m: (q @ p.w_q)[s],
            }[net.score]
            e = np.exp([scores(s, m) for s, m in enumerate(places)])
            a = e / e.sum()
            return sum(w * m for w, m in zip(a, places, strict=True)).astype(np.float32), a

        for t in range(T):
            if net.query == "before":
                context, a = attend(fed)
                state, h = call(params.cell, state, np.concatenate([xs[t, b], context]))
                fed = np.asarray(h)
                ys[t, b] = np.concatenate([h, context])
            else:
                state, h = call(params.cell, state, np.concatenate([xs[t, b], fed]))
                context, a = attend(np.asarray(h))
                fed = np.tanh(np.concatenate([context, h]) @ p.w_c)
                ys[t, b] = fed
            alignments[t, b, : len(a)] = a
    return ys, alignments


@pytest.mark.parametrize(
    "net", [WRAPPED, decoder(*VARIANTS[-1]), *rare(*(decoder(*v) for v in VARIANTS[:-1]))], ids=repr
)
def test_every_score_and_query_is_that_of_its_equations(net):
    params, xs, memory = case(net)
    spoiled = np.where(MASK[..., None], memory, np.float32(np.nan))

    @jax.jit
    def run(params, memory):
        return jaxrnn.unroll(net, params, xs, net.attend(params, memory, MASK))

    final, (ys, alignments) = run(params, spoiled)
    expected, expected_alignments = by_hand(net, params, xs, memory)
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alignments, expected_alignments, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alignments.sum(-1), 1, rtol=1e-5)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(net.attend(params, memory, MASK))]
    assert len(set(buffers)) == len(buffers)  # so that the state can be donated
    # Stepped one by one it is the same, the memory in the state.
    state, call = jax.jit(net.attend)(params, memory, MASK), jax.jit(net)
    for t in range(T):
        state, (y, _) = call(params, state, np.asarray(xs)[t])
        np.testing.assert_allclose(y, np.asarray(ys)[t], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.fed, final.fed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("query", ["before", "after"])
def test_what_is_fed_back_keeps_its_precision(query):
    """Where the inputs alone have less."""
    net = jaxrnn.Attention(jaxrnn.GRU(3 + (M if query == "before" else H), H), M, S, query=query)
    params, xs, memory = case(net)
    short = xs.astype(jnp.bfloat16)
    start = net.attend(params, memory, MASK)
    with jax.numpy_dtype_promotion("standard"):
        found, expected = (
            jaxrnn.unroll(net, params, given, start)[1].y for given in (short, short.astype(jnp.float32))
        )
    np.testing.assert_array_equal(found, expected)


def test_layers_of_a_decoder_may_draw():
    """Of zoneout: every unit is its old self, or what the layer makes of its old state and of what is below."""
    first, second = jaxrnn.GRU(3 + M, H), jaxrnn.GRU(H, H)
    net = jaxrnn.Attention(
        jaxrnn.Stack((jaxrnn.Zoneout(first, 0.5), jaxrnn.Residual(jaxrnn.Zoneout(second, 0.5)))), M, S
    )
    params, xs, memory = case(net)
    start = net.attend(params, memory, MASK)
    _, seen = unrolled(networks.Inspected(networks.Stepped(net)), params, xs, start, key=jax.random.key(0))
    xs, y, states = np.asarray(xs), np.asarray(seen.y.y), jax.tree.map(np.asarray, seen.state.cell)
    below = np.concatenate([xs, y[..., H:]], axis=-1)
    for cell, p, (h,) in zip((first, second), params.cell, states, strict=True):
        before = np.concatenate([np.zeros((1, B, H), np.float32), h[:-1]])
        new = np.asarray(jax.jit(cell)(p, jaxrnn.cells.GRUState(before), below)[1])
        kept, below = h == before, h
        assert 0.2 < kept.mean() < 0.8
        np.testing.assert_allclose(h[~kept], new[~kept], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[..., :H], states[0].h + states[1].h, rtol=1e-6)


@pytest.mark.parametrize("score", ["general", *rare("additive")])
@pytest.mark.usefixtures("x64")
def test_gradients_reach_the_memory_where_it_is_valid(score):
    net = decoder(score, "after")
    params, xs, memory = case(net, jnp.float64)

    @jax.jit
    @jax.value_and_grad
    def loss(memory):
        return jnp.sum(jaxrnn.unroll(net, params, xs, net.attend(params, memory, MASK))[1].y ** 2)

    memory = np.asarray(memory)
    grads = np.asarray(loss(np.where(MASK[..., None], memory, np.nan))[1])
    assert grads[MASK].any(-1).all()
    assert not grads[~MASK].any()
    step = 1e-5 * np.where(MASK[..., None], np.random.default_rng(0).normal(size=memory.shape), 0)
    slope = (loss(memory + step)[0] - loss(memory - step)[0]) / 2
    np.testing.assert_allclose((grads * step).sum(), slope, rtol=1e-8)


def test_the_loop_does_not_carry_the_memory():
    net = decoder("additive", "before")
    params, xs, memory = case(net)
    state = net.attend(params, memory, MASK)
    shapes = set.union(*carried_shapes(functools.partial(jaxrnn.unroll, net), params, xs, state))

    def run(cell, params, xs, memory):
        final, out = jaxrnn.unroll(cell, params, xs, cell.attend(params, memory, MASK))
        return final.cell, out.y

    shapes |= set.union(*carried_shapes(gradient(run, net), params, xs, memory))
    assert (B, S, M) not in shapes
    assert (B, H) in shapes


def test_rows_without_a_valid_place_have_no_context():
    net = decoder("additive", "before")
    params, xs, memory = case(net)
    mask = MASK & (np.arange(B) == 0)
    ys, alignments = jax.tree.map(np.asarray, unrolled(net, params, xs, net.attend(params, memory, mask))[1])
    assert not alignments[:, 1].any()
    assert not ys[:, 1, H:].any()
    assert np.isfinite(ys).all()


def test_one_valid_place_is_looked_at_alone():
    """Whatever the score: the context is the place itself."""
    for score, query in VARIANTS[::2]:
        net = decoder(score, query)
        params, xs, memory = case(net)
        state = net.attend(params, memory, np.arange(S)[:, None] == [2, 4])
        ys, alignments = jax.tree.map(np.asarray, unrolled(net, params, xs, state)[1])
        np.testing.assert_array_equal(alignments[0], np.eye(S)[[2, 4]])
        np.testing.assert_allclose(ys[0, :, H:], np.asarray(memory)[[2, 4], [0, 1]], rtol=1e-6)


def test_the_loop_of_attention_takes_outputs_of_several_axes():
    cell = jaxrnn.ConvLSTM((4, 2), 3, 3)
    params, xs, state = example(cell, steps=5, batch=(2,))
    found = jaxrnn.reinforce.recurrent_attention(
        jax.random.key(0), cell, params, lambda step: step + xs[0], lambda key, y: jnp.mean(y), 5, state
    )
    looked = found.actions[:, None, None, None] + xs[:1]
    np.testing.assert_allclose(found.ys, jaxrnn.unroll(cell, params, looked, state)[1], rtol=1e-5, atol=1e-6)


def test_the_loop_of_attention_starts_from_zeros_and_passes_no_gradient_through_places():
    cell = jaxrnn.GRU(2, 4)
    params, _, _ = example(cell)
    state = cell.initial_state((3,))
    w, b = np.float32(np.random.default_rng(0).normal(size=(4, 2))), np.float32(0.5)

    def run(w, image):
        def act(key, y):
            return jnp.tanh(y @ w) + b + 0.1 * jax.random.normal(key, (3, 2))

        key = jax.random.key(1)
        return jaxrnn.reinforce.recurrent_attention(key, cell, params, lambda a: image * a, act, 5, state)

    @jax.jit
    def whole(w, image):
        found = run(w, image)
        # Of the image: through every step's input, the actions held.
        held = jax.grad(lambda image: jnp.sum(jaxrnn.unroll(cell, params, image * found.actions)[1]))(image)
        noise = jax.vmap(lambda key: jax.random.normal(key, (3, 2)))(jax.random.split(jax.random.key(1), 5))
        return found, jax.grad(lambda *args: jnp.sum(run(*args).ys), (0, 1))(w, image), held, noise

    (final, ys, actions), (by_w, by_image), held, noise = jax.tree.map(np.asarray, whole(w, 2.0))
    call, s, y = jax.jit(cell), state, np.zeros((3, 4), np.float32)
    for t in range(5):
        a = np.tanh(np.asarray(y) @ w) + b + np.float32(0.1) * noise[t]
        np.testing.assert_allclose(actions[t], a, rtol=1e-5, atol=1e-6)
        s, y = call(params, s, np.float32(2) * a)
        np.testing.assert_allclose(ys[t], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(final.h, s.h, rtol=1e-5, atol=1e-6)
    assert not by_w.any()
    np.testing.assert_allclose(by_image, held, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: jaxrnn.Attention(jaxrnn.GRU(9, 4), 5, 6, score="cosine"),
            "score: got 'cosine', needs one of",
        ),
        (
            lambda: jaxrnn.Attention(jaxrnn.GRU(9, 4), 5, 6, query="during"),
            "query: got 'during', needs one of",
        ),
        (
            lambda: jaxrnn.Attention(jaxrnn.GRU(5, 4), 5, 6),
            "cell: got an input size of 5, of which 5 are fed back",
        ),
        (
            lambda: jaxrnn.Attention(decoder("dot", "after"), 5, 6),
            r"cell\.output_size: got Attended\(y=4, alignment=6\), needs a positive integer",
        ),
        (
            lambda: jaxrnn.Zoneout(decoder("dot", "before"), 0.1),
            "cell: got Attention.*, which runs a sequence in its own way; Zoneout changes single steps",
        ),
        (
            lambda: jaxrnn.Stack((decoder("general", "before"), jaxrnn.GRU(9, 4))),
            r"cells: Attention.* gives Attended\(y=9, alignment=6\) values, GRU.* above it needs 9",
        ),
        (
            lambda: jaxrnn.Residual(jaxrnn.Attention(jaxrnn.GRU(9, 4), 5, 6)),
            r"cell: Attention.* turns 4 values into Attended\(y=9, alignment=6\), needs equal sizes",
        ),
        (
            lambda: jaxrnn.Attention(jaxrnn.GRU(9, 4), 5, 6, score="dot"),
            "memory_size: got 5, the score 'dot' needs",
        ),
        (
            lambda: jaxrnn.Attention(jaxrnn.GRU(9, 4), 5, 6, score="general", attention_size=3),
            "attention_size: got 3, the score 'general' has none",
        ),
        (
            lambda: decoder("additive", "before").attend(None, jnp.ones((2, 6, 5))),
            r"memory: got the shape \(2, 6, 5\), needs \[S, \*batch, M\] = \[6, \*batch, 5\]",
        ),
        (
            lambda: decoder("additive", "before").attend(None, jnp.ones((6, 2, 5)), jnp.ones((2, 6), bool)),
            r"mask: got the shape \(2, 6\), needs \[S, \*batch\] = \(6, 2\)",
        ),
    ],
)
def test_bad_attention_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "cell", [*rare(jaxrnn.GRU(2 + M, H)), jaxrnn.Stack((jaxrnn.LSTM(2 + M, H), jaxrnn.LSTM(H, H)))], ids=repr
)
def test_the_first_query_is_the_output_of_the_given_state(cell):
    """Bahdanau et al. 2015, equation 6: e_1j = a(s_0, h_j); s_0 is made of the encoder."""
    net = jaxrnn.Attention(cell, M, S)
    params, _, memory = case(net)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), cell.initial_state((B,)))
    _, seen = net(params, net.attend(params, memory, MASK, state), jnp.ones((B, 2)))
    query = (state[-1] if isinstance(state, tuple) and not hasattr(state, "h") else state).h
    scores = np.tanh(query[:, None] @ params.w_q + np.moveaxis(memory, 0, 1) @ params.w_k) @ params.v
    scores = np.where(MASK.T, scores, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(seen.alignment, weights / weights.sum(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_a_state_whose_output_is_unknown_is_refused():
    projected = jaxrnn.SRU(2 + M, H)
    net = jaxrnn.Attention(projected, M, S)
    with pytest.raises(ValueError, match=r"state: got one of SRU.*, whose output is no part of it"):
        net.attend(net.init(jax.random.key(0)), jnp.ones((S, B, M)), state=projected.initial_state((B,)))


def test_a_gap_keeps_the_memory():
    """`Masked` resets the decoder's cell in a gap, also where a row ends in one; what it looks at stays."""
    net = jaxrnn.Masked(decoder("dot", "after"), "reset")
    params, xs, memory = case(net.cell)
    mask = np.ones((T, B), bool)
    mask[-1, 0] = False
    state = net.cell.attend(params, memory, MASK)
    final, _ = jax.jit(functools.partial(jaxrnn.unroll, net))(params, (xs, mask), state)
    np.testing.assert_array_equal(final.memory.values, state.memory.values)
    assert not final.cell.h[0].any()
    assert final.cell.h[1].any()


def test_a_decoder_may_drop_anything():
    """Inputs, weights, and what passes between its layers: drawn before the loop, anew for every key."""
    layers = jaxrnn.WeightDrop(jaxrnn.GRU(3 + M, H), 0.5), jaxrnn.Dropout(jaxrnn.GRU(H, H), 0.5)
    net = jaxrnn.Attention(jaxrnn.Stack(layers, dropout=0.5), M, S)
    plain = jaxrnn.Attention(jaxrnn.Stack(tuple(layer.cell for layer in layers)), M, S)
    params, xs, memory = case(net)
    run, state = jax.jit(jaxrnn.unroll), net.attend(params, memory, MASK)
    keys = None, *map(jax.random.key, (0, 0, 1))
    quiet, one, again, other = (run(net, params, xs, state, key=key)[1].y for key in keys)
    np.testing.assert_allclose(quiet, run(plain, params, xs, state)[1].y, rtol=1e-6)
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one, quiet)
