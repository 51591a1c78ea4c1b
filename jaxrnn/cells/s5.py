"""S5, a diagonal state space with many inputs and outputs (Smith, Warrington & Linderman 2023)."""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrnn.cell import LinearCell
from jaxrnn.checks import check_choice, check_sizes
from jaxrnn.ops import complex_dtype, dot, repeat_like, to_complex, to_real, weigh, wide
from jaxrnn.typing import Array, DTypeLike, Key

__all__ = ["S5", "S5Params", "S5State"]


class S5Params(NamedTuple):
    """Parameters of `S5`, all real."""

    decay: Array  # [H], Re λ, taken as at most -1e-4
    frequency: Array  # [H], Im λ
    log_step: Array  # [H], log Δ
    w_x: Array  # [I, 2H], blocks Re, Im
    w_y: Array  # [2H, I], blocks Re, Im of rows
    d: Array  # [I]


class S5State(NamedTuple):
    """State of `S5`."""

    h: Array  # [*batch, H] complex, one of each conjugate pair


@dataclass(frozen=True)
class S5(LinearCell[S5Params, S5State]):
    """A diagonal state space, linear in its state, discretized with learned steps; as many outputs as inputs.

        dh/dt = λ ⊙ h + x W_x,  Δ = exp(log Δ)       continuous
        h' = λ̄ ⊙ h + κ ⊙ (x W_x)                    discrete, complex
        y = 2 Re(h' W_y) + d ⊙ x                    real

        zoh         λ̄ = exp(λ Δ)                     κ = (λ̄ - 1) / λ
        bilinear    λ̄ = (1 + λ Δ/2) / (1 - λ Δ/2)    κ = Δ / (1 - λ Δ/2)

    The eigenvalues come in conjugate pairs, and one of each pair is kept: `hidden_size=H` is the paper's P = 2H. Real
    parts of λ above -1e-4 are clipped to it (the authors' `clip_eigs`), so the recurrence is stable.

    Args:
        input_size: I, length of the last axis of the input and of the output.
        hidden_size: H, conjugate pairs of state.
        discretization: "zoh", which holds the input over a step, or "bilinear".
        scan: "sequential" or "associative", see `LinearCell`.

    Params:
        decay: `[H]`, Re λ, taken as at most -1e-4.
        frequency: `[H]`, Im λ.
        log_step: `[H]`, log Δ.
        w_x: `[I, 2H]`, blocks Re, Im.
        w_y: `[2H, I]`, blocks Re, Im of rows.
        d: `[I]`.

    Raises:
        ValueError: a size is not a positive integer, or `discretization` or `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> cell = S5(input_size=3, hidden_size=4, scan="associative")
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.h.shape, state.h.dtype
        ((5, 2, 3), (2, 4), dtype('complex64'))

    Reference: Smith, Warrington & Linderman 2023, "Simplified state space layers for sequence modeling", section 3.
    """

    input_size: int
    hidden_size: int
    discretization: Literal["zoh", "bilinear"] = "zoh"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_choice(discretization=self.discretization, among=("zoh", "bilinear"))

    @property
    def output_size(self) -> int:
        """I, `input_size`."""
        return self.input_size

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        blocks: int = 1,
        min_step: float = 0.001,
        max_step: float = 0.1,
    ) -> S5Params:
        """Returns fresh parameters: λ are eigenvalues of HiPPO-N matrices, and the weights are drawn in their basis.

        Args:
            key: a typed key.
            dtype: of every parameter.
            blocks: J, number of HiPPO-N matrices on the diagonal; divides `hidden_size`.
            min_step: the least Δ, which is log-uniform.
            max_step: the greatest Δ.

        Raises:
            ValueError: `blocks` does not divide `hidden_size`, or not 0 < min_step < max_step.
        """
        i, h = self.input_size, self.hidden_size
        check_sizes(blocks=blocks)
        if h % blocks:
            raise ValueError(f"blocks: got {blocks}, needs a divisor of hidden_size = {h}")
        if not 0 < min_step < max_step:
            raise ValueError(f"min_step, max_step: got {min_step} and {max_step}, needs 0 < min_step < max_step")
        eigenvalues, vectors = hippo_normal(2 * h // blocks)
        # One of each conjugate pair: negative imaginary parts come first.
        eigenvalues, vectors = eigenvalues[: h // blocks], vectors[:, : h // blocks]
        eigenvalues, basis = np.tile(eigenvalues, blocks), np.kron(np.eye(blocks), vectors)  # [2H, H]
        ks, kx, ky, kd = jax.random.split(key, 4)
        w_x = jax.random.normal(kx, (i, 2 * h), dtype) / i**0.5
        w_y = jax.random.normal(ky, (2 * h, i), dtype) / (2 * h) ** 0.5
        into, back = np.conj(basis), basis.T
        return S5Params(
            decay=jnp.asarray(eigenvalues.real, dtype),
            frequency=jnp.asarray(eigenvalues.imag, dtype),
            log_step=jax.random.uniform(ks, (h,), dtype, np.log(min_step), np.log(max_step)),
            w_x=jnp.matmul(w_x, jnp.asarray(np.concatenate([into.real, into.imag], axis=1), dtype)),
            w_y=jnp.matmul(jnp.asarray(np.concatenate([back.real, back.imag]), dtype), w_y),
            d=jax.random.normal(kd, (i,), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> S5State:
        """Returns complex zeros `[*batch_shape, H]`."""
        return S5State(h=jnp.zeros((*batch_shape, self.hidden_size), complex_dtype(dtype)))

    def project(self, params: S5Params, x: Array) -> tuple[Array, Array]:
        """Returns `κ ⊙ (x W_x)`, blocks Re and Im, and the input for `readout`."""
        z = to_complex(jnp.matmul(x, params.w_x))
        return to_real(weigh(z, self.discrete(params)[1])).astype(x.dtype), x

    def coefficients(self, params: S5Params, drive: tuple[Array, Array]) -> tuple[S5State, S5State]:
        """Returns `λ̄` and `κ ⊙ (x W_x)`."""
        b = to_complex(drive[0])
        return S5State(repeat_like(self.discrete(params)[0], b)), S5State(b)

    def readout(self, params: S5Params, output: S5State, drive: tuple[Array, Array]) -> Array:
        """Returns `2 Re(h' W_y) + d ⊙ x`, as one real product."""
        x = drive[1]
        return 2 * dot(to_real(jnp.conj(output.h)), params.w_y).astype(x.dtype) + weigh(x, params.d)

    def discrete(self, params: S5Params) -> tuple[Array, Array]:
        """Returns `λ̄` and `κ` `[H]`."""
        eigenvalues = lax.complex(jnp.minimum(wide(params.decay), -1e-4), wide(params.frequency))
        step = jnp.exp(wide(params.log_step)).astype(eigenvalues.dtype)
        if self.discretization == "zoh":
            return jnp.exp(eigenvalues * step), jnp.expm1(eigenvalues * step) / eigenvalues
        half = eigenvalues * step / 2
        return (1 + half) / (1 - half), step / (1 - half)


@functools.lru_cache(maxsize=2)  # layers of a network are of one size, mostly; each check of parameters asks for it
def hippo_normal(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the eigenvalues `[size]` and eigenvectors (columns) of HiPPO-N, the normal part of HiPPO-LegS, read-only.

    Example:
        >>> eigenvalues, vectors = hippo_normal(4)
        >>> bool(np.allclose(eigenvalues.real, -0.5)), bool(np.allclose(vectors @ np.conj(vectors.T), np.eye(4)))
        (True, True)
        >>> hippo_normal(4)[0] is eigenvalues
        True
    """
    n = np.arange(size)
    root = np.sqrt(2 * n + 1)
    legs = -(np.tril(root[:, None] * root, -1) + np.diag(n + 1))
    # With the rank-one part added it is -1/2 plus a skew-symmetric matrix, i times a Hermitian one.
    normal = legs + np.sqrt(n + 0.5)[:, None] * np.sqrt(n + 0.5)
    frequencies, vectors = np.linalg.eigh(-1j * (normal + 0.5 * np.eye(size)))
    eigenvalues = -0.5 + 1j * frequencies
    for array in (eigenvalues, vectors):
        array.flags.writeable = False
    return eigenvalues, vectors
