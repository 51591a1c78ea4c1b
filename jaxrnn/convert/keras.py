"""Keras 3's `SimpleRNN`, `LSTM`, `GRU`, `ConvLSTM1D/2D/3D`, their cells and networks of these.

Matrices are `[in, out]`, gates i, f, g, o and z, r, n. A GRU with `reset_after=True` has two rows of biases, the
input's and the recurrent one.
"""

import functools
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells import GRU, LSTM, ConvLSTM, ConvLSTMParams, Elman, ElmanParams, GRUParams, LSTMParams
from jaxrnn.checks import check_installed, check_params
from jaxrnn.convert.activations import ACTIVATIONS, activation_name
from jaxrnn.convert.arrays import (
    ZRN,
    check_axes,
    check_names,
    check_shape,
    of_two_biases,
    reorder,
    shared_dtype,
    to_jax,
    to_numpy,
    two_biases,
)
from jaxrnn.convert.conv_lstm import check_space
from jaxrnn.convert.keras_sequential import sequential
from jaxrnn.convert.layers import Direction, check_options, fitting, plain
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.networks.bidirectional import Bidirectional, BidirectionalParams
from jaxrnn.networks.dropout import Dropout, RecurrentDropout
from jaxrnn.networks.stack import Stack
from jaxrnn.typing import Activation, Array, Params

__all__ = ["average", "from_keras", "keras_arrays", "pair", "to_keras"]

# Where Keras has another name than JAX for the same function; under the other names they have the same one, but for
# gelu and leaky_relu, whose defaults differ.
_NAMES = {"linear": "identity", "softsign": "soft_sign", "exponential": "exp"}
_KERAS_NAMES = {ours: theirs for theirs, ours in _NAMES.items()}
_DIFFERENT = ("gelu", "leaky_relu")
_DTYPES = ("bfloat16", "float16", "float32", "float64")
_DEFAULTS: Mapping[str, Any] = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "reset_after": True,
    "go_backwards": False,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "implementation": 2,
    "padding": "same",
    "strides": 1,
    "dilation_rate": 1,
    "data_format": "channels_last",
    "mask_zero": False,
}


def average(forward: Array, backward: Array) -> Array:
    """Merges two directions as Keras's `merge_mode="ave"`."""
    return (forward + backward) / 2


def pair(forward: Array, backward: Array) -> tuple[Array, Array]:
    """Merges two directions as Keras's `merge_mode=None`: not at all."""
    return forward, backward


_MERGES: Mapping[str | None, Any] = {"concat": "concat", "sum": "sum", "mul": jnp.multiply, "ave": average, None: pair}


