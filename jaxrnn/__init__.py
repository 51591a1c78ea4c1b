"""Recurrent networks for JAX: every cell a pure function, only the recurrence sequential.

>>> import jax, jaxrnn
>>> cell = jaxrnn.LSTM(input_size=3, hidden_size=4)
>>> params = cell.init(jax.random.key(0))
>>> xs = jax.random.normal(jax.random.key(1), (5, 2, 3))        # [T, B, I]
>>> state, ys = jaxrnn.unroll(cell, params, xs)
>>> ys.shape
(5, 2, 4)

`jaxrnn.nnx` and `jaxrnn.linen` wrap any cell as a Flax module, `jaxrnn.training` and `jaxrnn.losses` build on Optax,
`jaxrnn.plots` on matplotlib; each is imported by its name, so that `import jaxrnn` needs JAX alone.
"""

from jaxrnn import (
    attention,
    cells,
    gradients,
    initializers,
    inspection,
    metrics,
    penalties,
    regularization,
    reinforce,
    sequences,
    states,
)
from jaxrnn.attention import Attended, Attention, AttentionParams, AttentionState, Memory
from jaxrnn.batch_norm import batch_unroll
from jaxrnn.cell import Cell, add, add_bias, affine, blockwise, cast, dot, gates, recurrent, weigh
from jaxrnn.cells import *  # noqa: F403  all that `cells.__all__` names
from jaxrnn.gradients import ClippedGradient, Truncated
from jaxrnn.grid import MDLSTM, MDRNN, MDLSTMParams, MDLSTMState, MDRNNParams, MDRNNState, Mirrored
from jaxrnn.inspection import Inspected, Inspection, state_history
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
from jaxrnn.sequences import BidirectionalLM, Masked
from jaxrnn.states import LearnedState, LearnedStateParams, LearnedStateState
from jaxrnn.unroll import unroll
from jaxrnn.wrapper import StepWrapper, Wrapper

__version__ = "0.1.0"

__all__ = [
    "MDLSTM",
    "MDRNN",
    "Antisymmetric",
    "Attended",
    "Attention",
    "AttentionParams",
    "AttentionState",
    "Bidirectional",
    "BidirectionalLM",
    "BidirectionalParams",
    "BidirectionalState",
    "CandidateDropout",
    "Cell",
    "ClippedGradient",
    "Dropout",
    "Inspected",
    "Inspection",
    "LearnedState",
    "LearnedStateParams",
    "LearnedStateState",
    "LinearCell",
    "MDLSTMParams",
    "MDLSTMState",
    "MDRNNParams",
    "MDRNNState",
    "Masked",
    "Memory",
    "Mirrored",
    "Orthogonal",
    "Parametrized",
    "RecurrentDropout",
    "Residual",
    "Stack",
    "StepWrapper",
    "Truncated",
    "WeightDrop",
    "WeightNoise",
    "WeightNorm",
    "WeightNormParams",
    "Wrapper",
    "Zoneout",
    "add",
    "add_bias",
    "affine",
    "attention",
    "batch_unroll",
    "blockwise",
    "cast",
    "dot",
    "gates",
    "gradients",
    "initializers",
    "inspection",
    "metrics",
    "penalties",
    "recurrent",
    "regularization",
    "reinforce",
    "sequences",
    "state_history",
    "states",
    "unroll",
    "weigh",
]
__all__ += cells.__all__
