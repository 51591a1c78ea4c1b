"""Networks as lists of layers, a layer as its one or two directions: what recurrent layers of other libraries are."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jaxrnn.cells import LSTM, LSTMParams, VanillaLSTM
from jaxrnn.checks import check_params
from jaxrnn.convert.activations import activation_name
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.networks.bidirectional import Bidirectional, BidirectionalParams
from jaxrnn.networks.stack import Stack
from jaxrnn.typing import Params

__all__ = ["PLAIN_GRU", "PLAIN_LSTM", "Direction", "check_options", "directions", "fitting", "network", "plain"]

Direction = tuple[Layer, Params]
"""A cell and its parameters."""

PLAIN_LSTM: Mapping[str, Any] = MappingProxyType(
    {"heads": 1, "gate_activation": "sigmoid", "candidate_activation": "tanh", "output_activation": "tanh"}
)
"""The options of an `LSTM` that most libraries have alone."""

PLAIN_GRU: Mapping[str, Any] = MappingProxyType({"heads": 1, "gate_activation": "sigmoid", "activation": "tanh"})
"""The options of a `GRU` that most libraries have alone, but for `reset`."""


def network(layers: Sequence[Sequence[Direction]], dropout: float = 0.0) -> Direction:
    """Builds the network of layers that have one direction, or two: one cell, a `Bidirectional`, a `Stack` of these.

    Args:
        layers: from the first to the last, `[(cell, params)]` or `[(cell, params), (cell, params)]`, the forward
            direction first.
        dropout: rate between layers.

    Raises:
        ValueError: the parameters do not fit the cells, or a layer not the one before it.
    """
    found = [_layer(layer) for layer in layers]
    if len(found) == 1:
        return fitting(*found[0])
    cells, params = zip(*found, strict=True)
    return fitting(Stack(cells, dropout=dropout), params)


def fitting(cell: Layer, params: Params) -> Direction:
    """Returns a cell that a converter made, with its parameters; raises `ValueError` unless these fit it."""
    try:
        check_params(cell, params)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return cell, params


def _layer(layer: Sequence[Direction]) -> Direction:
    if len(layer) == 1:
        return layer[0]
    (forward, there), (backward, back) = layer
    cell = Bidirectional(forward) if forward == backward else Bidirectional(forward, backward)
    return cell, BidirectionalParams(there, back)


def directions(cell: Layer, params: Params) -> list[list[Direction]]:
    """Returns the layers of a network, the inverse of `network`.

    Raises:
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: a `Bidirectional` merges otherwise than by concatenation.
    """
    check_layer(cell)
    check_params(cell, params)
    if isinstance(cell, Stack):
        return [one for c, p in zip(cell.cells, params, strict=True) for one in directions(c, p)]
    if isinstance(cell, Bidirectional):
        check_options(cell, "a layer of two directions", merge="concat")
        return [[plain(c, p) for c, p in zip(cell.cells, params, strict=True)]]
    return [[plain(cell, params)]]


def plain(cell: Layer, params: Params) -> Direction:
    """Returns a `VanillaLSTM` that has no option of its own as the `LSTM` that it is; any other cell as it is."""
    if not isinstance(cell, VanillaLSTM) or cell.peephole or cell.gate_recurrence or cell.cell_clip is not None:
        return cell, params
    if not all(cell.own_gates) or cell.output_gate_activation != cell.gate_activation:
        return cell, params
    options = ("use_bias", "gate_activation", "candidate_activation", "output_activation", "heads")
    lstm = LSTM(cell.input_size, cell.hidden_size, **{name: getattr(cell, name) for name in options})
    return lstm, LSTMParams(params.w_x, params.w_h, params.b)


def check_options(cell: Any, target: str, **needed: Any) -> None:
    """Raises unless each option has the one value that `target` has; activations are given by name."""
    for name, want in needed.items():
        got = getattr(cell, name)
        if (activation_name(got) if callable(got) else got) != want:
            raise ValueError(f"cell: {type(cell).__name__} got {name}={_shown(got)}, {target} has {name}={want!r} only")


def _shown(value: Any) -> str:
    named = activation_name(value) if callable(value) else None
    return named or str(getattr(value, "__name__", repr(value)))
