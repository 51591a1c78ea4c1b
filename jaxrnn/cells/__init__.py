"""The cells, one family a file."""

from jaxrnn.cells.ablations import GREFF, JOZEFOWICZ, VanillaLSTM, VanillaLSTMParams, VanillaLSTMState
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
from jaxrnn.cells.lstm import LSTM, LSTMParams, LSTMState
from jaxrnn.cells.mingru import MinGRU, MinGRUParams, MinGRUState, MinLSTM, MinLSTMParams, MinLSTMState, positive
from jaxrnn.cells.modrelu import ModReLU, ModReLUParams, ModReLUState
from jaxrnn.cells.qrnn import QRNN, QRNNParams, QRNNState, Window, WindowState

__all__ = [
    "GREFF",
    "GRU",
    "JOZEFOWICZ",
    "LSTM",
    "MUT",
    "QRNN",
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
    "QRNNParams",
    "QRNNState",
    "VanillaLSTM",
    "VanillaLSTMParams",
    "VanillaLSTMState",
    "Window",
    "WindowState",
    "positive",
]
