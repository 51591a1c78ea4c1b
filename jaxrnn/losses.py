"""Losses over sequences, built on Optax's; large vocabularies by noise; max-norm as an Optax transformation.

sequence_loss(loss, predictions, targets, mask, reduction)      any loss of one step, over time and rows
ctc_loss, piano_roll_loss                                       in this library's layout, time first
nce_loss, sampled_softmax_loss                                  with noise from an `AliasTable`
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn.checks import (
    check_arrays,
    check_axes,
    check_bools,
    check_choice,
    check_flags,
    check_functions,
    check_inexact,
    check_integers,
    check_key,
    check_lengths,
    check_positive,
    check_shape,
    check_sizes,
)
from jaxrnn.engine.masks import mean, valid_steps
from jaxrnn.ops import keep
from jaxrnn.typing import Array, Key, PyTree

__all__ = [
    "AliasTable",
    "alias_table",
    "ctc_loss",
    "draw_noise",
    "max_norm",
    "nce_loss",
    "piano_roll_loss",
    "sampled_softmax_loss",
    "sequence_loss",
]


def sequence_loss(
    loss: Callable[[Array, Array], Array],
    predictions: Array,
    targets: Array,
    mask: Array | None = None,
    reduction: Literal["tokens", "time", "sequences"] = "tokens",
    *,
    repeat_targets: bool = False,
) -> Array:
    """Reduces a loss of single steps over time and rows to a scalar.

    Args:
        loss: `(predictions, targets) -> [T, *batch]`, as Optax's `softmax_cross_entropy_with_integer_labels`.
        predictions: `[T, *batch, ...]`.
        targets: `[T, *batch, ...]`, or `[*batch, ...]` with `repeat_targets`.
        mask: `[T, *batch]` booleans, the valid steps; None: all. What the rest holds reaches neither value nor
            gradient.
        reduction: "tokens": the mean over all valid steps; "time": the sum over time of the means over the rows that
            are valid then (Element-Research's `SequencerCriterion`), so that steps few rows reach weigh more;
            "sequences": the mean over rows of each row's mean.
        repeat_targets: the same target at every step (`RepeaterCriterion`).

    Raises:
        TypeError, ValueError: `mask` or what `loss` gives is not `[T, *batch]`.

    Example:
        >>> logits, labels = jnp.zeros((5, 2, 4)), jnp.zeros((5, 2), jnp.int32)
        >>> per_step = optax.softmax_cross_entropy_with_integer_labels
        >>> round(float(sequence_loss(per_step, logits, labels)), 4)
        1.3863
        >>> round(float(sequence_loss(per_step, logits, labels, reduction="time")), 4)
        6.9315
    """
    check_bools(repeat_targets=repeat_targets)
    check_functions("(predictions, targets) -> [T, *batch], such as optax.squared_error", 2, loss=loss)
    check_arrays(predictions=predictions, targets=targets)
    check_axes(predictions, "predictions", "[T, *batch, ...]", 1)
    check_choice(reduction=reduction, among=("tokens", "time", "sequences"))
    if repeat_targets:
        targets = jnp.broadcast_to(targets, (predictions.shape[0], *jnp.shape(targets)))
    if jnp.shape(targets)[:1] != jnp.shape(predictions)[:1]:
        raise ValueError(f"targets: got the shape {jnp.shape(targets)}, needs [T, *batch, ...] of {predictions.shape}")
    if mask is not None:
        for array in (predictions, targets):
            mask = check_flags(mask, array.shape[: jnp.ndim(mask)], "mask")
        predictions, targets = keep(mask, (predictions, targets))
    values = loss(predictions, targets)
    if not isinstance(values, jax.Array | np.ndarray):
        raise TypeError(f"loss: got {type(values).__name__} from it, needs values [T, *batch], one for each step")
    leading = predictions.shape[: values.ndim]
    if not values.shape or values.shape != leading or (mask is not None and values.shape != mask.shape):
        raise ValueError(f"loss: got values of the shape {values.shape}, needs [T, *batch], one for each step")
    mask = jnp.ones(values.shape, bool) if mask is None else mask
    if reduction == "tokens":
        return mean(values, mask)
    rows = tuple(range(1, values.ndim))
    if reduction == "time":
        return jnp.sum(mean(values, mask, axis=rows))
    return mean(mean(values, mask, axis=0), jnp.any(mask, axis=0))


def piano_roll_loss(logits: Array, keys: Array, mask: Array | None = None) -> Array:
    """Returns the negative log-likelihood of piano rolls, nats a time step: a sum over keys, a mean over valid steps.

    Args:
        logits: `[T, *batch, K]`.
        keys: `[T, *batch, K]`, 1 where a key sounds, else 0.
        mask: `[T, *batch]` booleans.

    Example:
        >>> round(float(piano_roll_loss(jnp.zeros((5, 2, 88)), jnp.zeros((5, 2, 88)))), 3)     # 88 log 2
        60.997

    Reference: Boulanger-Lewandowski, Bengio & Vincent 2012; Chung et al. 2014, section 4.1.
    """

    def per_step(logits: Array, keys: Array) -> Array:
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, keys), axis=-1)

    check_arrays(logits=logits, keys=keys)
    check_axes(logits, "logits", "[T, *batch, K]", 2)
    check_shape(keys, "keys", "[T, *batch, K]", logits.shape)
    return sequence_loss(per_step, logits, keys, mask)


def ctc_loss(
    logits: Array, labels: Array, lengths: Array | None = None, label_lengths: Array | None = None, blank: int = 0
) -> Array:
    """Computes the loss of connectionist temporal classification, `[B]`, by Optax, with time first.

    Args:
        logits: `[T, B, K]`.
        labels: `[B, N]` integers.
        lengths: `[B]`, of the rows of `logits`; None: all T.
        label_lengths: `[B]`, of the rows of `labels`; None: all N.
        blank: the class of no label.

    Example:
        >>> jax.jit(ctc_loss)(jnp.zeros((5, 2, 4)), jnp.ones((2, 3), jnp.int32)).shape
        (2,)

    Reference: Graves, Fernández, Gomez & Schmidhuber 2006, "Connectionist temporal classification".
    """
    check_inexact(logits=logits)
    check_integers(labels=labels)
    if logits.ndim != 3:
        raise ValueError(f"logits: got the shape {logits.shape}, needs [T, B, K]")
    steps, rows, classes = logits.shape
    if labels.ndim != 2 or len(labels) != rows:
        raise ValueError(f"labels: got the shape {labels.shape}, needs [B, N], B = {rows} as in logits [T, B, K]")
    if not isinstance(blank, int | np.integer) or not 0 <= blank < classes:
        raise ValueError(f"blank: got {blank!r}, needs a class in 0..{classes - 1}")
    paddings = []
    for name, n, given in (("lengths", steps, lengths), ("label_lengths", labels.shape[1], label_lengths)):
        known = check_lengths(np.full(rows, n) if given is None else given, n, (rows,), name)
        paddings.append(~valid_steps(jnp.arange(n), known).T)
    logits = keep(~paddings[0], jnp.swapaxes(logits, 0, 1))
    blanks, ends = (p.astype(logits.dtype) for p in paddings)
    return optax.ctc_loss(logits, blanks, labels, ends, blank_id=blank)


# Noise


class AliasTable(NamedTuple):
    """A distribution over V classes, of which a draw takes two random numbers, whatever V is."""

    threshold: Array  # [V]
    alias: Array  # [V] int32
    log_probability: Array  # [V]


def alias_table(probabilities: Any) -> AliasTable:
    """Returns the table to draw from a distribution `[V]`, such as a text's word frequencies divided by their sum.

    Raises:
        ValueError: a negative probability, or a sum that is not one.

    Example:
        >>> table = alias_table([0.5, 0.25, 0.25])
        >>> draws = draw_noise(jax.random.key(0), table, (1000,))
        >>> abs(float((draws == 0).mean()) - 0.5) < 0.1
        True

    Reference: Walker 1977; in the form of Vose 1991, "A linear algorithm for generating random numbers with a given
    distribution".
    """
    try:
        p = np.asarray(probabilities, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"probabilities: got {type(probabilities).__name__}, needs numbers [V]") from None
    if p.ndim != 1 or not p.size or not (p >= 0).all() or abs(p.sum() - 1) > 1e-4:
        raise ValueError(
            f"probabilities: got the shape {p.shape} and the sum {p.sum()}, needs [V] of at least 0, sum 1"
        )
    scaled = p / p.sum() * p.size
    threshold, alias = np.ones(p.size), np.arange(p.size)
    small, large = (list(np.flatnonzero(which)) for which in (scaled < 1, scaled >= 1))
    while small and large:
        less, more = small.pop(), large.pop()
        threshold[less], alias[less] = scaled[less], more
        scaled[more] -= 1 - scaled[less]
        (small if scaled[more] < 1 else large).append(more)
    with np.errstate(divide="ignore"):
        log_p = np.log(p / p.sum())
    return AliasTable(
        jnp.asarray(threshold, jnp.float32), jnp.asarray(alias, jnp.int32), jnp.asarray(log_p, jnp.float32)
    )


def draw_noise(key: Key, table: AliasTable, shape: tuple[int, ...]) -> Array:
    """Draws `shape` independent integers from the table."""
    _check_table(table)
    key = check_key(key)
    which, coin = jax.random.split(key)
    column = jax.random.randint(which, shape, 0, table.alias.shape[0], table.alias.dtype)
    kept = jax.random.uniform(coin, shape, table.threshold.dtype) < table.threshold[column]
    return jnp.where(kept, column, table.alias[column])


def _check_table(table: Any) -> None:
    if not isinstance(table, AliasTable):
        raise TypeError(f"table: got {type(table).__name__}, needs an AliasTable, alias_table(probabilities)")


def _noisy_scores(
    key: Key, hidden: Array, w: Array, b: Array, targets: Array, table: AliasTable, samples: int, per_row: bool
) -> tuple[Array, Array, Array]:
    """Scores of the targets `[*leading]` and of the noise `[*leading, k]`, less log(k q); and the noise."""
    check_bools(per_row=per_row)
    check_sizes(samples=samples)
    _check_table(table)
    check_arrays(hidden=hidden, w=w, b=b)
    check_integers(targets=targets)
    check_axes(hidden, "hidden", "[T, *batch, H]", 1)
    check_axes(b, "b", "[V]", 1)
    if w.shape != (hidden.shape[-1], b.shape[0]) or table.alias.shape != b.shape:
        raise ValueError(
            f"w: got the shape {w.shape}, needs [H, V] of hidden {hidden.shape}, b {b.shape}, table {table.alias.shape}"
        )
    check_shape(targets, "targets", "[T, *batch]", hidden.shape[:-1])
    noise = draw_noise(key, table, (*targets.shape, samples) if per_row else (samples,))
    expected = (table.log_probability + float(np.log(samples))).astype(hidden.dtype)
    columns = jnp.moveaxis(w[:, targets], 0, -1)
    wanted = jnp.sum(hidden * columns, axis=-1) + b[targets] - expected[targets]
    if per_row:
        others = jnp.einsum("...h,h...k->...k", hidden, w[:, noise])
    else:
        others = jnp.matmul(hidden, w[:, noise])
        noise = jnp.broadcast_to(noise, others.shape)
    return wanted, others + b[noise] - expected[noise], noise


def nce_loss(
    key: Key,
    hidden: Array,
    w: Array,
    b: Array,
    targets: Array,
    table: AliasTable,
    samples: int,
    *,
    per_row: bool = False,
    log_normalizer: float = 0.0,
) -> Array:
    """Computes the noise-contrastive estimate of `softmax(hidden W + b)`: the loss of every step, `[T, *batch]`.

        s(v) = hidden w_v + b_v - log Z - log(k q(v))
        loss = -log σ(s(target)) - Σ_noise log σ(-s(v))

    Args:
        key: a typed key.
        hidden: `[T, *batch, H]`.
        w: `[H, V]`.
        b: `[V]`; start it at -log V, so that scores start out normalized.
        targets: `[T, *batch]` integers.
        table: the noise q; it must give every target a probability above zero.
        samples: k, noise words for each target.
        per_row: draw noise for every step of every row; False: one set for all, and one product for all.
        log_normalizer: log Z, held fixed; 0: the network learns to be normalized.

    Example:
        >>> table = alias_table(jnp.full(10, 0.1))
        >>> args = jnp.ones((5, 2, 4)), jnp.zeros((4, 10)), jnp.zeros(10), jnp.zeros((5, 2), jnp.int32)
        >>> nce_loss(jax.random.key(0), *args, table, samples=3).shape
        (5, 2)

    Reference: Gutmann & Hyvärinen 2010; Mnih & Teh 2012, "A fast and simple algorithm for training neural probabilistic
    language models".
    """
    wanted, others, _ = _noisy_scores(key, hidden, w, b, targets, table, samples, per_row)
    noise_loss = jnp.sum(jax.nn.softplus(others - log_normalizer), axis=-1)
    return jax.nn.softplus(log_normalizer - wanted) + noise_loss


def sampled_softmax_loss(
    key: Key,
    hidden: Array,
    w: Array,
    b: Array,
    targets: Array,
    table: AliasTable,
    samples: int,
    *,
    per_row: bool = False,
) -> Array:
    """Computes the cross-entropy among the target and `samples` noise words, for every step: `[T, *batch]`.

    The scores are `hidden W + b` less log(k q), for k samples drawn with probability q. Noise that is the target itself
    is left out. Arguments as in `nce_loss`.

    Reference: Jean, Cho, Memisevic & Bengio 2015, "On using very large target vocabulary for neural machine
    translation".
    """
    wanted, others, noise = _noisy_scores(key, hidden, w, b, targets, table, samples, per_row)
    hit = noise == jnp.broadcast_to(targets[..., None], noise.shape)
    others = jnp.where(hit, jnp.full_like(others, -jnp.inf), others)
    everything = jnp.concatenate([wanted[..., None], others], axis=-1)
    return jax.nn.logsumexp(everything, axis=-1) - wanted


# Parameters


def max_norm(limit: float, axis: int | tuple[int, ...] | None = None) -> optax.GradientTransformation:
    """Keeps the norm of each unit's incoming weights at `limit` or below: the last in a chain of Optax.

    Args:
        limit: the greatest norm of what one unit sees; vectors and scalars are left alone.
        axis: the axes over which norms are taken; None: a unit's inputs, which are the first axis of a matrix
            `[in, out]`, the second of block-diagonal weights `[heads, in, out]`, and all but the last of a
            convolution's kernel over two or more axes, `[height, width, in, out]`. A kernel `[length, in, out]` looks
            like block-diagonal weights and needs `axis=(0, 1)`; `optax.partition` gives parts of the parameters
            transformations of their own.

    Example:
        >>> optimizer = optax.chain(optax.sgd(1.0), max_norm(1.0))
        >>> params = jnp.full((4, 3), 0.1)
        >>> updates, _ = optimizer.update(-jnp.ones((4, 3)), optimizer.init(params), params)
        >>> round(float(jnp.linalg.norm(optax.apply_updates(params, updates)[:, 0])), 4)
        1.0

    Reference: Srebro & Shraibman 2005; Hinton et al. 2012; torch/rnn's `maxParamNorm`.
    """
    check_positive(limit=limit)
    if not (
        axis is None or isinstance(axis, int) or (isinstance(axis, tuple) and all(isinstance(a, int) for a in axis))
    ):
        raise TypeError(f"axis: got {axis!r}, needs an integer, a tuple of them or None")

    def one(update: Array, param: Array) -> Array:
        if jnp.ndim(param) < 2:
            return update
        new = param + update
        inputs = axis
        if inputs is None:
            inputs = -2 if new.ndim < 4 else tuple(range(new.ndim - 1))
        # In float16 the squares of weights run over.
        wide = new.astype(np.promote_types(new.dtype, np.float32))
        norm = jnp.sqrt(jnp.sum(wide * wide, axis=inputs, keepdims=True))
        scale = jnp.where(norm > limit, limit / jnp.where(norm > limit, norm, jnp.ones_like(norm)), jnp.ones_like(norm))
        return (wide * scale).astype(new.dtype) - param

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        if params is None:
            raise ValueError("params: got None, max_norm needs update(updates, state, params)")
        return jax.tree.map(one, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
