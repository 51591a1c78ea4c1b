"""Convolutional cells, place by place."""

import itertools

import numpy as np

from tests.reference import sigmoid


def conv_lstm(cell, params, state, x):
    """Shi et al. 2015, equation 3."""
    (h, c), n = state, cell.hidden_size
    w_c = np.zeros((1, 3 * n)) if params.w_c is None else params.w_c

    def seen(k):
        return (
            convolve(x, _gate(params.w_x, k, n), cell.stride)
            + convolve(h, _gate(params.w_h, k, n))
            + _bias(params, k, n)
        )

    i = sigmoid(seen(0) + w_c[..., :n] * c)
    f = sigmoid(seen(1) + w_c[..., n : 2 * n] * c)
    c = f * c + i * np.tanh(seen(2))
    o = sigmoid(seen(3) + w_c[..., 2 * n :] * c)
    h = o * np.tanh(c)
    return type(state)(h, c), h


def conv_gru(cell, params, state, x):
    """Ballas et al. 2016, with 1 - z for their z."""
    (h,), n = state, cell.hidden_size

    def seen(k):
        return convolve(x, _gate(params.w_x, k, n), cell.stride) + _bias(params, k, n)

    r, z = (sigmoid(seen(k) + convolve(h, _gate(params.w_h, k, n))) for k in (0, 1))
    candidate = np.tanh(seen(2) + convolve(r * h, params.w_n))
    h = (1 - z) * candidate + z * h
    return type(state)(h), h


def _gate(w, k, n):
    return w[..., k * n : (k + 1) * n]


def _bias(params, k, n):
    return 0.0 if params.b is None else _gate(params.b, k, n)


def convolve(x, w, stride=1):
    """A correlation of kept size: `x` `[*space, C]`, `w` `[*kernel, C, F]`; of an odd padding the end gets more."""
    axes = w.ndim - 2
    stride = (stride,) * axes if isinstance(stride, int) else stride
    sizes = [-(-n // s) for n, s in zip(x.shape, stride, strict=False)]
    y = np.zeros((*sizes, w.shape[-1]))
    before = [max((m - 1) * s + k - n, 0) // 2 for m, s, k, n in zip(sizes, stride, w.shape, x.shape, strict=False)]
    for place in itertools.product(*map(range, sizes)):
        for offset in itertools.product(*map(range, w.shape[:axes])):
            at = tuple(p * s + o - b for p, s, o, b in zip(place, stride, offset, before, strict=True))
            if all(0 <= a < n for a, n in zip(at, x.shape, strict=False)):
                y[place] += x[at] @ w[offset]
    return y
