"""Cells around cells: their deterministic steps."""

import jax
import numpy as np


def inside(inner):
    """The cell's own step: what is random is left out."""

    def step(cell, params, state, x):
        return inner(cell.cell, params, state, x)

    return step


def zoneout(inner):
    """Krueger et al. 2016, at test time: the expected state, whose `h` is the output."""

    def step(cell, params, state, x):
        new, _ = inner(cell.cell, params, state, x)
        new = jax.tree.map(lambda old, n: cell.rate * old + (1 - cell.rate) * n, state, new)
        return new, new.h

    return step


def masked(inner):
    """Keras: a masked step holds the state and gives zero. Element-Research: it gives zero and the zero state."""

    def step(cell, params, state, inputs):
        x, valid = inputs
        new, y = inner(cell.cell, params, state, x)
        if valid:
            return new, y
        rest = state if cell.policy == "hold" else jax.tree.map(np.zeros_like, state)
        return rest, np.zeros_like(y)

    return step


def learned_state(inner):
    """The step of the cell: where a row begins is said by the state."""

    def step(cell, params, state, x):
        return inner(cell.cell, params.cell, state, x)

    return step
