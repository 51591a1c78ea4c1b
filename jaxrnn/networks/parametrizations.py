"""Parametrizations: a cell's weights as functions of other parameters, computed once before the loop.

    WeightNorm      w = g ⊙ v / ‖v‖               every matrix, column by column
    Orthogonal      w = exp(U - Uᵀ)               one square matrix; U strictly upper triangular
    Antisymmetric   w = U - Uᵀ - γ 1              one square matrix

Each wraps a cell. A parametrization of your own derives from `Parametrized`.
"""

import abc
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_choice
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import safe_sqrt
from jaxrnn.typing import Array, DTypeLike, Key, P, Params, PyTree, S

__all__ = ["Antisymmetric", "Orthogonal", "Parametrized", "WeightNorm", "WeightNormParams"]


@dataclass(frozen=True)
class Parametrized(Wrapper[P, S]):
    """Base class for cells whose weights are computed from other parameters, once, before the loop. Abstract.

    A subclass defines `reparametrize` and `weights`.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too.

    Raises:
        TypeError: `cell` is no cell.
        ValueError: the cell has no parameters of the kind that is needed.
    """

    cell: Layer[Any, S]

    def __post_init__(self) -> None:
        super().__post_init__()
        jax.eval_shape(self.init, jax.random.key(0))

    @abc.abstractmethod
    def reparametrize(self, key: Key, params: Params) -> P:
        """Turns fresh parameters of the cell into the other parameters."""

    @abc.abstractmethod
    def weights(self, params: P) -> Params:
        """Computes the cell's parameters from the other parameters."""

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> P:
        """Returns fresh parameters; `initializers` go to the cell's `init`."""
        k_cell, k_other = jax.random.split(key)
        return self.reparametrize(k_other, self.cell.init(k_cell, dtype=dtype, **initializers))

    def restart(self, params: P, state: S, batch_shape: tuple[int, ...]) -> S:
        """Returns the state in which the cell begins."""
        return self.cell.restart(self.weights(params), state, batch_shape)

    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Runs the cell, its parameters computed once."""
        return self.cell.run(self.weights(params), xs, state, options)

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Runs one time step of the cell."""
        return self.cell.advance(self.weights(params), state, x, draw)


class WeightNormParams(NamedTuple):
    """Parameters of `WeightNorm`."""

    g: Params  # lengths of the columns [O] for every matrix, None for other leaves
    v: Params  # the cell's parameters; of a matrix, only the direction matters


@dataclass(frozen=True)
class WeightNorm(Parametrized[WeightNormParams, S]):
    """Weight normalization: parametrizes every column of every matrix by its length and its direction.

        w = g ⊙ v / ‖v‖        the norm over the inputs of each unit

    It acts on leaves with two axes, `[in, out]`. Fresh weights are those that the cell's `init`
    draws. A column of zeros has no direction and stays zero.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too.

    Raises:
        ValueError: the cell has no matrices.

    Example:
        >>> import jaxrnn
        >>> cell = WeightNorm(jaxrnn.LSTM(input_size=3, hidden_size=4))
        >>> params = cell.init(jax.random.key(0))
        >>> params.g.w_h.shape, params.v.w_h.shape
        ((16,), (4, 16))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape
        (5, 2, 4)

    Reference: Salimans & Kingma 2016, "Weight normalization".
    """

    def reparametrize(self, key: Key, params: Params) -> WeightNormParams:
        """Returns the lengths of the columns, and the parameters as they are."""
        del key
        g = jax.tree.map(lambda v: _lengths(v) if v.ndim == 2 else None, params)
        if not jax.tree.leaves(g):
            shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
            raise ValueError(f"cell: got {self.cell} with parameters of the shapes {shapes}, needs a matrix")
        return WeightNormParams(g, params)

    def weights(self, params: WeightNormParams) -> Params:
        """Returns `g ⊙ v / ‖v‖`."""
        g = iter(jax.tree.leaves(params.g))

        def one(v: Array) -> Array:
            if v.ndim != 2:
                return v
            length = _lengths(v)
            scale = next(g) / jnp.where(length == 0, jnp.ones_like(length), length)
            return v * jnp.broadcast_to(scale.astype(v.dtype), v.shape)

        return jax.tree.map(one, params.v)


