"""The cells, one family per file."""

from jaxrnn.cells.batch_norm import BatchNormLSTM, BatchNormLSTMParams, BatchNormLSTMState, Moments, Statistics
from jaxrnn.cells.clockwork import Clockwork, ClockworkParams, ClockworkState
from jaxrnn.cells.conv import ConvGRU, ConvGRUParams, ConvGRUState, ConvLSTM, ConvLSTMParams, ConvLSTMState
from jaxrnn.cells.cornn import CoRNN, CoRNNParams, CoRNNState
from jaxrnn.cells.delta import DeltaNet, DeltaNetParams, DeltaNetState
from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState
from jaxrnn.cells.euler import Euler, EulerParams, EulerState
from jaxrnn.cells.function import Function
from jaxrnn.cells.gated_linear_attention import GatedLinearAttention, GLAParams, GLAState
from jaxrnn.cells.grid import MDLSTM, MDRNN, MDLSTMParams, MDLSTMState, MDRNNParams, MDRNNState
from jaxrnn.cells.gru import GRU, GRUParams, GRUState
from jaxrnn.cells.highway import Highway, HighwayParams, HighwayState
from jaxrnn.cells.hyper import HyperLSTM, HyperLSTMParams, HyperLSTMState
from jaxrnn.cells.indrnn import IndRNN, IndRNNParams, IndRNNState
from jaxrnn.cells.jozefowicz import MUT, MUTParams, MUTState
from jaxrnn.cells.layer_norm import (
    LayerNormGRU,
    LayerNormGRUParams,
    LayerNormGRUState,
    LayerNormLSTM,
    LayerNormLSTMParams,
    LayerNormLSTMState,
)
from jaxrnn.cells.legendre import LMU, LMUParams, LMUState
from jaxrnn.cells.lem import LEM, LEMParams, LEMState
from jaxrnn.cells.lru import LRU, LRUParams, LRUState
from jaxrnn.cells.lstm import LSTM, LSTMParams, LSTMState
from jaxrnn.cells.mgu import MGU, MGUParams, MGUState
from jaxrnn.cells.mingru import MinGRU, MinGRUParams, MinGRUState, MinLSTM, MinLSTMParams, MinLSTMState, positive
from jaxrnn.cells.modrelu import ModReLU, ModReLUParams, ModReLUState
from jaxrnn.cells.mufuru import MuFuRu, MuFuRuParams, MuFuRuState
from jaxrnn.cells.multiplicative import Multiplicative, MultiplicativeParams
from jaxrnn.cells.nested import NestedLSTM, NestedLSTMParams, NestedLSTMState
from jaxrnn.cells.ordered import OrderedLSTM, OrderedLSTMParams, OrderedLSTMState
from jaxrnn.cells.phased import PhasedLSTM, PhasedLSTMParams, PhasedLSTMState
from jaxrnn.cells.projected import Projected, ProjectedParams
from jaxrnn.cells.qrnn import QRNN, QRNNParams, QRNNState
from jaxrnn.cells.rg_lru import RGLRU, RGLRUParams, RGLRUState
from jaxrnn.cells.s5 import S5, S5Params, S5State
from jaxrnn.cells.scrn import SCRN, SCRNParams, SCRNState
from jaxrnn.cells.sru import SRU, SRUParams, SRUState
from jaxrnn.cells.ugrnn import UGRNN, UGRNNParams, UGRNNState
from jaxrnn.cells.vanilla import GREFF, JOZEFOWICZ, VanillaLSTM, VanillaLSTMParams, VanillaLSTMState
from jaxrnn.cells.window import Window, WindowState
from jaxrnn.cells.xlstm import MLSTM, SLSTM, MLSTMParams, MLSTMState, SLSTMParams, SLSTMState
from jaxrnn.typing import register_named_tuples

__all__ = [
    "GREFF",
    "GRU",
    "JOZEFOWICZ",
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
    "BatchNormLSTM",
    "BatchNormLSTMParams",
    "BatchNormLSTMState",
    "Clockwork",
    "ClockworkParams",
    "ClockworkState",
    "CoRNN",
    "CoRNNParams",
    "CoRNNState",
    "ConvGRU",
    "ConvGRUParams",
    "ConvGRUState",
    "ConvLSTM",
    "ConvLSTMParams",
    "ConvLSTMState",
    "DeltaNet",
    "DeltaNetParams",
    "DeltaNetState",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "Euler",
    "EulerParams",
    "EulerState",
    "Function",
    "GLAParams",
    "GLAState",
    "GRUParams",
    "GRUState",
    "GatedLinearAttention",
    "Highway",
    "HighwayParams",
    "HighwayState",
    "HyperLSTM",
    "HyperLSTMParams",
    "HyperLSTMState",
    "IndRNN",
    "IndRNNParams",
    "IndRNNState",
    "LEMParams",
    "LEMState",
    "LMUParams",
    "LMUState",
    "LRUParams",
    "LRUState",
    "LSTMParams",
    "LSTMState",
    "LayerNormGRU",
    "LayerNormGRUParams",
    "LayerNormGRUState",
    "LayerNormLSTM",
    "LayerNormLSTMParams",
    "LayerNormLSTMState",
    "MDLSTMParams",
    "MDLSTMState",
    "MDRNNParams",
    "MDRNNState",
    "MGUParams",
    "MGUState",
    "MLSTMParams",
    "MLSTMState",
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
    "Moments",
    "MuFuRu",
    "MuFuRuParams",
    "MuFuRuState",
    "Multiplicative",
    "MultiplicativeParams",
    "NestedLSTM",
    "NestedLSTMParams",
    "NestedLSTMState",
    "OrderedLSTM",
    "OrderedLSTMParams",
    "OrderedLSTMState",
    "PhasedLSTM",
    "PhasedLSTMParams",
    "PhasedLSTMState",
    "Projected",
    "ProjectedParams",
    "QRNNParams",
    "QRNNState",
    "RGLRUParams",
    "RGLRUState",
    "S5Params",
    "S5State",
    "SCRNParams",
    "SCRNState",
    "SLSTMParams",
    "SLSTMState",
    "SRUParams",
    "SRUState",
    "Statistics",
    "UGRNNParams",
    "UGRNNState",
    "VanillaLSTM",
    "VanillaLSTMParams",
    "VanillaLSTMState",
    "Window",
    "WindowState",
    "positive",
]

register_named_tuples(globals(), __all__)
