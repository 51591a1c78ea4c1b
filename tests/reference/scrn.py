"""Mikolov et al. 2015; what their output layer multiplies is the output."""

import numpy as np

from tests.reference import sigmoid


def scrn(cell, params, state, x):
    q = sigmoid(params.beta) if cell.adaptive else np.full(cell.context_size, cell.alpha)
    s = np.dot(np.eye(len(q)) - np.diag(q), np.dot(x, params.w_s)) + np.dot(np.diag(q), state.s)
    h = sigmoid(np.dot(s, params.w_c) + np.dot(x, params.w_x) + np.dot(state.h, params.w_h))
    return type(state)(h, s), np.concatenate([h, s])
