"""Cells around cells: their deterministic steps."""

import jax


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
