"""Diagonal linear recurrences: LRU, S5 and RG-LRU, with complex numbers written out."""

import numpy as np

from tests.reference import block, of_state, sigmoid


def lru(cell, params, state, x):
    """Orvieto et al. 2023, section 3: exponential parametrization and normalization."""
    eigenvalues = np.exp(-np.exp(params.nu)) * (np.cos(np.exp(params.theta)) + 1j * np.sin(np.exp(params.theta)))
    b, c = _matrices(cell, params)
    h = eigenvalues * state.h + np.exp(params.gamma) * np.dot(b, x)
    return type(state)(h), np.dot(c, h).real + params.d * x


def s5(cell, params, state, x):
    """Smith et al. 2023, section 3, discretized by either method."""
    eigenvalues = np.minimum(params.decay, -1e-4) + 1j * params.frequency
    step = np.exp(params.log_step)
    b, c = _matrices(cell, params)
    if cell.discretization == "zoh":
        b = ((np.exp(eigenvalues * step) - 1) / eigenvalues)[:, None] * b
        eigenvalues = np.exp(eigenvalues * step)
    else:
        inverse = 1 / (1 - step / 2 * eigenvalues)
        b = (inverse * step)[:, None] * b
        eigenvalues = inverse * (1 + step / 2 * eigenvalues)
    h = eigenvalues * state.h + np.dot(b, x)
    return type(state)(h), 2 * np.dot(c, h).real + params.d * x


def _matrices(cell, params):
    """B `[H, I]` and C `[I, H]`, complex."""
    n = cell.hidden_size
    b = params.w_x[:, :n] + 1j * params.w_x[:, n:]
    c = params.w_y[:n] + 1j * params.w_y[n:]
    return b.T, c.T


def rg_lru(cell, params, state, x):
    """De et al. 2024, equations 1 to 4."""

    def gate(k):
        n = cell.hidden_size
        return sigmoid(of_state(x, params.w_x, k, n) + block(params.b, k, n))

    r, i = gate(0), gate(1)
    a = sigmoid(params.decay) ** (cell.power * r)
    h = a * state.h + np.sqrt(1 - a**2) * (i * x)
    return type(state)(h), h
