"""Losses: by loops in NumPy, by PyTorch, and in expectation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logsumexp

import jaxrnn
from jaxrnn import losses
from tests.oracles import oracle
from tests.registry import example, rare

T, B, V = 5, 3, 4
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(T, B, V)).astype(np.float32)
LABELS = RNG.integers(0, V, (T, B))
LENGTHS = np.array([5, 2, 0])
MASK = np.arange(T)[:, None] < LENGTHS
CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels
NLL = np.log(np.exp(LOGITS).sum(-1)) - np.take_along_axis(LOGITS, LABELS[..., None], -1)[..., 0]
KEY = jax.random.key(0)

sequence_loss = functools.partial(losses.sequence_loss, CROSS_ENTROPY)
draw_noise = jax.jit(losses.draw_noise, static_argnums=2)


def test_every_reduction_by_hand():
    # Element-Research: all masked is loss 0, gradient 0.
    nothing = np.zeros((T, B), bool)

    @jax.jit
    def compiled(x):
        found = {r: sequence_loss(x, LABELS, MASK, r) for r in ("tokens", "time", "sequences")}
        return found, sequence_loss(x, LABELS), jax.value_and_grad(sequence_loss)(x, LABELS, nothing)

    found, whole, (value, grads) = compiled(LOGITS)
    rows = [[NLL[t, b] for t in range(LENGTHS[b])] for b in range(B)]
    np.testing.assert_allclose(found["tokens"], np.mean([nll for row in rows for nll in row]), rtol=1e-5)
    np.testing.assert_allclose(found["sequences"], np.mean([np.mean(r) for r in rows if r]), rtol=1e-5)
    times = [[NLL[t, b] for b in range(B) if t < LENGTHS[b]] for t in range(T)]
    np.testing.assert_allclose(found["time"], sum(np.mean(t) for t in times if t), rtol=1e-5)
    np.testing.assert_allclose(whole, NLL.mean(), rtol=1e-5)
    assert value == 0
    assert not grads.any()


def test_sums_of_half_precision_do_not_overflow():
    ones = jnp.ones((300, 300), jnp.float16)
    value = losses.sequence_loss(lambda p, t: p - t, ones, jnp.zeros_like(ones), ones > 0)
    assert value.dtype == jnp.float16
    assert value == 1


@pytest.mark.parametrize("reduction", ["tokens", "time", "sequences"])
def test_padding_reaches_neither_value_nor_gradient(reduction):
    spoiled = np.where(MASK[..., None], LOGITS, np.nan)

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return sequence_loss(x, np.where(MASK, LABELS, 99), MASK, reduction)

    value, grads = loss(spoiled)
    np.testing.assert_allclose(value, loss(LOGITS)[0], rtol=1e-6)
    assert np.isfinite(grads).all()
    assert not np.asarray(grads)[~MASK].any()


def test_a_repeated_target_is_the_target_of_every_step():
    tiled = np.tile(LABELS[:1], (T, 1))

    @jax.jit
    def both(x):
        repeated = sequence_loss(x, LABELS[0], reduction="time", repeat_targets=True)
        return repeated, sequence_loss(x, tiled, reduction="time")

    np.testing.assert_allclose(*both(LOGITS), rtol=1e-6)


def test_piano_rolls_are_in_nats_a_step():
    keys = RNG.integers(0, 2, (T, B, V)).astype(np.float32)
    p = 1 / (1 + np.exp(-LOGITS))
    per_step = -(keys * np.log(p) + (1 - keys) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(jax.jit(losses.piano_roll_loss)(LOGITS, keys, MASK), per_step[MASK].mean(), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_ctc_is_pytorch_s():
    torch, logits = oracle("torch"), LOGITS.astype(np.float64)
    labels, lengths, label_lengths = np.array([[1, 2], [3, 3], [2, 1]]), np.array([5, 4, 3]), np.array([2, 2, 1])
    theirs = torch.nn.functional.ctc_loss(
        torch.as_tensor(logits).log_softmax(-1),
        torch.as_tensor(labels),
        torch.as_tensor(lengths),
        torch.as_tensor(label_lengths),
        reduction="none",
    )
    padded = np.where((np.arange(T)[:, None] < lengths)[..., None], logits, np.nan)
    with jax.numpy_dtype_promotion("standard"):  # Optax's own loop begins in float32
        ours = jax.jit(losses.ctc_loss)(padded, labels, lengths, label_lengths)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10)


# Noise

PROBABILITIES = np.array([0.4, 0.05, 0.25, 0.3])
TABLE = losses.alias_table(PROBABILITIES)
HIDDEN, W = RNG.normal(size=(T, B, 6)).astype(np.float32), RNG.normal(size=(6, V)).astype(np.float32)
BIAS = RNG.normal(size=V).astype(np.float32)


def test_the_alias_table_draws_its_distribution():
    draws = np.asarray(draw_noise(KEY, TABLE, (40000,)))
    found = np.bincount(draws, minlength=V) / 40000
    np.testing.assert_allclose(found, PROBABILITIES, atol=4 * 0.5 / 200)
    np.testing.assert_allclose(np.exp(TABLE.log_probability), PROBABILITIES, rtol=1e-5)
    # The table says the same exactly: what a column keeps and what it passes on.
    kept, alias = np.asarray(TABLE.threshold), np.asarray(TABLE.alias)
    exact = kept + np.bincount(alias, 1 - kept, minlength=V)
    np.testing.assert_allclose(exact / V, PROBABILITIES, rtol=1e-5)
    skewed = np.array([0.0, 1.0, 0.0])
    assert (np.asarray(draw_noise(KEY, losses.alias_table(skewed), (100,))) == 1).all()


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.usefixtures("x64")
def test_nce_by_hand(per_row):
    """The equation of Element-Research's criterion, whose probabilities are exp(s) / Z."""
    k, log_z = 3, 0.7
    loss = jax.jit(functools.partial(losses.nce_loss, per_row=per_row, log_normalizer=log_z), static_argnums=6)
    args = (a.astype(np.float64) for a in (HIDDEN, W, BIAS))
    found = np.asarray(loss(KEY, *args, LABELS.astype(np.int32), TABLE, k))
    noise = np.asarray(draw_noise(KEY, TABLE, (T, B, k) if per_row else (k,)))
    noise = np.broadcast_to(noise, (T, B, k))
    model = np.exp(np.float64(HIDDEN) @ W + BIAS - log_z)
    for t in range(T):
        for b in range(B):
            y = LABELS[t, b]
            p, q = model[t, b], PROBABILITIES
            expected = -np.log(p[y] / (p[y] + k * q[y]))
            expected -= sum(np.log(k * q[v] / (p[v] + k * q[v])) for v in noise[t, b])
            np.testing.assert_allclose(found[t, b], expected, rtol=1e-6)  # the table is in float32


