"""Zilly, Srivastava, Koutník & Schmidhuber 2017."""

import numpy as np

from tests.reference import block, sigmoid


def highway(cell, params, state, x):
    """Layer by layer, the input in the first."""
    (s,), n = state, cell.hidden_size
    for layer in range(cell.depth):

        def seen(k, layer=layer, s=s):
            a = np.dot(s, block(params.w_h[layer], k, n)) + block(params.b[layer], k, n)
            return a + np.dot(x, block(params.w_x, k, n)) if layer == 0 else a

        h, t = np.tanh(seen(0)), sigmoid(seen(1))
        c = 1 - t if cell.coupled else sigmoid(seen(2))
        s = h * t + s * c
    return type(state)(s), s
