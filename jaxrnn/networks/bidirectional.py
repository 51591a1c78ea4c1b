"""Two cells over one sequence, one in each direction of time."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_choice, structure
from jaxrnn.engine.layer import Layer, check_layer, size_of
from jaxrnn.engine.options import Options
from jaxrnn.networks.compound import Compound
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import keep
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = [
    "Bidirectional",
    "BidirectionalLM",
    "BidirectionalParams",
    "BidirectionalState",
    "Merge",
    "check_merge",
    "merge_outputs",
]

Merge = Literal["concat", "sum"] | Callable[[Array, Array], Array]
"""How the outputs of two directions become one."""


class BidirectionalParams(NamedTuple):
    """Parameters of `Bidirectional`."""

    forward: Params
    backward: Params


class BidirectionalState(NamedTuple):
    """State of `Bidirectional`: after the last step, and after the first."""

    forward: State
    backward: State


@dataclass(frozen=True)
class Bidirectional(Compound[BidirectionalParams, BidirectionalState]):
    """Two cells over the same sequence, one in each direction of time, the second within each row's length.

    It has no single time step, only `unroll` runs it. The final state holds the states of both directions: `forward`
    after each row's last valid step, `backward` after its first.

    Args:
        forward: the cell that runs from first to last.
        backward: the cell that runs from last to first; None: the same cell as `forward`, with separate parameters.
        merge: "concat" on the last axis, "sum", or a function `(forward ys, backward ys) -> ys`.

    Raises:
        ValueError: the cells' input sizes differ, their output sizes differ under "sum", or `merge` is unknown.

    Example:
        >>> import jaxrnn
        >>> net = Bidirectional(jaxrnn.GRU(3, 4))
        >>> params = net.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)), lengths=jnp.array([5, 3]))
        >>> ys.shape, bool(jnp.all(ys[0, :, 4:] == state.backward.h))
        ((5, 2, 8), True)

    Reference: Schuster & Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    forward: Layer
    backward: Layer | None = None
    merge: Merge = "concat"

    _make_params: ClassVar[Any] = BidirectionalParams._make
    _make_state: ClassVar[Any] = BidirectionalState._make

    def __post_init__(self) -> None:
        forward, backward = self.cells
        check_layer(forward, "forward")
        check_layer(backward, "backward")
        if forward.input_spec != backward.input_spec:
            raise ValueError(
                f"backward: got inputs {backward.input_spec}, needs those of forward, {forward.input_spec}"
            )
        check_merge(self.merge)
        if structure(forward.output_spec) != structure(backward.output_spec):
            raise ValueError(
                f"backward: got outputs {backward.output_size}, needs those of forward, {forward.output_size}"
            )
        if self.merge == "sum" and forward.output_size != backward.output_size:
            raise ValueError(
                f"merge: got 'sum' of {forward.output_size} and {backward.output_size} values, needs equal output sizes"
            )

    @property
    def output_size(self) -> Any:
        """What `merge` makes of the two output sizes, a pytree of sizes where it makes a pytree."""
        forward, backward = (cell.output_spec for cell in self.cells)
        return size_of(jax.eval_shape(lambda ys, zs: self.merged(ys, zs, None), forward, backward))

    @property
    def cells(self) -> tuple[Layer, Layer]:
        """The forward and the backward cell."""
        return self.forward, self.forward if self.backward is None else self.backward

    def run(
        self, params: BidirectionalParams, xs: PyTree, state: BidirectionalState, options: Options
    ) -> tuple[BidirectionalState, PyTree]:
        """Runs both cells, each in its direction."""
        state, pair = self.run_apart(params, xs, state, options)
        return state, self.merged(*pair, options.valid)

    def run_apart(
        self, params: BidirectionalParams, xs: PyTree, state: BidirectionalState, options: Options
    ) -> tuple[BidirectionalState, tuple[PyTree, PyTree]]:
        """Runs both cells and returns their outputs unmerged."""
        keys = (None, None) if options.key is None else tuple(jax.random.split(options.key))
        there = options._replace(key=keys[0])
        back = options._replace(key=keys[1], reverse=not options.reverse)
        forward, ys = self.cells[0].run(params.forward, xs, state.forward, there)
        backward, zs = self.cells[1].run(params.backward, xs, state.backward, back)
        return BidirectionalState(forward, backward), (ys, zs)

    def merged(self, ys: PyTree, zs: PyTree, valid: Array | None) -> PyTree:
        """Merges both outputs; zero at steps that are not valid."""
        ys = jax.tree.map(functools.partial(merge_outputs, self.merge), ys, zs)
        return ys if valid is None else keep(valid, ys)  # a function need not merge zeros into zero

    def with_cells(self, function: Callable[[Layer], Layer]) -> Layer:
        """Returns the network with `function` applied in both directions."""
        forward, backward = (cell.with_cells(function) for cell in self.cells)
        return dataclasses.replace(self, forward=forward, backward=backward)


