"""Ba, Kiros & Hinton 2016."""

import numpy as np

from tests.reference import sigmoid


def norm(cell, z, scale):
    """The norm of the appendix, with the authors' ε; `np.var` divides by the number of units."""
    return (z - np.mean(z)) / np.sqrt(np.var(z) + cell.epsilon) * scale


def jointly(cell, z, scale):
    return norm(cell, z, scale)


def apart(cell, z, scale):
    """Each run of H units by itself."""
    n = cell.hidden_size
    return np.concatenate([norm(cell, z[k : k + n], scale[k : k + n]) for k in range(0, len(z), n)])


def layer_norm_lstm(cell, params, state, x):
    """Equations 20 to 22."""
    h, c = state
    together = apart if cell.per_gate else jointly
    a = together(cell, np.dot(h, params.w_h), params.s_h) + together(cell, np.dot(x, params.w_x), params.s_x) + params.b
    i, f, g, o = np.split(a, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    seen = norm(cell, c, params.s_c) + params.b_c if cell.normalize_memory else c
    h = sigmoid(o) * np.tanh(seen)
    return type(state)(h, c), h


def layer_norm_gru(cell, params, state, x):
    """The appendix's equations for the GRU; the update gate keeps the old state, as in the authors' code."""
    (h,), n = state, cell.hidden_size
    together = apart if cell.per_gate else jointly
    w_x, w_xn = params.w_x[:, : 2 * n], params.w_x[:, 2 * n :]
    w_h, w_hn = params.w_h[:, : 2 * n], params.w_h[:, 2 * n :]
    a = together(cell, np.dot(h, w_h), params.s_h[: 2 * n]) + together(cell, np.dot(x, w_x), params.s_x[: 2 * n])
    r, z = np.split(sigmoid(a + params.b[: 2 * n]), 2)
    recurrent = norm(cell, np.dot(h, w_hn), params.s_h[2 * n :]) + params.b_n
    candidate = np.tanh(norm(cell, np.dot(x, w_xn), params.s_x[2 * n :]) + params.b[2 * n :] + r * recurrent)
    h = (1 - z) * candidate + z * h
    return type(state)(h), h
