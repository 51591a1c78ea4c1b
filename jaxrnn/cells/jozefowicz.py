"""The three mutated cells that an evolutionary search found (Jozefowicz, Zaremba & Sutskever 2015)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_bools, check_choice, check_initializers, check_sizes
from jaxrnn.ops import add_bias, dot, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["MUT", "MUTParams", "MUTState"]


class MUTParams(NamedTuple):
    """Parameters of `MUT`; what a variant does not have is None."""

    w_x: Array  # [I, 3H], blocks r, z, n; [I, 2H] without n in MUT1, without r in MUT2, unless the input is projected
    w_h: Array  # [H, H], block r; MUT2: [H, 2H], blocks r, z
    w_z: Array | None  # [H, H], MUT3 only
    w_n: Array  # [H, H]
    b: Array  # [3H], blocks r, z, n


class MUTState(NamedTuple):
    """State of `MUT`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class MUT(Cell[MUTParams, MUTState]):
    """A mutated cell of Jozefowicz et al. 2015: MUT1, MUT2 or MUT3; `z` takes the new state.

        MUT1    r = σ(x W_xr + h W_hr + b_r)    z = σ(x W_xz + b_z)                    a = tanh(x)
        MUT2    r = σ(x + h W_hr + b_r)         z = σ(x W_xz + h W_hz + b_z)           a = x W_xn
        MUT3    r = σ(x W_xr + h W_hr + b_r)    z = σ(x W_xz + tanh(h) W_z + b_z)      a = x W_xn
        n = tanh(a + (r ⊙ h) W_n + b_n)
        h' = z ⊙ n + (1 - z) ⊙ h                y = h'

    The LSTMs of the same paper are `VanillaLSTM(I, H, **JOZEFOWICZ[name])`, its GRU is `GRU(I, H, reset="before")`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        variant: 1, 2 or 3.
        project_input: whether a learned `x W_p` replaces the bare x of MUT1 and MUT2. Ignored by MUT3.

    Params:
        w_x: `[I, 3H]`, blocks r, z, n; `[I, 2H]` without n in MUT1, without r in MUT2, unless the input is projected.
        w_h: `[H, H]`, block r; MUT2: `[H, 2H]`, blocks r, z.
        w_z: `[H, H]`, MUT3 only, or None.
        w_n: `[H, H]`.
        b: `[3H]`, blocks r, z, n.

    Raises:
        TypeError: `project_input` is not a bool.
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
        check_bools(project_input=self.project_input)
        if self._bare and self.input_size != self.hidden_size:
            raise ValueError(
                f"input_size: got {self.input_size}, MUT{self.variant} needs hidden_size = {self.hidden_size}, "
                "or project_input=True"
            )

    @property
    def _bare(self) -> bool:
        """Whether x stands somewhere without a weight."""
        return self.variant != 3 and not self.project_input

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
    ) -> MUTParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, of `w_z` and of `w_n`; by default `orthogonal`.
            bias_init: of `b`; sees `[3, H]`, rows r, z, n; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kz, kn, kb = jax.random.split(key, 5)
        return MUTParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 2 if self._bare else 3, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 2 if self.variant == 2 else 1, dtype),
            w_z=recurrent_init(kz, (h, h), dtype) if self.variant == 3 else None,
            w_n=recurrent_init(kn, (h, h), dtype),
            b=bias_init(kb, (3, h), dtype).reshape(3 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MUTState:
        """Returns zeros `[*batch_shape, H]`."""
        return MUTState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MUTParams, x: Array) -> tuple[Array, ...]:
        """Returns what r, z, n see of the input; the `z` of MUT1 sees nothing else and is complete."""
        w, (b_r, b_z, b_n) = jnp.matmul(x, params.w_x), gates(params.b, 3)
        if not self._bare:
            r, z, n = gates(w, 3)
        elif self.variant == 1:
            (r, z), n = gates(w, 2), x
        else:
            r, (z, n) = x, gates(w, 2)
        if self.variant == 1:
            return add_bias(r, b_r), sigmoid(add_bias(z, b_z)), add_bias(jnp.tanh(n), b_n)
        return add_bias(r, b_r), add_bias(z, b_z), add_bias(n, b_n)

    def step(self, params: MUTParams, state: MUTState, drive: tuple[Array, ...]) -> tuple[MUTState, Array]:
        """Takes one step from `h` to `h'`."""
        (h,), (x_r, z, x_n) = state, drive
        if self.variant == 2:
            h_r, h_z = gates(dot(h, params.w_h), 2)
            z = sigmoid(z + h_z)
        else:
            h_r = dot(h, params.w_h)
        if params.w_z is not None:  # MUT3
            z = sigmoid(z + dot(jnp.tanh(h), params.w_z))
        r = sigmoid(x_r + h_r)
        n = jnp.tanh(x_n + dot(r * h, params.w_n))
        h = z * n + (1 - z) * h
        return MUTState(h), h
