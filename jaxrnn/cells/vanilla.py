"""The vanilla LSTM, with peepholes, and its ablations (Greff et al. 2017)."""

import itertools
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import (
    check_activations,
    check_bools,
    check_choice,
    check_heads,
    check_initializers,
    check_positive,
    check_sizes,
)
from jaxrnn.ops import add, affine, dot, gates, recurrent, weigh
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["GREFF", "JOZEFOWICZ", "VanillaLSTM", "VanillaLSTMParams", "VanillaLSTMState"]


class VanillaLSTMParams(NamedTuple):
    """Parameters of `VanillaLSTM`; what an option leaves out is None."""

    w_x: Array  # [I, (k + 1)H], blocks i, f, g, o, of which k are gates of their own
    w_h: Array  # [H, (k + 1)H]; with several heads [heads, H / heads, (k + 1)H / heads]
    b: Array | None  # [(k + 1)H]
    w_c: Array | None  # peepholes, blocks i, f, o: [kH] if diagonal, [H, kH] if full
    w_g: Array | None  # [kH, kH], from the gates of the step before to the gates


class VanillaLSTMState(NamedTuple):
    """State of `VanillaLSTM`; `gates` is None without gate recurrence."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]
    gates: Array | None  # [*batch, kH], blocks i, f, o


@dataclass(frozen=True)
class VanillaLSTM(Cell[VanillaLSTMParams, VanillaLSTMState]):
    """Long short-term memory with peepholes, and every variant of its gates and of its memory.

        i = σ(x W_xi + h W_hi + w_i ⊙ c + b_i)
        f = σ(x W_xf + h W_hf + w_f ⊙ c + b_f)
        c' = f ⊙ c + i ⊙ φ(x W_xg + h W_hg + b_g)
        o = τ(x W_xo + h W_ho + w_o ⊙ c' + b_o)
        h' = o ⊙ ψ(c')                                      y = h'

    `VanillaLSTM(I, H, **GREFF[name])` is a variant of Greff et al. The vanilla one has 4H(I + H + 1) + 3H parameters:

        V       no option
        NIG     input_gate=False: i = 1                     H(I + H + 2) fewer
        NFG     forget_gate=False: f = 1                    H(I + H + 2) fewer
        NOG     output_gate=False: o = 1                    H(I + H + 2) fewer
        NIAF    φ the identity                              as many
        NOAF    ψ the identity                              as many
        CIFG    forget_gate="coupled": f = 1 - i            H(I + H + 2) fewer
        NP      peephole=False                              3H fewer
        FGR     gate_recurrence=True                        9H² more

    With FGR the gates also see `[i, f, o] W_g` of the step before, zero at first. The cell of Hochreiter & Schmidhuber
    1997 has forget_gate=False, peephole=False, φ(z) = 4 σ(z) - 2 and ψ(z) = 2 σ(z) - 1. The cell of Gers & Schmidhuber
    2000, for timing, has no ψ: output_activation=jax.nn.identity. TensorFlow's `use_peepholes`, `cell_clip` and
    `num_proj` are `Projected(VanillaLSTM(I, H, cell_clip=…), R)`.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        input_gate: whether there is an i; without it i is 1.
        forget_gate: whether there is an f; without it f is 1. "coupled": f is 1 - i.
        output_gate: whether there is an o; without it o is 1.
        peephole: whether the gates see the memory (i and f see `c`, o sees `c'`): True through diagonal weights, "full"
            through matrices, `c W_c` in place of `w ⊙ c`.
        peephole_gradient: whether gradients pass from the gates through the peepholes into the memory; in Gers,
            Schraudolph & Schmidhuber 2002 they do not. Ignored without peepholes.
        gate_recurrence: whether the gates see the gates of the step before.
        cell_clip: the bound of `c'`, which is kept within ±cell_clip; None: no bound.
        gate_activation: σ, by default the logistic function.
        output_gate_activation: τ, by default the logistic function.
        candidate_activation: φ, by default tanh.
        output_activation: ψ, by default tanh.
        use_bias: whether there is a `b`.
        heads: number of groups of units; `W_h` connects the units of a group only.

    Params:
        w_x: `[I, (k + 1)H]`, blocks i, f, g, o, of which k are gates of their own.
        w_h: `[H, (k + 1)H]`; with several heads `[heads, H / heads, (k + 1)H / heads]`.
        b: `[(k + 1)H]`, or None.
        w_c: peepholes, blocks i, f, o: `[kH]` if diagonal, `[H, kH]` if full, or None.
        w_g: `[kH, kH]`, from the gates of the step before to the gates, or None.

    Raises:
        TypeError: an activation is not a function, or a flag is not a bool.
        ValueError: a size is not a positive integer, `heads` does not divide `hidden_size`, `forget_gate` or `peephole`
            is unknown, `cell_clip` is not positive, or an option needs a gate that is left out.

    Example:
        >>> import jaxrnn
        >>> cell = VanillaLSTM(input_size=3, hidden_size=4, **GREFF["FGR"])
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.gates.shape
        ((5, 2, 4), (2, 12))

    Reference: Greff, Srivastava, Koutník, Steunebrink & Schmidhuber 2017, "LSTM: A search space odyssey"; peepholes:
    Gers & Schmidhuber 2000, "Recurrent nets that time and count", in the form of Graves 2013; Jozefowicz, Zaremba &
    Sutskever 2015, "An empirical exploration of recurrent network architectures".
    """

    input_size: int
    hidden_size: int
    _: KW_ONLY
    input_gate: bool = True
    forget_gate: bool | Literal["coupled"] = True
    output_gate: bool = True
    peephole: bool | Literal["full"] = True
    peephole_gradient: bool = True
    gate_recurrence: bool = False
    cell_clip: float | None = None
    gate_activation: Activation = jax.nn.sigmoid
    output_gate_activation: Activation = jax.nn.sigmoid
    candidate_activation: Activation = jnp.tanh
    output_activation: Activation = jnp.tanh
    use_bias: bool = True
    heads: int = 1

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        check_heads(self.heads, hidden_size=self.hidden_size)
        check_choice(forget_gate=self.forget_gate, among=(False, True, "coupled"))
        check_choice(peephole=self.peephole, among=(False, True, "full"))
        check_bools(
            input_gate=self.input_gate,
            output_gate=self.output_gate,
            peephole_gradient=self.peephole_gradient,
            gate_recurrence=self.gate_recurrence,
            use_bias=self.use_bias,
        )
        check_activations(
            gate_activation=self.gate_activation,
            output_gate_activation=self.output_gate_activation,
            candidate_activation=self.candidate_activation,
            output_activation=self.output_activation,
        )
        if self.cell_clip is not None:
            check_positive(cell_clip=self.cell_clip)
        if self.forget_gate == "coupled" and not self.input_gate:
            raise ValueError("input_gate: got False, needs True for forget_gate='coupled', f = 1 - i")
        for name in ("peephole", "gate_recurrence"):
            if getattr(self, name) and not any(self.own_gates):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, needs a gate, and all are left out")

    @property
    def own_gates(self) -> tuple[bool, bool, bool]:
        """Gates among i, f, o that have weights of their own."""
        return bool(self.input_gate), self.forget_gate not in (False, "coupled"), bool(self.output_gate)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = jax.nn.initializers.normal(0.1),
        recurrent_init: Initializer = jax.nn.initializers.normal(0.1),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 0.0,
        peephole_init: Initializer = jax.nn.initializers.normal(0.1),
        gate_init: Initializer = jax.nn.initializers.normal(0.1),
    ) -> VanillaLSTMParams:
        """Returns fresh parameters, initialized gate by gate; weights are normal with deviation 0.1, as in Greff et al.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default normal with deviation 0.1.
            recurrent_init: of each `[H, H]` block of `w_h`; with several heads, of each head's block; by default
                normal with deviation 0.1.
            bias_init: of `b`; sees `[k + 1, H]`, one row per block; by default zeros. Ignored without bias.
            forget_bias: added to the bias of f. Ignored without bias or without that gate.
            peephole_init: of `w_c`; sees `[k, H]`, one row per gate; by default normal with deviation 0.1. Full
                peepholes: sees each `[H, H]` block.
            gate_init: of each `[H, H]` block of `w_g`; by default normal with deviation 0.1.
        """
        check_initializers(
            input_init=input_init,
            recurrent_init=recurrent_init,
            bias_init=bias_init,
            peephole_init=peephole_init,
            gate_init=gate_init,
        )
        i, h, k = self.input_size, self.hidden_size, sum(self.own_gates)
        has_i, has_f, _ = self.own_gates
        kx, kh, kb, kc, kg = jax.random.split(key, 5)
        b = bias_init(kb, (k + 1, h), dtype)
        if has_f:
            b = b.at[int(has_i)].add(forget_bias)
        w_c = w_g = None
        if self.peephole == "full":
            w_c = initializers.blocks(kc, peephole_init, (h, h), k, dtype)
        elif self.peephole:
            w_c = peephole_init(kc, (k, h), dtype).reshape(k * h)
        if self.gate_recurrence:
            rows = jax.random.split(kg, k)
            w_g = jnp.concatenate([initializers.blocks(one, gate_init, (h, h), k, dtype) for one in rows])
        return VanillaLSTMParams(
            w_x=initializers.blocks(kx, input_init, (i, h), k + 1, dtype),
            w_h=initializers.blocks(kh, recurrent_init, (h, h), k + 1, dtype, self.heads),
            b=b.reshape((k + 1) * h) if self.use_bias else None,
            w_c=w_c,
            w_g=w_g,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> VanillaLSTMState:
        """Returns zeros: `h` and `c` `[*batch_shape, H]`, and the gates `[*batch_shape, kH]` with gate recurrence."""
        shape, k = (*batch_shape, self.hidden_size), sum(self.own_gates)
        before = jnp.zeros((*batch_shape, k * self.hidden_size), dtype) if self.gate_recurrence else None
        return VanillaLSTMState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), before)

    def project(self, params: VanillaLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple i, f, g, o, without the gates that are left out."""
        return gates(affine(x, params.w_x, params.b), sum(self.own_gates) + 1)

    def step(
        self, params: VanillaLSTMParams, state: VanillaLSTMState, drive: tuple[Array, ...]
    ) -> tuple[VanillaLSTMState, Array]:
        """Takes one step from `(h, c)` to `(h', c')`."""
        h, c, before = state
        has_i, has_f, has_o = self.own_gates
        blocks = iter(add(drive, recurrent(h, params.w_h, len(drive))))
        i = next(blocks) if has_i else None
        f = next(blocks) if has_f else None
        g = next(blocks)
        o = next(blocks) if has_o else None
        if params.w_g is not None and before is not None:
            i, f, o = _plus((i, f, o), gates(dot(before, params.w_g), sum(self.own_gates)))
        if params.w_c is not None:
            w_if, w_o = jnp.split(params.w_c, [(has_i + has_f) * self.hidden_size], axis=-1)
            i, f = self._peep((i, f), c, w_if)
        i = _gate(i, self.gate_activation)
        f = 1 - i if self.forget_gate == "coupled" else _gate(f, self.gate_activation)
        c = f * c + i * self.candidate_activation(g)
        if self.cell_clip is not None:
            c = jnp.clip(c, -self.cell_clip, self.cell_clip)
        if params.w_c is not None:
            (o,) = self._peep((o,), c, w_o)
        o = _gate(o, self.output_gate_activation)
        h = o * self.output_activation(c)
        if before is not None:
            before = jnp.concatenate(list(itertools.compress((i, f, o), self.own_gates)), axis=-1)
        return VanillaLSTMState(h, c, before), h

    def _peep(self, z: tuple[Array | None, ...], c: Array, w: Array) -> tuple[Array | None, ...]:
        """Adds to gates what they see of the memory, through diagonal weights `[nH]` or matrices `[H, nH]`."""
        n = w.shape[-1] // self.hidden_size
        if n == 0:
            return z
        c = c if self.peephole_gradient else jax.lax.stop_gradient(c)
        return _plus(z, tuple(weigh(c, one) for one in gates(w, n)) if w.ndim == 1 else gates(dot(c, w), n))