@pytest.mark.parametrize("per_row", [True, *rare(False)])
@pytest.mark.parametrize("loss", [losses.nce_loss, losses.sampled_softmax_loss], ids=lambda f: f.__name__)
def test_with_much_noise_the_gradient_is_that_of_the_softmax(loss, per_row):
    """In expectation; of a normalized model, whose gradient noise-contrastive estimation approaches as k grows."""
    bias = BIAS - np.log(np.exp(HIDDEN[0, 0] @ W + BIAS).sum())

    def exact(b):
        return CROSS_ENTROPY((HIDDEN @ W)[0, 0] + b, LABELS[0, 0])

    def sampled(b, w):
        return loss(KEY, HIDDEN[:1, :1], w, b, LABELS[:1, :1], TABLE, 20000, per_row=per_row).sum()

    # 20000 draws: the noise's share of a gradient is within 0.05 of its expectation.
    slopes = jax.jit(lambda b, w: (jax.grad(sampled)(b, w), jax.grad(exact)(b)))
    np.testing.assert_allclose(*slopes(bias, W), atol=0.05)


@pytest.mark.usefixtures("x64")
def test_sampled_softmax_leaves_out_the_target_among_the_noise():
    k = 50
    loss = jax.jit(losses.sampled_softmax_loss, static_argnums=6)
    args = (a.astype(np.float64) for a in (HIDDEN, W, BIAS))
    found = np.asarray(loss(KEY, *args, LABELS.astype(np.int32), TABLE, k))
    noise = np.asarray(draw_noise(KEY, TABLE, (k,)))
    scores = np.float64(HIDDEN) @ W + BIAS - np.log(k * PROBABILITIES)
    for t in range(T):
        for b in range(B):
            y = LABELS[t, b]
            others = [scores[t, b, v] for v in noise if v != y]
            expected = logsumexp(np.array([scores[t, b, y], *others])) - scores[t, b, y]
            np.testing.assert_allclose(found[t, b], expected, rtol=1e-6)  # the table is in float32


def test_scores_that_overflow_exponentials_stay_finite():
    loss = jax.value_and_grad(lambda w, b: losses.nce_loss(KEY, HIDDEN, w, b, LABELS, TABLE, 5).sum())
    value, grads = jax.jit(loss)(W * 1e4, BIAS)
    assert np.isfinite(value)
    assert np.isfinite(grads).all()


def test_max_norm_bounds_columns_and_leaves_the_rest():
    params = {"w": RNG.normal(size=(4, 3)) * np.array([0.1, 1.0, 5.0]), "b": np.full(3, 9.0)}
    params = jax.tree.map(np.float32, params)
    optimizer = losses.max_norm(1.5)

    @jax.jit
    def bounded(params):
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    new = jax.tree.map(np.asarray, bounded(params))
    before = np.linalg.norm(params["w"], axis=0)
    np.testing.assert_allclose(np.linalg.norm(new["w"], axis=0), np.minimum(before, 1.5), rtol=1e-5)
    np.testing.assert_allclose(new["w"] / params["w"], np.tile(np.minimum(before, 1.5) / before, (4, 1)), rtol=1e-5)
    assert (new["b"] == 9).all()


