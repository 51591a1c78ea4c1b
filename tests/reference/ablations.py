"""Greff et al. 2017 with their names for things (z, y), and the LSTMs of Jozefowicz et al. 2015."""

import numpy as np

from tests.reference import FUNCTIONS, block


def vanilla_lstm(cell, params, state, x):
    n = cell.hidden_size
    order = [name for name in ("i", "f", "g", "o") if name == "g" or name in cell.gates]
    holes = [name for name in order if name != "g"]
    y, c, before = state
    was = {} if before is None else {name: block(before, k, n) for k, name in enumerate(holes)}

    def seen(name):
        k = order.index(name)
        return np.dot(x, block(params.w_x, k, n)) + np.dot(y, block(params.w_h, k, n)) + block(params.b, k, n)

    def gate(name, memory, squash):
        if name not in cell.gates:
            return np.ones(n)
        k = holes.index(name)
        a = seen(name) + block(params.w_c, k, n) * memory
        for j, other in enumerate(was):
            a = a + np.dot(was[other], block(params.w_g[j * n : (j + 1) * n], k, n))
        return FUNCTIONS[squash](a)

    z = FUNCTIONS[cell.candidate_activation](seen("g"))
    i = gate("i", c, cell.gate_activation)
    f = 1 - i if cell.coupled else gate("f", c, cell.gate_activation)
    c = z * i + c * f
    o = gate("o", c, cell.output_gate_activation)
    y = FUNCTIONS[cell.output_activation](c) * o
    now = {"i": i, "f": f, "o": o}
    return type(state)(y, c, None if before is None else np.concatenate([now[name] for name in holes])), y
