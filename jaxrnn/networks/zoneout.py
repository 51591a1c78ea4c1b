"""Units that keep their old state at random."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_rate, structure
from jaxrnn.engine.noise import Draw, Kept
from jaxrnn.networks.dropout import check_share
from jaxrnn.networks.wrapper import StepWrapper
from jaxrnn.ops import cast, follow, select, spread_like
from jaxrnn.typing import Array, P, PyTree, S

__all__ = ["Zoneout"]


@dataclass(frozen=True)
class Zoneout(StepWrapper[P, S]):
    """Units that keep their old state at random: `s' = d ⊙ s + (1 - d) ⊙ step(s)`, d ~ Bernoulli(rate).

    Without a key, the state is the expected one, `rate s + (1 - rate) step(s)`. An output that is a part of the state
    is that part after zoneout. Within its step a cell uses its new state before zoneout, as in the paper: an LSTM
    computes `h` from the new `c`. It is not for states that are scaled by a running maximum, as in `SLSTM` and `MLSTM`.

    Args:
        cell: any cell that runs step by step.
        rate: at which units keep their state: a number, or a state of the cell with a number for each leaf,
            `LSTMState(h=0.05, c=0.5)`. Integer leaves do not change.
        share: axes that share one mask: "time", "batch", or both; by default every step has a new mask.

    Raises:
        ValueError: a rate outside of [0, 1), or another axis.

    Example:
        >>> import jaxrnn
        >>> cell = Zoneout(jaxrnn.LSTM(3, 4), jaxrnn.cells.LSTMState(h=0.05, c=0.5))
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
        check_share(self.share)
        state = jax.eval_shape(self.cell.initial_state)
        try:
            jax.tree.broadcast(self.rate, state)
        except ValueError:
            needed = f"needs a number, or {structure(state)} of numbers"
            raise ValueError(f"rate: got {self.rate}, {needed}") from None

    def step_with(self, params: P, state: S, drive: PyTree, draw: Draw) -> tuple[S, PyTree]:
        """Takes the cell's step and keeps some of the old state."""
        new, output = self.cell.step_with(params, state, drive, draw)

        def mix(rate: float, old: Array, n: Array) -> Array:
            n = cast(n, old.dtype)
            if rate == 0 or not jnp.issubdtype(old.dtype, jnp.inexact):
                return n
            taken = draw(Kept(rate, self.share, old.shape))
            return rate * old + (1 - rate) * n if taken is None else select(spread_like(taken, old), n, old)

        mixed = jax.tree.map(mix, jax.tree.broadcast(self.rate, state), state, new)
        return mixed, follow(new, mixed, output)
