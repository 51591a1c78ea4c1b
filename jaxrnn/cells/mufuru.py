"""Multi-function recurrent unit (Weissenborn & Rocktäschel 2016)."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_activations, check_initializers, check_sizes
from jaxrnn.ops import affine, dot, gates, safe_sqrt
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["OPERATIONS", "MuFuRu", "MuFuRuParams", "MuFuRuState"]


class MuFuRuParams(NamedTuple):
    """Parameters of `MuFuRu`."""

    w_x: Array  # [I, (2 + J)H], blocks r, v, J operations
    w_h: Array  # [H, (1 + J)H], blocks r, J operations
    w_v: Array  # [H, H]
    b: Array  # [(2 + J)H]


class MuFuRuState(NamedTuple):
    """State of `MuFuRu`."""

    h: Array  # [*batch, H]


@dataclass(frozen=True)
class MuFuRu(Cell[MuFuRuParams, MuFuRuState]):
    """Multi-function recurrent unit: each unit mixes operations on its old state `h` and a feature `v`.

        r = σ(x W_xr + h W_hr + b_r)
        v = φ(x W_xv + (r ⊙ h) W_v + b_v)
        p = softmax over j of (x W_xj + h W_hj + b_j)   for each unit
        h' = Σ_j p_j ⊙ op_j(h, v)                       y = h'

        keep h    replace v    mul h ⊙ v    diff h - v    forget 0    max, min of h and v
        sqrt_diff 0.25 sqrt(|h - v|)    sqr_diff 0.25 (h - v)²    abs_diff 0.5 |h - v|

    The published programs differ: Element-Research has the default; the authors have keep, replace, mul, abs_diff and
    sqr_diff. With only keep and replace, and tanh for φ, it is `GRU(reset="before")`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, units.
        operations: names of operations above, or functions `(h, v) -> h'` of arrays `[*batch, H]`.
        activation: φ, by default the logistic function, as in both programs; Element-Research's text has tanh.

    Params:
        w_x: `[I, (2 + J)H]`, blocks r, v, J operations.
        w_h: `[H, (1 + J)H]`, blocks r, J operations.
        w_v: `[H, H]`.
        b: `[(2 + J)H]`.

    Raises:
        TypeError: an activation is not a function.
        ValueError: a size is not a positive integer, no operation, or an unknown one.

    Example:
        >>> import jaxrnn
        >>> def mean(h, v):
        ...     return (h + v) / 2
        >>> cell = MuFuRu(input_size=3, hidden_size=4, operations=("keep", "replace", mean))
        >>> params = cell.init(jax.random.key(0))
        >>> state, y = cell(params, cell.initial_state((2,)), jnp.ones((2, 3)))
        >>> y.shape
        (2, 4)

    Reference: Weissenborn & Rocktäschel 2016, "MuFuRU: The multi-function recurrent unit".
    """

    input_size: int
    hidden_size: int
    operations: tuple[str | Callable[[Array, Array], Array], ...] = (
        "keep",
        "replace",
        "mul",
        "diff",
        "forget",
        "sqrt_diff",
        "max",
        "min",
    )
    activation: Activation = jax.nn.sigmoid

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_activations(activation=self.activation)
        if not isinstance(self.operations, tuple) or not self.operations:
            raise ValueError(f"operations: got {self.operations!r}, needs a tuple of at least one")
        for operation in self.operations:
            if not (callable(operation) or (isinstance(operation, str) and operation in OPERATIONS)):
                raise ValueError(f"operations: got {operation!r}, needs a function or one of {', '.join(OPERATIONS)}")

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        reset_bias: float = 1.0,
    ) -> MuFuRuParams:
        """Returns fresh parameters, initialized block by block.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, and of `w_v`; by default `orthogonal`.
            bias_init: of `b`; sees `[2 + J, H]`, rows r, v, operations; by default zeros.
            reset_bias: added to the bias of r, as in the authors' program, so that `v` sees the state at first.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        i, h, j = self.input_size, self.hidden_size, len(self.operations)
        kx, kh, kv, kb = jax.random.split(key, 4)
        return MuFuRuParams(
            w_x=initializers.blocks(kx, input_init, (i, h), 2 + j, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), 1 + j, dtype),
            w_v=recurrent_init(kv, (h, h), dtype),
            b=bias_init(kb, (2 + j, h), dtype).at[0].add(reset_bias).reshape((2 + j) * h),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MuFuRuState:
        """Returns zeros `[*batch_shape, H]`."""
        return MuFuRuState(h=jnp.zeros((*batch_shape, self.hidden_size), dtype))

    def project(self, params: MuFuRuParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as a tuple: r, v, and one entry per operation."""
        return gates(affine(x, params.w_x, params.b), 2 + len(self.operations))

    def step(self, params: MuFuRuParams, state: MuFuRuState, drive: tuple[Array, ...]) -> tuple[MuFuRuState, Array]:
        """Takes one step from `h` to `h'`."""
        (h,), (x_r, x_v, *x_p) = state, drive
        h_r, *h_p = gates(dot(h, params.w_h), 1 + len(x_p))
        v = self.activation(x_v + dot(jax.nn.sigmoid(x_r + h_r) * h, params.w_v))
        logits = [a + b for a, b in zip(x_p, h_p, strict=True)]
        top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, logits))
        weights = [jnp.exp(one - top) for one in logits]
        terms = (
            w * (op if callable(op) else OPERATIONS[op])(h, v) for w, op in zip(weights, self.operations, strict=True)
        )
        h = functools.reduce(jnp.add, terms) / functools.reduce(jnp.add, weights)
        return MuFuRuState(h), h


def sqrt_diff(h: Array, v: Array) -> Array:
    """Returns `0.25 sqrt(|h - v|)`; its derivative is 0 where h = v."""
    return 0.25 * safe_sqrt(jnp.abs(h - v))


OPERATIONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "keep": lambda h, v: h,
    "replace": lambda h, v: v,
    "mul": lambda h, v: h * v,
    "diff": lambda h, v: h - v,
    "forget": lambda h, v: jnp.zeros_like(h),
    "sqrt_diff": sqrt_diff,
    "max": jnp.maximum,
    "min": jnp.minimum,
    # The authors' program has these in place of diff and sqrt_diff.
    "abs_diff": lambda h, v: 0.5 * jnp.abs(h - v),
    "sqr_diff": lambda h, v: 0.25 * (h - v) ** 2,
}
"""The operations by name, `(h, v) -> h'` for arrays `[*batch, H]`."""
