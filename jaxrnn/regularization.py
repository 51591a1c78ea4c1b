"""Regularizers: cells around cells, all that is random in them drawn once before the loop.

    Dropout             the input, by masks that may be one for all steps (locked, variational)
    RecurrentDropout    the left operand of every recurrent product (Gal & Ghahramani)
    CandidateDropout    the candidate only (Semeniuta et al.)
    Zoneout             units that keep their old state (Krueger et al.)
    WeightDrop          recurrent weights (DropConnect; Merity et al.)
    WeightNoise         Gaussian noise on weights

Without a `key`, `unroll` gives the deterministic network: nothing dropped, and of zoneout the expected state. A key is
used up by one call: the same key draws the same masks.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from jaxrnn.cell import cast
from jaxrnn.checks import check_at_least, check_choice, check_input, check_key, check_rate, check_sizes
from jaxrnn.jaxprs import bind, evaluate, is_matrix_product
from jaxrnn.rows import Walk
from jaxrnn.typing import Array, Key, Params, PyTree, State
from jaxrnn.wrapper import Draw, Kept, StepWrapper, Wrapper

__all__ = [
    "CandidateDropout",
    "Dropout",
    "MonteCarlo",
    "RecurrentDropout",
    "WeightDrop",
    "WeightNoise",
    "Zoneout",
    "dropout",
    "embedding_dropout",
    "monte_carlo",
]


def dropout(key: Key, rate: float, xs: PyTree, broadcast: tuple[int, ...] = ()) -> PyTree:
    """`xs` with values dropped at `rate`, and the kept ones scaled by `1 / (1 - rate)`.

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
    check_key(key)
    check_rate(rate=rate)
    keys = iter(jax.random.split(key, len(jax.tree.leaves(xs))))

    def one(x: Array) -> Array:
        if not all(-x.ndim <= axis < x.ndim for axis in broadcast):
            raise ValueError(f"broadcast: got {broadcast}, needs axes of the shape {x.shape}")
        shape = tuple(1 if axis in broadcast or axis - x.ndim in broadcast else n for axis, n in enumerate(x.shape))
        return _drop(jnp.broadcast_to(jax.random.bernoulli(next(keys), 1 - rate, shape), x.shape), rate, x)

    return jax.tree.map(one, xs)


def _drop(kept: Array, rate: float, x: Array) -> Array:
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


def _check_share(share: Any) -> None:
    if not isinstance(share, tuple):
        raise TypeError(f"share: got {share!r}, needs a tuple of 'time' and 'batch'")
    for axis in share:
        check_choice(share=axis, among=("time", "batch"))


@dataclass(frozen=True)
class Dropout(Wrapper):
    """Dropout on the input of a cell: `d ⊙ x / (1 - rate)`.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too.
        rate: at which inputs are dropped.
        share: axes with one mask for all, of "time" (locked or variational dropout: a row keeps its mask for the whole
            call) and "batch".

    Raises:
        ValueError: a rate outside of [0, 1), another axis, or a cell whose input is not real.

    Example:
        >>> import jaxrnn
        >>> layers = jaxrnn.LSTM(3, 4), Dropout(jaxrnn.LSTM(4, 4), 0.3, share=("time",))
        >>> net = jaxrnn.Stack(layers)
        >>> params = net.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Srivastava et al. 2014, "Dropout"; between recurrent layers: Zaremba et al. 2014; one mask a sequence:
    Gal & Ghahramani 2016.
    """

    rate: float
    share: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(rate=self.rate)
        _check_share(self.share)
        if not all(jnp.issubdtype(s.dtype, jnp.inexact) for s in jax.tree.leaves(self.input_spec)):
            raise ValueError(f"cell: got {self.cell}, whose input is not real, needs one to drop from")

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """The cell over inputs of which some are dropped."""
        if how.key is not None:
            leading = check_input(self, xs, "xs", time=True)
            axes = {"time": (0,), "batch": tuple(range(1, len(leading)))}
            key, inner = jax.random.split(how.key)
            xs = dropout(key, self.rate, xs, sum((axes[s] for s in self.share), ()))
            how = how._replace(key=inner)
        return self.cell.walk(params, xs, state, how)


