"""Weight normalization (Salimans & Kingma 2016), expRNN (Lezcano-Casado 2019), AntisymmetricRNN (Chang et al. 2019)."""

import numpy as np
from scipy.linalg import expm

from tests.reference import sigmoid


def weight_norm(inner):
    """`inner` with w_j = g_j v_j / ‖v_j‖ for each unit j of each matrix."""

    def step(cell, params, state, x):
        lengths, weights = iter([g for g in params.g if g is not None]), []
        for v in params.v:
            if v is not None and v.ndim == 2:
                g = next(lengths)
                v = np.stack([g[j] * v[:, j] / np.linalg.norm(v[:, j]) for j in range(v.shape[1])], axis=1)
            weights.append(v)
        return inner(cell.cell, type(params.v)(*weights), state, x)

    return step


def antisymmetric(entries, n):
    a = np.zeros((n, n))
    entries = iter(entries)
    for i in range(n):
        for j in range(i + 1, n):
            a[i, j] = next(entries)
            a[j, i] = -a[i, j]
    return a


def exp_rnn(cell, params, state, x):
    """h' = modReLU(T x + exp(A) h)."""
    z = np.dot(state.h, expm(antisymmetric(params.w_h, cell.hidden_size))) + np.dot(x, params.w_x)
    h = np.where(np.abs(z) + params.b >= 0, np.sign(z) * (np.abs(z) + params.b), 0.0)
    return type(state)(h), h


def antisymmetric_rnn(cell, params, state, x):
    """With its gate or without."""
    n, euler = cell.hidden_size, cell.cell
    m = antisymmetric(params.w_h, n) - cell.diffusion * np.eye(n)
    a = np.dot(x, params.w_x) + params.b
    seen = np.dot(state.h, m)
    z = sigmoid(a[:n] + seen) if euler.gated else 1.0
    h = state.h + euler.step_size * z * np.tanh(a[-n:] + seen)
    return type(state)(h), h
