"""Keras's `Sequential`: which of its layers are one of ours, and what those between them change."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from jaxrnn.convert.arrays import to_jax, to_numpy
from jaxrnn.convert.layers import Direction, fitting
from jaxrnn.engine.layer import Layer
from jaxrnn.networks.dropout import Dropout
from jaxrnn.networks.stack import Stack
from jaxrnn.networks.stateless import Embedding, Linear, LinearParams, Pointwise
from jaxrnn.typing import Activation, Array

__all__ = ["sequential"]


def sequential(
    model: Any,
    recurrent: Callable[[Any], Direction],
    activation: Callable[[Any], Activation | None],
    options: Mapping[str, Any],
) -> Direction:
    """Returns the `Stack` of a model's layers, and its parameters.

    Args:
        model: a built `Sequential`.
        recurrent: turns a recurrent layer into a cell and its parameters.
        activation: turns an activation of Keras into a function of JAX, if there is one.
        options: what replaces the layers' own, by Keras's names.
    """
    layers = sys.modules["keras"].layers
    if not model.built:
        raise ValueError(f"source: got {model.name} without weights, needs a model that was built")
    found: list[Direction] = []
    dropped: list[tuple[float, tuple[str, ...]]] = []  # rates of layers that drop from the next one's input
    last = ""  # the layer that passes its last time step on, where the ones after it see no other
    for layer in _flat(model):
        if isinstance(layer, layers.Dropout | layers.SpatialDropout1D):
            if getattr(layer, "noise_shape", None) is not None:
                raise ValueError(f"noise_shape: got {layer.noise_shape} in {layer.name}, needs None")
            rate = options.get("dropout", layer.rate)
            locked = isinstance(layer, layers.SpatialDropout1D)
            dropped += [(rate, ("time",) if locked else ())] if rate else []
            continue
        if isinstance(layer, layers.RNN | layers.Bidirectional):
            if last:
                raise ValueError(f"return_sequences: got False in {last}, needs True before another recurrent layer")
            pairs = [recurrent(layer)]
            last = "" if layer.return_sequences else layer.name
            if last and isinstance(layer, layers.Bidirectional):
                raise ValueError(
                    f"return_sequences: got False in {layer.name}, whose directions end at different steps; convert "
                    "what is up to it and what is after it, with sequences.bidirectional_last_output between them"
                )
        else:
            pairs = list(_without_state(layers, layer, activation, options))
        for cell, params in pairs:
            found.append((_dropping(dropped, cell), params))
            dropped = []
    if found and dropped:
        found.append((_dropping(dropped, Pointwise(jax.nn.identity, found[-1][0].output_size)), ()))
    cells, params = zip(*found, strict=True) if found else ((), ())
    return fitting(Stack(cells), params)


def _dropping(dropped: list[tuple[float, tuple[str, ...]]], cell: Layer) -> Layer:
    for rate, share in reversed(dropped):
        cell = Dropout(cell, rate, share)
    return cell


def _flat(model: Any) -> Iterator[Any]:
    """The layers, those of models within and what is applied to each time step as themselves."""
    keras = sys.modules["keras"]
    for layer in model.layers:
        while isinstance(layer, keras.layers.TimeDistributed):
            layer = layer.layer
        if isinstance(layer, keras.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def _without_state(
    layers: Any, layer: Any, activation: Callable[[Any], Activation | None], options: Mapping[str, Any]
) -> Iterator[Direction]:
    if isinstance(layer, layers.Embedding):
        if options.get("mask_zero", layer.mask_zero):
            raise ValueError(
                f"mask_zero: got True in {layer.name}; from_keras(model, mask_zero=False) takes the model, and lengths "
                "of unroll do what the mask did"
            )
        table = _weights(layer, "embeddings")
        yield Embedding(*table.shape), table
    elif isinstance(layer, layers.Dense):
        bias = _weights(layer, "bias") if layer.use_bias else None
        kernel = _weights(layer, "kernel")
        size, units = kernel.shape
        yield Linear(size, units, layer.use_bias), LinearParams(kernel, bias)
        yield from _activation(layer, units, activation)
    elif isinstance(layer, layers.Activation):
        yield from _activation(layer, layer.output.shape[-1], activation)
    else:
        raise TypeError(
            f"source: got {type(layer).__name__} in a Sequential, needs Embedding, Dense, Activation, Dropout, "
            "TimeDistributed or recurrent layers; convert what is before and after it by itself"
        )


def _activation(layer: Any, size: int, activation: Callable[[Any], Activation | None]) -> Iterator[Direction]:
    name = layer.get_config()["activation"]
    if name == "linear":
        return
    function = jax.nn.softmax if name == "softmax" else activation(name)
    if function is None:
        raise ValueError(
            f"activation: got {name!r} in {layer.name}, needs one that JAX has, such as 'relu'; convert what "
            "is before and after it by itself"
        )
    yield Pointwise(function, size), ()


def _weights(layer: Any, name: str) -> Array:
    return to_jax(name, to_numpy(name, getattr(layer, name)))
