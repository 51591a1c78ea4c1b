"""Recurrent networks for JAX: every cell a pure function, only the recurrence sequential.

>>> import jax, jaxrnn
>>> cell = jaxrnn.LSTM(input_size=3, hidden_size=4)
>>> params = cell.init(jax.random.key(0))
>>> xs = jax.random.normal(jax.random.key(1), (5, 2, 3))        # [T, B, I]
>>> state, ys = jaxrnn.unroll(cell, params, xs)
>>> ys.shape
(5, 2, 4)

The cells are here, and the networks that most models need; the rarer ones are in `jaxrnn.networks`, the types of
parameters and states in `jaxrnn.cells` and `jaxrnn.networks`.

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
    Attention,
    Bidirectional,
    Dropout,
    Embedding,
    LearnedState,
    Linear,
    Masked,
    RecurrentDropout,
    Residual,
    Stack,
    WeightDrop,
    Zoneout,
)
from jaxrnn.ops import cast

__version__ = "0.2.0"

if not TYPE_CHECKING:  # to a type checker every name would exist

    def __getattr__(name: str) -> Any:
        missing = f"module 'jaxrnn' has no attribute {name!r}"
        if not name.startswith("_") and importlib.util.find_spec(f"jaxrnn.{name}"):
            missing += f" until it is imported: import jaxrnn.{name}"
        for module in (cells, networks):
            if name in module.__all__:
                missing += f": it is {module.__name__}.{name}"
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
    "Attention",
    "BatchNormLSTM",
    "Bidirectional",
    "Cell",
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
    "Layer",
    "LayerNormGRU",
    "LayerNormLSTM",
    "LearnedState",
    "Linear",
    "LinearCell",
    "Masked",
    "MinGRU",
    "MinLSTM",
    "ModReLU",
    "MuFuRu",
    "Multiplicative",
    "NestedLSTM",
    "Newton",
    "OrderedLSTM",
    "PhasedLSTM",
    "Projected",
    "RecurrentDropout",
    "Residual",
    "Stack",
    "VanillaLSTM",
    "WeightDrop",
    "Window",
    "Zoneout",
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
