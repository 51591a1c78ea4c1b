"""Weissenborn & Rocktäschel 2016, with the operations of Element-Research's program and of the authors' own."""

import numpy as np

from tests.reference import FUNCTIONS, block, sigmoid

OPERATIONS = {
    "keep": lambda s, v: s,
    "replace": lambda s, v: v,
    "mul": lambda s, v: s * v,
    "diff": lambda s, v: s - v,
    "forget": lambda s, v: 0.0 * s,
    "sqrt_diff": lambda s, v: 0.25 * np.sqrt(np.abs(s - v)),
    "max": np.maximum,
    "min": np.minimum,
    "abs_diff": lambda s, v: 0.5 * np.abs(s - v),
    "sqr_diff": lambda s, v: 0.25 * (s - v) ** 2,
}


def mufuru(cell, params, state, x):
    (s,), n, count = state, cell.hidden_size, len(cell.operations)
    r = sigmoid(np.dot(x, block(params.w_x, 0, n)) + np.dot(s, block(params.w_h, 0, n)) + block(params.b, 0, n))
    squash = FUNCTIONS[cell.activation]
    v = squash(np.dot(x, block(params.w_x, 1, n)) + np.dot(r * s, params.w_v) + block(params.b, 1, n))
    new = np.zeros(n)
    for unit in range(n):
        logits = [
            np.dot(x, block(params.w_x, 2 + j, n)[:, unit])
            + np.dot(s, block(params.w_h, 1 + j, n)[:, unit])
            + block(params.b, 2 + j, n)[unit]
            for j in range(count)
        ]
        p = np.exp(logits) / np.sum(np.exp(logits))
        new[unit] = sum(p[j] * OPERATIONS[op](s[unit], v[unit]) for j, op in enumerate(cell.operations))
    return type(state)(new), new