def from_keras(source: Any, *, space: tuple[int, ...] | None = None, **options: Any) -> tuple[Layer, Params]:
    """Turns a recurrent layer or cell of Keras, or a `Sequential` with such layers, into a cell or network.

    `unroll` is time-major: inputs `[B, T, I]` are swapped, `jnp.swapaxes(xs, 0, 1)`. It returns outputs and states
    both, whatever the layer's `return_sequences` and `return_state` say: what a model with `return_sequences=False`
    gives is the last output. Outputs of masked time steps are zero.

    Args:
        source: a `SimpleRNN`, `LSTM`, `GRU`, `ConvLSTM1D`, `ConvLSTM2D` or `ConvLSTM3D`, a `Bidirectional` of these,
            an `RNN` of their cells or of `StackedRNNCells`, or a cell; or a `Sequential` of such layers, `Embedding`,
            `Dense`, `Activation`, `Dropout`, `SpatialDropout1D` and `TimeDistributed`; built. Or arrays by name:
            "kernel", "recurrent_kernel" and, with bias, "bias".
        space: sizes of the spatial axes of a convolutional layer's input, if it is given by arrays.
        **options: of Keras's layer by Keras's names, where they differ from the defaults and `source` is arrays:
            `activation="relu"`. Of a layer or model they replace its own: `dropout=0.0` leaves its dropout out.

    Returns:
        `(cell, params)`: an `Elman`, `LSTM`, `GRU` or `ConvLSTM`, in a `Dropout` (of inputs, one mask for all time
        steps) or a `RecurrentDropout` if the layer has one, in a `Bidirectional` or a `Stack`. Of a `Sequential`, the
        `Stack` of all its layers.

    Raises:
        TypeError: `source` is or has another layer.
        ValueError: an option that cannot be expressed, a name that is missing or unknown, a shape that does not fit, or
            arrays that JAX would round.

    Example:
        >>> shapes = {"kernel": (3, 12), "recurrent_kernel": (4, 12), "bias": (2, 12)}
        >>> from_keras({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, activation="relu")[0]
        GRU(input_size=3, hidden_size=4, activation=relu)
    """
    if unknown := options.keys() - _DEFAULTS.keys():
        raise ValueError(f"options: got {sorted(unknown)}, needs options of Keras among {sorted(_DEFAULTS)}")
    if isinstance(source, Mapping):
        return _cell(source, dict(_DEFAULTS) | options, space)
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(source, keras.layers.Layer):
        raise TypeError(f"source: got {type(source).__name__}, needs a recurrent layer of Keras, or arrays by name")
    layers = keras.layers
    if isinstance(source, keras.Sequential):
        return sequential(source, functools.partial(from_keras, **options), _known, options)
    if isinstance(source, layers.Bidirectional):
        return _bidirectional(source, options)
    if isinstance(source, layers.StackedRNNCells):
        pairs = [from_keras(cell, **options) for cell in source.cells]
        cells, params = zip(*pairs, strict=True)
        return Stack(cells), params
    if isinstance(source, layers.RNN):
        _check_forward({"go_backwards": source.go_backwards} | options)
        return from_keras(source.cell, **options)
    is_conv = type(source).__name__ == "ConvLSTMCell"  # Keras does not export it
    if not isinstance(source, layers.SimpleRNNCell | layers.LSTMCell | layers.GRUCell) and not is_conv:
        way = "; of a model that is no Sequential, its layers one by one" if isinstance(source, keras.Model) else ""
        raise TypeError(f"source: got {type(source).__name__}, needs a recurrent layer or cell of Keras{way}")
    if not source.built:
        raise ValueError(f"source: got {source.name} without weights, needs a layer that was built")
    config = source.get_config()
    named = {name: config[name] for name in _DEFAULTS if name in config}
    named["implementation"] = getattr(source, "implementation", 2)
    found = {name: getattr(source, name) for name in ("kernel", "recurrent_kernel", "bias")}
    arrays = {name: array for name, array in found.items() if array is not None}
    return _cell(arrays, dict(_DEFAULTS) | named | options, tuple(getattr(source, "spatial_dims", ())) or space)


def _check_forward(config: Mapping[str, Any]) -> None:
    if config["go_backwards"]:
        raise ValueError("go_backwards: got True, needs False; jaxrnn.unroll(…, reverse=True) runs backwards")


def _bidirectional(source: Any, options: dict[str, Any]) -> Direction:
    options = {"go_backwards": False, **options}
    if source.forward_layer.go_backwards:
        raise ValueError("forward_layer: got go_backwards=True, needs the layer that runs forward")
    forward, there = from_keras(source.forward_layer, **options)
    backward, back = from_keras(source.backward_layer, **options)
    merge = _MERGES[source.merge_mode]
    cell = Bidirectional(forward, None if forward == backward else backward, merge)
    return cell, BidirectionalParams(there, back)


def _known(value: Any) -> Activation | None:
    """Returns JAX's function for an activation of Keras; None where they differ, or there is none."""
    ours = _NAMES.get(value, value) if isinstance(value, str) else ""
    return None if ours in _DIFFERENT else ACTIVATIONS.get(ours)


