"""Rusch & Mishra 2021."""

import numpy as np


def cornn(cell, params, state, x):
    """The explicit scheme, with the damping of the old velocity."""
    (y, z), n = state, cell.hidden_size
    force = np.tanh(np.dot(y, params.w_h[:n]) + np.dot(z, params.w_h[n:]) + np.dot(x, params.w_x) + params.b)
    dt = cell.step_size
    z = z + dt * force - dt * cell.frequency * y - dt * cell.damping * z
    y = y + dt * z
    return type(state)(y, z), y
