"""The vanilla LSTM with peepholes and its ablations (Greff et al. 2017); Jozefowicz et al. 2015's are among them.

    i, f, g, o = x W_x + h W_h + b                          a block of H for each that there is
    i, f, o = i, f, o + [i, f, o of the step before] W_g    with gate recurrence
    i = σ(i + w_i ⊙ c)       f = σ(f + w_f ⊙ c)             a gate that is left out is 1; coupled: f = 1 - i
    c' = f ⊙ c + i ⊙ φ(g)
    o = τ(o + w_o ⊙ c')
    h' = o ⊙ ψ(c')

One structure: which gates there are, whether f is coupled to i, peepholes (the w), recurrence of the gates (W_g), and
the activations. `GREFF` and `JOZEFOWICZ` name the papers' choices of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import initializers
from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.ops import add, affine, dot, gates, weigh
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key

__all__ = ["GREFF", "JOZEFOWICZ", "VanillaLSTM", "VanillaLSTMParams", "VanillaLSTMState"]

GREFF: Mapping[str, Mapping[str, Any]] = {
    "V": {},
    "NIG": {"gates": "fo"},
    "NFG": {"gates": "io"},
    "NOG": {"gates": "if"},
    "NIAF": {"candidate_activation": jax.nn.identity},
    "NOAF": {"output_activation": jax.nn.identity},
    "CIFG": {"gates": "io", "coupled": True},
    "NP": {"peephole": False},
    "FGR": {"gate_recurrence": True},
}
"""The nine variants of Greff et al. 2017 as options of `VanillaLSTM`: `VanillaLSTM(3, 4, **GREFF["CIFG"])`."""

JOZEFOWICZ: Mapping[str, Mapping[str, Any]] = {
    "LSTM": {"peephole": False, "output_gate_activation": jnp.tanh},
    "LSTM-f": {"peephole": False, "output_gate_activation": jnp.tanh, "gates": "io"},
    "LSTM-i": {"peephole": False, "output_gate_activation": jnp.tanh, "gates": "fo"},
    "LSTM-o": {"peephole": False, "gates": "if"},
}
"""The LSTMs of Jozefowicz et al. 2015, whose output gate is a tanh as printed there; -b is `init(forget_bias=1.0)`."""


class VanillaLSTMParams(NamedTuple):
    """Parameters of `VanillaLSTM`; blocks i, f, g, o of those that there are, in `w_c` and `w_g` without g."""

    w_x: Array  # [I, nH], n = gates + 1
    w_h: Array  # [H, nH]
    b: Array  # [nH]
    w_c: Array | None  # [(n - 1)H], peepholes
    w_g: Array | None  # [(n - 1)H, (n - 1)H], from all gates to all gates


class VanillaLSTMState(NamedTuple):
    """State of `VanillaLSTM`; `gates` is None without gate recurrence."""

    h: Array  # [*batch, H]
    c: Array  # [*batch, H]
    gates: Array | None  # [*batch, (n - 1)H], blocks i, f, o of those that there are


@dataclass(frozen=True)
class VanillaLSTM(Cell):
    """The LSTM of Greff et al. 2017 and all its ablations.

        i = σ(x W_xi + h W_hi + w_i ⊙ c + b_i)
        f = σ(x W_xf + h W_hf + w_f ⊙ c + b_f)
        c' = f ⊙ c + i ⊙ φ(x W_xg + h W_hg + b_g)
        o = τ(x W_xo + h W_ho + w_o ⊙ c' + b_o)
        h' = o ⊙ ψ(c')                                      y = h'

    The variants, `VanillaLSTM(I, H, **GREFF[name])`, and their parameters, V having 4H(I + H + 1) + 3H:

        V       no option
        NIG     gates="fo": i = 1                           H(I + H + 1) + H less
        NFG     gates="io": f = 1                           H(I + H + 1) + H less
        NOG     gates="if": o = 1                           H(I + H + 1) + H less
        NIAF    φ the identity                              as many
        NOAF    ψ the identity                              as many
        CIFG    gates="io", coupled=True: f = 1 - i         H(I + H + 1) + H less
        NP      peephole=False                              3H less
        FGR     gate_recurrence=True: + [i, f, o] W_g       9H² more; into i, f, o, those of the step before, at first 0

    The cell of Hochreiter & Schmidhuber 1997 is gates="io", peephole=False, φ(z) = 4 σ(z) - 2, ψ(z) = 2 σ(z) - 1.

    Args:
        input_size: I, length of the last axis of the input.
        hidden_size: H, memory cells.
        gates: those that there are, of "i", "f", "o" in this order; the others are 1.
        coupled: whether f is 1 - i; then i is among `gates` and f is not.
        peephole: whether the gates see the memory through diagonal weights (i and f see `c`, o sees `c'`).
        gate_recurrence: whether the gates see those of the step before.
        gate_activation: σ of i and f, by default the logistic function.
        output_gate_activation: τ of o, by default the logistic function.
        candidate_activation: φ, by default tanh.
        output_activation: ψ, by default tanh.

    Raises:
        ValueError: a size is not a positive integer, an unknown gate, no gate for an option that acts on gates.

    Example:
        >>> import jaxrnn
        >>> cell = VanillaLSTM(input_size=3, hidden_size=4, **GREFF["FGR"])
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 3)))
        >>> ys.shape, state.gates.shape
        ((5, 2, 4), (2, 12))

    Reference: Greff, Srivastava, Koutník, Steunebrink & Schmidhuber 2017, "LSTM: A search space odyssey"; Jozefowicz,
    Zaremba & Sutskever 2015, "An empirical exploration of recurrent network architectures".
    """

    input_size: int
    hidden_size: int
    gates: str = "ifo"
    coupled: bool = False
    peephole: bool = True
    gate_recurrence: bool = False
    gate_activation: Activation = jax.nn.sigmoid
    output_gate_activation: Activation = jax.nn.sigmoid
    candidate_activation: Activation = jnp.tanh
    output_activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        check_sizes(input_size=self.input_size, hidden_size=self.hidden_size)
        if self.gates not in ("ifo", "if", "io", "fo", "i", "f", "o", ""):
            raise ValueError(f"gates: got {self.gates!r}, needs some of 'i', 'f', 'o', in this order")
        if self.coupled and not ("i" in self.gates and "f" not in self.gates):
            raise ValueError(f"gates: got {self.gates!r}, needs 'i' without 'f' where f is 1 - i (coupled=True)")
        if not self.gates and (self.peephole or self.gate_recurrence):
            raise ValueError("gates: got none, needs one for peephole or gate_recurrence")

    @property
    def blocks(self) -> str:
        """The names of the blocks of the fused products, a part of "ifgo"."""
        return "".join(name for name in "ifgo" if name == "g" or name in self.gates)

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
    ) -> VanillaLSTMParams:
        """Fresh parameters, gate block by gate block; weights are normal with deviation 0.1, as in Greff et al.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`.
            recurrent_init: of each `[H, H]` block of `w_h` and of `w_g`.
            bias_init: sees `[n, H]`, a row a block.
            forget_bias: added to the forget gate's bias; of no effect without that gate.
            peephole_init: sees `[n - 1, H]`.
        """
        i, h, n, k = self.input_size, self.hidden_size, len(self.blocks), len(self.gates)
        kx, kh, kb, kc, kg = jax.random.split(key, 5)
        b = bias_init(kb, (n, h), dtype)
        if "f" in self.gates:
            b = b.at[self.blocks.index("f")].add(forget_bias)
        w_g = [initializers.blocks(recurrent_init, one, (h, h), k, dtype) for one in jax.random.split(kg, k)]
        return VanillaLSTMParams(
            w_x=initializers.blocks(input_init, kx, (i, h), n, dtype),
            w_h=initializers.blocks(recurrent_init, kh, (h, h), n, dtype),
            b=b.reshape(n * h),
            w_c=peephole_init(kc, (k, h), dtype).reshape(k * h) if self.peephole else None,
            w_g=jnp.concatenate(w_g) if self.gate_recurrence else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> VanillaLSTMState:
        """Zeros: `h` and `c` `[*batch_shape, H]`, and the gates where they are carried."""
        h, c, carried = (jnp.zeros((*batch_shape, n * self.hidden_size), dtype) for n in (1, 1, len(self.gates)))
        return VanillaLSTMState(h, c, carried if self.gate_recurrence else None)

    def project(self, params: VanillaLSTMParams, x: Array) -> tuple[Array, ...]:
        """`x W_x + b`, a tuple of the blocks that there are."""
        return gates(affine(x, params.w_x, params.b), len(self.blocks))

    def step(
        self, params: VanillaLSTMParams, state: VanillaLSTMState, drive: tuple[Array, ...]
    ) -> tuple[VanillaLSTMState, Array]:
        """One step from `(h, c)` to `(h', c')`."""
        h, c, carried = state
        seen = dict(zip(self.blocks, add(drive, gates(dot(h, params.w_h), len(drive))), strict=True))
        if params.w_g is not None and carried is not None:
            recurrent = gates(dot(carried, params.w_g), len(self.gates))
            seen |= {name: seen[name] + r for name, r in zip(self.gates, recurrent, strict=True)}
        holes = {} if params.w_c is None else dict(zip(self.gates, gates(params.w_c, len(self.gates)), strict=True))

        def gate(name: str, activation: Activation, memory: Array) -> Array:
            if name not in self.gates:
                return jnp.ones_like(memory)
            return activation(seen[name] + weigh(memory, holes[name]) if holes else seen[name])

        i = gate("i", self.gate_activation, c)
        f = 1 - i if self.coupled else gate("f", self.gate_activation, c)
        c = f * c + i * self.candidate_activation(seen["g"])
        o = gate("o", self.output_gate_activation, c)
        h = o * self.output_activation(c)
        if carried is not None:
            present = {"i": i, "f": f, "o": o}
            carried = jnp.concatenate([present[name] for name in self.gates], axis=-1)
        return VanillaLSTMState(h, c, carried), h
