"""Where a row starts: states that are zero, constant, learned or noisy, and states that are carried over calls.

zero        `state=None`, or `cell.initial_state(batch_shape)`
constant    `unroll(..., state=constant_state(...))`
learned     `LearnedState(cell)`, or an argument `state` that is differentiated
noisy       `noisy_state(key, std, state)`
carried     the state that a call gives is an argument of the next; `remember` says in which phase
"""

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_arrays, check_bools, check_choice, check_key
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Array, DTypeLike, Key, State

__all__ = ["constant_state", "noisy_state", "remember"]


def constant_state(
    cell: Layer, value: float, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32
) -> State:
    """Returns a state of the cell with `value` in all of its real leaves.

    Example:
        >>> import jaxrnn
        >>> constant_state(jaxrnn.GRU(3, 2), 0.5, (1,)).h.tolist()
        [[0.5, 0.5]]
    """
    check_layer(cell)
    check_arrays(value=value)
    zero = cell.initial_state(batch_shape, dtype)
    return jax.tree.map(lambda s: jnp.full_like(s, value) if jnp.issubdtype(s.dtype, jnp.inexact) else s, zero)


def noisy_state(key: Key, std: float, state: State) -> State:
    """Returns `state + std ε` in its real and complex leaves; Cooijmans et al. 2016 take 0.1 before normalized steps.

    Example:
        >>> import jaxrnn
        >>> zero = jaxrnn.GRU(3, 4).initial_state((2,))
        >>> bool((noisy_state(jax.random.key(0), 0.1, zero).h != zero.h).all())
        True
    """
    key = check_key(key)
    check_arrays(std=std)
    keys = iter(jax.random.split(key, len(jax.tree.leaves(state))))

    def one(leaf: Array) -> Array:
        check_arrays(state=leaf)
        k, leaf = next(keys), jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        return leaf + std * jax.random.normal(k, leaf.shape, leaf.dtype)

    return jax.tree.map(one, state)


def remember(mode: str, training: bool, state: State) -> State | None:
    """Returns what the next call starts from: the state of the last one, as a constant, or None for a fresh start.

    Only values cross a call, no gradients do: truncated backpropagation with windows of the calls' length. Between
    training and evaluation, start from None, as Element-Research/rnn does.

    Args:
        mode: in which phase states are kept: "both", "train", "eval" or "neither".
        training: whether the next call is one of training.
        state: from the last call.

    Example:
        >>> import jaxrnn
        >>> cell, xs = jaxrnn.GRU(3, 4), jnp.ones((5, 2, 3))
        >>> params, state = cell.init(jax.random.key(0)), None
        >>> for _ in range(2):
        ...     state, ys = jaxrnn.unroll(cell, params, xs, remember("eval", training=False, state=state))

    Reference: Element-Research/rnn, `AbstractSequencer.remember`.
    """
    check_choice(mode=mode, among=("both", "train", "eval", "neither"))
    check_bools(training=training)
    if mode not in ("both", "train" if training else "eval"):
        return None
    return jax.tree.map(jax.lax.stop_gradient, state)
