"""Initializers of recurrent weights and biases, each seeing one gate's block at a time.

A fused matrix is initialized block by block (`blocks`), so that an orthogonal recurrent matrix is orthogonal in every
gate and the scale of a block does not depend on how many gates stand beside it.
"""

import functools
import math
from collections.abc import Sequence

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
    key: Key, initializer: Initializer, shape: tuple[int, int], n: int, dtype: DTypeLike, heads: int = 1
) -> Array:
    """Draws `n` independent blocks of `shape` `[in, out]` and sets them side by side: `[in, n * out]`.

    With several heads the blocks of each are independent too: `[heads, in / heads, n * out / heads]`.

    Example:
        >>> w = blocks(jax.random.key(0), orthogonal(), (4, 4), 3, jnp.float32)
        >>> w.shape
        (4, 12)
        >>> bool(jnp.allclose(w[:, 4:8].T @ w[:, 4:8], jnp.eye(4), atol=1e-5))
        True
    """
    if heads > 1:
        part = shape[0] // heads, shape[1] // heads
        return jnp.stack([blocks(k, initializer, part, n, dtype) for k in jax.random.split(key, heads)])
    return jnp.concatenate([initializer(k, shape, dtype) for k in jax.random.split(key, n)], axis=1)


def identity(scale: float = 1.0) -> Initializer:
    """Returns an initializer that gives `scale` times the identity: with `Elman(activation=jax.nn.relu)` the IRNN.

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
    """Returns an initializer that draws `scale` times an orthogonal matrix, uniform over all (Haar's measure).

    Of a matrix `[in, out]` that is not square, the shorter side is orthonormal; of more axes, all but the last are in.
    Made of matrix products alone: LAPACK's QR decomposition, which `jax.nn.initializers.orthogonal` calls, can wait for
    ever on the CPU where a program has several under `vmap`, and for seconds on a machine with other work.

    Raises:
        ValueError: (when it is called) a shape of fewer than two axes.

    Reference: Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning"; Stewart 1980,
    "The efficient generation of random orthogonal matrices with an application to condition estimators".

    Example:
        >>> w = orthogonal()(jax.random.key(0), (3, 3), jnp.float32)
        >>> bool(jnp.allclose(w @ w.T, jnp.eye(3), atol=1e-6))
        True
    """

    def init(key: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        if len(shape) < 2:
            raise ValueError(f"shape: got {tuple(shape)}, needs [in, out]")
        *inputs, columns = shape
        rows = math.prod(inputs)
        q = _orthonormal(key, max(rows, columns), min(rows, columns), np.promote_types(dtype, np.float32))
        return (scale * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)

    return init


PANEL = 16  # reflections that are applied at once


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _orthonormal(key: Key, n: int, m: int, dtype: np.dtype) -> Array:
    """`[n, m]`, n ≥ m: the Q of a QR decomposition of a matrix of normal entries, with the signs that R's diagonal has.

        Q = H_1 ... H_m D,    H_k = 1 - v_k v_kᵀ,    v_k = √2 (x_k + s_k |x_k| e_k) / |x_k + s_k |x_k| e_k|

    where x_k is normal in its entries k..n and zero before, s_k is the sign of its first one, and D = diag(-s_k). A
    panel of reflections is `1 - V (1 + U)⁻¹ Vᵀ`, where U is what stands above the diagonal of VᵀV.
    """
    x = jnp.tril(jax.random.normal(key, (n, m), dtype))
    sign = jnp.where(jnp.diagonal(x) >= 0, 1, -1).astype(dtype)[None]
    length = jnp.linalg.norm(x, axis=0, keepdims=True)
    v = x + sign * length * jnp.eye(n, m, dtype=dtype)
    v = v * jnp.sqrt(2 / jnp.sum(v * v, axis=0, keepdims=True))
    panels = jnp.pad(v, ((0, 0), (0, -m % PANEL))).T.reshape(-1, PANEL, n)
    one = jnp.eye(PANEL, dtype=dtype)

    def reflect(q: Array, v: Array) -> tuple[Array, None]:
        u = one + jnp.triu(v @ v.T, 1)
        # Newton's iteration, from the first step after 1. The error `1 - inverse u` is squared each time, and its power
        # PANEL is zero.
        inverse = jax.lax.fori_loop(2, PANEL.bit_length(), lambda _, a: 2 * a - a @ u @ a, 2 * one - u)
        return q - v.T @ (inverse @ (v @ q)), None

    with jax.default_matmul_precision("highest"):
        identity = jnp.eye(n, m, dtype=dtype) + 0 * x[:1, :1]  # in `jax.shard_map` it varies as the panels do
        q, _ = jax.lax.scan(reflect, identity, panels, reverse=True)
    return -sign * q


def uniform(bound: float) -> Initializer:
    """Returns an initializer that draws uniformly from `[-bound, bound)`.

    PyTorch's recurrent layers use `bound = 1 / sqrt(hidden_size)` for every parameter.

    Example:
        >>> w = uniform(1 / 4**0.5)(jax.random.key(0), (3, 4), jnp.float32)
        >>> bool(jnp.all(jnp.abs(w) <= 0.5))
        True
    """

    def init(key: Key, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def chrono(max_time: float) -> Initializer:
    """Returns a bias initializer whose forgetting times are spread over `[2, max_time)` time steps.

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
