"""Greff et al. 2017 with their names for things (z, y), and the LSTMs of Jozefowicz et al. 2015."""

import numpy as np

from tests.reference import FUNCTIONS, block, clip, of_state


def vanilla_lstm(cell, params, state, x):
    n = cell.hidden_size
    holes = [name for name, there in own_gates(cell).items() if there]
    order = [name for name in "ifgo" if name == "g" or name in holes]
    y, c, before = state
    was = {} if before is None else {name: block(before, k, n) for k, name in enumerate(holes)}

    def seen(name):
        k = order.index(name)
        return np.dot(x, block(params.w_x, k, n)) + of_state(y, params.w_h, k, n) + block(params.b, k, n)

    def gate(name, memory, squash):
        if name not in holes:
            return np.ones(n)
        k = holes.index(name)
        w_c = block(params.w_c, k, n)
        a = seen(name) + (np.dot(memory, w_c) if cell.peephole == "full" else w_c * memory)
        for j, other in enumerate(was):
            a = a + np.dot(was[other], block(params.w_g[j * n : (j + 1) * n], k, n))
        return FUNCTIONS[squash](a)

    z = FUNCTIONS[cell.candidate_activation](seen("g"))
    i = gate("i", c, cell.gate_activation)
    f = 1 - i if cell.forget_gate == "coupled" else gate("f", c, cell.gate_activation)
    c = clip(z * i + c * f, cell.cell_clip)
    o = gate("o", c, cell.output_gate_activation)
    y = FUNCTIONS[cell.output_activation](c) * o
    now = {"i": i, "f": f, "o": o}
    return type(state)(y, c, None if before is None else np.concatenate([now[name] for name in holes])), y


def own_gates(cell):
    """The gates with weights of their own."""
    return {"i": cell.input_gate, "f": cell.forget_gate is True, "o": cell.output_gate}