@dataclass(frozen=True)
class RecurrentDropout(StepWrapper):
    """Dropout on what the recurrent products see: `(d ⊙ h / (1 - rate)) W_h`, in any cell.

    Every product of the step between a parameter and something of the state has a mask on the latter: `h` in an LSTM,
    both `h` and `r ⊙ h` in a GRU whose reset gate acts before, the unprojected `h` of a projection too. Products stay
    as many as they were.

    Args:
        cell: any cell that is walked step by step.
        rate: at which operands are dropped.
        tied: one mask for all products of operands of a shape, and all gates in them; False: one for every product and
            every gate (block of `hidden_size` columns).
        share: axes with one mask for all, of "time" (a row keeps its masks for the whole call) and "batch".

    Raises:
        ValueError: a rate outside of [0, 1) or another axis; when run, a cell that has no such product.

    Example:
        >>> import jaxrnn
        >>> cell = RecurrentDropout(jaxrnn.LSTM(3, 4), 0.25, tied=False)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    rate: float
    tied: bool = True
    share: tuple[str, ...] = ("time",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(rate=self.rate)
        _check_share(self.share)

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """The cell's step, equation by equation, with masks on the operands."""

        def inner(params: Params, state: State, drive: PyTree) -> tuple[State, PyTree]:
            return self.inner_step(params, state, drive, draw)

        masks: dict[tuple[int, ...], Array | None] = {}
        products = 0

        def mask(shape: tuple[int, ...]) -> Array | None:
            if not self.tied:
                return draw(Kept(self.rate, self.share, shape))
            if shape not in masks:
                masks[shape] = draw(Kept(self.rate, self.share, shape))
            return masks[shape]

        def rule(eqn: Any, values: list[Any]) -> list[Any]:
            nonlocal products
            kinds = [v.of_state if isinstance(v, _Seen) else None for v in values]
            plain = [v.value if isinstance(v, _Seen) else v for v in values]
            if eqn.primitive.name in ("dot_general", "conv_general_dilated") and sorted(kinds, key=str) == [None, True]:
                products += 1
                results = self._product(eqn, plain, kinds.index(True), mask)
            else:
                if True in kinds and _has_products(eqn):
                    raise ValueError(f"cell: got a product within {eqn.primitive.name} in the step of {self.cell}")
                results = bind(eqn, plain)
            if all(kind is None for kind in kinds):
                return results
            return [_Seen(r, True in kinds) for r in results]

        closed, shapes = jax.make_jaxpr(inner, return_shape=True)(params, state, drive)
        args = [
            *jax.tree.leaves(params),
            *(_Seen(leaf, True) for leaf in jax.tree.leaves(state)),
            *(_Seen(leaf, False) for leaf in jax.tree.leaves(drive)),
        ]
        results = evaluate(closed.jaxpr, closed.consts, args, rule)
        if not products:
            raise ValueError(f"cell: got {self.cell}, whose step has no product of its state with a parameter")
        leaves = [r.value if isinstance(r, _Seen) else r for r in results]
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    def _product(self, eqn: Any, values: list[Array], at: int, mask: Callable[..., Array | None]) -> list[Array]:
        operand, weight = values[at], values[1 - at]
        size = self.hidden_size
        n = weight.shape[-1] // size if isinstance(size, int) and weight.shape[-1] % size == 0 else 1
        if self.tied or n == 1 or at == 1 or not is_matrix_product(eqn):
            kept = mask(operand.shape)
            values = list(values)
            values[at] = operand if kept is None else _drop(kept, self.rate, operand)
            return bind(eqn, values)
        *rows, width = operand.shape
        kept = mask((*rows, n, width))
        if kept is None:
            return bind(eqn, values)
        # One product for all gates still, though every gate has its own left operand.
        masked = _drop(kept, self.rate, jnp.broadcast_to(operand[..., None, :], kept.shape))
        z = jnp.einsum("...gk,kgh->...gh", masked, weight.reshape(width, n, size))
        return [z.reshape(*rows, n * size).astype(eqn.outvars[0].aval.dtype)]


