"""Jozefowicz et al. 2015: the three best cells of the search, one after the other as printed there."""

import numpy as np

from tests.reference import sigmoid


def mut(cell, params, state, x):
    (h,) = state
    n = cell.hidden_size
    w = dict(zip(_weights_of_the_input(cell), np.split(params.w_x, params.w_x.shape[1] // n, axis=1), strict=True))
    b_r, b_z, b_h = np.split(params.b, 3)
    w_hr, bare = params.w_h[:, :n], np.dot(x, w["p"]) if "p" in w else x
    if cell.variant == 1:
        z = sigmoid(np.dot(x, w["z"]) + b_z)
        r = sigmoid(np.dot(x, w["r"]) + np.dot(h, w_hr) + b_r)
        h = np.tanh(np.dot(r * h, params.w_n) + np.tanh(bare) + b_h) * z + h * (1 - z)
    elif cell.variant == 2:
        z = sigmoid(np.dot(x, w["z"]) + np.dot(h, params.w_h[:, n:]) + b_z)
        r = sigmoid(bare + np.dot(h, w_hr) + b_r)
        h = np.tanh(np.dot(r * h, params.w_n) + np.dot(x, w["h"]) + b_h) * z + h * (1 - z)
    else:
        z = sigmoid(np.dot(x, w["z"]) + np.dot(np.tanh(h), params.w_z) + b_z)
        r = sigmoid(np.dot(x, w["r"]) + np.dot(h, w_hr) + b_r)
        h = np.tanh(np.dot(r * h, params.w_n) + np.dot(x, w["h"]) + b_h) * z + h * (1 - z)
    return type(state)(h), h


def _weights_of_the_input(cell):
    """What the blocks of `w_x` are, p the projection of the input."""
    return {
        (1, False): "rz",
        (2, False): "zh",
        (3, False): "rzh",
        (1, True): "rzp",
        (2, True): "pzh",
        (3, True): "rzh",
    }[cell.variant, cell.project_input]