GREFF: Mapping[str, Mapping[str, Any]] = {
    "V": {},
    "NIG": {"input_gate": False},
    "NFG": {"forget_gate": False},
    "NOG": {"output_gate": False},
    "NIAF": {"candidate_activation": jax.nn.identity},
    "NOAF": {"output_activation": jax.nn.identity},
    "CIFG": {"forget_gate": "coupled"},
    "NP": {"peephole": False},
    "FGR": {"gate_recurrence": True},
}
"""The nine variants of Greff et al. 2017 as options of `VanillaLSTM`: `VanillaLSTM(3, 4, **GREFF["CIFG"])`."""

JOZEFOWICZ: Mapping[str, Mapping[str, Any]] = {
    "LSTM": {"peephole": False, "output_gate_activation": jnp.tanh},
    "LSTM-f": {"peephole": False, "output_gate_activation": jnp.tanh, "forget_gate": False},
    "LSTM-i": {"peephole": False, "output_gate_activation": jnp.tanh, "input_gate": False},
    "LSTM-o": {"peephole": False, "output_gate": False},
}
"""The LSTMs of Jozefowicz et al. 2015, whose printed output gate is a tanh; LSTM-b is `init(key, forget_bias=1.0)`."""


def _plus(z: tuple[Array | None, ...], blocks: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Adds one block to each gate that is not None."""
    present, structure = jax.tree.flatten(z)
    return jax.tree.unflatten(structure, add(tuple(present), blocks))


def _gate(z: Array | None, activation: Activation) -> Any:
    """Opens a gate; a gate that is left out is 1."""
    return 1.0 if z is None else activation(z)
