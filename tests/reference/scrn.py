"""Mikolov et al. 2015, adaptive context units left out; what their output layer multiplies is the output."""

import numpy as np

from tests.reference import sigmoid


def scrn(cell, params, state, x):
    s = (1 - cell.alpha) * np.dot(x, params.w_s) + cell.alpha * state.s
    h = sigmoid(np.dot(s, params.w_c) + np.dot(x, params.w_x) + np.dot(state.h, params.w_h))
    return type(state)(h, s), np.concatenate([h, s])
