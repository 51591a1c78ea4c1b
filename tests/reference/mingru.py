"""Minimal GRU and LSTM, and the log-space algorithm by which their authors run them."""

import jax
import numpy as np

from tests.reference import FUNCTIONS, block, sigmoid


def positive(x):
    """Feng et al. 2024, their g for log-space."""
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def _function(activation):
    return {**FUNCTIONS, jax.nn.identity: lambda a: a}.get(activation, positive)


def mingru(cell, params, state, x):
    """Feng et al. 2024, section 3.1."""
    z, n = _seen(cell, params, x, 2)
    z = sigmoid(z)
    h = (1 - z) * state.h + z * _function(cell.activation)(n)
    return type(state)(h), h


def minlstm(cell, params, state, x):
    """Feng et al. 2024, section 3.2."""
    f, i, n = _seen(cell, params, x, 3)
    f, i = sigmoid(f), sigmoid(i)
    if cell.normalize:
        f, i = f / (f + i), i / (f + i)
    h = f * state.h + i * _function(cell.activation)(n)
    return type(state)(h), h


def _seen(cell, params, x, n):
    width = cell.hidden_size
    return [np.dot(x, block(params.w_x, k, width)) + block(params.b, k, width) for k in range(n)]


def log_space_mingru(params, xs, h):
    """Feng et al. 2024, in log-space: all `h` `[T, H]` of one row from `h` before it, by logarithms."""
    k, n = np.split(xs @ params.w_x + params.b, 2, axis=-1)
    log_z, log_coefficients = -np.logaddexp(0, -k), -np.logaddexp(0, k)
    log_values = np.concatenate([np.log(h)[None], log_z + np.log(positive(n))])
    cumulated = np.concatenate([np.zeros((1, h.size)), np.cumsum(log_coefficients, axis=0)])
    return np.exp(cumulated + np.logaddexp.accumulate(log_values - cumulated, axis=0))[1:]
