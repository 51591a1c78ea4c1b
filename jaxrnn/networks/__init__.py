"""Cells made of cells: layers, directions of time, and wrappers that change what a cell does."""

from jaxrnn.networks.attention import Attended, Attention, AttentionParams, AttentionState, Memory
from jaxrnn.networks.batch_norm import batch_unroll
from jaxrnn.networks.bidirectional import Bidirectional, BidirectionalLM, BidirectionalParams, BidirectionalState
from jaxrnn.networks.dropout import CandidateDropout, Dropout, RecurrentDropout
from jaxrnn.networks.gradients import ClippedGradient, Truncated
from jaxrnn.networks.inspected import Inspected, Inspection
from jaxrnn.networks.learned_state import LearnedState, LearnedStateParams
from jaxrnn.networks.masked import Masked
from jaxrnn.networks.mirrored import Mirrored
from jaxrnn.networks.parametrizations import Antisymmetric, Orthogonal, Parametrized, WeightNorm, WeightNormParams
from jaxrnn.networks.residual import Residual
from jaxrnn.networks.reversed import Reversed
from jaxrnn.networks.stack import Stack
from jaxrnn.networks.stateless import Embedding, Linear, LinearParams, Pointwise
from jaxrnn.networks.stepped import Stepped
from jaxrnn.networks.weights import WeightDrop, WeightNoise
from jaxrnn.networks.wrapper import StepWrapper, Wrapper
from jaxrnn.networks.zoneout import Zoneout
from jaxrnn.typing import register_named_tuples

__all__ = [
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
    "ClippedGradient",
    "Dropout",
    "Embedding",
    "Inspected",
    "Inspection",
    "LearnedState",
    "LearnedStateParams",
    "Linear",
    "LinearParams",
    "Masked",
    "Memory",
    "Mirrored",
    "Orthogonal",
    "Parametrized",
    "Pointwise",
    "RecurrentDropout",
    "Residual",
    "Reversed",
    "Stack",
    "StepWrapper",
    "Stepped",
    "Truncated",
    "WeightDrop",
    "WeightNoise",
    "WeightNorm",
    "WeightNormParams",
    "Wrapper",
    "Zoneout",
    "batch_unroll",
]

register_named_tuples(globals(), __all__)
