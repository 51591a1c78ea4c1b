"""Quasi-recurrent network (Bradbury, Merity, Xiong & Socher 2016)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import LinearCell
from jaxrnn.checks import check_bools, check_choice, check_initializers, check_sizes
from jaxrnn.ops import affine, gates
from jaxrnn.typing import Array, DTypeLike, Initializer, Key

__all__ = ["QRNN", "QRNNParams", "QRNNState"]


class QRNNParams(NamedTuple):
    """Parameters of `QRNN`."""

    w_x: Array  # [I, 3H], blocks z, f, o; ifo-pooling: [I, 4H], blocks z, f, o, i
    b: Array | None  # [3H] or [4H]


class QRNNState(NamedTuple):
    """State of `QRNN`."""

    c: Array  # [*batch, H]


@dataclass(frozen=True)
class QRNN(LinearCell[QRNNParams, QRNNState]):
    """Quasi-recurrent pooling, linear in its state.

        z, f, o[, i] = x W_x + b
        c' = σ(f) ⊙ c + (1 - σ(f)) ⊙ tanh(z)    pooling="fo"
        c' = σ(f) ⊙ c + σ(i) ⊙ tanh(z)          pooling="ifo"
        y = σ(o) ⊙ c'

    The paper's layer, with a masked convolution of width k, is `Stack((Window(I, k), QRNN(k * I, H)))`. Its f-pooling,
    without `o`, is `MinGRU(activation=jnp.tanh)`.

    Args:
        input_size: I, length of the last axis of the input; behind a `Window`, the length of a window.
        hidden_size: H, units.
        pooling: "fo", or "ifo" with a separate input gate.
        use_bias: whether there is a `b`.
        scan: "sequential" or "associative", see `LinearCell`.

    Params:
        w_x: `[I, 3H]`, blocks z, f, o; ifo-pooling: `[I, 4H]`, blocks z, f, o, i.
        b: `[3H]` or `[4H]`, or None.

    Raises:
        TypeError: `use_bias` is not a bool.
        ValueError: a size is not a positive integer, or `pooling` or `scan` is unknown.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.Window(3, 2), QRNN(input_size=6, hidden_size=4)))
        >>> params = net.init(jax.random.key(0))
        >>> (window, pool), ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, pool.c.shape, window.xs.shape
        ((5, 2, 4), (2, 4), (2, 1, 3))

    Reference: Bradbury, Merity, Xiong & Socher 2016, "Quasi-recurrent neural networks", section 2.
    """

    input_size: int
    hidden_size: int
    pooling: Literal["fo", "ifo"] = "fo"
    use_bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_choice(pooling=self.pooling, among=("fo", "ifo"))
        check_bools(use_bias=self.use_bias)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        bias_init: Initializer = initializers.zeros,
    ) -> QRNNParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            bias_init: of `b`; sees `[n, H]`, one row per gate; by default zeros. Ignored without bias.
        """
        check_initializers(input_init=input_init, bias_init=bias_init)
        i, h, n = self.input_size, self.hidden_size, 1 + len(self.pooling)
        kx, kb = jax.random.split(key)
        return QRNNParams(
            w_x=initializers.blocks(kx, input_init, (i, h), n, dtype),
            b=bias_init(kb, (n, h), dtype).reshape(n * h) if self.use_bias else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> QRNNState:
        """Returns zeros `[*batch_shape, H]`."""
        return QRNNState(c=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: QRNNParams, x: Array) -> tuple[Array, ...]:
        """Returns `tanh(z)`, `σ(f)`, `σ(o)` and, with ifo-pooling, `σ(i)`."""
        z, *rest = gates(affine(x, params.w_x, params.b), 1 + len(self.pooling))
        return jnp.tanh(z), *map(jax.nn.sigmoid, rest)

    def coefficients(self, params: QRNNParams, drive: tuple[Array, ...]) -> tuple[QRNNState, QRNNState]:
        """Returns the factor of `c` and the gated `tanh(z)`."""
        del params
        z, f, _, *i = drive
        return QRNNState(f), QRNNState((i[0] if i else 1 - f) * z)

    def readout(self, params: QRNNParams, output: QRNNState, drive: tuple[Array, ...]) -> Array:
        """Returns `o ⊙ c'`."""
        del params
        return drive[2].astype(output.c.dtype) * output.c
