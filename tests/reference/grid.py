"""Recurrence over a plane, place by place: a row from the row above."""

import numpy as np

from tests.reference import FUNCTIONS, block, sigmoid


def mdrnn(cell, params, state, x):
    """Graves et al. 2007, section 2, the two sums over the previous places written out."""
    n, row, left = cell.hidden_size, [], np.zeros(cell.hidden_size)
    for above, value in zip(state.h, x, strict=True):
        seen = np.dot(value, params.w_x) + np.dot(above, params.w_h[:n]) + np.dot(left, params.w_h[n:]) + params.b
        left = FUNCTIONS[cell.activation](seen)
        row.append(left)
    return type(state)(np.stack(row)), np.stack(row)


def mdlstm(cell, params, state, x):
    """Graves et al. 2007, section 3: a forget gate for each dimension; Leifert et al. 2016: the stable memory."""
    n = cell.hidden_size

    def peephole(k, c):
        return 0.0 if params.w_c is None else block(params.w_c, k, n) * c

    hs, cs = [np.zeros(n)], [np.zeros(n)]
    for h_above, c_above, value in zip(state.h, state.c, x, strict=True):

        def gate(k, value=value, h_above=h_above):
            recurrent = np.dot(h_above, block(params.w_h[:n], k, n)) + np.dot(hs[-1], block(params.w_h[n:], k, n))
            return np.dot(value, block(params.w_x, k, n)) + recurrent + block(params.b, k, n)

        write = sigmoid(gate(0) + peephole(0, c_above) + peephole(0, cs[-1]))
        forget_above, forget_left = sigmoid(gate(1) + peephole(1, c_above)), sigmoid(gate(2) + peephole(2, cs[-1]))
        c = forget_above * c_above + forget_left * cs[-1]
        if cell.stable:
            c = (1 - write) * c / (forget_above + forget_left)
        c = c + write * np.tanh(gate(3))
        h = sigmoid(gate(4) + peephole(3, c)) * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return type(state)(np.stack(hs[1:]), np.stack(cs[1:])), np.stack(hs[1:])


def mirrored(inner):
    """Every row from left to right and from right to left."""

    def step(cell, params, state, x):
        there, y = inner(cell.cell, params.forward, state.forward, x)
        back, z = inner(cell.cell, params.backward, state.backward, x[::-1])
        return type(state)(there, back), np.concatenate([y, z[::-1]], axis=-1)

    return step
