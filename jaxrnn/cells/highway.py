"""Recurrent highway network (Zilly, Srivastava, Koutník & Schmidhuber 2017)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_bools, check_initializers, check_sizes
from jaxrnn.ops import add, add_bias, affine, dot, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["Highway", "HighwayParams", "HighwayState"]


class HighwayParams(NamedTuple):
    """Parameters of `Highway`."""

    w_x: Array  # [I, nH], n = 2 blocks g, t, or 3 blocks g, t, k if the gates are not coupled
    w_h: tuple[Array, ...]  # L of [H, nH]
    b: tuple[Array, ...]  # L of [nH]


class HighwayState(NamedTuple):
    """State of `Highway`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class Highway(Cell[HighwayParams, HighwayState]):
    """Recurrent highway network: L highway layers in each time step.

        g, t, k = x W_x + s_{l-1} W_l + b_l            l = 1 … L, x in the first only, s_0 = h
        s_l = tanh(g) ⊙ σ(t) + s_{l-1} ⊙ σ(k)
        h' = s_L                                       y = h'

    With coupled gates σ(k) is 1 - σ(t), as in the paper's experiments.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of every layer.
        depth: L, highway layers.
        coupled: whether the carry gate is one minus the transform gate.

    Params:
        w_x: `[I, nH]`, n = 2 blocks g, t, or 3 blocks g, t, k if the gates are not coupled.
        w_h: L of `[H, nH]`.
        b: L of `[nH]`.

    Raises:
        TypeError: `coupled` is not a bool.
        ValueError: a size or the depth is not a positive integer.

    Example:
        >>> cell = Highway(input_size=3, hidden_size=4, depth=5)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Zilly, Srivastava, Koutník & Schmidhuber 2017, "Recurrent highway networks".
    """

    input_size: int
    hidden_size: int
    depth: int = 3
    coupled: bool = True

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, depth=self.depth)
        check_bools(coupled=self.coupled)

    @property
    def _blocks(self) -> int:
        return 2 if self.coupled else 3

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        transform_bias: float = -2.0,
    ) -> HighwayParams:
        """Returns fresh parameters, initialized block by block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of every layer; by default `orthogonal`.
            transform_bias: the bias of t, negative so that at first the layers carry; other biases are zero.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init)
        i, h, n = self.input_size, self.hidden_size, self._blocks
        kx, *kh = jax.random.split(key, 1 + self.depth)
        return HighwayParams(
            w_x=initializers.blocks(kx, input_init, (i, h), n, dtype),
            w_h=tuple(initializers.blocks(k, recurrent_init, (h, h), n, dtype) for k in kh),
            b=tuple(jnp.zeros((n, h), dtype).at[1].set(transform_bias).reshape(n * h) for _ in kh),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> HighwayState:
        """Returns zeros `[*batch_shape, H]`."""
        return HighwayState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: HighwayParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b_1` as the tuple g, t, or g, t, k if the gates are not coupled."""
        return gates(affine(x, params.w_x, params.b[0]), self._blocks)

    def step(self, params: HighwayParams, state: HighwayState, drive: tuple[Array, ...]) -> tuple[HighwayState, Array]:
        """Takes one step from `h` to `h'`, layer by layer."""
        s = state.h
        for layer, (w, b) in enumerate(zip(params.w_h, params.b, strict=True)):
            z = gates(dot(s, w) if layer == 0 else add_bias(dot(s, w), b), self._blocks)
            g, t, *k = add(drive, z) if layer == 0 else z
            transform = jax.nn.sigmoid(t)
            carry = jax.nn.sigmoid(k[0]) if k else 1 - transform
            s = jnp.tanh(g) * transform + s * carry
        return HighwayState(s), s
