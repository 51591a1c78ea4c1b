"""Multiplicative networks: an RNN (Sutskever, Martens & Hinton 2011) and an LSTM (Krause et al. 2016).

    m = (x W_xm) ⊙ (h W_hm)
    the cell's equations, with m for h in its products

So the recurrent matrix is another one for every input: h W_hm diag(x W_xm) W_h.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.cells.elman import Elman
from jaxrnn.cells.lstm import LSTM
from jaxrnn.ops import dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State

__all__ = ["Multiplicative", "MultiplicativeParams"]


class MultiplicativeParams(NamedTuple):
    """Parameters of `Multiplicative`."""

    w_x: Array  # [I, R], R that of the cell's h
    w_h: Array  # [R, R]
    cell: Params


@dataclass(frozen=True)
class Multiplicative(Cell):
    """A cell whose products see `h` through factors that the input sets.

        m = (x W_xm) ⊙ (h W_hm)

        Multiplicative(Elman)       h' = φ(x W_x + m W_h + b)                       y = h'
        Multiplicative(LSTM)        i, f, g, o = x W_x + m W_h + b, and so on       y = h'

    With Elman's cell it is the multiplicative RNN, with as many factors as units; with an LSTM the mLSTM, whose output
    is o ⊙ tanh(c') as in the program of Radford et al. 2017.

    Args:
        cell: an `Elman` or an `LSTM`, with any of its options.

    Raises:
        TypeError: another cell, in which h acts otherwise than by its product.

    Example:
        >>> import jaxrnn
        >>> cell = Multiplicative(jaxrnn.LSTM(input_size=3, hidden_size=4))
        >>> params = cell.init(jax.random.key(0), forget_bias=0.0)
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape, params.w_h.shape, params.cell.w_h.shape
        ((2, 4), (4, 4), (4, 16))

    Reference: Sutskever, Martens & Hinton 2011, "Generating text with recurrent neural networks"; Krause, Lu, Murray &
    Renals 2016, "Multiplicative LSTM for sequence modeling".
    """

    cell: Elman | LSTM

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Elman | LSTM):
            raise TypeError(f"cell: got {self.cell!r}, needs an Elman or an LSTM")

    @property
    def input_size(self) -> int:
        """That of the cell."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        """That of the cell."""
        return self.cell.hidden_size

    @property
    def output_size(self) -> int:
        """That of the cell."""
        return self.cell.output_size

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        **others: Any,
    ) -> MultiplicativeParams:
        """Fresh parameters; all initializers are the cell's too, and `others` only the cell's."""
        kx, kh, kc = jax.random.split(key, 3)
        r = jax.eval_shape(self.initial_state).h.shape[-1]
        return MultiplicativeParams(
            w_x=input_init(kx, (self.input_size, r), dtype),
            w_h=recurrent_init(kh, (r, r), dtype),
            cell=self.cell.init(kc, dtype=dtype, input_init=input_init, recurrent_init=recurrent_init, **others),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """That of the cell."""
        return self.cell.initial_state(batch_shape, dtype)

    def project(self, params: MultiplicativeParams, x: Array) -> tuple[Array, PyTree]:
        """`x W_xm`, and what the cell needs of the input."""
        return jnp.matmul(x, params.w_x), self.cell.project(params.cell, x)

    def step(self, params: MultiplicativeParams, state: State, drive: tuple[Array, PyTree]) -> tuple[State, PyTree]:
        """The cell's step from m in the place of h."""
        factors, drive_of_cell = drive
        m = factors * dot(state.h, params.w_h)
        return self.cell.step(params.cell, state._replace(h=m), drive_of_cell)

    def readout(self, params: MultiplicativeParams, output: PyTree, drive: tuple[Array, PyTree]) -> Array:
        """That of the cell."""
        return self.cell.readout(params.cell, output, drive[1])
