"""Matrix memories, one head after the other."""

import numpy as np

from tests.reference import block, sigmoid


def _heads(cell, w, x, n):
    """Of each head the `n` vectors that the blocks of `w` make of `x`."""
    d = cell.hidden_size // cell.heads
    for j in range(cell.heads):
        yield j, *(np.dot(x, block(block(w, b, cell.hidden_size), j, d)) for b in range(n))


def gated_linear_attention(cell, params, state, x):
    """Yang et al. 2024, section 4, with the scale of attention."""
    states, ys = [], []
    decay = sigmoid(np.dot(np.dot(x, params.w_a), params.w_b) + params.b) ** (1 / cell.temperature)
    for j, q, k, v in _heads(cell, params.w_x, x, 3):
        s = np.diag(block(decay, j, len(q))) @ state.s[j] + np.outer(k, v)
        states.append(s)
        ys.append(q @ s / np.sqrt(len(q)))
    return type(state)(np.stack(states)), np.concatenate(ys)


def delta_net(cell, params, state, x):
    """Yang et al. 2024 (DeltaNet): `S_t = S_{t-1} (I - β k k^T) + β v k^T`, `o = S q`."""
    states, ys = [], []
    for j, q, k, v in _heads(cell, params.w_x, x, 3):
        q, k = (a * sigmoid(a) for a in (q, k))
        q, k = (a / (np.linalg.norm(a) or 1.0) for a in (q, k))
        beta = sigmoid(np.dot(x, params.w_b[:, j]))
        s = state.s[j].T @ (np.eye(len(k)) - beta * np.outer(k, k)) + beta * np.outer(v, k)
        states.append(s.T)
        ys.append(s @ q)
    return type(state)(np.stack(states)), np.concatenate(ys)


def matrix_memory(s, drive, resets):
    """Runs one memory over the steps `[T, ...]` of a `MatrixDrive`: the memory after them, and what each reads."""
    ys = np.empty((len(resets), s.shape[-1]))
    for t, reset in enumerate(resets):
        q, k, v, log_decay, a, b, log_input = (None if leaf is None else leaf[t] for leaf in drive)
        old = np.zeros_like(s) if reset else s
        s = np.outer(k if log_input is None else np.exp(log_input) * k, v)
        s = s + (old if log_decay is None else np.exp(log_decay)[:, None] * old)
        if a is not None:
            s = s + np.outer(k if b is None else b, a @ old)
        ys[t] = q @ s
    return s, ys
