"""Penalties on hidden states and predictions, to add to a loss."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_arrays, check_flags
from jaxrnn.engine.masks import mean
from jaxrnn.ops import keep, safe_sqrt
from jaxrnn.typing import Array

__all__ = ["activation_regularization", "batch_entropy", "norm_stabilizer", "temporal_activation_regularization"]


def _valid(hs: Array, mask: Array | None) -> tuple[Array, Array]:
    """Returns `hs` with its padding zeroed, and the mask. Selecting before any arithmetic keeps gradients finite."""
    check_arrays(hs=hs)
    hs = jnp.asarray(hs)
    if mask is None:
        return hs, jnp.ones(hs.shape[:-1], bool)
    mask = check_flags(mask, hs.shape[:-1], "mask")
    return keep(mask, hs), mask


def norm_stabilizer(hs: Array, beta: float, *, initial: Array | None = None, mask: Array | None = None) -> Array:
    """Penalizes changes of the state's norm: `β mean (‖h_t‖ - ‖h_{t-1}‖)²`; its gradient is finite at `h = 0`.

    Args:
        hs: `[T, *batch, H]`, the hidden states or outputs.
        beta: β; 50 in the paper.
        initial: `[*batch, H]`, the state before the first step; the mean is then over T pairs, as in the paper. None:
            the mean is over the T - 1 pairs within `hs`.
        mask: `[T, *batch]` booleans, the valid steps; a pair counts if both of its steps are valid.

    Example:
        >>> hs = jnp.array([[3.0, 4.0], [0.0, 7.0]])          # norms 5, 7
        >>> float(norm_stabilizer(hs, 1.0))
        4.0

    Reference: Krueger & Memisevic 2015, "Regularizing RNNs by stabilizing activations".
    """
    hs, mask = _valid(hs, mask)
    if initial is not None:
        hs = jnp.concatenate([initial[None].astype(hs.dtype), hs])
        mask = jnp.concatenate([jnp.ones_like(mask[:1]), mask])
    norms = safe_sqrt(jnp.sum(hs**2, axis=-1))
    return beta * mean((norms[1:] - norms[:-1]) ** 2, mask[1:] & mask[:-1])


def activation_regularization(hs: Array, alpha: float, *, mask: Array | None = None) -> Array:
    """Penalizes large outputs (AR): `α mean h²`; `hs` `[T, *batch, H]`, `mask` `[T, *batch]`.

    In the paper, `hs` are the outputs of the last layer after dropout.

    Reference: Merity, McCann & Socher 2017, "Revisiting activation regularization for language RNNs".
    """
    hs, mask = _valid(hs, mask)
    return alpha * mean(hs**2, mask)


def temporal_activation_regularization(hs: Array, beta: float, *, mask: Array | None = None) -> Array:
    """Penalizes changes in time (TAR): `β mean (h_t - h_{t-1})²`; `hs` `[T, *batch, H]`, `mask` `[T, *batch]`.

    In the paper, `hs` are the outputs of the last layer before dropout.

    Reference: Merity, McCann & Socher 2017, "Revisiting activation regularization for language RNNs".
    """
    hs, mask = _valid(hs, mask)
    return beta * mean((hs[1:] - hs[:-1]) ** 2, mask[1:] & mask[:-1])


def batch_entropy(logits: Array, minimum: float | None = None) -> Array:
    """Penalizes predicting too few classes over a batch: `max(minimum - H(mean_batch softmax), 0)`, in nats.

    Args:
        logits: `[*batch, V]`.
        minimum: the entropy below which the penalty begins; None: log V, the entropy of the uniform distribution.

    Example:
        >>> float(batch_entropy(100 * jnp.eye(4)))            # every row another class
        0.0

    Reference: Element-Research/dpnn, `CategoricalEntropy`.
    """
    check_arrays(logits=logits)
    mean = jnp.mean(jax.nn.softmax(logits).reshape(-1, logits.shape[-1]), axis=0)
    entropy = jnp.sum(jax.scipy.special.entr(mean))
    return jnp.maximum((float(np.log(logits.shape[-1])) if minimum is None else minimum) - entropy, 0.0)
