"""Dropout of words, and predictions with dropout on."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_arrays, check_choice, check_key, check_rate, check_sizes
from jaxrnn.ops import drop
from jaxrnn.typing import Array, Key, PyTree

__all__ = ["MonteCarlo", "embedding_dropout", "monte_carlo"]


def embedding_dropout(key: Key, rate: float, tokens: Array, embedded: Array, share: tuple[str, ...] = ()) -> Array:
    """Dropout of word types: a dropped word is zero wherever it stands in its row, a kept one is scaled.

    Args:
        key: a typed key.
        rate: in [0, 1), the share of words dropped.
        tokens: `[T, *batch]` integers, the words.
        embedded: `[T, *batch, E]`, their embeddings.
        share: `("batch",)`: a word dropped in one row is dropped in all.

    Example:
        >>> tokens = jnp.array([7, 3, 7, 3, 7])[:, None]
        >>> ys = embedding_dropout(jax.random.key(1), 0.5, tokens, jnp.ones((5, 1, 2)))
        >>> bool((ys[0] == ys[2]).all() & (ys[1] == ys[3]).all())
        True

    Reference: Gal & Ghahramani 2016, section 4.2; Merity, Keskar & Socher 2017, section 4.3.
    """
    key = check_key(key)
    check_rate(rate=rate)
    for axis in share:
        check_choice(share=axis, among=("batch",))
    check_arrays(tokens=tokens, embedded=embedded)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"tokens: got the dtype {tokens.dtype}, needs integers")
    if embedded.shape[:-1] != tokens.shape:
        raise ValueError(f"embedded: got the shape {embedded.shape}, needs [*tokens.shape, E] = {(*tokens.shape, 'E')}")
    number = jnp.arange(int(np.prod(tokens.shape[1:]))) * (0 if "batch" in share else 1)
    rows = jnp.broadcast_to(number.reshape(1, *tokens.shape[1:]), tokens.shape)

    def one(row: Array, token: Array) -> Array:
        # A coin of its own for each word of each row, without a table of all words.
        return jax.random.bernoulli(jax.random.fold_in(jax.random.fold_in(key, row), token), 1 - rate)

    kept = jax.vmap(one)(rows.ravel(), tokens.ravel()).reshape(*tokens.shape, 1)
    return drop(jnp.broadcast_to(kept, embedded.shape), rate, embedded)


class MonteCarlo(NamedTuple):
    """Mean and standard deviation over the samples, pytrees like one prediction."""

    mean: PyTree
    std: PyTree


def monte_carlo(predict: Callable[[Key], PyTree], key: Key, samples: int) -> MonteCarlo:
    """Predictions of a network with its dropout on: mean and spread over draws.

    Average probabilities, not logits: `predict = lambda key: softmax(unroll(cell, params, xs, key=key)[1] @ w)`.

    Args:
        predict: key -> prediction, a pytree of real arrays.
        key: a typed key.
        samples: number of draws, computed side by side.

    Example:
        >>> import jaxrnn
        >>> found = monte_carlo(lambda key: jaxrnn.ops.dropout(key, 0.5, jnp.ones(3)), jax.random.key(0), samples=100)
        >>> found.mean.shape, bool(jnp.all(jnp.abs(found.mean - 1) < 0.5))
        ((3,), True)

    Reference: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    check_sizes(samples=samples)
    key = check_key(key)
    drawn = jax.vmap(predict)(jax.random.split(key, samples))
    return MonteCarlo(*(jax.tree.map(lambda y, f=f: f(y, axis=0), drawn) for f in (jnp.mean, jnp.std)))
