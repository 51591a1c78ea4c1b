"""Rusch, Mishra, Erichson & Mahoney 2022."""

import numpy as np

from tests.reference import block, sigmoid


def lem(cell, params, state, x):
    """The scheme's z is our c, its Δt_n is block α and its Δt_n with a bar block β."""
    (y, z), n = state, cell.hidden_size

    def seen(k):
        return np.dot(x, block(params.w_x, k, n)) + block(params.b, k, n)

    dt_z = cell.step_size * sigmoid(np.dot(y, block(params.w_h, 0, n)) + seen(0))
    dt_y = cell.step_size * sigmoid(np.dot(y, block(params.w_h, 1, n)) + seen(1))
    z = (1 - dt_z) * z + dt_z * np.tanh(np.dot(y, block(params.w_h, 2, n)) + seen(2))
    y = (1 - dt_y) * y + dt_y * np.tanh(np.dot(z, params.w_c) + seen(3))
    return type(state)(y, z), y
