"""Cells as JSON and back: the fields that differ from their defaults; classes and functions from a known list only.

{"LSTM": {"input_size": 3, "hidden_size": 4}}       a cell
{"function": "relu"}                                a function
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn import cells, networks
from jaxrnn.convert import keras
from jaxrnn.convert.activations import ACTIVATIONS, activation_name
from jaxrnn.convert.onnx.activations import OnnxActivation
from jaxrnn.engine.layer import Layer

__all__ = ["build", "check_sizes", "describe"]

Known = Iterable[Callable[..., Any]]
"""Classes and functions of one's own."""

_CLASSES: Mapping[str, Callable[..., Any]] = {
    name: kind
    for module in (cells, networks)
    for name in module.__all__
    if inspect.isclass(kind := getattr(module, name)) and issubclass(kind, Layer) and not inspect.isabstract(kind)
} | {"OnnxActivation": OnnxActivation}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = dict(ACTIVATIONS) | {
    "average": keras.average,
    "multiply": jnp.multiply,
    "pair": keras.pair,
    "positive": cells.positive,
}


def _table(known: Known) -> dict[str, Callable[..., Any]]:
    """Returns classes and functions by name, one's own among them."""
    table = {**_CLASSES, **_FUNCTIONS}
    if not isinstance(known, Iterable) or isinstance(known, type):
        raise TypeError(f"known: got {getattr(known, '__name__', known)}, needs a tuple of classes and functions")
    for one in known:
        name = getattr(one, "__name__", "")
        if not name.isidentifier() or table.get(name, one) is not one:
            raise ValueError(f"known: got {one!r}, needs classes and functions with names of their own")
        table[name] = one
    return table


def describe(cell: Layer, known: Known = ()) -> dict[str, Any]:
    """Returns a cell or network as a JSON object.

    Args:
        cell: any cell or network.
        known: the classes and functions of one's own that it has.

    Raises:
        ValueError: it has a class or a function that is neither of jaxrnn or JAX nor in `known`, or another value that
            JSON does not have.

    Example:
        >>> import jaxrnn
        >>> describe(jaxrnn.Stack((jaxrnn.GRU(3, 4), jaxrnn.Elman(4, 2, jnp.tanh)), dropout=0.5))["Stack"]["dropout"]
        0.5
    """
    names = {one: name for name, one in _table(known).items()}
    return _describe(cell, names, "cell")


def _describe(value: Any, names: Mapping[Any, str], where: str) -> Any:
    if isinstance(value, Layer) or type(value) in names:
        if type(value) not in names:
            raise ValueError(
                f"{where}: got a {type(value).__name__}, needs cells of jaxrnn, or known=({type(value).__name__},)"
            )
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        defaults = {f.name: f.default for f in dataclasses.fields(value)}
        own = {name: v for name, v in fields.items() if v is not defaults[name] and not _same(v, defaults[name])}
        return {names[type(value)]: {name: _describe(v, names, f"{where}.{name}") for name, v in own.items()}}
    if callable(value):
        name = activation_name(value) or names.get(value)
        if name is None:
            shown = getattr(value, "__name__", repr(value))
            raise ValueError(f"{where}: got the function {shown}, needs one of JAX's activations, or known=({shown},)")
        return {"function": name}
    if isinstance(value, tuple | list):
        return [_describe(one, names, f"{where}[{i}]") for i, one in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where}: got {value!r}, needs numbers, strings, tuples, cells and functions")


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def check_sizes(description: Any, elements: int, where: str = "cell") -> None:
    """Raises if a size of one of jaxrnn's cells is above `elements`, those of all of its parameters.

    The `init` of some cells makes matrices of their sizes in NumPy, even where JAX asks for no more than shapes.
    """
    if isinstance(description, list):
        for i, one in enumerate(description):
            check_sizes(one, elements, f"{where}[{i}]")
    for name, options in description.items() if isinstance(description, dict) else ():
        for key, value in options.items() if isinstance(options, dict) else ():
            check_sizes(value, elements, f"{where}.{key}")
            if name in _CLASSES and (key in ("order", "size") or key.endswith("_size")):
                sizes = value if isinstance(value, list) else [value]
                # Of an image that a convolution reads, only the channels have parameters.
                for size in sizes[-1:] if key == "input_size" else sizes:
                    if isinstance(size, int) and size > elements:
                        raise ValueError(f"{where}.{key}: got {size}, the file has {elements} values in all")


def build(description: Any, known: Known = ()) -> Layer:
    """Returns the cell of a description; makes nothing but cells of jaxrnn and what is in `known`.

    Raises:
        ValueError: the description is not one, or names what is not known.

    Example:
        >>> build({"LSTM": {"input_size": 3, "hidden_size": 4}})
        LSTM(input_size=3, hidden_size=4)
    """
    cell = _build(description, _table(known), "cell")
    if not isinstance(cell, Layer):
        raise ValueError(f"cell: got {description!r}, needs the description of a cell")
    return cell


def _build(value: Any, table: Mapping[str, Callable[..., Any]], where: str) -> Any:
    if isinstance(value, list):
        return tuple(_build(one, table, f"{where}[{i}]") for i, one in enumerate(value))
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"{where}: got an object of the names {sorted(value)}, needs one")
    ((name, inner),) = value.items()
    is_function = name == "function"
    found = table.get(inner if is_function and isinstance(inner, str) else name)
    if found is None or is_function == _is_class(found):
        shown = inner if is_function else name
        raise ValueError(
            f"{where}: got the unknown {'function' if is_function else 'cell'} {shown!r}; known= takes your own"
        )
    if is_function:
        return found
    if not isinstance(inner, dict):
        raise ValueError(f"{where}: got {inner!r} for {name}, needs its options by name")
    options = {key: _build(one, table, f"{where}.{key}") for key, one in inner.items()}
    try:
        return found(**options)
    except Exception as error:  # values that no constructor expects fail in any way
        raise ValueError(f"{where}: got options that {name} does not take: {error}") from error


def _is_class(value: Any) -> bool:
    return inspect.isclass(value) and dataclasses.is_dataclass(value)
