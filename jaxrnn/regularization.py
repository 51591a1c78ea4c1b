"""Dropout of words, predictions with dropout on, and masks that are given instead of drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import (
    check_arrays,
    check_axes,
    check_choice,
    check_functions,
    check_integers,
    check_key,
    check_rate,
    check_sizes,
)
from jaxrnn.engine.noise import Draw, Kept, Request
from jaxrnn.networks.wrapper import StepWrapper
from jaxrnn.ops import drop
from jaxrnn.typing import Array, Key, P, Params, PyTree, S, State

__all__ = ["GivenMasks", "MonteCarlo", "embedding_dropout", "monte_carlo"]


def embedding_dropout(key: Key, rate: float, tokens: Array, embedded: Array, share: tuple[str, ...] = ()) -> Array:
    """Drops word types: a dropped word is zero wherever it stands in its row, a kept one is scaled.

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
    check_choice(share=share, among=((), ("batch",)))
    check_arrays(embedded=embedded)
    check_integers(tokens=tokens)
    check_axes(tokens, "tokens", "[T, *batch]", 1)
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


def monte_carlo(key: Key, predict: Callable[[Key], PyTree], samples: int) -> MonteCarlo:
    """Predicts with dropout on: returns mean and spread over draws.

    Average probabilities, not logits: `predict = lambda key: softmax(unroll(cell, params, xs, key=key)[1] @ w)`.

    Args:
        key: a typed key.
        predict: key -> prediction, a pytree of real arrays.
        samples: number of draws, computed side by side.

    Example:
        >>> import jaxrnn
        >>> found = monte_carlo(jax.random.key(0), lambda key: jaxrnn.ops.dropout(key, 0.5, jnp.ones(3)), samples=100)
        >>> found.mean.shape, bool(jnp.all(jnp.abs(found.mean - 1) < 0.5))
        ((3,), True)

    Reference: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    check_sizes(samples=samples)
    key = check_key(key)
    check_functions("of a key", 1, predict=predict)
    drawn = jax.vmap(predict)(jax.random.split(key, samples))
    return MonteCarlo(*(jax.tree.map(lambda y, f=f: f(y, axis=0), drawn) for f in (jnp.mean, jnp.std)))


@dataclass(frozen=True)
class GivenMasks(StepWrapper[P, S]):
    """A cell with dropout or zoneout whose masks are given: the input is `(x, masks)`.

    `masks` is a tuple of booleans `[T, *batch, ...]`, in the order in which a step uses them; `input_spec[1]` has their
    shapes for one example. True: dropout keeps the value, zoneout takes the new state. No key is needed; `share` has
    no effect.

    Args:
        cell: a cell with randomness, such as a `Zoneout`; of a network, `jaxrnn.networks.Stepped(network)`.

    Raises:
        TypeError, ValueError: `cell` is no cell that runs step by step, or draws something other than such masks.

    Example:
        >>> import jaxrnn
        >>> cell = GivenMasks(jaxrnn.Zoneout(jaxrnn.GRU(3, 4), 0.5))
        >>> params, xs, masks = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3)), (jnp.zeros((5, 2, 4), bool),)
        >>> state, ys = jaxrnn.unroll(cell, params, (xs, masks))        # every unit keeps its old state
        >>> bool((state.h == 0).all())
        True
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._requests():
            raise ValueError(f"cell: got {self.cell}, which has no dropout and no zoneout")

    @property
    def input_spec(self) -> PyTree:
        """The cell's input, and a tuple of booleans."""
        return self.cell.input_spec, tuple(jax.ShapeDtypeStruct(r.shape, jnp.bool_) for r in self._requests())

    def _requests(self) -> list[Kept]:
        """Returns what a step of one example asks for."""
        requests: list[Kept] = []

        def record(request: Request) -> Array | None:
            if not request.random:
                return None
            if not isinstance(request, Kept):
                raise ValueError(f"cell: got {self.cell}, which draws {type(request).__name__}, needs masks of values")
            requests.append(request)
            return request.example(())

        def step(params: Params, state: State, x: PyTree) -> Any:
            return self.cell.advance(params, state, x, record)

        params = jax.eval_shape(self.cell.init, jax.random.key(0))
        jax.eval_shape(step, params, jax.eval_shape(self.cell.initial_state), self.cell.input_spec)
        return requests

    def project(self, params: Params, x: tuple[PyTree, tuple[Array, ...]]) -> PyTree:
        """Returns the cell's drive, and the masks."""
        return self.cell.project(params, x[0]), x[1]

    def step_with(self, params: Params, state: State, drive: PyTree, draw: Draw) -> tuple[State, PyTree]:
        """Takes one step with these masks."""
        masks = iter(drive[1])

        def given(request: Request) -> Array | None:
            return next(masks) if request.random else draw(request)

        return self.cell.step_with(params, state, drive[0], given)

    def readout(self, params: Params, output: PyTree, drive: PyTree) -> PyTree:
        """Returns the cell's `y`."""
        return self.cell.readout(params, output, drive[0])
