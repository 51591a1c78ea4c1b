"""Quasi-recurrent networks, and the window of their convolution."""

import numpy as np

from tests.reference import block, sigmoid


def window(cell, params, state, x):
    """The inputs so far, of which the last are kept."""
    xs = np.concatenate([state.xs, x[None]])
    return type(state)(xs[1:]), xs.reshape(-1)


def qrnn(cell, params, state, x):
    """Bradbury et al. 2016, equations 1 (of width one), 4 and 5."""
    n = cell.hidden_size
    z, f, o = (np.dot(x, block(params.w_x, k, n)) + block(params.b, k, n) for k in range(3))
    z, f, o = np.tanh(z), sigmoid(f), sigmoid(o)
    i = 1 - f
    if cell.pooling == "ifo":
        i = sigmoid(np.dot(x, block(params.w_x, 3, n)) + block(params.b, 3, n))
    c = f * state.c + i * z
    return type(state)(c), o * c


def convolution(w, b, xs):
    """Equation 1: `z_t = Σ_j W_j x_{t-k+1+j}`, `w` `[k, I, H]`, with zeros before the first of `xs` `[T, I]`."""
    k = len(w)
    padded = np.concatenate([np.zeros((k - 1, xs.shape[1])), xs])
    return np.stack([sum(padded[t + j] @ w[j] for j in range(k)) + b for t in range(len(xs))])
