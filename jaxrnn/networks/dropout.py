"""Dropout on inputs, on what recurrent products see, and on candidates.

    Dropout             the input, by masks that may be one for all steps (locked, variational)
    RecurrentDropout    the left operand of every recurrent product (Gal & Ghahramani)
    CandidateDropout    the candidate only (Semeniuta et al.)

Without a `key`, `unroll` runs the deterministic network and drops nothing. The same key draws the same masks, so use a
new key for every call.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_bools, check_choice, check_rate
from jaxrnn.engine.noise import Draw, Kept, nothing
from jaxrnn.engine.options import Options
from jaxrnn.jaxprs import bind, has_products, interpret, is_matrix_product, is_product
from jaxrnn.networks.wrapper import StepWrapper, Wrapper
from jaxrnn.ops import drop, dropout
from jaxrnn.typing import Array, P, PyTree, S

__all__ = ["CandidateDropout", "Dropout", "RecurrentDropout", "check_share"]


def check_share(share: Any) -> None:
    """Raises unless `share` is a tuple of the axes that may share a draw."""
    if not isinstance(share, tuple):
        raise TypeError(f"share: got {share!r}, needs a tuple of 'time' and 'batch'")
    for axis in share:
        check_choice(share=axis, among=("time", "batch"))


def _try_step(cell: StepWrapper) -> None:
    """Traces a step, which raises where it finds nothing to drop."""
    params = jax.eval_shape(cell.init, jax.random.key(0))
    jax.eval_shape(cell.advance, params, jax.eval_shape(cell.initial_state), cell.input_spec)


@dataclass(frozen=True)
class Dropout(Wrapper[P, S]):
    """Dropout on the input of a cell: `d ⊙ x / (1 - rate)`.

    An `unroll` without a `key` drops nothing.

    Args:
        cell: any cell, a `Stack` or a `Bidirectional` too.
        rate: at which inputs are dropped.
        share: axes that share one mask: "time" (locked or variational dropout: a row keeps its mask for the whole
            call), "batch", or both.

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
        check_share(self.share)
        if not all(jnp.issubdtype(s.dtype, jnp.inexact) for s in jax.tree.leaves(self.input_spec)):
            raise ValueError(f"cell: got {self.cell}, whose input is not real, needs one to drop from")

    def run(self, params: P, xs: PyTree, state: S, options: Options) -> tuple[S, PyTree]:
        """Drops inputs and runs the cell."""
        if options.key is not None:
            axes = {"time": (0,), "batch": tuple(range(1, 1 + len(options.batch_shape)))}
            key, inner = jax.random.split(options.key)
            xs = dropout(key, self.rate, xs, sum((axes[s] for s in self.share), ()))
            options = options._replace(key=inner)
        return self.cell.run(params, xs, state, options)

    def advance(self, params: P, state: S, x: PyTree, draw: Draw = nothing) -> tuple[S, PyTree]:
        """Drops a part of the input and runs one time step of the cell."""

        def one(x: Array) -> Array:
            kept = draw(Kept(self.rate, self.share, x.shape))
            return x if kept is None else drop(kept, self.rate, x)

        return self.cell.advance(params, state, jax.tree.map(one, x), draw)


