"""REINFORCE as losses: samples are constants, and the gradient of `-reward log p(sample)` is the estimator.

    sample    = jax.random.bernoulli(key, p) …              drawn by JAX, then a constant
    log_p     = bernoulli_log_prob(logits, sample) …        differentiable
    loss      = surrogate(log_p, reward, baseline)          its gradient: -(reward - baseline) ∂ log p
    loss     += baseline_loss(baseline, reward)             teaches the baseline

Element-Research's modules overwrite a gradient between two calls. Here `jax.grad` of a sum of losses does
the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import stats

from jaxrnn.checks import (
    check_arrays,
    check_axes,
    check_functions,
    check_integers,
    check_key,
    check_shape,
    check_sizes,
    check_state,
)
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Array, Key, Params, PyTree, State

__all__ = [
    "Glimpses",
    "baseline_loss",
    "bernoulli_log_prob",
    "categorical_log_prob",
    "class_reward",
    "gamma_log_prob",
    "glimpse",
    "normal_log_prob",
    "recurrent_attention",
    "surrogate",
]


def bernoulli_log_prob(logits: Array, sample: Array) -> Array:
    """Returns `log p(sample)` of independent coins with `p = σ(logits)`, element-wise; finite for any logits."""
    logits, sample = _alike(logits=logits, sample=sample)
    sample = lax.stop_gradient(sample)
    return jnp.where(sample != 0, jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits))


def categorical_log_prob(logits: Array, sample: Array) -> Array:
    """Returns `log p(sample)` of a class in 0..V-1: `[*batch, V], [*batch] -> [*batch]`."""
    check_arrays(logits=logits)
    check_integers(sample=sample)
    check_axes(logits, "logits", "[*batch, V]", 1)
    check_shape(sample, "sample", "[*batch]", logits.shape[:-1])
    log_p = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_p, lax.stop_gradient(sample)[..., None], axis=-1)[..., 0]


def normal_log_prob(mean: Array | float, std: Array | float, sample: Array) -> Array:
    """Returns `log p(sample)` of independent normal values, element-wise."""
    mean, std, sample = _alike(mean=mean, std=std, sample=sample)
    return stats.norm.logpdf(lax.stop_gradient(sample), mean, std.astype(mean.dtype))


def gamma_log_prob(shape: Array | float, scale: Array | float, sample: Array) -> Array:
    """Returns `log p(sample)` of independent gamma values with mean `shape * scale`, element-wise."""
    shape, scale, sample = _alike(shape=shape, scale=scale, sample=sample)
    return stats.gamma.logpdf(lax.stop_gradient(sample), shape, scale=scale.astype(shape.dtype))


def _alike(**arrays: Any) -> tuple[Array, ...]:
    """Returns arrays broadcast to one shape; raises unless they can be."""
    check_arrays(**arrays)
    *others, last = shapes = [jnp.shape(a) for a in arrays.values()]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        wanted = ", ".join(f"{name} {other}" for name, other in zip(arrays, others, strict=False))
        raise ValueError(f"{[*arrays][-1]}: got the shape {last}, needs one that broadcasts with {wanted}") from None
    return tuple(jnp.broadcast_to(a, shape) for a in arrays.values())


def surrogate(log_prob: Array, reward: Array, baseline: Array | None = None) -> Array:
    """Returns a loss whose gradient is REINFORCE's: `-mean (reward - baseline) log p`.

    The factor `reward - baseline` is a constant.

    Args:
        log_prob: `[..., B]`. Leading axes are steps or units that share a row's reward; their log probabilities are
            summed.
        reward: `[B]`, or `[..., B]` to reward each step by itself.
        baseline: in the shape of `reward`, such as a learned function of the state. It makes the estimate less noisy
            and does not change its expectation.

    Example:
        >>> logits = jnp.zeros((1, 2))
        >>> jax.grad(lambda z: surrogate(categorical_log_prob(z, jnp.array([1])), jnp.ones(1)))(logits).tolist()
        [[0.5, -0.5]]

    Reference: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning".
    """
    check_arrays(log_prob=log_prob, reward=reward)
    log_prob, reward = jnp.asarray(log_prob), jnp.asarray(reward)
    if log_prob.shape[log_prob.ndim - reward.ndim :] != reward.shape:
        raise ValueError(f"reward: got the shape {reward.shape}, needs the last axes of log_prob, {log_prob.shape}")
    advantage = reward if baseline is None else reward - _like(baseline, reward)
    advantage = lax.stop_gradient(advantage).astype(log_prob.dtype)
    rows = reward.shape[-1] if reward.ndim else 1
    return -jnp.sum(log_prob * jnp.broadcast_to(advantage, log_prob.shape)) / rows


def baseline_loss(baseline: Array, reward: Array) -> Array:
    """Returns the mean squared error between baseline and reward; the reward is a constant."""
    check_arrays(baseline=baseline, reward=reward)
    baseline, reward = jnp.asarray(baseline), jnp.asarray(reward)
    return jnp.mean((_like(baseline, reward) - lax.stop_gradient(reward).astype(baseline.dtype)) ** 2)


def _like(baseline: Array, reward: Array) -> Array:
    if jnp.shape(baseline) != reward.shape:
        raise ValueError(f"baseline: got the shape {jnp.shape(baseline)}, needs that of the reward, {reward.shape}")
    return jnp.asarray(baseline)


def class_reward(scores: Array, targets: Array, scale: float = 1.0) -> Array:
    """Returns `scale` where the highest of `scores` `[*batch, V]` is the target `[*batch]`, else 0; it has no gradient.

    For two classes with one probability p, pass `jnp.stack([0.5 - p, p - 0.5], -1)`.

    Example:
        >>> class_reward(jnp.array([[1.0, 2.0], [2.0, 1.0]]), jnp.array([1, 1])).tolist()
        [1.0, 0.0]
    """
    check_arrays(scores=scores)
    check_integers(targets=targets)
    check_axes(scores, "scores", "[*batch, V]", 1)
    check_shape(targets, "targets", "[*batch]", scores.shape[:-1])
    return scale * (jnp.argmax(scores, axis=-1) == targets).astype(scores.dtype)


def glimpse(images: Array, locations: Array, size: int, depth: int = 3, scale: int = 2) -> Array:
    """Cuts patches around a point, each `scale` times as wide as the one before, averaged down to `size` by `size`.

    Differentiable with respect to the images. Locations get no gradient; train them by `surrogate`.

    Args:
        images: `[*batch, height, width, C]`.
        locations: `[*batch, 2]`, `(y, x)` of the middle in -1..1, from the first row and column to the last.
        size: g, side of a patch.
        depth: number of patches.
        scale: widening from one to the next.

    Returns:
        `[*batch, g, g, depth C]`, the finest patch first; zero outside of the image.

    Example:
        >>> glimpse(jnp.ones((2, 28, 28, 1)), jnp.zeros((2, 2)), size=8).shape
        (2, 8, 8, 3)

    Reference: Mnih, Heess, Graves & Kavukcuoglu 2014, "Recurrent models of visual attention".
    """
    check_sizes(size=size, depth=depth, scale=scale)
    check_arrays(images=images, locations=locations)
    check_axes(images, "images", "[*batch, height, width, C]", 3)
    batch_shape = images.shape[:-3]
    check_shape(locations, "locations", "[*batch, 2] of images [*batch, height, width, C]", (*batch_shape, 2))

    def one(image: Array, location: Array) -> Array:
        patches = []
        for d in range(depth):
            wide = size * scale**d
            patches.append(_pool(_crop(image, location, wide), scale**d))
        return jnp.concatenate(patches, axis=-1)

    flat = jax.vmap(one)(images.reshape(-1, *images.shape[-3:]), locations.reshape(-1, 2))
    return flat.reshape(*batch_shape, *flat.shape[1:])


def _crop(image: Array, location: Array, size: int) -> Array:
    """A patch `[size, size, C]` with zeros around the image, its corner at `y (height_padded - size)`, y in 0..1."""
    height, width, channels = image.shape
    pad = (size - 1) // 2
    # At least as large as the patch, for images that are smaller than it.
    after = [max(pad, size - n - pad) for n in (height, width)]
    padded = jnp.pad(image, ((pad, after[0]), (pad, after[1]), (0, 0)))
    unit = jnp.clip((lax.stop_gradient(location) + 1) / 2, 0.0, 1.0)
    free: Any = [n - size for n in padded.shape[:2]]
    corner = [jnp.floor(unit[axis] * free[axis]).astype(jnp.int32) for axis in (0, 1)]
    return lax.dynamic_slice(padded, (*corner, jnp.zeros((), jnp.int32)), (size, size, channels))


def _pool(patch: Array, factor: int) -> Array:
    side = patch.shape[0] // factor
    return jnp.mean(patch.reshape(side, factor, side, factor, -1), axis=(1, 3))


class Glimpses(NamedTuple):
    """Result of `recurrent_attention`."""

    state: State  # after the last step
    ys: Array  # [T, *batch, O]
    actions: PyTree  # [T, *batch, ...]


def recurrent_attention(
    key: Key,
    cell: Layer,
    params: Params,
    look: Callable[[PyTree], PyTree],
    act: Callable[[Key, Array], PyTree],
    steps: int,
    state: State,
) -> Glimpses:
    """Runs a loop in which the last output chooses where to look: `a_t = act(y_{t-1})`, `y_t = cell(look(a_t))`.

    The first action sees an output of zeros. Actions are constants and pass no gradient. Train `act` by the losses
    above, with the log probability of each action given the output before it.

    Args:
        key: a typed key, split into one key for each step.
        cell: any cell or network that has single time steps.
        params: from `cell.init`.
        look: `action -> x`, the cell's input `[*batch, ...]`, such as a glimpse of an image.
        act: `(key, y) -> action`; y is the last output, `[*batch, O]`.
        steps: T.
        state: before the first step; `cell.initial_state(batch_shape)`.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(2, 4)
        >>> params, state = cell.init(jax.random.key(0)), cell.initial_state((3,))
        >>> act = lambda key, y: y[:, :2] + jax.random.normal(key, (3, 2))
        >>> seen = recurrent_attention(jax.random.key(1), cell, params, lambda a: 2 * a, act, 5, state)
        >>> seen.ys.shape, seen.actions.shape
        ((5, 3, 4), (5, 3, 2))

    Reference: Mnih, Heess, Graves & Kavukcuoglu 2014; Element-Research/rnn, `RecurrentAttention`.
    """
    check_layer(cell)
    check_sizes(steps=steps)
    check_functions("action -> x", 1, look=look)
    check_functions("(key, y) -> action", 2, act=act)
    key = check_key(key)
    batch_shape = _batch_of(cell, state)

    def step(before: tuple[State, Array], key: Key) -> tuple[tuple[State, Array], tuple[Array, PyTree]]:
        state, y = before
        action = jax.tree.map(lax.stop_gradient, act(key, y))
        state, y = cell(params, state, look(action))
        return (state, y), (y, action)

    def zeros(specs: PyTree, *lead: int) -> PyTree:
        return jax.tree.map(lambda a: jnp.zeros((*lead, *a.shape), a.dtype), specs)

    def first(key: Key) -> PyTree:
        _, y = cell(params, state, zeros(cell.input_spec, *batch_shape))
        return cell(params, state, look(act(key, y)))[1]

    begin = state, zeros(jax.eval_shape(first, key))
    (state, _), (ys, actions) = lax.scan(step, begin, jax.random.split(key, steps))
    return Glimpses(state, ys, actions)


def _batch_of(cell: Layer, state: State) -> tuple[int, ...]:
    """Returns the batch axes of a state; raises unless it is one of `cell`."""
    one = jax.tree.leaves(jax.eval_shape(cell.initial_state))[0]
    first = next(iter(jax.tree.leaves(state)), jnp.zeros(one.shape))
    batch_shape = jnp.shape(first)[: max(0, jnp.ndim(first) - len(one.shape))]
    check_state(cell, state, batch_shape)
    return batch_shape
