"""Zhou et al. 2016; Flax's documentation of its `MGUCell`; Collins et al. 2017."""

import numpy as np

from tests.reference import FUNCTIONS, block, sigmoid


def mgu_before(cell, params, state, x):
    (h,), n = state, cell.hidden_size
    f = sigmoid(np.dot(h, params.w_h) + np.dot(x, block(params.w_x, 0, n)) + block(params.b, 0, n))
    mixed = np.dot(f * h, params.w_n) + np.dot(x, block(params.w_x, 1, n)) + block(params.b, 1, n)
    h = (1 - f) * h + f * FUNCTIONS[cell.activation](mixed)
    return type(state)(h), h


def mgu_after(cell, params, state, x):
    (h,), n = state, cell.hidden_size
    f = sigmoid(np.dot(x, block(params.w_x, 0, n)) + block(params.b, 0, n) + np.dot(h, block(params.w_h, 0, n)))
    candidate = np.dot(x, block(params.w_x, 1, n)) + block(params.b, 1, n)
    candidate = candidate + f * (np.dot(h, block(params.w_h, 1, n)) + params.b_n)
    h = (1 - f) * FUNCTIONS[cell.activation](candidate) + f * h
    return type(state)(h), h


def ugrnn(cell, params, state, x):
    (h,), n = state, cell.hidden_size

    def seen(k):
        return np.dot(h, block(params.w_h, k, n)) + np.dot(x, block(params.w_x, k, n)) + block(params.b, k, n)

    c = FUNCTIONS[cell.activation](seen(1))
    g = sigmoid(seen(0))
    h = g * h + (1 - g) * c
    return type(state)(h), h
