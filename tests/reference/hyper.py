"""Ha, Dai & Le 2017."""

import numpy as np

from tests.reference import block, sigmoid


def hyper_lstm(cell, params, state, x):
    """Gate by gate, the small LSTM on the input and the large one's output first."""
    h, c, h_s, c_s = state
    n, s, e = cell.hidden_size, cell.hyper_size, cell.embedding_size
    seen = np.concatenate([x, h])
    w_seen = np.concatenate([params.w_x, params.w_h])[:, 4 * n :]
    i, f, g, o = (
        np.dot(seen, block(w_seen, k, s)) + np.dot(h_s, block(params.w_s, k, s)) + block(params.b_s, k, s)
        for k in range(4)
    )
    c_s = sigmoid(f) * c_s + sigmoid(i) * np.tanh(g)
    h_s = sigmoid(o) * np.tanh(c_s)
    pre = []
    for k in range(4):
        z_x = np.dot(h_s, block(params.w_z, k, e)) + block(params.b_z, k, e)
        z_h = np.dot(h_s, block(params.w_z, 4 + k, e)) + block(params.b_z, 4 + k, e)
        z_b = np.dot(h_s, block(params.w_z, 8 + k, e))
        a = np.dot(z_x, params.d[k]) * np.dot(x, block(params.w_x, k, n))
        a = a + np.dot(z_h, params.d[4 + k]) * np.dot(h, block(params.w_h, k, n))
        pre.append(a + np.dot(z_b, params.d[8 + k]) + block(params.b, k, n))
    i, f, g, o = pre
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return type(state)(h, c, h_s, c_s), h