class _Seen(NamedTuple):
    """A value that depends on the drive or, `of_state`, on the state; values not wrapped depend on parameters only."""

    value: Any
    of_state: bool


def _has_products(eqn: Any) -> bool:
    return any(
        e.primitive.name in ("dot_general", "conv_general_dilated") or _has_products(e)
        for jaxpr in jaxprs_in_params(eqn.params)
        for e in jaxpr.eqns
    )


@dataclass(frozen=True)
class CandidateDropout(StepWrapper):
    """Dropout on the candidate alone, so that no memory is lost: `c' = f ⊙ c + i ⊙ d ⊙ g / (1 - rate)`.

    Args:
        cell: a cell whose activation of the candidate is a field of its own.
        rate: at which candidates are dropped.
        activation: the name of that field: "candidate_activation" of an `LSTM`, "activation" of a `GRU`.
        share: axes with one mask for all, of "time" and "batch"; by default every step draws anew.

    Raises:
        ValueError: a rate outside of [0, 1), another axis, or no such field; when run, a field that the cell's
            step does not call.

    Example:
        >>> import jaxrnn
        >>> cell = CandidateDropout(jaxrnn.GRU(3, 4), 0.25, activation="activation")
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Semeniuta, Severyn & Barth 2016, "Recurrent dropout without memory loss".
    """

    rate: float
    activation: str = "candidate_activation"
    share: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(rate=self.rate)
        _check_share(self.share)
        names = tuple(f.name for f in dataclasses.fields(self.cell) if f.name.endswith("activation"))  # type: ignore[arg-type]
        check_choice(activation=self.activation, among=names)

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """The step of the cell with another activation."""
        squash, used = getattr(self.cell, self.activation), False

        def dropped(z: Array) -> Array:
            nonlocal used
            used = True
            kept = draw(Kept(self.rate, self.share, z.shape))
            return squash(z) if kept is None else _drop(kept, self.rate, squash(z))

        result = dataclasses.replace(self.cell, **{self.activation: dropped}).step(params, state, drive)  # type: ignore[type-var]
        if not used:
            raise ValueError(f"activation: got {self.activation!r}, which the step of {self.cell} does not call")
        return result


@dataclass(frozen=True)
class Zoneout(StepWrapper):
    """Units that keep their old state at random: `s' = d ⊙ s + (1 - d) ⊙ step(s)`, d ~ Bernoulli(rate).

    Without a key, the expected state `rate s + (1 - rate) step(s)`. An output that is a part of the cell's state is
    that part after zoneout; what a cell computes within its step, it computes from its own new state, as in the paper
    (an LSTM's `h` from the new `c` before zoneout).

    Args:
        cell: any cell that is walked step by step.
        rate: at which units keep their state: a number, or a state of the cell with a number for each leaf,
            `LSTMState(h=0.05, c=0.5)`. Integer leaves are left alone.
        share: axes with one mask for all, of "time" and "batch"; by default every step draws anew.

    Raises:
        ValueError: a rate outside of [0, 1), or another axis.

    Example:
        >>> import jaxrnn
        >>> cell = Zoneout(jaxrnn.LSTM(3, 4), jaxrnn.LSTMState(h=0.05, c=0.5))
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Krueger et al. 2016, "Zoneout: regularizing RNNs by randomly preserving hidden activations".
    """

    rate: Any
    share: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in jax.tree.leaves(self.rate):
            check_rate(rate=rate)
        _check_share(self.share)
        state = jax.eval_shape(self.cell.initial_state)
        try:
            jax.tree.broadcast(self.rate, state)
        except ValueError:
            needed = jax.tree.structure(state)
            raise ValueError(f"rate: got {self.rate}, needs a number, or numbers in the structure {needed}") from None

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """The step of the cell, and which of it is taken over."""
        new, output = self.inner_step(params, state, drive, draw)

        def mix(rate: float, old: Array, n: Array) -> Array:
            n = cast(n, old.dtype)
            if rate == 0 or not jnp.issubdtype(old.dtype, jnp.inexact):
                return n
            taken = draw(Kept(rate, self.share, old.shape))
            return rate * old + (1 - rate) * n if taken is None else jnp.where(taken, n, old)

        mixed = jax.tree.map(mix, jax.tree.broadcast(self.rate, state), state, new)
        return mixed, follow(new, mixed, output)


