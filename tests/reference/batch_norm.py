"""Cooijmans et al. 2016."""

import numpy as np

from tests.reference import sigmoid


def norm(cell, a, scale, mean, variance):
    """BN(a; γ, 0)."""
    return scale * (a - mean) / np.sqrt(variance + cell.epsilon)


def batch_norm_lstm(cell, params, state, x):
    """The LSTM's equations with the population's estimates of this step, or of the last that has some."""
    h, c, t = state
    entry = min(int(t), cell.steps - 1)
    (mean_x, std_x), (mean_h, std_h), (mean_c, std_c) = ((m.mean[entry], m.std[entry]) for m in params.statistics)
    a = norm(cell, np.dot(h, params.w_h), params.s_h, mean_h, std_h**2)
    a = a + norm(cell, np.dot(x, params.w_x), params.s_x, mean_x, std_x**2) + params.b
    i, f, g, o = np.split(a, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(norm(cell, c, params.s_c, mean_c, std_c**2) + params.b_c)
    return type(state)(h, c, t + 1), h


def in_batch(cell, params, xs, state, lengths):
    """A whole batch in training, a step at a time: `(ys, means and variances after it)`.

    Moments are `np.mean` and `np.var` of the rows that are still there.
    """
    h, c = state.h.copy(), state.c.copy()
    kept = [(m.mean.copy(), m.std.copy() ** 2) for m in params.statistics]
    ys = np.zeros((len(xs), *h.shape))
    for t, x in enumerate(xs):
        rows = lengths > t
        entry = min(int(state.t.max()) + t, cell.steps - 1)

        def normed(k, a, scale, entry=entry):
            means, variances = kept[k]
            if len(a) < 2:
                before = params.statistics[k]
                return norm(cell, a, scale, before.mean[entry], before.std[entry] ** 2)
            mean, variance = np.mean(a, axis=0), np.var(a, axis=0)
            means[entry] += cell.momentum * (mean - means[entry])
            variances[entry] += cell.momentum * (variance - variances[entry])
            return norm(cell, a, scale, mean, variance)

        a = normed(1, h[rows] @ params.w_h, params.s_h) + normed(0, x[rows] @ params.w_x, params.s_x) + params.b
        i, f, g, o = np.split(a, 4, axis=1)
        c[rows] = sigmoid(f) * c[rows] + sigmoid(i) * np.tanh(g)
        h[rows] = sigmoid(o) * np.tanh(normed(2, c[rows], params.s_c) + params.b_c)
        ys[t, rows] = h[rows]
    return ys, kept
