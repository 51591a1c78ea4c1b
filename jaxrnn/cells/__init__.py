"""The cells, one family a file."""

from jaxrnn.cells.elman import Elman, ElmanParams, ElmanState
from jaxrnn.cells.gru import GRU, GRUParams, GRUState
from jaxrnn.cells.lstm import LSTM, LSTMParams, LSTMState

__all__ = [
    "GRU",
    "LSTM",
    "Elman",
    "ElmanParams",
    "ElmanState",
    "GRUParams",
    "GRUState",
    "LSTMParams",
    "LSTMState",
]
