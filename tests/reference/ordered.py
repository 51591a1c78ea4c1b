"""Shen, Tan, Sordoni & Courville 2019."""

import numpy as np

from tests.reference import sigmoid


def cumax(z):
    total = np.cumsum(np.exp(z))
    return total / total[-1]


def ordered_lstm(cell, params, state, x):
    """Unit by unit, a master gate for each run of `chunk` units."""
    h, c = state
    n, masters = cell.hidden_size, cell.hidden_size // cell.chunk
    a = np.dot(x, params.w_x) + np.dot(h, params.w_h) + params.b
    i, f, g, o = (a[k * n : (k + 1) * n] for k in range(4))
    master_f, master_i = cumax(a[4 * n : 4 * n + masters]), 1 - cumax(a[4 * n + masters :])
    new = np.zeros(n)
    for unit in range(n):
        mf, mi = master_f[unit // cell.chunk], master_i[unit // cell.chunk]
        overlap = mf * mi
        f_hat = sigmoid(f[unit]) * overlap + (mf - overlap)
        i_hat = sigmoid(i[unit]) * overlap + (mi - overlap)
        new[unit] = f_hat * c[unit] + i_hat * np.tanh(g[unit])
    h = sigmoid(o) * np.tanh(new)
    return type(state)(h, new), h
