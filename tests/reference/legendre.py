"""Voelker, Kajić & Eliasmith 2019."""

import numpy as np
from scipy.signal import cont2discrete


def discretized(order, theta):
    """A and B, by SciPy's zero-order hold."""
    a, b = np.zeros((order, order)), np.zeros((order, 1))
    for i in range(order):
        for j in range(order):
            a[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
        b[i] = (2 * i + 1) / theta * (-1) ** i
    return cont2discrete((a, b, np.eye(order), np.zeros((order, 1))), dt=1.0, method="zoh")[:2]


def lmu(cell, params, state, x):
    """The input, the memory, the state."""
    (h, m), n = state, cell.hidden_size
    a, b = discretized(cell.order, cell.theta)
    u = np.dot(params.w_x[:, n], x) + np.dot(params.e[:n, 0], h) + np.dot(params.e[n:, 0], m)
    m = a @ m + b[:, 0] * u
    h = np.tanh(np.dot(x, params.w_x[:, :n]) + np.dot(h, params.w_h[:n]) + np.dot(m, params.w_h[n:]))
    return type(state)(h, m), h
