"""Neil, Pfeiffer & Liu 2016."""

import numpy as np

from tests.reference import block, sigmoid


def openness(phase, ratio, leak):
    """The time gate of one unit."""
    if phase < ratio / 2:
        return 2 * phase / ratio
    if phase < ratio:
        return 2 - 2 * phase / ratio
    return leak * phase


def phased_lstm(cell, params, state, x):
    """Without peepholes."""
    h, c, t = state
    n = cell.hidden_size
    x, time = (x["x"], x["t"]) if cell.timed else (x, t)
    period = np.exp(params.log_period)
    phases = ((time - params.shift) % period) / period
    k = np.array([openness(p, r, cell.leak) for p, r in zip(phases, params.ratio, strict=True)])

    def seen(j):
        return np.dot(x, block(params.w_x, j, n)) + np.dot(h, block(params.w_h, j, n)) + block(params.b, j, n)

    c_new = sigmoid(seen(1)) * c + sigmoid(seen(0)) * np.tanh(seen(2))
    h_new = sigmoid(seen(3)) * np.tanh(c_new)
    c, h = k * c_new + (1 - k) * c, k * h_new + (1 - k) * h
    return type(state)(h, c, None if cell.timed else t + 1), h