def follow(new: State, changed: State, output: PyTree) -> PyTree:
    """`output` with each leaf that is a leaf of `new` replaced by that of `changed`."""
    same = {id(n): c for n, c in zip(jax.tree.leaves(new), jax.tree.leaves(changed), strict=True)}
    return jax.tree.map(lambda leaf: same.get(id(leaf), leaf), output)


def _check_names(cell: Any, names: Any) -> None:
    if not isinstance(names, tuple):
        raise TypeError(f"names: got {names!r}, needs a tuple of names of parameters")
    spec = jax.eval_shape(cell.init, jax.random.key(0))
    among = {_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(spec)}
    if unknown := sorted(set(names) - among):
        raise ValueError(f"names: got {unknown}, the parameters are {sorted(among)}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path[-1:], simple=True)


def _perturb(key: Key, params: Params, names: tuple[str, ...] | None, noise: Callable[[Key, Array], Array]) -> Params:
    """`params` with `noise(key, leaf)` for the real and complex leaves of these names; None: for all."""
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    leaves = [
        noise(k, leaf)
        if (names is None or _name(path) in names) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        else leaf
        for k, (path, leaf) in zip(jax.random.split(key, len(paths)), paths, strict=True)
    ]
    return jax.tree.unflatten(tree, leaves)


@dataclass(frozen=True)
class WeightDrop(Wrapper):
    """DropConnect on recurrent weights: `W_h` with entries dropped, the same at every step and for every row of a call.

    Args:
        cell: any cell, a `Stack` too.
        rate: at which entries are dropped; the kept ones are scaled by `1 / (1 - rate)`.
        names: of the parameters it acts on, as the last part of their paths: `("w_h", "w_n")` for a GRU whose reset
            gate acts before.

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

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """The cell with parameters of which some are dropped."""
        if how.key is not None:
            key, inner = jax.random.split(how.key)
            params = _perturb(key, params, self.names, lambda k, w: dropout(k, self.rate, w))
            how = how._replace(key=inner)
        return self.cell.walk(params, xs, state, how)


@dataclass(frozen=True)
class WeightNoise(Wrapper):
    """Gaussian noise on weights: `w + std ε`, the same at every step and for every row of a call.

    Args:
        cell: any cell, a `Stack` too.
        std: of the noise; Chung et al. 2014 take 0.075.
        names: of the parameters it acts on, as the last part of their paths; None: all.

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

    def walk(self, params: Params, xs: PyTree, state: State, how: Walk) -> tuple[State, PyTree]:
        """The cell with noise on its parameters."""
        if how.key is not None:
            key, inner = jax.random.split(how.key)
            params = _perturb(
                key, params, self.names, lambda k, w: w + self.std * jax.random.normal(k, w.shape, w.dtype)
            )
            how = how._replace(key=inner)
        return self.cell.walk(params, xs, state, how)


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
    check_key(key)
    check_rate(rate=rate)
    for axis in share:
        check_choice(share=axis, among=("batch",))
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
    return _drop(jnp.broadcast_to(kept, embedded.shape), rate, embedded)


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
        >>> found = monte_carlo(lambda key: dropout(key, 0.5, jnp.ones(3)), jax.random.key(0), samples=100)
        >>> found.mean.shape, bool(jnp.all(jnp.abs(found.mean - 1) < 0.5))
        ((3,), True)

    Reference: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    check_sizes(samples=samples)
    check_key(key)
    drawn = jax.vmap(predict)(jax.random.split(key, samples))
    return MonteCarlo(*(jax.tree.map(lambda y, f=f: f(y, axis=0), drawn) for f in (jnp.mean, jnp.std)))
