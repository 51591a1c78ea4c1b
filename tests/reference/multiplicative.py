"""Sutskever et al. 2011 and Krause et al. 2016; the output as in Radford et al. 2017."""

import numpy as np

from tests.reference import block, sigmoid


def mrnn(cell, params, state, x):
    f = np.dot(np.diag(np.dot(x, params.w_x)), np.dot(state.h, params.w_h))
    h = np.tanh(np.dot(f, params.cell.w_h) + np.dot(x, params.cell.w_x) + params.cell.b)
    return type(state)(h), h


def mlstm(cell, params, state, x):
    n, own = cell.hidden_size, params.cell
    m = np.dot(x, params.w_x) * np.dot(state.h, params.w_h)

    def seen(k):
        return np.dot(x, block(own.w_x, k, n)) + np.dot(m, block(own.w_h, k, n)) + block(own.b, k, n)

    candidate, i, o, f = seen(2), sigmoid(seen(0)), sigmoid(seen(3)), sigmoid(seen(1))
    c = f * state.c + i * np.tanh(candidate)
    h = np.tanh(c) * o
    return type(state)(h, c), h
