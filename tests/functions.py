"""A recurrence as a user would write it: an LSTM inside, its last output fed back, and a counter in the state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.typing import Array
from tests import reference

LSTM = jaxrnn.LSTM(3 + 2, 4)


class FeedbackParams(NamedTuple):
    lstm: jaxrnn.cells.LSTMParams
    w_y: Array  # [4, 2]


class FeedbackState(NamedTuple):
    inner: jaxrnn.cells.LSTMState
    y: Array  # [*batch, 2]
    count: Array  # [*batch] int32


def feedback(params, state, x):
    inner, h = LSTM(params.lstm, state.inner, jnp.concatenate([x, state.y.astype(x.dtype)], axis=-1))
    y = jnp.tanh(jaxrnn.ops.dot(h, params.w_y)) / (1 + state.count[..., None]).astype(h.dtype)
    return FeedbackState(inner, y, state.count + 1), y


def feedback_params(key, dtype):
    return FeedbackParams(LSTM.init(key, dtype=dtype), jnp.ones((4, 2), dtype))


def feedback_state(batch_shape, dtype):
    count = jnp.zeros(batch_shape, jnp.int32)
    return FeedbackState(LSTM.initial_state(batch_shape, dtype), jnp.zeros((*batch_shape, 2), dtype), count)


FEEDBACK = jaxrnn.Function(feedback, feedback_params, feedback_state, input_size=3)


def feedback_reference(cell, params, state, x):
    inner, h = reference.lstm(LSTM, params.lstm, state.inner, np.concatenate([x, state.y]))
    y = np.tanh(np.dot(h, params.w_y)) / (1 + state.count)
    return FeedbackState(inner, y, state.count + 1), y


def stacked(params, state, x):
    """A recurrence in a recurrence, below a unit of its own."""
    below, h = state
    below, y = FEEDBACK(params[0], below, x)
    h = jnp.tanh(jaxrnn.ops.dot(h, params[1]) + jnp.repeat(y, 2, axis=-1))
    return (below, h), h


def stacked_params(key, dtype):
    return FEEDBACK.init(key, dtype=dtype), jax.random.normal(key, (4, 4), dtype)


def stacked_state(batch_shape, dtype):
    return FEEDBACK.initial_state(batch_shape, dtype), jnp.zeros((*batch_shape, 4), dtype)


class LatticeState(NamedTuple):
    sites: Array  # [*batch, 64, 8], the states of all sites so far
    h: Array  # [*batch, 8]
    site: Array  # [*batch] int32


def lattice(params, state, x):
    """A step on a lattice of eight sites a row: a site sees its neighbors to the left and above."""
    rows = state.site.shape
    sites, h, site = state.sites.reshape(-1, 64, 8), state.h.reshape(-1, 8), state.site.reshape(-1)
    above = jnp.take_along_axis(sites, jnp.maximum(site - 8, 0)[:, None, None], axis=1)[:, 0]
    h = jnp.tanh(x.reshape(-1, 3) @ params[0] + h @ params[1] + above @ params[2])
    sites = sites.at[jnp.arange(len(site)), site].set(h)
    state = LatticeState(sites.reshape(*rows, 64, 8), h.reshape(*rows, 8), state.site + 1)
    return state, state.h


def lattice_params(key, dtype):
    w_x, *w = jax.random.split(key, 3)
    return jax.random.normal(w_x, (3, 8), dtype), *(jax.random.normal(k, (8, 8), dtype) / 3 for k in w)


def lattice_state(batch_shape, dtype):
    site = jnp.zeros(batch_shape, jnp.int32)
    return LatticeState(jnp.zeros((*batch_shape, 64, 8), dtype), jnp.zeros((*batch_shape, 8), dtype), site)


LATTICE = jaxrnn.Function(lattice, lattice_params, lattice_state, input_size=3)