def check_merge(merge: Any) -> None:
    """Raises unless `merge` is "concat", "sum" or a function."""
    if not callable(merge):
        check_choice(merge=merge, among=("concat", "sum"))


def merge_outputs(merge: Merge, forward: Array, backward: Array) -> Array:
    """Merges the outputs of two directions."""
    if merge == "concat":
        return jnp.concatenate([forward, backward], axis=-1)
    return forward + backward if merge == "sum" else merge(forward, backward)


@dataclass(frozen=True)
class BidirectionalLM(Wrapper[BidirectionalParams, BidirectionalState]):
    """A bidirectional language model: the output at t sees all inputs before t and all after it, never `x_t` itself.

        y_t = merge(forward_{t-1}, backward_{t+1})          zero before the first step and after each row's last

    So the input is its own target. Put more layers inside the directions, not on top: a second layer would see `x_t`.
    With `resets`, nothing crosses a flagged step.

    Args:
        cell: the `Bidirectional` of the two directions.

    Raises:
        TypeError: `cell` is no `Bidirectional`.

    Example:
        >>> import jaxrnn
        >>> net = BidirectionalLM(jaxrnn.Bidirectional(jaxrnn.GRU(3, 4)))
        >>> params, xs = net.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> _, ys = jaxrnn.unroll(net, params, xs)
        >>> _, zs = jaxrnn.unroll(net, params, xs.at[2].set(7.0))
        >>> bool((ys[2] == zs[2]).all()), bool((ys[1] == zs[1]).any())
        (True, True)

    Reference: Element-Research/rnn, `BiSequencerLM`.
    """

    cell: Bidirectional

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.cell, Bidirectional):
            raise TypeError(f"cell: got {self.cell}, needs a jaxrnn.Bidirectional")

    def run(self, params: Params, xs: PyTree, state: State, options: Options) -> tuple[State, PyTree]:
        """Runs both directions and shifts their outputs by one step."""
        state, (ys, zs) = self.cell.run_apart(params, xs, state, options)
        if options.steps == 0:
            return state, self.cell.merged(ys, zs, None)
        resets = jnp.zeros(options.steps, bool) if options.resets is None else options.resets
        follows = ~resets.at[0].set(True)  # whether a step has one before it
        followed = jnp.concatenate([follows[1:], jnp.zeros_like(follows[:1])])

        def before(ys: PyTree) -> PyTree:
            return keep(follows, jax.tree.map(lambda y: jnp.concatenate([y[:1], y[:-1]]), ys))

        def after(ys: PyTree) -> PyTree:
            return keep(followed, jax.tree.map(lambda y: jnp.concatenate([y[1:], y[-1:]]), ys))

        pair = (after(ys), before(zs)) if options.reverse else (before(ys), after(zs))
        return state, self.cell.merged(*pair, options.valid)