def _activation(name: str, value: Any) -> Activation:
    if (function := _known(value)) is None:
        got = repr(value) if isinstance(value, str) else "a function of the layer's own"
        raise ValueError(
            f"{name}: got {got}, needs one of Keras's activations that JAX has, such as 'tanh'; "
            f"from_keras(layer, {name}='tanh') takes that one, and dataclasses.replace(cell, …) any function of JAX's"
        )
    return function


def _cell(source: Mapping[str, Any], config: dict[str, Any], space: tuple[int, ...] | None) -> Direction:
    """Returns a cell from its arrays and options."""
    arrays = {name: to_numpy(name, array) for name, array in source.items()}
    check_names("source", arrays, ("kernel", "recurrent_kernel", *(("bias",) if "bias" in arrays else ())))
    _check_forward(config)
    kernel, recurrent, bias = arrays["kernel"], arrays["recurrent_kernel"], arrays.get("bias")
    for name in ("kernel", "recurrent_kernel"):
        check_axes(name, arrays[name], 2)
    *places, size, columns = recurrent.shape
    if columns not in (size, 3 * size, 4 * size) or (places and columns != 4 * size):
        raise ValueError(f"recurrent_kernel: got the shape {recurrent.shape}, needs [H, nH] of n = 1, 3 or 4 gates")
    check_shape("kernel", kernel, (*kernel.shape[:-1], columns))
    gates = columns // size
    after = config["reset_after"] if bias is None else bias.ndim == 2
    if bias is not None:
        check_shape("bias", bias, (2, columns) if gates == 3 and after else (columns,))
    phi = _activation("activation", config["activation"])
    sigma = _activation("recurrent_activation", config["recurrent_activation"])
    inputs = kernel.shape[-2]
    cell: Layer
    params: Params
    if places:
        return fitting(*_conv(arrays, config, space))
    if gates == 3:
        cell, params = _gru(arrays, inputs, size, bool(after), sigma, phi)
    elif gates == 4:
        cell = LSTM(inputs, size, bias is not None, sigma, phi, phi)
        params = LSTMParams(*_in_jax(arrays))
    else:
        cell, params = Elman(inputs, size, phi, bias is not None), ElmanParams(*_in_jax(arrays))
    dropout, recurrent_dropout = config["dropout"], config["recurrent_dropout"]
    # With implementation=1, which a recurrent dropout sets, the input has a mask for each gate.
    masked = dropout and gates > 1 and (recurrent_dropout or config["implementation"] == 1)
    if masked or (recurrent_dropout and gates == 3 and not after):
        raise ValueError(
            f"dropout: got {dropout} with recurrent_dropout={recurrent_dropout}, whose masks jaxrnn does not have; "
            "from_keras(layer, dropout=0.0, recurrent_dropout=0.0) leaves them out"
        )
    if recurrent_dropout:
        cell = RecurrentDropout(cell, recurrent_dropout, tied=False)
    return (Dropout(cell, dropout, ("time",)) if dropout else cell), params


def _in_jax(arrays: Mapping[str, np.ndarray]) -> tuple[Any, Any, Any]:
    kernel, recurrent = (to_jax(name, arrays[name]) for name in ("kernel", "recurrent_kernel"))
    return kernel, recurrent, to_jax("bias", arrays["bias"]) if "bias" in arrays else None


def _gru(
    arrays: Mapping[str, np.ndarray], inputs: int, size: int, after: bool, sigma: Activation, phi: Activation
) -> tuple[GRU, GRUParams]:
    ordered = {name: reorder(a, ZRN) for name, a in arrays.items()}
    b_n = None
    if "bias" in arrays and after:
        ordered["bias"], b_n = of_two_biases(*ordered["bias"])
    w_x, w_h, b = _in_jax(ordered)
    cell = GRU(inputs, size, "after" if after else "before", "bias" in arrays, sigma, phi)
    if after:
        return cell, GRUParams(w_x, w_h, b, None if b_n is None else to_jax("bias", b_n))
    return cell, GRUParams(w_x, w_h[:, : 2 * size], b, w_n=w_h[:, 2 * size :])


