"""DropConnect and Gaussian noise on weights, with one draw for all steps and rows of a call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_at_least, check_rate
from jaxrnn.engine.noise import Draw, KeptWeights, NormalWeights, nothing
from jaxrnn.engine.options import Options
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import drop, dropout
from jaxrnn.typing import Array, Key, P, PyTree, S

__all__ = ["WeightDrop", "WeightNoise"]


def _check_names(cell: Any, names: Any) -> None:
    if not isinstance(names, tuple):
        raise TypeError(f"names: got {names!r}, needs a tuple of names of parameters")
    spec = jax.eval_shape(cell.init, jax.random.key(0))
    among = {_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(spec)}
    if unknown := sorted(set(names) - among):
        raise ValueError(f"names: got {unknown}, the parameters are {sorted(among)}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path[-1:], simple=True)


def _perturb(params: P, names: tuple[str, ...] | None, noise: Callable[[int, Array], Array]) -> P:
    """Returns `params` with `noise(number, leaf)` for the real and complex leaves of these names; None: of all."""
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    leaves = [
        noise(i, leaf)
        if (names is None or _name(path) in names) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        else leaf
        for i, (path, leaf) in enumerate(paths)
    ]
    return jax.tree.unflatten(tree, leaves)


def _perturb_run(
    params: P, names: tuple[str, ...] | None, options: Options, noise: Callable[[Key, Array], Array]
) -> tuple[P, Options]:
    """Returns what the cell runs with: `params` with `noise(key, leaf)`, if there is a key, and the options."""
    if options.key is None:
        return params, options
    key, inner = jax.random.split(options.key)
    keys = jax.random.split(key, len(jax.tree.leaves(params)))
    return _perturb(params, names, lambda i, w: noise(keys[i], w)), options._replace(key=inner)


@dataclass(frozen=True)
class WeightDrop(Wrapper[P, S]):
    """DropConnect: drops entries of recurrent weights, the same entries at all steps and for all rows of a call.

    An `unroll` without a `key` drops nothing.

    Args:
        cell: any cell, a `Stack` too.
        rate: at which entries are dropped; the kept ones are scaled by `1 / (1 - rate)`.
        names: names of the parameters, the last part of their paths: `("w_h", "w_n")` for a GRU with
            `reset="before"`.

    Raises:
        ValueError: a rate outside of [0, 1), or a name that no parameter has.

    Example:
        >>> import jaxrnn
        >>> cell = WeightDrop(jaxrnn.LSTM(3, 4), 0.5)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Wan et al. 2013, "Regularization of neural networks using DropConnect"; Merity, Keskar & Socher 2017,
    "Regularizing and optimizing LSTM language models".
    """

    rate: float
    names: tuple[str, ...] = ("w_h",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(rate=self.rate)
        _check_names(self.cell, self.names)

    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Drops entries of the parameters and runs the cell."""
        params, options = _perturb_run(params, self.names, options, lambda key, w: dropout(key, self.rate, w))
        return self.cell.run(params, xs, state, options)

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Drops entries of the parameters and runs one time step of the cell."""

        def one(i: int, w: Array) -> Array:
            kept = draw(KeptWeights(self.rate, w.shape))
            return w if kept is None else drop(kept, self.rate, w)

        return self.cell.advance(_perturb(params, self.names, one), state, x, draw)


@dataclass(frozen=True)
class WeightNoise(Wrapper[P, S]):
    """Gaussian noise on weights: `w + std ε`, with one ε for all steps and rows of a call.

    An `unroll` without a `key` adds none.

    Args:
        cell: any cell, a `Stack` too.
        std: of the noise; Chung et al. 2014 take 0.075.
        names: names of the parameters, the last part of their paths; None: all.

    Raises:
        ValueError: a negative `std`, or a name that no parameter has.

    Example:
        >>> import jaxrnn
        >>> cell = WeightNoise(jaxrnn.LSTM(3, 4), 0.075)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Graves 2011, "Practical variational inference for neural networks".
    """

    std: float
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, std=self.std)
        if self.names is not None:
            _check_names(self.cell, self.names)

    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Runs the cell with noise on its parameters."""

        def noisy(key: Key, w: Array) -> Array:
            return w + self.std * jax.random.normal(key, w.shape, w.dtype)

        params, options = _perturb_run(params, self.names, options, noisy)
        return self.cell.run(params, xs, state, options)

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Runs one time step of the cell with noise on its parameters."""

        def one(i: int, w: Array) -> Array:
            noise = draw(NormalWeights(w.shape, w.dtype))
            return w if noise is None else w + self.std * noise

        return self.cell.advance(_perturb(params, self.names, one), state, x, draw)
