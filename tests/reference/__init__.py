"""The papers' equations in float64 NumPy, one row and one step at a time: the oracle for every cell.

A cell's function is `(cell, params, state, x) -> (state, y)` for one step of one example; of `cell` it reads the
options only. `unroll` runs any of them over a batch. Nothing here is fast, fused or shared with the library.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any]]


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


FUNCTIONS = {
    jnp.tanh: np.tanh,
    jax.nn.sigmoid: sigmoid,
    jax.nn.relu: lambda a: np.maximum(a, 0.0),
    jax.nn.identity: lambda a: a,
}


def block(w, i, width):
    """Block `i` of `width` columns; zero where there are no weights."""
    return 0.0 if w is None else w[..., i * width : (i + 1) * width]


def of_state(h, w, i, width):
    """`h` times block `i` of `width` columns; with several heads each head's units see those of that head."""
    if w.ndim == 2:
        return np.dot(h, block(w, i, width))
    return np.concatenate(
        [np.dot(part, block(own, i, width // len(w))) for part, own in zip(np.split(h, len(w)), w, strict=True)]
    )


def elman(cell, params, state, x):
    """Elman 1990."""
    bias = 0.0 if params.b is None else params.b
    h = FUNCTIONS[cell.activation](np.dot(x, params.w_x) + of_state(state.h, params.w_h, 0, cell.hidden_size) + bias)
    return type(state)(h), h


def lstm(cell, params, state, x):
    """Graves 2013, equations 7 to 11, without peepholes, with i, f, g, o side by side."""
    h, c = state
    n = cell.hidden_size
    gate, squash, out = (
        FUNCTIONS[f] for f in (cell.gate_activation, cell.candidate_activation, cell.output_activation)
    )

    def seen(k):
        return np.dot(x, block(params.w_x, k, n)) + of_state(h, params.w_h, k, n) + block(params.b, k, n)

    i, f, g, o = gate(seen(0)), gate(seen(1)), squash(seen(2)), gate(seen(3))
    c = f * c + i * g
    h = o * out(c)
    return type(state)(h, c), h


def clip(a, bound):
    return a if bound is None else np.minimum(np.maximum(a, -bound), bound)


def projected(inner: Step) -> Step:
    """Sak et al. 2014, section 2.2: `inner` gives m, and h is its projection."""

    def step(cell, params, state, x):
        state, m = inner(cell.cell, params.cell, state, x)
        h = m if params.w_p is None else clip(np.dot(m, params.w_p), cell.clip)
        y = h if params.w_q is None else np.concatenate([h, np.dot(m, params.w_q)])
        return state._replace(h=h), y

    return step


def gru_before(cell, params, state, x):
    """Cho et al. 2014 (third version): the reset gate acts before the recurrent product."""
    return _gru(cell, params, state, x, lambda r, h, n: of_state(r * h, params.w_n, 0, n))


def gru_after(cell, params, state, x):
    """cuDNN's and PyTorch's: the reset gate acts after the recurrent product and its bias."""
    bias = 0.0 if params.b_n is None else params.b_n
    return _gru(cell, params, state, x, lambda r, h, n: r * (of_state(h, params.w_h, 2, n) + bias))


def _gru(cell, params, state, x, recurrent_candidate):
    (h,), n = state, cell.hidden_size
    gate, squash = FUNCTIONS[cell.gate_activation], FUNCTIONS[cell.activation]
    r, z = (
        gate(np.dot(x, block(params.w_x, k, n)) + of_state(h, params.w_h, k, n) + block(params.b, k, n)) for k in (0, 1)
    )
    candidate = squash(np.dot(x, block(params.w_x, 2, n)) + block(params.b, 2, n) + recurrent_candidate(r, h, n))
    h = (1 - z) * candidate + z * h
    return type(state)(h), h


def stack(*steps: Step) -> Step:
    """The layers' functions, one above the other."""

    def step(cell, params, state, x):
        states = []
        for one, layer, p, s in zip(steps, cell.cells, params, state, strict=True):
            s, x = one(layer, p, s, x)
            states.append(s)
        return tuple(states), x

    return step


def residual(inner: Step) -> Step:
    """He et al. 2016: the input added to the output."""

    def step(cell, params, state, x):
        state, y = inner(cell.cell, params, state, x)
        return state, x + y

    return step


def unroll(step: Step, cell, params, xs, state, lengths=None, resets=None, reverse=False):
    """`step` over `xs` `[T, B, ...]`, row by row, each row over its own length and as if alone."""
    params, xs, state = (jax.tree.map(to_numpy, tree) for tree in (params, xs, state))
    steps, rows = jax.tree.leaves(xs)[0].shape[:2]
    zero = initial_state(cell)
    _, like = step(cell, params, zero, jax.tree.map(lambda x: np.zeros(x.shape[2:], x.dtype), xs))
    ys = np.zeros((steps, rows, *like.shape))
    finals = []
    for row in range(rows):
        s = jax.tree.map(lambda a, row=row: a[row], state)
        length = steps if lengths is None else int(lengths[row])
        for t in reversed(range(length)) if reverse else range(length):
            # A flag at t stands between t - 1 and t.
            flag = t + 1 if reverse else t
            if resets is not None and flag < length and resets[flag, row]:
                s = zero
            s, ys[t, row] = step(cell, params, s, jax.tree.map(lambda x, t=t, row=row: x[t, row], xs))
        finals.append(s)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *finals), ys


@functools.cache
def initial_state(cell):
    return jax.tree.map(to_numpy, cell.initial_state())


def bidirectional(forward: Step, backward: Step, cell, params, xs, state, lengths=None, resets=None, reverse=False):
    """Schuster & Paliwal 1997: two runs in opposite directions, side by side."""
    first, ys = unroll(forward, cell.forward, params.forward, xs, state.forward, lengths, resets, reverse)
    second, zs = unroll(
        backward, cell.backward or cell.forward, params.backward, xs, state.backward, lengths, resets, not reverse
    )
    merged = ys + zs if cell.merge == "sum" else np.concatenate([ys, zs], axis=-1)
    return type(state)(first, second), merged


def to_numpy(a):
    """float64 where it is real, as it is where it is integer."""
    a = np.asarray(a)
    return a.astype(np.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a