def _lengths(v: Array) -> Array:
    """The norms of the columns of `[in, out]`, with a gradient of zero where they are zero."""
    return safe_sqrt(jnp.sum((v * v.conj()).real, axis=0))


@dataclass(frozen=True)
class Orthogonal(Parametrized[Any, S]):
    """Keeps a recurrent matrix orthogonal: it is the matrix exponential of an antisymmetric matrix.

        w = exp(U - Uᵀ)        U strictly upper triangular, its H (H - 1) / 2 entries are the parameters

    With the cell `ModReLU` it is the expRNN. `init` gives rotations of planes by random angles θ: block-diagonal
    A = [[0, a], [-a, 0]] with `angles="cayley"` a = -sqrt((1 - cos θ) / (1 + cos θ)), θ uniform on [0, π/2), and with
    `angles="henaff"` a = θ uniform on [-π, π).

    Args:
        cell: any cell whose parameters are a NamedTuple.
        name: name of the parameter, a square matrix.
        angles: their distribution, "cayley" (Helfrich, Willmott & Ye 2018) or "henaff" (Henaff, Szlam &
            LeCun 2016).

    Raises:
        ValueError: `angles` is neither, or the cell has no square matrix of this name.

    Example:
        >>> import jaxrnn
        >>> cell = Orthogonal(jaxrnn.ModReLU(input_size=3, hidden_size=4))
        >>> params = cell.init(jax.random.key(0))
        >>> w = cell.weights(params).w_h
        >>> params.w_h.shape, bool(jnp.allclose(w @ w.T, jnp.eye(4), atol=1e-6))
        ((6,), True)

    Reference: Lezcano-Casado & Martínez-Rubio 2019, "Cheap orthogonal constraints in neural networks: a simple
    parametrization of the orthogonal and unitary group".
    """

    name: str = "w_h"
    angles: Literal["cayley", "henaff"] = "cayley"

    def __post_init__(self) -> None:
        check_choice(angles=self.angles, among=("cayley", "henaff"))
        super().__post_init__()

    def reparametrize(self, key: Key, params: Params) -> Params:
        """Returns the cell's parameters; those of the matrix are `[H (H - 1) / 2]`."""
        n, dtype = _square(params, self.name)
        wide = np.promote_types(dtype, np.float32)
        if self.angles == "cayley":
            angles = jax.random.uniform(key, (n // 2,), wide, 0.0, np.pi / 2)
            entries = -jnp.sqrt((1 - jnp.cos(angles)) / (1 + jnp.cos(angles)))
        else:
            entries = jax.random.uniform(key, (n // 2,), wide, -np.pi, np.pi)
        first = np.arange(0, n - 1, 2)
        upper = jnp.zeros((n, n), wide).at[first, first + 1].set(entries)
        return params._replace(**{self.name: upper[np.triu_indices(n, 1)].astype(dtype)})

    def weights(self, params: Params) -> Params:
        """Returns the cell's parameters, with the matrix `exp(U - Uᵀ)`, computed in float32 or wider."""
        entries = getattr(params, self.name)
        w = _exp(_skew(entries.astype(np.promote_types(entries.dtype, np.float32))))
        return params._replace(**{self.name: w.astype(entries.dtype)})


@dataclass(frozen=True)
class Antisymmetric(Parametrized[Any, S]):
    """A recurrent matrix whose eigenvalues have the real part -γ: an antisymmetric matrix minus γ times the identity.

        w = U - Uᵀ - γ 1        U strictly upper triangular, its H (H - 1) / 2 entries are the parameters

    With the cell `Euler` it is the AntisymmetricRNN. `init` draws the entries from N(0, 1 / H).

    Args:
        cell: any cell whose parameters are a NamedTuple.
        name: name of the parameter, a square matrix.
        diffusion: γ, damping that counters the growth caused by steps of finite size.

    Raises:
        ValueError: the cell has no square matrix of this name.

    Example:
        >>> import jaxrnn
        >>> cell = Antisymmetric(jaxrnn.Euler(input_size=3, hidden_size=4))
        >>> w = cell.weights(cell.init(jax.random.key(0))).w_h
        >>> bool(jnp.allclose(w + w.T, -0.02 * jnp.eye(4)))
        True

    Reference: Chang, Chen, Haber & Chi 2019, "AntisymmetricRNN: a dynamical system view on recurrent neural networks".
    """

    name: str = "w_h"
    diffusion: float = 0.01

    def reparametrize(self, key: Key, params: Params) -> Params:
        """Returns the cell's parameters; those of the matrix are `[H (H - 1) / 2]`."""
        n, dtype = _square(params, self.name)
        entries = jax.random.normal(key, (n * (n - 1) // 2,), dtype) / n**0.5
        return params._replace(**{self.name: entries})

    def weights(self, params: Params) -> Params:
        """Returns the cell's parameters, with the matrix `U - Uᵀ - γ 1`."""
        skew = _skew(getattr(params, self.name))
        return params._replace(**{self.name: skew - self.diffusion * jnp.eye(len(skew), dtype=skew.dtype)})


def _square(params: Params, name: str) -> tuple[int, Any]:
    """Size and dtype of the square matrix `name` among `params`."""
    w = getattr(params, name, None)
    if w is None or w.ndim != 2 or w.shape[0] != w.shape[1]:
        got = "there is none of this name" if w is None else f"this is of the shape {w.shape}"
        raise ValueError(f"name: got {name!r}, needs a parameter of the cell that is a square matrix; {got}")
    return w.shape[0], w.dtype


SQUARINGS = 16
"""Squarings of `_exp` at most, enough for a norm of 50 000."""


@jax.jit  # outside of a program of the user's its loop would be compiled anew at each call
def _exp(a: Array) -> Array:
    """The exponential of an antisymmetric matrix `[n, n]`: Taylor's polynomial of `a / 2^s`, squared s times.

    Made of matrix products alone, as `initializers.orthogonal` is: `jax.scipy.linalg.expm` solves by LAPACK, which can
    wait forever on the CPU where a program has several calls under `vmap`. The degree is 16, and the norm of `a / 2^s`
    at most 0.8 in float64 and 2 in float32, so the remainder is below the rounding. NaN where 16 squarings are not
    enough.
    """
    one = jnp.eye(len(a), dtype=a.dtype)

    with jax.default_matmul_precision("highest"):
        squared = a @ a
        norm = safe_sqrt(jnp.max(jnp.sum(jnp.abs(squared), axis=0)))  # at least the spectral norm of a
        squarings = jnp.ceil(jnp.log2(jnp.maximum(norm / (0.8 if a.dtype == jnp.float64 else 2.0), 1)))
        scale = jnp.exp2(-squarings)
        powers = [one, scale * a, scale**2 * squared]
        powers += [powers[1] @ powers[2], powers[2] @ powers[2]]
        terms = [1.0 / math.factorial(k) for k in range(17)]

        def part(first: int) -> Array:  # Paterson & Stockmeyer 1973: one product for four terms
            return sum((terms[first + k] * powers[k] for k in range(1, 4)), terms[first] * powers[0])

        w = part(12) + terms[16] * powers[4]
        for first in (8, 4, 0):
            w = part(first) + w @ powers[4]

        def square(w: Array, number: Array) -> tuple[Array, None]:
            return jax.lax.cond(number < squarings, lambda w: w @ w, lambda w: w, w), None

        w, _ = jax.lax.scan(square, w, jnp.arange(SQUARINGS, dtype=a.dtype))
    return jnp.where(squarings <= SQUARINGS, w, jnp.nan)


def _skew(entries: Array) -> Array:
    """`U - Uᵀ` `[n, n]` from the entries above the diagonal, row by row, `[n (n - 1) / 2]`."""
    n = round((1 + (1 + 8 * len(entries)) ** 0.5) / 2)
    upper = jnp.zeros((n, n), entries.dtype).at[np.triu_indices(n, 1)].set(entries)
    return upper - upper.T
