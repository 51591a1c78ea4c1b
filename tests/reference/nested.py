"""Moniz & Krueger 2017: the memory function of an LSTM is an LSTM."""

import numpy as np

from tests.reference import FUNCTIONS, block, sigmoid


def nested_lstm(cell, params, state, x):
    """Of any depth: from the outermost LSTM in to the innermost, and with its memory out again."""
    n, levels = cell.hidden_size, []
    hidden, own, rest = state.h, params, state
    squash = FUNCTIONS[cell.candidate_activation]
    for _ in range(cell.depth):
        i, f, g, o = (
            np.dot(x, block(own.w_x, k, n)) + np.dot(hidden, block(own.w_h, k, n)) + block(own.b, k, n)
            for k in range(4)
        )
        levels.append(sigmoid(o))
        nested = hasattr(rest, "inner")
        memory = rest.inner.h if nested else rest.c
        x, hidden = sigmoid(i) * squash(g), sigmoid(f) * memory
        if nested:
            own, rest, squash = own.inner, rest.inner, np.tanh
    c = hidden + x
    new = None
    for depth, o in enumerate(reversed(levels)):
        h = o * np.tanh(c)
        new = type(rest)(h, c) if depth == 0 else type(state)(h, new)
        c = h
    return new, c
