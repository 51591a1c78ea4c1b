"""Multiplicative RNN (Sutskever, Martens & Hinton 2011) and LSTM (Krause et al. 2016)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.cells.elman import Elman
from jaxrnn.cells.lstm import LSTM
from jaxrnn.cells.projected import Projected
from jaxrnn.cells.vanilla import VanillaLSTM
from jaxrnn.checks import check_initializers
from jaxrnn.ops import dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State

__all__ = ["Multiplicative", "MultiplicativeParams"]


class MultiplicativeParams(NamedTuple):
    """Parameters of `Multiplicative`."""

    w_x: Array  # [I, R], R the length of the cell's h
    w_h: Array  # [R, R]
    cell: Params  # those of the cell


@dataclass(frozen=True)
class Multiplicative(Cell[MultiplicativeParams, Any]):
    """A cell that sees `h` through factors set by the input.

        m = (x W_xm) ⊙ (h W_hm)

        Multiplicative(Elman)       h' = φ(x W_x + m W_h + b)                       y = h'
        Multiplicative(LSTM)        i, f, g, o = x W_x + m W_h + b, …               y = h'

    Every input has a recurrent matrix of its own, W_hm diag(x W_xm) W_h. With `Elman` it is the multiplicative RNN,
    with as many factors as units; with `LSTM` the mLSTM, whose output is o ⊙ tanh(c') as in the program of Radford et
    al. 2017.

    Args:
        cell: an `Elman`, `LSTM`, `VanillaLSTM` or `Projected`, with any of its options.

    Params:
        w_x: `[I, R]`, R the length of the cell's h.
        w_h: `[R, R]`.
        cell: those of the cell.

    Raises:
        TypeError: `cell` is another cell, in which `h` is more than a factor of `W_h`.

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

    cell: Elman | LSTM | VanillaLSTM | Projected

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Elman | LSTM | VanillaLSTM | Projected):
            raise TypeError(f"cell: got {self.cell!r}, needs an Elman, LSTM, VanillaLSTM or Projected")

    @property
    def input_size(self) -> int:
        """Input size of the cell."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        """Hidden size of the cell."""
        return self.cell.hidden_size

    @property
    def output_size(self) -> int:
        return self.cell.output_size

    @property
    def init_names(self) -> frozenset[str]:
        return super().init_names | self.cell.init_names

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        **others: Any,
    ) -> MultiplicativeParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`, and the cell's; by default `lecun_normal`.
            recurrent_init: of `w_h`, and the cell's; by default `orthogonal`.
            **others: further initializers of the cell.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        kx, kh, kc = jax.random.split(key, 3)
        r = jax.eval_shape(self.initial_state).h.shape[-1]
        return MultiplicativeParams(
            w_x=input_init(kx, (self.input_size, r), dtype),
            w_h=recurrent_init(kh, (r, r), dtype),
            cell=self.cell.init(kc, dtype=dtype, input_init=input_init, recurrent_init=recurrent_init, **others),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        return self.cell.initial_state(batch_shape, dtype)

    def project(self, params: MultiplicativeParams, x: Array) -> tuple[Array, PyTree]:
        """Returns `x W_xm`, and what the cell needs of the input."""
        return jnp.matmul(x, params.w_x), self.cell.project(params.cell, x)

    def step(self, params: MultiplicativeParams, state: State, drive: tuple[Array, PyTree]) -> tuple[State, PyTree]:
        """Takes the cell's step from `m` in place of `h`."""
        factors, drive_of_cell = drive
        m = factors * dot(state.h, params.w_h)
        return self.cell.step(params.cell, state._replace(h=m), drive_of_cell)

    def readout(self, params: MultiplicativeParams, output: PyTree, drive: tuple[Array, PyTree]) -> Array:
        return self.cell.readout(params.cell, output, drive[1])
