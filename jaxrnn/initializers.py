"""Initializers of recurrent weights and biases, each seeing one gate's block at a time.

A fused matrix is initialized block by block (`blocks`), so that an orthogonal recurrent matrix is orthogonal in every
gate and the scale of a block does not depend on how many gates stand beside it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import glorot_uniform, lecun_normal, zeros

from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = [
    "blocks",
    "chrono",
    "glorot_uniform",
    "identity",
    "lecun_normal",
    "orthogonal",
    "uniform",
    "zeros",
]


def blocks(
    initializer: Initializer, key: Key, shape: tuple[int, int], n: int, dtype: DTypeLike, heads: int = 1
) -> Array:
    """`n` independent blocks of `shape` `[in, out]`, side by side: `[in, n * out]`.

    With several heads the blocks of each are independent too: `[heads, in / heads, n * out / heads]`.

    Example:
        >>> w = blocks(orthogonal(), jax.random.key(0), (4, 4), 3, jnp.float32)
        >>> w.shape
        (4, 12)
        >>> bool(jnp.allclose(w[:, 4:8].T @ w[:, 4:8], jnp.eye(4), atol=1e-5))
        True
    """
    if heads > 1:
        part = shape[0] // heads, shape[1] // heads
        return jnp.stack([blocks(initializer, k, part, n, dtype) for k in jax.random.split(key, heads)])
    return jnp.concatenate([initializer(k, shape, dtype) for k in jax.random.split(key, n)], axis=1)


def identity(scale: float = 1.0) -> Initializer:
    """`scale` times the identity: with `Elman(activation=jax.nn.relu)` the IRNN.

    Reference: Le, Jaitly & Hinton 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units".

    Example:
        >>> identity(0.5)(jax.random.key(0), (2, 2), jnp.float32).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """

    def init(key: Key, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
        del key
        return scale * jnp.eye(*shape, dtype=dtype)

    return init


def orthogonal(scale: float = 1.0) -> Initializer:
    """`scale` times a random orthogonal matrix; of a `[in, out]` that is not square, the shorter side is orthonormal.

    Reference: Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning".

    Example:
        >>> w = orthogonal()(jax.random.key(0), (3, 3), jnp.float32)
        >>> bool(jnp.allclose(w @ w.T, jnp.eye(3), atol=1e-6))
        True
    """
    draw = jax.nn.initializers.orthogonal(scale)

    def init(key: Key, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
        # The QR decomposition behind it does not exist in half precision.
        return draw(key, shape, np.promote_types(dtype, np.float32)).astype(dtype)

    return init


def uniform(bound: float) -> Initializer:
    """Uniform on `[-bound, bound)`; PyTorch's recurrent layers use `bound = 1 / sqrt(hidden_size)` for every parameter.

    Example:
        >>> w = uniform(1 / 4**0.5)(jax.random.key(0), (3, 4), jnp.float32)
        >>> bool(jnp.all(jnp.abs(w) <= 0.5))
        True
    """

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def chrono(max_time: float) -> Initializer:
    """A bias initializer for dependencies of up to `max_time` steps: forgetting times are spread over `[1, max_time)`.

        LSTM:  b_f = log(u),  b_i = -b_f,  u ~ U[1, max_time - 1)      GRU:  b_z = log(u)

    A bias initializer sees the gates as rows, `[4, H]` (i, f, g, o) or `[3, H]` (r, z, n). For the LSTM it takes the
    place of the forget bias: `cell.init(key, bias_init=chrono(784), forget_bias=0.0)`.

    Raises:
        ValueError: `max_time` is not greater than 2.

    Reference: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", section 3.

    Example:
        >>> b = chrono(100.0)(jax.random.key(0), (4, 8), jnp.float32)
        >>> bool(jnp.all(b[0] == -b[1]) & jnp.all(b[1] < jnp.log(99.0)))
        True
    """
    if not max_time > 2:
        raise ValueError(f"max_time: got {max_time}, needs a number of steps greater than 2")

    def init(key: Key, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
        n, size = shape
        b = jnp.log(jax.random.uniform(key, (size,), dtype, 1.0, max_time - 1.0))
        rows = {4: [-b, b, 0 * b, 0 * b], 3: [0 * b, b, 0 * b]}
        if n not in rows:
            raise ValueError(f"shape: got {shape}, needs [4, H] for gates i, f, g, o or [3, H] for gates r, z, n")
        return jnp.stack(rows[n])

    return init
