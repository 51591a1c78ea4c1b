"""DeltaNet, fast weights with the delta rule (Schlag, Irie & Schmidhuber 2021; Yang et al. 2024)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_heads, check_initializers, check_sizes
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.matrix_memory import MatrixDrive, MatrixMemory, matrix_chunk, matrix_chunk_size, matrix_step
from jaxrnn.ops import gates, join_heads, safe_sqrt, split_heads
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["DeltaNet", "DeltaNetParams", "DeltaNetState"]


class DeltaNetParams(NamedTuple):
    """Parameters of `DeltaNet`."""

    w_x: Array  # [I, 3H], blocks q, k, v, of each the heads side by side
    w_b: Array  # [I, heads]


class DeltaNetState(NamedTuple):
    """State of `DeltaNet`; d = H / heads."""

    s: Array  # [*batch, heads, d, d], a row for each entry of the key


@dataclass(frozen=True)
class DeltaNet(Cell[DeltaNetParams, DeltaNetState]):
    """Fast weights with the delta rule: a matrix memory in which a key's new value replaces its old one.

        q, k, v = x W_x                         of each head d = H / heads
        q, k = φ(q) / ‖φ(q)‖, φ(k) / ‖φ(k)‖     φ = SiLU
        β = σ(x W_b)                            one number per head
        S' = S + β k (v - k S)^T                = S + k (a S) + k (β v)^T,  a = -β k
        y = q S'

    `unroll` computes the outputs of a chunk of steps at once, by products over all pairs of its steps.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: number of memories, each of d x d numbers.

    Params:
        w_x: `[I, 3H]`, blocks q, k, v, of each the heads side by side.
        w_b: `[I, heads]`.

    Raises:
        ValueError: a size is not a positive integer, or `heads` does not divide H.

    Example:
        >>> import jaxrnn
        >>> cell = DeltaNet(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.s.shape
        ((5, 2, 4), (2, 2, 2, 2))

    Reference: Schlag, Irie & Schmidhuber 2021, "Linear transformers are secretly fast weight programmers"; SiLU and the
    norm: Yang et al. 2024, "Parallelizing linear transformers with the delta rule over sequence length".
    """

    input_size: int
    hidden_size: int
    heads: int = 1

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)

    @property
    def chunkwise(self) -> bool:
        """True: `unroll` computes all steps of a chunk at once."""
        return True

    def init(
        self, key: Key, *, dtype: DTypeLike = jnp.float32, input_init: Initializer = initializers.lecun_normal()
    ) -> DeltaNetParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`, and of `w_b`; by default `lecun_normal`.
        """
        check_initializers(input_init=input_init)
        i, h = self.input_size, self.hidden_size
        kx, kb = jax.random.split(key)
        return DeltaNetParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 3, dtype), w_b=input_init(kb, (i, self.heads), dtype)
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> DeltaNetState:
        """Returns zeros `[*batch_shape, heads, d, d]`."""
        d = self.hidden_size // self.heads
        return DeltaNetState(s=jnp.zeros((*batch_shape, self.heads, d, d), dtype))

    def project(self, params: DeltaNetParams, x: Array) -> MatrixDrive:
        """Returns `q`, `k`, `β v` and `a = -β k`, head by head."""
        q, k, v = (split_heads(z, self.heads) for z in gates(jnp.matmul(x, params.w_x), 3))
        q, k = _unit(jax.nn.silu(q)), _unit(jax.nn.silu(k))
        beta = jax.nn.sigmoid(jnp.matmul(x, params.w_b))[..., None]
        return MatrixDrive(q, k, beta * v, a=-beta * k)

    def step(self, params: DeltaNetParams, state: DeltaNetState, drive: MatrixDrive) -> tuple[DeltaNetState, Array]:
        """Takes one step from `S` to `S'` and reads `q S'`."""
        memory, read = matrix_step(MatrixMemory(state.s), drive)
        return DeltaNetState(memory.s), read.y

    def readout(self, params: DeltaNetParams, output: Array, drive: MatrixDrive) -> Array:
        """Returns the heads side by side."""
        return join_heads(output)

    def run_chunk(
        self, params: DeltaNetParams, state: DeltaNetState, data: StepData, reverse: bool
    ) -> tuple[DeltaNetState, Array]:
        """Runs all steps of a chunk at once."""
        memory, reads = matrix_chunk(MatrixMemory(state.s), data, reverse)
        return DeltaNetState(memory.s), reads.y

    def chunk_size(self, steps: int, drive: MatrixDrive, state: DeltaNetState) -> int:
        """Returns the default number of steps in a chunk."""
        return matrix_chunk_size(steps, drive)


def _unit(x: Array) -> Array:
    """`x` of length one, or zero; the derivative at zero is zero."""
    length = safe_sqrt(jnp.sum(x * x, axis=-1, keepdims=True))
    return x / jnp.where(length == 0, jnp.ones_like(length), length)