@dataclass(frozen=True)
class RecurrentDropout(StepWrapper[P, S]):
    """Dropout on what the recurrent products see: `(d ⊙ h / (1 - rate)) W_h`, in any cell.

    Every product of a parameter with a value that depends on the state gets a mask on that value: `h` in an LSTM, both
    `h` and `r ⊙ h` in a GRU with `reset="before"`, also the unprojected `h` of a projection. The number of products
    stays the same. An `unroll` without a `key` drops nothing.

    Args:
        cell: any cell that runs step by step.
        rate: at which operands are dropped.
        tied: whether all operands of one shape, and all gates, share one mask; False: one mask for each product and
            each gate (block of `hidden_size` columns).
        share: axes that share one mask: "time" (a row keeps its masks for the whole call), "batch", or both.

    Raises:
        ValueError: a rate outside of [0, 1), another axis, or a cell that has no such product.

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
        check_bools(tied=self.tied)
        check_share(self.share)
        _try_step(self)

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes the cell's step, equation by equation, with masks on the operands."""

        def inner(params: P, state: S, drive: PyTree) -> tuple[S, PyTree]:
            return self.cell.step_with(params, state, drive, draw)

        masks: dict[tuple[int, ...], Array | None] = {}
        products = 0

        def mask(shape: tuple[int, ...]) -> Array | None:
            if not self.tied:
                return draw(Kept(self.rate, self.share, shape))
            if shape not in masks:
                masks[shape] = draw(Kept(self.rate, self.share, shape))
            return masks[shape]

        def rule(eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[Any]]:
            nonlocal products
            if is_product(eqn) and sorted(tags, key=str) == [None, "state"]:
                products += 1
                results = self._product(eqn, values, tags.index("state"), mask)
            else:
                if "state" in tags and has_products(eqn):
                    raise ValueError(f"cell: got a product within {eqn.primitive.name} in the step of {self.cell}")
                results = bind(eqn, values)
            seen = "state" if "state" in tags else "drive" if "drive" in tags else None
            return results, [seen] * len(results)

        closed, shapes = jax.make_jaxpr(inner, return_shape=True)(params, state, drive)
        trees = {None: params, "state": state, "drive": drive}  # what values depend on; None: parameters only
        tags = [tag for tag, tree in trees.items() for _ in jax.tree.leaves(tree)]
        leaves, _ = interpret(closed, jax.tree.leaves((params, state, drive)), tags, rule)
        if not products:
            raise ValueError(f"cell: got {self.cell}, whose step has no product of its state with a parameter")
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    def _product(self, eqn: Any, values: list[Array], at: int, mask: Callable[..., Array | None]) -> list[Array]:
        operand, weight = values[at], values[1 - at]
        size = self.hidden_size
        n = weight.shape[-1] // size if isinstance(size, int) and weight.shape[-1] % size == 0 else 1
        if self.tied or n == 1 or at == 1 or not is_matrix_product(eqn):
            kept = mask(operand.shape)
            values = list(values)
            values[at] = operand if kept is None else drop(kept, self.rate, operand)
            return bind(eqn, values)
        *rows, width = operand.shape
        kept = mask((*rows, n, width))
        if kept is None:
            return bind(eqn, values)
        # One product for all gates, although every gate has its own left operand.
        masked = drop(kept, self.rate, jnp.broadcast_to(operand[..., None, :], kept.shape))
        z = jnp.einsum("...gk,kgh->...gh", masked, weight.reshape(width, n, size))
        return [z.reshape(*rows, n * size).astype(eqn.outvars[0].aval.dtype)]


@dataclass(frozen=True)
class CandidateDropout(StepWrapper[P, S]):
    """Dropout on the candidate alone, so that no memory is lost: `c' = f ⊙ c + i ⊙ d ⊙ g / (1 - rate)`.

    An `unroll` without a `key` drops nothing.

    Args:
        cell: a cell with a field for the candidate's activation, which its step calls.
        rate: at which candidates are dropped.
        activation: the name of that field; None: "candidate_activation", as an `LSTM` has it, or else "activation", as
            a `GRU` has it.
        share: axes that share one mask: "time", "batch", or both; by default every step has a new mask.

    Raises:
        ValueError: a rate outside of [0, 1), another axis, no such field, or one that the cell's step does not call.

    Example:
        >>> import jaxrnn
        >>> cell = CandidateDropout(jaxrnn.GRU(3, 4), 0.25)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))
        >>> ys.shape
        (5, 2, 4)

    Reference: Semeniuta, Severyn & Barth 2016, "Recurrent dropout without memory loss".
    """

    rate: float
    activation: str | None = None
    share: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(rate=self.rate)
        check_share(self.share)
        names = tuple(f.name for f in dataclasses.fields(self.cell) if f.name.endswith("activation"))  # type: ignore[arg-type]
        if not names:
            raise ValueError(f"cell: got {self.cell}, needs one with a field for the candidate's activation")
        check_choice(activation=self._field, among=names)
        _try_step(self)

    @property
    def _field(self) -> str:
        """The name of the field with the candidate's activation."""
        if self.activation is not None:
            return self.activation
        return "candidate_activation" if hasattr(self.cell, "candidate_activation") else "activation"

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes the cell's step with another activation."""
        squash, used = getattr(self.cell, self._field), False

        def dropped(z: Array) -> Array:
            nonlocal used
            used = True
            kept = draw(Kept(self.rate, self.share, z.shape))
            return squash(z) if kept is None else drop(kept, self.rate, squash(z))

        result = dataclasses.replace(self.cell, **{self._field: dropped}).step(params, state, drive)  # type: ignore[type-var]
        if not used:
            raise ValueError(f"activation: got {self._field!r}, which the step of {self.cell} does not call")
        return result
