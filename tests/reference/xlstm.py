"""The extended LSTM's cells without their stabilizer: what the state holds times exp(m) is the paper's c and n."""

import numpy as np

from tests.reference import block, of_state, sigmoid


def slstm(cell, params, state, x):
    """Beck et al. 2024, equations 8 to 14; m: equation 15."""
    h, c, n, m = state
    size = cell.hidden_size
    i, f, z, o = (
        np.dot(x, block(params.w_x, k, size)) + of_state(h, params.w_h, k, size) + block(params.b, k, size)
        for k in range(4)
    )
    c, n = c * np.exp(m), n * np.exp(m)
    i, f, z, o = np.exp(i), _forget(cell, f), np.tanh(z), sigmoid(o)
    c = f * c + i * z
    n = f * n + i
    h = o * (c / n)
    m = np.maximum(np.log(f) + m, np.log(i))
    return type(state)(h, c * np.exp(-m), n * np.exp(-m), m), h


def mlstm(cell, params, state, x):
    """Beck et al. 2024, equations 19 to 27, one head after the other; their C is the transpose of ours."""
    heads, d = cell.heads, cell.hidden_size // cell.heads
    cs, ns, ms, hs = [], [], [], []
    for j in range(heads):
        q, k, v, o = (
            np.dot(x, block(block(params.w_x, b, cell.hidden_size), j, d))
            + block(block(params.b, b, cell.hidden_size), j, d)
            for b in range(4)
        )
        i, f = (np.dot(x, params.w_g[:, b * heads + j]) + params.b_g[b * heads + j] for b in range(2))
        k, i, f, o = k / np.sqrt(d), np.exp(i), _forget(cell, f), sigmoid(o)
        c = f * (state.c[j].T * np.exp(state.m[j])) + i * np.outer(v, k)
        n = f * (state.n[j] * np.exp(state.m[j])) + i * k
        h = o * (np.dot(c, q) / max(abs(np.dot(n, q)), 1.0))
        m = max(np.log(f) + state.m[j], np.log(i))
        for kept, one in zip((cs, ns, ms, hs), (c.T * np.exp(-m), n * np.exp(-m), m, h), strict=True):
            kept.append(one)
    return type(state)(np.stack(cs), np.stack(ns), np.stack(ms)), np.concatenate(hs)


def _forget(cell, f):
    return sigmoid(f) if cell.forget_gate == "sigmoid" else np.exp(f)
