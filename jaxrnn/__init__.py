"""Recurrent networks for JAX: every cell a pure function, only the recurrence sequential.

>>> import jax, jaxrnn
>>> cell = jaxrnn.LSTM(input_size=3, hidden_size=4)
>>> params = cell.init(jax.random.key(0))
>>> xs = jax.random.normal(jax.random.key(1), (5, 2, 3))        # [T, B, I]
>>> state, ys = jaxrnn.unroll(cell, params, xs)
>>> ys.shape
(5, 2, 4)

`jaxrnn.nnx` and `jaxrnn.linen` wrap any cell as a Flax module, `jaxrnn.training` trains with Optax; each is imported by
its name, so that `import jaxrnn` needs JAX alone.
"""

from jaxrnn import initializers
from jaxrnn.cell import Cell, add, add_bias, affine, cast, dot, gates, recurrent, weigh
from jaxrnn.cells import (
    GREFF,
    GRU,
    JOZEFOWICZ,
    LSTM,
    MUT,
    QRNN,
    Elman,
    ElmanParams,
    ElmanState,
    Euler,
    EulerParams,
    EulerState,
    Function,
    GRUParams,
    GRUState,
    LayerNormGRU,
    LayerNormGRUParams,
    LayerNormGRUState,
    LayerNormLSTM,
    LayerNormLSTMParams,
    LayerNormLSTMState,
    LSTMParams,
    LSTMState,
    MinGRU,
    MinGRUParams,
    MinGRUState,
    MinLSTM,
    MinLSTMParams,
    MinLSTMState,
    ModReLU,
    ModReLUParams,
    ModReLUState,
    MUTParams,
    MUTState,
    QRNNParams,
    QRNNState,
    VanillaLSTM,
    VanillaLSTMParams,
    VanillaLSTMState,
    Window,
    WindowState,
    positive,
)
from jaxrnn.linear import LinearCell
from jaxrnn.networks import (
    Bidirectional,
    BidirectionalParams,
    BidirectionalState,
    Residual,
    Stack,
)
from jaxrnn.parametrizations import (
    Antisymmetric,
    Orthogonal,
    Parametrized,
    WeightNorm,
    WeightNormParams,
)
from jaxrnn.regularization import (
    CandidateDropout,
    Dropout,
    RecurrentDropout,
    WeightDrop,
    WeightNoise,
    Zoneout,
)
from jaxrnn.unroll import unroll

__version__ = "0.1.0"

__all__ = [
    "GREFF",
    "GRU",
    "JOZEFOWICZ",
    "LSTM",
    "MUT",
    "QRNN",
    "Antisymmetric",
    "Bidirectional",
    "BidirectionalParams",
    "BidirectionalState",
    "CandidateDropout",
    "Cell",
    "Dropout",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "Euler",
    "EulerParams",
    "EulerState",
    "Function",
    "GRUParams",
    "GRUState",
    "LSTMParams",
    "LSTMState",
    "LayerNormGRU",
    "LayerNormGRUParams",
    "LayerNormGRUState",
    "LayerNormLSTM",
    "LayerNormLSTMParams",
    "LayerNormLSTMState",
    "LinearCell",
    "MUTParams",
    "MUTState",
    "MinGRU",
    "MinGRUParams",
    "MinGRUState",
    "MinLSTM",
    "MinLSTMParams",
    "MinLSTMState",
    "ModReLU",
    "ModReLUParams",
    "ModReLUState",
    "Orthogonal",
    "Parametrized",
    "QRNNParams",
    "QRNNState",
    "RecurrentDropout",
    "Residual",
    "Stack",
    "VanillaLSTM",
    "VanillaLSTMParams",
    "VanillaLSTMState",
    "WeightDrop",
    "WeightNoise",
    "WeightNorm",
    "WeightNormParams",
    "Window",
    "WindowState",
    "Zoneout",
    "add",
    "add_bias",
    "affine",
    "cast",
    "dot",
    "gates",
    "initializers",
    "recurrent",
    "positive",
    "unroll",
    "weigh",
]
