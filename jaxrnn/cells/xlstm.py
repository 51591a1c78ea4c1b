"""The extended LSTM's two cells, sLSTM and mLSTM (Beck et al. 2024)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_choice, check_heads, check_initializers, check_sizes
from jaxrnn.engine.chunks import StepData
from jaxrnn.engine.matrix_memory import NOTHING, MatrixDrive, MatrixMemory, matrix_chunk, matrix_chunk_size, matrix_step
from jaxrnn.ops import add, affine, gates, join_heads, recurrent, split_heads, wide
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["MLSTM", "SLSTM", "MLSTMParams", "MLSTMState", "SLSTMParams", "SLSTMState"]


class SLSTMParams(NamedTuple):
    """Parameters of `SLSTM`."""

    w_x: Array  # [I, 4H], blocks i, f, z, o
    w_h: Array  # [H, 4H], with several heads [heads, H / heads, 4H / heads]
    b: Array  # [4H]


class SLSTMState(NamedTuple):
    """State of `SLSTM`."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H], times exp(m) the memory
    n: Array  # [*batch, H], times exp(m) the normalizer
    m: Array  # [*batch, H]


@dataclass(frozen=True)
class SLSTM(Cell[SLSTMParams, SLSTMState]):
    """The scalar LSTM with exponential gates.

        i, f, z, o = x W_x + h W_h + b
        m' = max(log f + m, i)                  log f = log σ(f), or f itself
        c' = exp(log f + m - m') ⊙ c + exp(i - m') ⊙ tanh(z)
        n' = exp(log f + m - m') ⊙ n + exp(i - m')
        h' = σ(o) ⊙ c' / n'                     y = h'

    The paper's c and n are c exp(m) and n exp(m): the running maximum m keeps every factor at or below one and cancels
    in h'. A fresh m is far below any gate, so nothing is remembered from before the first step.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        heads: number of groups of units in the product with h; a unit sees those of its own group only.
        forget_gate: "sigmoid" or "exponential".

    Params:
        w_x: `[I, 4H]`, blocks i, f, z, o.
        w_h: `[H, 4H]`, with several heads `[heads, H / heads, 4H / heads]`.
        b: `[4H]`.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, or an unknown forget gate.

    Example:
        >>> import jaxrnn
        >>> cell = SLSTM(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.n.shape
        ((5, 2, 4), (2, 4))

    Reference: Beck et al. 2024, "xLSTM: extended long short-term memory", section 2.2.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    forget_gate: Literal["sigmoid", "exponential"] = "sigmoid"

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_choice(forget_gate=self.forget_gate, among=("sigmoid", "exponential"))

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
    ) -> SLSTMParams:
        """Returns fresh parameters, gate block by gate block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, with several heads of each head's; by default `orthogonal`.
            bias_init: sees `[4, H]`, one row per gate; by default zeros.
            forget_bias: added to the forget gate's bias, so that the memory starts open.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h = self.input_size, self.hidden_size
        kx, kh, kb = jax.random.split(key, 3)
        return SLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 4, dtype, self.heads),
            b=bias_init(kb, (4, h), dtype).at[1].add(forget_bias).reshape(4 * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> SLSTMState:
        """Returns zeros `[*batch_shape, H]`, and an `m` far below any gate."""
        shape = (*batch_shape, self.hidden_size)
        h, c, n = (jnp.zeros(shape, dtype) for _ in range(3))
        return SLSTMState(h, c, n, m=_fresh(shape, dtype))

    def project(self, params: SLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b`, as the tuple i, f, z, o."""
        return gates(affine(x, params.w_x, params.b), 4)

    def step(self, params: SLSTMParams, state: SLSTMState, drive: tuple[Array, ...]) -> tuple[SLSTMState, Array]:
        """Takes one step from `(h, c, n, m)` to the next."""
        i, f, z, o = add(drive, recurrent(state.h, params.w_h, 4))
        log_f = _log_forget(self.forget_gate, f)
        m = jnp.maximum(log_f + state.m, i)
        keep, write = jnp.exp(log_f + state.m - m), jnp.exp(i - m)
        c = keep * state.c + write * jnp.tanh(z)
        n = keep * state.n + write
        h = jax.nn.sigmoid(o) * c / n
        return SLSTMState(h, c, n, m), h


class MLSTMParams(NamedTuple):
    """Parameters of `MLSTM`."""

    w_x: Array  # [I, 4H], blocks q, k, v, o, of each the heads side by side
    b: Array  # [4H]
    w_g: Array  # [I, 2 heads], blocks i, f
    b_g: Array  # [2 heads]


class MLSTMState(NamedTuple):
    """State of `MLSTM`; d = H / heads."""

    c: Array  # [*batch, heads, d, d], times exp(m) the memory, a row for each entry of the key
    n: Array  # [*batch, heads, d], times exp(m) the normalizer
    m: Array  # [*batch, heads]


@dataclass(frozen=True)
class MLSTM(Cell[MLSTMParams, MLSTMState]):
    """The LSTM with a matrix memory and exponential gates that see the input only.

        q, k, v, o = x W_x + b                  of each head d = H / heads
        i, f = x W_g + b_g                      one number per head
        m' = max(log f + m, i)                  log f = log σ(f), or f itself
        C' = exp(log f + m - m') C + exp(i - m') k v^T / √d
        n' = exp(log f + m - m') n + exp(i - m') k / √d
        h' = σ(o) ⊙ (q C') / max(|q · n'|, exp(-m'))            y = h'

    The paper's C and n are c exp(m) and n exp(m): the running maximum m keeps every factor at or below one and cancels
    in h'. A fresh m is far below any gate, so nothing is remembered from before the first step.

    `unroll` computes the outputs of a chunk of steps at once, by products over all pairs of its steps: work grows with
    T (chunk + d), and reverse mode keeps the memory before every chunk alone, whatever `save` says.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units of all heads together.
        heads: number of memories, each of d x d numbers.
        forget_gate: "sigmoid" or "exponential".

    Params:
        w_x: `[I, 4H]`, blocks q, k, v, o, of each the heads side by side.
        b: `[4H]`.
        w_g: `[I, 2 heads]`, blocks i, f.
        b_g: `[2 heads]`.

    Raises:
        ValueError: a size is not a positive integer, `heads` does not divide H, or an unknown forget gate.

    Example:
        >>> import jaxrnn
        >>> cell = MLSTM(input_size=3, hidden_size=4, heads=2)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.c.shape
        ((5, 2, 4), (2, 2, 2, 2))

    Reference: Beck et al. 2024, "xLSTM: extended long short-term memory", section 2.3.
    """

    input_size: int
    hidden_size: int
    heads: int = 1
    forget_gate: Literal["sigmoid", "exponential"] = "sigmoid"

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_choice(forget_gate=self.forget_gate, among=("sigmoid", "exponential"))

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
        forget_bias: float = 1.0,
    ) -> MLSTMParams:
        """Returns fresh parameters, block by block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x` and each `[I, heads]` block of `w_g`; by default
                `lecun_normal`.
            bias_init: sees `[4, H]`, and `[2, heads]` for the gates; by default zeros.
            forget_bias: added to the forget gate's bias, so that the memory starts open.
        """
        check_initializers(input_init=input_init, bias_init=bias_init)
        i, h, heads = self.input_size, self.hidden_size, self.heads
        kx, kb, kg, kc = jax.random.split(key, 4)
        return MLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 4, dtype),
            b=bias_init(kb, (4, h), dtype).reshape(4 * h),
            w_g=initializers.blocks(kg, input_init, (i, heads), 2, dtype),
            b_g=bias_init(kc, (2, heads), dtype).at[1].add(forget_bias).reshape(2 * heads),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MLSTMState:
        """Returns zeros, and an `m` far below any gate."""
        shape, d = (*batch_shape, self.heads), self.hidden_size // self.heads
        return MLSTMState(c=jnp.zeros((*shape, d, d), dtype), n=jnp.zeros((*shape, d), dtype), m=_fresh(shape, dtype))

    def project(self, params: MLSTMParams, x: Array) -> tuple[MatrixDrive, Array]:
        """Returns `q`, `k / √d`, `v` beside a one, `log f` and `i`, head by head; and `σ(o)`."""
        q, k, v, o = gates(affine(x, params.w_x, params.b), 4)
        i, f = gates(affine(x, params.w_g, params.b_g), 2)
        q, k, v, i, f = (split_heads(z, self.heads) for z in (q, k, v, i, f))
        k = k / (self.hidden_size // self.heads) ** 0.5
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        log_f = _log_forget(self.forget_gate, wide(f))
        return MatrixDrive(q, k, v, log_decay=log_f, log_input=i), jax.nn.sigmoid(o)

    def step(
        self, params: MLSTMParams, state: MLSTMState, drive: tuple[MatrixDrive, Array]
    ) -> tuple[MLSTMState, tuple[Array, Array, Array]]:
        """Takes one step and reads `q C'`, `q · n'` and `m'`."""
        write, one = drive[0], jnp.ones_like(drive[0].v[..., -1:])
        (c, m), read = matrix_step(MatrixMemory(state.c, state.m), write._replace(v=write.v[..., :-1]))
        (n, _), weight = matrix_step(MatrixMemory(state.n[..., None], state.m), write._replace(v=one))
        return MLSTMState(c, n[..., 0], m), (read.y, weight.y, m)

    def readout(
        self, params: MLSTMParams, output: tuple[Array, Array, Array], drive: tuple[MatrixDrive, Array]
    ) -> Array:
        """Returns `σ(o) ⊙ (q C') / max(|q · n'|, exp(-m'))`."""
        read, weight, m = output
        # What is divided by exp(80) is zero, and where exp(-m') overflows, a derivative would be zero times infinity.
        least = jnp.exp(jnp.minimum(-m, 80.0))[..., None]
        return drive[1] * join_heads(read / jnp.maximum(jnp.abs(weight), least))

    def run_chunk(
        self, params: MLSTMParams, state: MLSTMState, data: StepData, reverse: bool
    ) -> tuple[MLSTMState, tuple[Array, Array, Array]]:
        """Runs all steps of a chunk at once, with `C` beside `n` as one matrix whose last value is always one."""
        memory = MatrixMemory(jnp.concatenate([state.c, state.n[..., None]], axis=-1), state.m)
        (s, m), (y, ms) = matrix_chunk(memory, data._replace(drives=data.drives[0]), reverse)
        return MLSTMState(s[..., :-1], s[..., -1], m), (y[..., :-1], y[..., -1:], ms)

    def chunk_size(self, steps: int, drive: tuple[MatrixDrive, Array], state: MLSTMState) -> int:
        """Returns the default number of steps in a chunk."""
        return matrix_chunk_size(steps, drive[0])


def _fresh(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A running maximum far below any gate."""
    return jnp.full(shape, max(NOTHING, float(jnp.finfo(dtype).min)), dtype)


def _log_forget(forget_gate: str, f: Array) -> Array:
    """`log f`."""
    return jax.nn.log_sigmoid(f) if forget_gate == "sigmoid" else f
