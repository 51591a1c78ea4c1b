"""What equations are written with: products, gates, biases, selects, casts, complex numbers as pairs of reals."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxrnn.checks import check_arrays, check_key, check_rate
from jaxrnn.typing import Array, DTypeLike, Key, PyTree

__all__ = [
    "AllUnits",
    "add",
    "add_bias",
    "affine",
    "blockwise",
    "cast",
    "complex_dtype",
    "dot",
    "drop",
    "dropout",
    "follow",
    "gates",
    "join_heads",
    "keep",
    "look_up",
    "recurrent",
    "repeat_like",
    "safe_sqrt",
    "select",
    "split_heads",
    "spread_like",
    "to_complex",
    "to_real",
    "weigh",
    "wide",
]


def dot(h: Array, w: "Array | AllUnits") -> Array:
    """Returns `h @ w`, computed in the dtype of the weight: `[*batch, H] x [H, O] -> [*batch, O]`.

    So a float32 state meets bfloat16 weights in a bfloat16 product, and keeps its own precision outside of it. In mixed
    precision, parameters and inputs are cast together (`cast`).
    """
    if isinstance(w, AllUnits):
        if jax.typeof(h).sharding.mesh.empty:
            raise ValueError(f"w: got the units of all devices of {w.axis!r}, needs to be in a `jax.shard_map`")
        h = lax.all_gather(h.astype(w.dtype), w.axis, axis=h.ndim - 1, tiled=True)
        return jnp.matmul(h, w.columns)
    return jnp.matmul(h.astype(w.dtype), w)


class AllUnits(NamedTuple):
    """A weight that sees the units of all devices: `dot` gathers its operand over a mesh axis of `jax.shard_map`."""

    columns: Array  # [H, O], of all units, for the outputs of one device
    axis: str

    @property
    def dtype(self) -> Any:
        """Dtype of the weight."""
        return self.columns.dtype


def recurrent(h: Array, w: "Array | AllUnits", n: int) -> tuple[Array, ...]:
    """Returns the `n` gates of `h @ w`, a tuple: `[*batch, R] -> n x [*batch, H]`.

    A weight `[R, nH]` is dense. A weight `[heads, R / heads, nH / heads]` is block-diagonal: the units of each gate see
    those of their own head only.
    """
    if isinstance(w, AllUnits) or w.ndim == 2:
        return gates(dot(h, w), n)
    heads = (gates(z, n) for z in blockwise(gates(h, len(w)), w))
    return tuple(jnp.concatenate(gate, axis=-1) for gate in zip(*heads, strict=True))


def blockwise(parts: tuple[Array, ...], w: Array) -> tuple[Array, ...]:
    """Multiplies each of N parts by its own matrix: N x `[*batch, K]` by `[N, K, O]` gives N x `[*batch, O]`.

    One batched product, but on the CPU, where XLA takes twice as long for it and its derivatives, N of them.
    """
    if jax.default_backend() == "cpu":
        return tuple(dot(part, w[i]) for i, part in enumerate(parts))
    z = jnp.einsum("...ki,kio->...ko", jnp.stack(parts, axis=-2).astype(w.dtype), w)
    return tuple(z[..., i, :] for i in range(len(parts)))


def affine(x: Array, w: Array, b: Array | None) -> Array:
    """Returns `x @ w + b` over any leading axes; no bias where `b` is None."""
    return add_bias(jnp.matmul(x, w), b)


def add_bias(z: Array, b: Array | None) -> Array:
    """Returns `z + b` over any leading axes; `z` where `b` is None."""
    return z if b is None else z + _rank_of(z, b)


def weigh(h: Array, w: Array) -> Array:
    """Returns `h ⊙ w`, a diagonal product over any leading axes."""
    return h * _rank_of(h, w)


def _rank_of(h: Array, w: Array) -> Array:
    """`w` with axes of length one in front. The gradient of its copies would be gathered from all devices."""
    return jnp.expand_dims(w, tuple(range(h.ndim - w.ndim)))


def gates(z: Array, n: int) -> tuple[Array, ...]:
    """Splits the last axis into `n` equal blocks, a tuple: `[*batch, n * H] -> n x [*batch, H]`."""
    return tuple(jnp.split(z, n, axis=-1))


def split_heads(x: Array, heads: int) -> Array:
    """Returns `x` head by head: `[..., heads * n] -> [..., heads, n]`."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def join_heads(x: Array) -> Array:
    """Returns the heads side by side: `[..., heads, n] -> [..., heads * n]`."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def add(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    """Adds two tuples of gates, gate by gate."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def safe_sqrt(z: Array) -> Array:
    """Returns `√z` of real numbers z ≥ 0; the derivative at zero, where the root has none, is zero."""
    some = z > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, z, jnp.ones_like(z))), jnp.zeros_like(z))


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Returns `tree` with its real leaves in `dtype`; integers and complex numbers stay as they are.

    The computation's dtype is that of the parameters and inputs a call is given. Mixed precision is a cast at the call,
    so that gradients arrive in the dtype of the stored parameters:

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.LSTM(3, 4)
        >>> params = cell.init(jax.random.key(0))                       # float32
        >>> xs = jnp.ones((5, 2, 3), jnp.bfloat16)
        >>> state, ys = jaxrnn.unroll(cell, jaxrnn.cast(params, jnp.bfloat16), xs)
        >>> ys.dtype, state.c.dtype
        (dtype(bfloat16), dtype('float32'))
    """

    def one(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        # A leaf that has the dtype stays the same object: `recurrence` sees by it that an output is part of the state.
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != dtype else leaf

    return jax.tree.map(one, tree)


def select(flags: Array, a: Array, b: Array) -> Array:
    """Chooses between arrays `[*leading, ...]` by flags `[*leading]`, as `where` does."""
    a, b = spread_like(a, flags), spread_like(b, flags)
    flags = flags.reshape(flags.shape + (1,) * (a.ndim - flags.ndim))
    return jnp.where(repeat_like(flags, a), a, b)


def keep(valid: Array, xs: PyTree) -> PyTree:
    """Returns `xs` where `valid` `[*leading]`, else zero, for leaves `[*leading, ...]`; NaN in the rest stays there."""
    return jax.tree.map(lambda x: select(valid, x, jnp.zeros_like(x)), xs)


def dropout(key: Key, rate: float, xs: PyTree, broadcast: tuple[int, ...] = ()) -> PyTree:
    """Drops values of `xs` at `rate` and scales the kept ones by `1 / (1 - rate)`.

    Args:
        key: a typed key.
        rate: in [0, 1).
        xs: leaves of any shape.
        broadcast: axes that share their masks: `(0,)` over `[T, *batch, H]` is locked dropout, one mask a sequence.

    Raises:
        TypeError: `key` is not a typed key.
        ValueError: a rate outside of [0, 1), or an axis that a leaf does not have.

    Example:
        >>> ys = dropout(jax.random.key(0), 0.5, jnp.ones((5, 2, 4)), broadcast=(0,))
        >>> bool((ys == ys[:1]).all()), sorted(set(ys.ravel().tolist()))
        (True, [0.0, 2.0])
    """
    key = check_key(key)
    check_rate(rate=rate)
    keys = iter(jax.random.split(key, len(jax.tree.leaves(xs))))

    def one(x: Array) -> Array:
        check_arrays(xs=x)
        x = jnp.asarray(x)
        if not all(-x.ndim <= axis < x.ndim for axis in broadcast):
            raise ValueError(f"broadcast: got {broadcast}, needs axes of the shape {x.shape}")
        shape = tuple(1 if axis in broadcast or axis - x.ndim in broadcast else n for axis, n in enumerate(x.shape))
        return drop(jnp.broadcast_to(jax.random.bernoulli(next(keys), 1 - rate, shape), x.shape), rate, x)

    return jax.tree.map(one, xs)


def drop(kept: Array, rate: float, x: Array) -> Array:
    """Returns `x / (1 - rate)` where `kept`, else zero."""
    return jnp.where(spread_like(kept, x), x / (1 - rate), jnp.zeros_like(x))


def spread_like(a: Array, like: Array) -> Array:
    """Returns `a` `[*leading, ...]` spread over the devices of a mesh as `like` `[*leading, ...]` is.

    Under `jax.shard_map` and on meshes with explicit axes this is a part of an array's type, and a fresh array does not
    mix with one made of the inputs.
    """
    if jax.typeof(like).sharding.mesh.empty:
        return a
    nothing = like.astype(bool) & False  # no value passes, not even a NaN
    nothing = jnp.any(nothing, axis=tuple(range(a.ndim, like.ndim)))
    nothing = nothing.reshape(nothing.shape + (1,) * (a.ndim - nothing.ndim))
    return a | nothing if a.dtype == bool else a + nothing.astype(a.dtype)


def repeat_like(w: Array, like: Array) -> Array:
    """Returns `w` broadcast to the shape of `like`, on a mesh with explicit axes spread over devices as `like` is."""
    return jnp.broadcast_to(w, like.shape, out_sharding=_explicit_sharding(like))


def look_up(table: Array, at: Array, mode: str | None = None) -> Array:
    """Returns the rows `at` `[*leading]` of a table `[N, ...]`: `[*leading, ...]`, spread over devices as `at` is.

    Numbers below zero do not count from the end.
    """
    sharding = _explicit_sharding(at)
    if sharding is not None:
        spec = PartitionSpec(*sharding.spec, *(None for _ in table.shape[1:]))
        sharding = NamedSharding(sharding.mesh, spec)
    return jnp.asarray(table).at[at].get(mode=mode, wrap_negative_indices=False, out_sharding=sharding)


def _explicit_sharding(a: Array) -> NamedSharding | None:
    """How an array is spread over the explicit axes of a mesh; None: not at all."""
    sharding = jax.typeof(a).sharding
    return sharding if any(axes is not None for axes in sharding.spec) else None


def follow(new: PyTree, changed: PyTree, output: PyTree) -> PyTree:
    """Returns `output` with each leaf that is a leaf of `new` replaced by that of `changed`."""
    same = {id(n): c for n, c in zip(jax.tree.leaves(new), jax.tree.leaves(changed), strict=True)}
    return jax.tree.map(lambda leaf: same.get(id(leaf), leaf), output)


def complex_dtype(dtype: DTypeLike) -> Any:
    """Returns complex64, or complex128 for a dtype of double precision."""
    return np.dtype(np.complex128 if jnp.finfo(dtype).bits == 64 else np.complex64)


def wide(z: Array) -> Array:
    """Returns `z` in float32 or wider, where complex numbers begin."""
    return z.astype(np.promote_types(z.dtype, np.float32))


def to_complex(z: Array) -> Array:
    """Converts the blocks Re, Im to complex numbers: `[*batch, 2N] -> [*batch, N]`."""
    return lax.complex(*gates(wide(z), 2))


def to_real(z: Array) -> Array:
    """Converts complex numbers to the blocks Re, Im: `[*batch, N] -> [*batch, 2N]`."""
    return jnp.concatenate([z.real, z.imag], axis=-1)