@pytest.mark.parametrize(
    ("shape", "axis", "inputs"),
    [
        ((4, 3), None, (0,)),
        ((4, 3), 1, (1,)),
        ((2, 4, 3), None, (1,)),  # block-diagonal, as of heads
        ((2, 3, 4, 5), None, (0, 1, 2)),  # a kernel of two axes
        ((5, 4, 3), (0, 1), (0, 1)),  # a kernel of one
    ],
)
def test_max_norm_is_of_a_unit_s_inputs(shape, axis, inputs):
    w = RNG.normal(size=shape).astype(np.float32)
    optimizer = losses.max_norm(1.0, axis)

    @jax.jit
    def update(w):
        return optax.apply_updates(w, optimizer.update(jnp.zeros(shape), optimizer.init(w), w)[0])

    norm = np.sqrt((w**2).sum(inputs, keepdims=True))
    np.testing.assert_allclose(update(w), w / np.maximum(norm, 1), rtol=1e-5, atol=1e-7)


def test_max_norm_of_the_library_s_own_weights():
    """Block-diagonal and convolution weights of real cells: a unit that sees too much is scaled, no other one."""
    cells = jaxrnn.ConvLSTM((5, 5, 2), 3, 3), jaxrnn.SLSTM(4, 4, heads=2)
    optimizer = losses.max_norm(50.0)

    @jax.jit
    def spoil_and_update(params):
        spoiled = params._replace(w_h=params.w_h.at[..., 0].multiply(100))
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(spoiled), spoiled)
        return optax.apply_updates(spoiled, updates)

    for params in (example(cell)[0] for cell in cells):
        new = jax.tree.map(np.asarray, spoil_and_update(params))
        assert np.linalg.norm(new.w_h.reshape(-1, *new.w_h.shape[-2:])[..., 0], axis=-1).max() < 51
        np.testing.assert_array_equal(new.w_h[..., 1:], params.w_h[..., 1:])


def test_max_norm_of_float16_does_not_run_over():
    w = jnp.full((4, 2), 300, jnp.float16)
    updates, _ = losses.max_norm(700.0).update(jnp.zeros_like(w), optax.EmptyState(), w)
    np.testing.assert_array_equal(updates, np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.sequence_loss(CROSS_ENTROPY, LOGITS, LABELS, reduction="mean"),
            ValueError,
            "reduction: got 'mean', needs one of 'tokens', 'time', 'sequences'",
        ),
        (
            lambda: losses.sequence_loss(CROSS_ENTROPY, LOGITS, LABELS.T),
            ValueError,
            r"targets: got the shape \(3, 5\), needs \[T, \*batch, ...\] of \(5, 3, 4\)",
        ),
        (
            lambda: losses.sequence_loss(CROSS_ENTROPY, LOGITS, LABELS, MASK.T),
            ValueError,
            r"mask: got the shape \(3, 5\)",
        ),
        (
            lambda: losses.sequence_loss(CROSS_ENTROPY, LOGITS, LABELS, MASK * 1.0),
            TypeError,
            "mask: got the dtype .*, needs booleans",
        ),
        (
            lambda: losses.sequence_loss(optax.squared_error, LOGITS, LOGITS, MASK),
            ValueError,
            r"loss: got values of the shape \(5, 3, 4\), needs \[T, \*batch\]",
        ),
        (
            lambda: losses.sequence_loss(lambda p, t: jnp.mean(p), LOGITS, LABELS),
            ValueError,
            r"loss: got values of the shape \(\), needs \[T, \*batch\]",
        ),
        (lambda: losses.alias_table([0.5, 0.4]), ValueError, "probabilities: got the shape .* and the sum 0.9"),
        (lambda: losses.alias_table([1.5, -0.5]), ValueError, "probabilities: got"),
        (
            lambda: losses.nce_loss(KEY, HIDDEN, W, BIAS, LABELS, TABLE, 0),
            ValueError,
            "samples: got 0, needs a positive integer",
        ),
        (
            lambda: losses.nce_loss(KEY, HIDDEN, W.T, BIAS, LABELS, TABLE, 3),
            ValueError,
            r"w: got the shape \(4, 6\), needs \[H, V\]",
        ),
        (lambda: losses.ctc_loss(LOGITS, LABELS.T, np.array([6, 1, 1])), ValueError, "lengths: got values from 1 to 6"),
        (lambda: losses.max_norm(np.inf), ValueError, "limit: got inf, needs a positive number"),
        (
            lambda: losses.max_norm(1.0).update(W, optax.EmptyState()),
            ValueError,
            "params: got None, max_norm needs",
        ),
    ],
)
def test_bad_calls_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_losses_work_inside_of_jit():
    run = jax.jit(functools.partial(losses.sequence_loss, CROSS_ENTROPY, reduction="time"))
    expected = losses.sequence_loss(CROSS_ENTROPY, LOGITS, LABELS, MASK, "time")
    np.testing.assert_allclose(run(LOGITS, LABELS, MASK), expected, rtol=1e-6)
