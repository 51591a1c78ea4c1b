"""The cells, one family a file."""

from jaxrnn.cells.ablations import GREFF, JOZEFOWICZ, VanillaLSTM, VanillaLSTMParams, VanillaLSTMState
from jaxrnn.cells.batch_norm import BatchNormLSTM, BatchNormLSTMParams, BatchNormLSTMState, Moments, Statistics
from jaxrnn.cells.conv import ConvGRU, ConvGRUParams, ConvGRUState, ConvLSTM, ConvLSTMParams, ConvLSTMState
from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState
from jaxrnn.cells.euler import Euler, EulerParams, EulerState
from jaxrnn.cells.function import Function
from jaxrnn.cells.gru import GRU, GRUParams, GRUState
from jaxrnn.cells.jozefowicz import MUT, MUTParams, MUTState
from jaxrnn.cells.layer_norm import (
    LayerNormGRU,
    LayerNormGRUParams,
    LayerNormGRUState,
    LayerNormLSTM,
    LayerNormLSTMParams,
    LayerNormLSTMState,
)
from jaxrnn.cells.lru import LRU, LRUParams, LRUState
from jaxrnn.cells.lstm import LSTM, LSTMParams, LSTMState
from jaxrnn.cells.mingru import MinGRU, MinGRUParams, MinGRUState, MinLSTM, MinLSTMParams, MinLSTMState, positive
from jaxrnn.cells.modrelu import ModReLU, ModReLUParams, ModReLUState
from jaxrnn.cells.mufuru import MuFuRu, MuFuRuParams, MuFuRuState
from jaxrnn.cells.qrnn import QRNN, QRNNParams, QRNNState, Window, WindowState
from jaxrnn.cells.rg_lru import RGLRU, RGLRUParams, RGLRUState
from jaxrnn.cells.s5 import S5, S5Params, S5State
from jaxrnn.cells.sru import SRU, SRUParams, SRUState

__all__ = [
    "GREFF",
    "GRU",
    "JOZEFOWICZ",
    "LRU",
    "LSTM",
    "MUT",
    "QRNN",
    "RGLRU",
    "S5",
    "SRU",
    "BatchNormLSTM",
    "BatchNormLSTMParams",
    "BatchNormLSTMState",
    "ConvGRU",
    "ConvGRUParams",
    "ConvGRUState",
    "ConvLSTM",
    "ConvLSTMParams",
    "ConvLSTMState",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "Euler",
    "EulerParams",
    "EulerState",
    "Function",
    "GRUParams",
    "GRUState",
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
    "QRNNParams",
    "QRNNState",
    "RGLRUParams",
    "RGLRUState",
    "S5Params",
    "S5State",
    "SRUParams",
    "SRUState",
    "Statistics",
    "VanillaLSTM",
    "VanillaLSTMParams",
    "VanillaLSTMState",
    "Window",
    "WindowState",
    "positive",
]
