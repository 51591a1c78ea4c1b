"""The three mutated cells that an evolutionary search found (Jozefowicz, Zaremba & Sutskever 2015).

    MUT1    r = σ(x W_xr + h W_hr + b_r)    z = σ(x W_xz + b_z)                    a = tanh(x)
    MUT2    r = σ(x + h W_hr + b_r)         z = σ(x W_xz + h W_hz + b_z)           a = x W_xn
    MUT3    r = σ(x W_xr + h W_hr + b_r)    z = σ(x W_xz + tanh(h) W_hz + b_z)     a = x W_xn
    n = tanh(a + (r ⊙ h) W_n + b_n)
    h' = z ⊙ n + (1 - z) ⊙ h

`z` takes the new state. Where x stands alone it has H values, or x W_p stands in its place. The LSTMs of the same paper
are in `ablations.py`, its GRU is `GRU(reset="before")`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_choice, check_sizes
from jaxrnn.ops import add_bias, dot, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["MUT", "MUTParams", "MUTState"]

BARE = {1: 2, 2: 0, 3: None}
"""For each variant the index of the block, of r, z, n, in which the input stands without a weight."""


class MUTParams(NamedTuple):
    """Parameters of `MUT`; what a variant has not is None."""

    w_x: Array  # [I, nH], blocks r, z, n; MUT1 without n and MUT2 without r, unless the input is projected
    w_h: Array  # [H, H], block r; MUT2: [H, 2H], blocks r, z
    w_z: Array | None  # [H, H], of tanh(h), MUT3 only
    w_n: Array  # [H, H]
    b: Array  # [3H], blocks r, z, n


class MUTState(NamedTuple):
    """State of `MUT`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class MUT(Cell):
    """A mutated cell of Jozefowicz et al. 2015: MUT1, MUT2 or MUT3; `z` takes the new state.

        MUT1    r = σ(x W_xr + h W_hr + b_r)    z = σ(x W_xz + b_z)                    a = tanh(x)
        MUT2    r = σ(x + h W_hr + b_r)         z = σ(x W_xz + h W_hz + b_z)           a = x W_xn
        MUT3    r = σ(x W_xr + h W_hr + b_r)    z = σ(x W_xz + tanh(h) W_hz + b_z)     a = x W_xn
        n = tanh(a + (r ⊙ h) W_n + b_n)
        h' = z ⊙ n + (1 - z) ⊙ h                y = h'

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        variant: 1, 2 or 3.
        project_input: whether a learned x W_p takes the place of the bare x of MUT1 and MUT2; of no effect on MUT3.

    Raises:
        ValueError: a size is not a positive integer, an unknown variant, or a bare x of another size than h.

    Example:
        >>> import jaxrnn
        >>> cell = MUT(input_size=3, hidden_size=4, variant=1, project_input=True)
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Jozefowicz, Zaremba & Sutskever 2015, "An empirical exploration of recurrent network architectures".
    """

    input_size: int
    hidden_size: int
    variant: Literal[1, 2, 3]
    project_input: bool = False

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_choice(variant=self.variant, among=(1, 2, 3))
        if self.bare is not None and self.input_size != self.hidden_size:
            raise ValueError(
                f"input_size: got {self.input_size}, MUT{self.variant} needs hidden_size = {self.hidden_size}, "
                "or project_input=True"
            )

    @property
    def bare(self) -> int | None:
        """The index of the block, of r, z, n, that sees the input without a weight; None if every block has one."""
        return None if self.project_input else BARE[self.variant]

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.glorot_uniform(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> MUTParams:
        """Fresh parameters, gate block by gate block; `bias_init` sees `[3, H]`, rows r, z, n."""
        i, h = self.input_size, self.hidden_size
        kx, kh, kz, kn, kb = jax.random.split(key, 5)
        return MUTParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 3 if self.bare is None else 2, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (h, h), 2 if self.variant == 2 else 1, dtype),
            w_z=recurrent_init(kz, (h, h), dtype) if self.variant == 3 else None,
            w_n=recurrent_init(kn, (h, h), dtype),
            b=bias_init(kb, (3, h), dtype).reshape(3 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MUTState:
        """Zeros `[*batch_shape, H]`."""
        return MUTState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MUTParams, x: Array) -> tuple[Array, ...]:
        """What r, z, n see of the input; of MUT1, whose `z` sees nothing else, `z` itself."""
        seen = list(gates(jnp.matmul(x, params.w_x), 3 if self.bare is None else 2))
        if self.bare is not None:
            seen.insert(self.bare, x)
        if self.variant == 1:
            seen[2] = jnp.tanh(seen[2])
        r, z, n = map(add_bias, seen, gates(params.b, 3))
        return r, sigmoid(z) if self.variant == 1 else z, n

    def step(self, params: MUTParams, state: MUTState, drive: tuple[Array, ...]) -> tuple[MUTState, Array]:
        """One step from `h` to `h'`."""
        (h,), (x_r, z, x_n) = state, drive
        h_r, *h_z = gates(dot(h, params.w_h), 2 if self.variant == 2 else 1)
        if params.w_z is not None:
            h_z = [dot(jnp.tanh(h), params.w_z)]
        if h_z:
            z = sigmoid(z + h_z[0])
        n = jnp.tanh(x_n + dot(sigmoid(x_r + h_r) * h, params.w_n))
        h = z * n + (1 - z) * h
        return MUTState(h), h
