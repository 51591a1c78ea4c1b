"""Gated linear attention (Yang et al. 2024)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_heads, check_initializers, check_positive, check_sizes
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.matrix_memory import MatrixDrive, MatrixMemory, matrix_chunk, matrix_chunk_size, matrix_step
from jaxrnn.ops import affine, gates, join_heads, split_heads, wide
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["GLAParams", "GLAState", "GatedLinearAttention"]


class GLAParams(NamedTuple):
    """Parameters of `GatedLinearAttention`."""

    w_x: Array  # [I, 3H], blocks q, k, v, of each the heads side by side
    w_a: Array  # [I, L], into few dimensions
    w_b: Array  # [L, H], and out of them
    b: Array  # [H]


class GLAState(NamedTuple):
    """State of `GatedLinearAttention`; d = H / heads."""

    s: Array  # [*batch, heads, d, d], a row for each entry of the key


@dataclass(frozen=True)
class GatedLinearAttention(Cell[GLAParams, GLAState]):
    """Gated linear attention: a matrix memory whose rows decay at rates that the input sets.

        q, k, v = x W_x                         of each head d = H / heads
        α = σ(x W_a W_b + b)^(1/τ)
        S' = α ⊙ S + k v^T
        y = q S' / √d

    `unroll` computes the outputs of a chunk of steps at once, by products over all pairs of its steps.

    The paper's layer goes on with a normalization of each head, a gate and a projection.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: number of memories, each of d x d numbers.
        rank: L, dimensions that the decay sees the input through.
        temperature: τ; the greater, the slower the memory decays.

    Params:
        w_x: `[I, 3H]`, blocks q, k, v, of each the heads side by side.
        w_a: `[I, L]`, into few dimensions.
        w_b: `[L, H]`, and out of them.
        b: `[H]`.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, or `temperature` is not positive.

    Example:
        >>> import jaxrnn
        >>> cell = GatedLinearAttention(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.s.shape
        ((5, 2, 4), (2, 2, 2, 2))

    Reference: Yang et al. 2024, "Gated linear attention transformers with hardware-efficient training", section 4.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    rank: int = 16
    temperature: float = 16.0

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size, rank=self.rank)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_positive(temperature=self.temperature)

    @property
    def chunkwise(self) -> bool:
        """True: `unroll` computes all steps of a chunk at once."""
        return True

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
    ) -> GLAParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`, of `w_a` and of `w_b`; by default `lecun_normal`.
            bias_init: of `b` `[H]`; by default zeros.
        """
        check_initializers(input_init=input_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, ka, kb, kc = jax.random.split(key, 4)
        return GLAParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 3, dtype),
            w_a=input_init(ka, (i, self.rank), dtype),
            w_b=input_init(kb, (self.rank, h), dtype),
            b=bias_init(kc, (h,), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> GLAState:
        """Returns zeros `[*batch_shape, heads, d, d]`."""
        d = self.hidden_size // self.heads
        return GLAState(s=jnp.zeros((*batch_shape, self.heads, d, d), dtype))

    def project(self, params: GLAParams, x: Array) -> MatrixDrive:
        """Returns `q / √d`, `k`, `v` and `log α`, head by head."""
        q, k, v = gates(jnp.matmul(x, params.w_x), 3)
        log_a = jax.nn.log_sigmoid(wide(affine(jnp.matmul(x, params.w_a), params.w_b, params.b))) / self.temperature
        q, k, v, log_a = (split_heads(z, self.heads) for z in (q, k, v, log_a))
        return MatrixDrive(q / (self.hidden_size // self.heads) ** 0.5, k, v, log_decay=log_a)

    def step(self, params: GLAParams, state: GLAState, drive: MatrixDrive) -> tuple[GLAState, Array]:
        """Takes one step from `S` to `S'` and reads `q S' / √d`."""
        memory, read = matrix_step(MatrixMemory(state.s), drive)
        return GLAState(memory.s), read.y

    def readout(self, params: GLAParams, output: Array, drive: MatrixDrive) -> Array:
        """Returns the heads side by side."""
        return join_heads(output)

    def run_chunk(self, params: GLAParams, state: GLAState, data: StepData, reverse: bool) -> tuple[GLAState, Array]:
        """Runs all steps of a chunk at once."""
        memory, reads = matrix_chunk(MatrixMemory(state.s), data, reverse)
        return GLAState(memory.s), reads.y

    def chunk_size(self, steps: int, drive: MatrixDrive, state: GLAState) -> int:
        """Returns the default number of steps in a chunk."""
        return matrix_chunk_size(steps, drive)
