"""Koutník, Greff, Gomez & Schmidhuber 2014."""

import numpy as np


def clockwork(cell, params, state, x):
    """Module by module, each from itself and the slower ones."""
    h, t = state
    size = cell.hidden_size // len(cell.periods)
    new = h.copy()
    for i, period in enumerate(cell.periods):
        if t % period == 0:
            units = slice(i * size, (i + 1) * size)
            slower = slice(i * size, None)
            a = np.dot(h[slower], params.w_h[slower, units]) + np.dot(x, params.w_x[:, units]) + params.b[units]
            new[units] = np.tanh(a)
    return type(state)(new, t + 1), new
