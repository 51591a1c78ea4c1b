"""Recurrent networks for JAX: every cell a pure function, only the recurrence sequential.

>>> import jax, jaxrnn
>>> cell = jaxrnn.LSTM(input_size=3, hidden_size=4)
>>> params = cell.init(jax.random.key(0))
>>> xs = jax.random.normal(jax.random.key(1), (5, 2, 3))        # [T, B, I]
>>> state, ys = jaxrnn.unroll(cell, params, xs)
>>> ys.shape
(5, 2, 4)

`jaxrnn.nnx` and `jaxrnn.linen` wrap any cell as a Flax module, `jaxrnn.training` and `jaxrnn.losses` build on Optax,
`jaxrnn.plots` on matplotlib, `jaxrnn.convert` has other libraries' weights, `jaxrnn.sharding` spreads runs over
devices; each is imported by its name, so that `import jaxrnn` needs JAX alone.
"""

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from jaxrnn import (
    batches,
    cells,
    decoding,
    initializers,
    inspection,
    metrics,
    networks,
    ops,
    penalties,
    regularization,
    reinforce,
    sequences,
    states,
)
from jaxrnn.cell import Cell, LinearCell
from jaxrnn.cells import (
    GRU,
    LEM,
    LMU,
    LRU,
    LSTM,
    MDLSTM,
    MDRNN,
    MGU,
    MLSTM,
    MUT,
    QRNN,
    RGLRU,
    S5,
    SCRN,
    SLSTM,
    SRU,
    UGRNN,
    BatchNormLSTM,
    Clockwork,
    ConvGRU,
    ConvLSTM,
    CoRNN,
    DeltaNet,
    Elman,
    Euler,
    Function,
    GatedLinearAttention,
    Highway,
    HyperLSTM,
    IndRNN,
    LayerNormGRU,
    LayerNormLSTM,
    MinGRU,
    MinLSTM,
    ModReLU,
    MuFuRu,
    Multiplicative,
    NestedLSTM,
    OrderedLSTM,
    PhasedLSTM,
    Projected,
    VanillaLSTM,
    Window,
)
from jaxrnn.engine.driver import unroll
from jaxrnn.engine.layer import Layer
from jaxrnn.engine.newton import Newton
from jaxrnn.inspection import explain
from jaxrnn.networks import (
    Antisymmetric,
    Attention,
    Bidirectional,
    BidirectionalLM,
    CandidateDropout,
    ClippedGradient,
    Dropout,
    Embedding,
    Inspected,
    LearnedState,
    Linear,
    Masked,
    Mirrored,
    Orthogonal,
    Parametrized,
    Pointwise,
    RecurrentDropout,
    Residual,
    Reversed,
    Stack,
    Stepped,
    StepWrapper,
    Truncated,
    WeightDrop,
    WeightNoise,
    WeightNorm,
    Wrapper,
    Zoneout,
    batch_unroll,
)
from jaxrnn.ops import cast

__version__ = "0.2.0"

if not TYPE_CHECKING:  # to a type checker every name would exist

    def __getattr__(name: str) -> Any:
        missing = f"module 'jaxrnn' has no attribute {name!r}"
        if not name.startswith("_") and importlib.util.find_spec(f"jaxrnn.{name}"):
            missing += f" until it is imported: import jaxrnn.{name}"
        raise AttributeError(missing, name=name, obj=sys.modules[__name__])


__all__ = [
    "GRU",
    "LEM",
    "LMU",
    "LRU",
    "LSTM",
    "MDLSTM",
    "MDRNN",
    "MGU",
    "MLSTM",
    "MUT",
    "QRNN",
    "RGLRU",
    "S5",
    "SCRN",
    "SLSTM",
    "SRU",
    "UGRNN",
    "Antisymmetric",
    "Attention",
    "BatchNormLSTM",
    "Bidirectional",
    "BidirectionalLM",
    "CandidateDropout",
    "Cell",
    "ClippedGradient",
    "Clockwork",
    "CoRNN",
    "ConvGRU",
    "ConvLSTM",
    "DeltaNet",
    "Dropout",
    "Elman",
    "Embedding",
    "Euler",
    "Function",
    "GatedLinearAttention",
    "Highway",
    "HyperLSTM",
    "IndRNN",
    "Inspected",
    "Layer",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LearnedState",
    "Linear",
    "LinearCell",
    "Masked",
    "MinGRU",
    "MinLSTM",
    "Mirrored",
    "ModReLU",
    "MuFuRu",
    "Multiplicative",
    "NestedLSTM",
    "Newton",
    "OrderedLSTM",
    "Orthogonal",
    "Parametrized",
    "PhasedLSTM",
    "Pointwise",
    "Projected",
    "RecurrentDropout",
    "Residual",
    "Reversed",
    "Stack",
    "StepWrapper",
    "Stepped",
    "Truncated",
    "VanillaLSTM",
    "WeightDrop",
    "WeightNoise",
    "WeightNorm",
    "Window",
    "Wrapper",
    "Zoneout",
    "batch_unroll",
    "batches",
    "cast",
    "cells",
    "decoding",
    "explain",
    "initializers",
    "inspection",
    "metrics",
    "networks",
    "ops",
    "penalties",
    "regularization",
    "reinforce",
    "sequences",
    "states",
    "unroll",
]
