"""Projections of what a cell hands on (Sak, Senior & Beaufays 2014)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.cells.elman import Elman
from jaxrnn.cells.lstm import LSTM
from jaxrnn.cells.vanilla import VanillaLSTM
from jaxrnn.checks import check_heads, check_initializers, check_positive, check_sizes
from jaxrnn.ops import dot
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State

__all__ = ["Projected", "ProjectedParams"]


class ProjectedParams(NamedTuple):
    """Parameters of `Projected`; what an option leaves out is None."""

    cell: Params  # those of the cell, whose `w_h` has R rows in place of H; with several heads R / heads
    w_p: Array | None  # [H, R]
    w_q: Array | None  # [H, Q]


@dataclass(frozen=True)
class Projected(Cell[ProjectedParams, Any]):
    """A cell whose output is projected before it recurs; of an LSTM, the LSTMP.

        m, c' = the cell's step from (h, c)
        h' = m W_p                              y = h', or [h', m W_q] with a nonrecurrent projection

    The state is the cell's, with `h` of R values. `Projected(LSTM(I, H), R)` is PyTorch's `nn.LSTM(proj_size=R)`. The
    paper's cell has peepholes: `Projected(VanillaLSTM(I, H), R)`; TensorFlow's `proj_clip` is `clip`. `unroll` makes
    the nonrecurrent projection after the loop.

    Args:
        cell: an `Elman`, `LSTM` or `VanillaLSTM`, with any of its options.
        projection_size: R, length of the projected `h`; None: `h' = m` and R = H.
        nonrecurrent_size: Q, length of a further projection that only the output has; None: there is none.
        clip: the bound of the projected `h'`, which is kept within ±clip; None: no bound.

    Params:
        cell: those of the cell, whose `w_h` has R rows in place of H; with several heads R / heads.
        w_p: `[H, R]`, or None.
        w_q: `[H, Q]`, or None.

    Raises:
        TypeError: `cell` is another cell, in which `h` is more than a factor of `W_h`.
        ValueError: a size is not a positive integer, both are None, the cell's `heads` does not divide
            `projection_size`, or `clip` is not positive or has no projection to bound.

    Example:
        >>> import jaxrnn
        >>> cell = Projected(jaxrnn.LSTM(input_size=3, hidden_size=4), 2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape, state.c.shape
        ((5, 2, 2), (2, 2), (2, 4))

    Reference: Sak, Senior & Beaufays 2014, "Long short-term memory based recurrent neural network architectures for
    large vocabulary speech recognition", section 2.2.
    """

    cell: Elman | LSTM | VanillaLSTM
    projection_size: int | None = None
    nonrecurrent_size: int | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Elman | LSTM | VanillaLSTM):
            raise TypeError(f"cell: got {self.cell!r}, needs an Elman, LSTM or VanillaLSTM")
        if self.projection_size is None and self.nonrecurrent_size is None:
            raise ValueError("projection_size: got None, needs a size, or a nonrecurrent_size")
        if self.projection_size is not None:
            check_sizes(projection_size=self.projection_size)
            check_heads(self.cell.heads, projection_size=self.projection_size)
        if self.nonrecurrent_size is not None:
            check_sizes(nonrecurrent_size=self.nonrecurrent_size)
        if self.clip is not None:
            check_positive(clip=self.clip)
            if self.projection_size is None:
                raise ValueError(f"clip: got {self.clip}, needs a projection_size")

    @property
    def input_size(self) -> int:
        """Input size of the cell."""
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        """Hidden size of the cell."""
        return self.cell.hidden_size

    @property
    def recurrent_size(self) -> int:
        """R, length of `h`."""
        return self.cell.hidden_size if self.projection_size is None else self.projection_size

    @property
    def output_size(self) -> int:
        """R, or R + Q with a nonrecurrent projection."""
        return self.recurrent_size + (self.nonrecurrent_size or 0)

    @property
    def init_names(self) -> frozenset[str]:
        return super().init_names | self.cell.init_names

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        recurrent_init: Initializer = initializers.orthogonal(),
        **others: Any,
    ) -> ProjectedParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            recurrent_init: of each block of the cell's `w_h`, `[R, H]`, of `w_p` and of `w_q`; by default `orthogonal`.
            **others: further initializers of the cell.
        """
        check_initializers(recurrent_init=recurrent_init)
        h, r, q = self.hidden_size, self.recurrent_size, self.nonrecurrent_size

        def block(key: Key, shape: tuple[int, int], dtype: DTypeLike) -> Array:
            """R rows where the cell asks for H, R / heads where it asks for H / heads."""
            rows, columns = shape
            return recurrent_init(key, (rows * r // h, columns), dtype)

        kc, kp, kq = jax.random.split(key, 3)
        return ProjectedParams(
            cell=self.cell.init(kc, dtype=dtype, recurrent_init=block, **others),
            w_p=None if self.projection_size is None else recurrent_init(kp, (h, r), dtype),
            w_q=None if q is None else recurrent_init(kq, (h, q), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> State:
        """Returns the cell's zero state, with `h` `[*batch_shape, R]`."""
        h = jnp.zeros((*batch_shape, self.recurrent_size), dtype)
        return self.cell.initial_state(batch_shape, dtype)._replace(h=h)

    def project(self, params: ProjectedParams, x: Array) -> PyTree:
        """Returns what the cell needs of the input."""
        return self.cell.project(params.cell, x)

    def step(self, params: ProjectedParams, state: State, drive: PyTree) -> tuple[State, PyTree]:
        """Takes the cell's step and projects its output; with a nonrecurrent projection returns `h'` and `m`."""
        state, m = self.cell.step(params.cell, state, drive)
        h = m if params.w_p is None else dot(m, params.w_p)
        if self.clip is not None:
            h = jnp.clip(h, -self.clip, self.clip)
        return state._replace(h=h), h if params.w_q is None else (h, m)

    def readout(self, params: ProjectedParams, output: PyTree, drive: PyTree) -> Array:
        """Returns `h'`, or `[h', m W_q]` with a nonrecurrent projection."""
        del drive
        if params.w_q is None:
            return output
        h, m = output
        return jnp.concatenate([h.astype(params.w_q.dtype), dot(m, params.w_q)], axis=-1)