def _conv(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], space: tuple[int, ...] | None) -> Direction:
    *kernel, channels, columns = arrays["kernel"].shape
    needed = {"padding": "same", "data_format": "channels_last", "dropout": 0.0, "recurrent_dropout": 0.0}
    needed |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
    for name, want in needed.items():
        if config[name] != want:
            raise ValueError(f"{name}: got {config[name]!r}, jaxrnn.ConvLSTM has {want!r} only")
    if np.any(np.asarray(config["dilation_rate"]) != 1):
        raise ValueError(f"dilation_rate: got {config['dilation_rate']}, jaxrnn.ConvLSTM has 1 only")
    strides = config["strides"]
    stride = strides if isinstance(strides, int) else tuple(strides)
    stride = 1 if stride == (1,) * len(kernel) else stride
    sizes = *check_space(space, len(kernel)), channels
    cell = ConvLSTM(sizes, columns // 4, tuple(kernel), stride, use_bias="bias" in arrays)
    return cell, ConvLSTMParams(*_in_jax(arrays))


def to_keras(cell: Layer, params: Params, **options: Any) -> Any:
    """Turns a cell or network into a layer of Keras that returns sequences and states, with the parameters' dtype.

    Args:
        cell: an `Elman`, `LSTM`, `GRU` or `ConvLSTM`, also in `Dropout(…, share=("time",))` or
            `RecurrentDropout(…, tied=False)`; a `Bidirectional` of such; a `Stack` of such becomes an `RNN` of
            `StackedRNNCells`.
        params: its parameters.
        **options: further arguments of Keras's layer, such as `name`; of a `Bidirectional`, of its layers.

    Raises:
        ModuleNotFoundError: Keras is not installed; `keras_arrays` does not need it.
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: Keras has no such layer, or parameters are of several dtypes.
    """
    check_installed("keras")
    from keras import layers

    check_layer(cell)
    check_params(cell, params)
    options = {"return_sequences": True, "return_state": True, **options}
    shape, dtype = (None, None, *cell.input_spec.shape), shared_dtype(params, *_DTYPES)
    if isinstance(cell, Bidirectional):
        modes = {merge: mode for mode, merge in _MERGES.items()}
        if cell.merge not in modes:
            raise ValueError(f"cell: got merge={cell.merge}, Keras has {list(modes)} only")
        forward, backward = cell.cells
        layer = layers.Bidirectional(
            _layer(layers, forward, params.forward, dtype, options),
            merge_mode=modes[cell.merge],
            dtype=dtype,
            backward_layer=_layer(layers, backward, params.backward, dtype, options | {"go_backwards": True}),
        )
        layer.build(shape)
        _fill(layer.forward_layer.cell, forward, params.forward)
        _fill(layer.backward_layer.cell, backward, params.backward)
        return layer
    layer = _layer(layers, cell, params, dtype, options)
    layer.build(shape)
    if isinstance(cell, Stack):
        for one, inner, own in zip(layer.cell.cells, cell.cells, params, strict=True):
            _fill(one, inner, own)
    else:
        _fill(layer.cell, cell, params)
    return layer


def _layer(layers: Any, cell: Layer, params: Params, dtype: str, options: Mapping[str, Any]) -> Any:
    """Returns an unbuilt layer of one direction."""
    if isinstance(cell, Stack):
        check_options(cell, "StackedRNNCells", dropout=0.0)
        made = []
        for inner, own in zip(cell.cells, params, strict=True):
            name, config = _options(*plain(inner, own))
            if name.startswith("Conv"):
                raise ValueError(f"cell: got {inner} in a Stack, Keras has convolutional layers alone")
            made.append(getattr(layers, name + "Cell")(**config, dtype=dtype))
        return layers.RNN(layers.StackedRNNCells(made, dtype=dtype), dtype=dtype, **options)
    name, config = _options(*plain(cell, params))
    return getattr(layers, name)(**{**config, "dtype": dtype, **options})


def _fill(layer: Any, cell: Layer, params: Params) -> None:
    for name, array in keras_arrays(cell, params).items():
        getattr(layer, name).assign(array)


def _options(cell: Layer, params: Params) -> tuple[str, dict[str, Any]]:
    """Returns the name of Keras's layer and its arguments."""
    # Keras's default would be a QR decomposition of what is overwritten.
    config: dict[str, Any] = {"recurrent_initializer": "glorot_uniform"}
    if isinstance(cell, Dropout):
        check_options(cell, "Keras", share=("time",))
        config["dropout"] = cell.rate
        cell = cell.cell
    if isinstance(cell, RecurrentDropout):
        check_options(cell, "Keras", tied=False, share=("time",))
        config["recurrent_dropout"] = cell.rate
        cell = cell.cell
    inner: Any = cell
    if isinstance(inner, ConvLSTM):
        axes = len(inner.input_size) - 1
        check_options(inner, "Keras", peephole=False)
        if axes > 3:
            raise ValueError(f"cell: got {inner}, Keras has up to 3 spatial axes only")
        sizes = {"filters": inner.hidden_size, "kernel_size": inner.kernel_size, "strides": inner.stride}
        return f"ConvLSTM{axes}D", config | sizes | {"padding": "same", "use_bias": inner.use_bias}
    if not isinstance(inner, Elman | LSTM | GRU):
        raise ValueError(f"cell: got {inner}, Keras has Elman, LSTM, GRU and ConvLSTM only")
    check_options(inner, "Keras", heads=1)
    config |= {"units": inner.hidden_size, "use_bias": inner.use_bias}
    if {"dropout", "recurrent_dropout"} <= config.keys() and not isinstance(inner, Elman):
        raise ValueError(f"cell: got {inner} with both dropouts, Keras then drops inputs by a mask for each gate")
    if isinstance(inner, Elman):
        return "SimpleRNN", config | {"activation": _keras_name(inner.activation)}
    config["recurrent_activation"] = _keras_name(inner.gate_activation)
    if isinstance(inner, GRU):
        if inner.reset == "before" and "recurrent_dropout" in config:
            raise ValueError(f"cell: got {cell} in RecurrentDropout, Keras does not drop what its candidate sees")
        return "GRU", config | {"activation": _keras_name(inner.activation), "reset_after": inner.reset == "after"}
    if activation_name(inner.candidate_activation) != activation_name(inner.output_activation):
        raise ValueError(f"cell: got {inner}, Keras's candidate_activation and output_activation are one")
    return "LSTM", config | {"activation": _keras_name(inner.candidate_activation)}


def _keras_name(function: Activation) -> str:
    name = activation_name(function)
    if name is None or name in _DIFFERENT or name in ("sin", "cos"):
        raise ValueError(f"cell: got the activation {name or function}, Keras has no such function")
    return _KERAS_NAMES.get(name, name)


def keras_arrays(cell: Layer, params: Params) -> dict[str, np.ndarray]:
    """Returns the arrays of one layer of Keras by name, in the order of `get_weights()`; needs no Keras.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> arrays = keras_arrays(cell, cell.init(jax.random.key(0)))
        >>> {name: array.shape for name, array in arrays.items()}
        {'kernel': (3, 12), 'recurrent_kernel': (4, 12), 'bias': (2, 12)}
    """
    check_layer(cell)
    check_params(cell, params)
    cell, params = plain(cell, params)
    _options(cell, params)
    p = jax.tree.map(np.asarray, params)
    kernel, recurrent, bias = p.w_x, p.w_h, p.b
    if isinstance(p, GRUParams):
        if p.w_n is not None:
            recurrent = np.concatenate([recurrent, p.w_n], axis=1)
        elif p.b_n is not None:
            bias = two_biases(bias, p.b_n)
        kernel, recurrent = reorder(kernel, ZRN), reorder(recurrent, ZRN)
        bias = None if bias is None else reorder(bias, ZRN)
    arrays = {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
    return {name: array for name, array in arrays.items() if array is not None}
