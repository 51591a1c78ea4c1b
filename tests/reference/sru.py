"""Simple recurrent units."""

import numpy as np

from tests.reference import block, sigmoid


def sru(cell, params, state, x):
    """Lei et al. 2018, equations 1 to 4, with the scaling correction."""
    n = cell.hidden_size
    v_f, v_r = np.split(params.w_c, 2)
    b_f, b_r = np.split(params.b, 2)
    f = sigmoid(np.dot(x, block(params.w_x, 1, n)) + v_f * state.c + b_f)
    r = sigmoid(np.dot(x, block(params.w_x, 2, n)) + v_r * state.c + b_r)
    c = f * state.c + (1 - f) * np.dot(x, block(params.w_x, 0, n))
    skip = x if cell.input_size == n else np.dot(x, block(params.w_x, 3, n))
    return type(state)(c), r * c + (1 - r) * skip * cell.highway_scale
