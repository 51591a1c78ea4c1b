"""Primitives that only move numbers, as functions of the places where these lie.

Each takes the places of its inputs' numbers, arrays of ints, and gives those that the results' numbers come from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["PLACES"]


def _slice(eqn: Any, x: np.ndarray) -> np.ndarray:
    start, stop, step = (eqn.params[name] for name in ("start_indices", "limit_indices", "strides"))
    return x[tuple(map(slice, start, stop, step or [1] * x.ndim))]


def _broadcast(eqn: Any, x: np.ndarray) -> np.ndarray:
    shape, axes = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    sizes = dict(zip(axes, x.shape, strict=True))
    return np.broadcast_to(x.reshape([sizes.get(axis, 1) for axis in range(len(shape))]), shape)


def _pad(eqn: Any, x: np.ndarray, fill: np.ndarray) -> np.ndarray:
    for axis, (low, high, inner) in enumerate(eqn.params["padding_config"]):
        x = np.moveaxis(x, axis, 0)
        spread = np.full(((len(x) - 1) * (inner + 1) + 1, *x.shape[1:]), fill)
        spread[:: inner + 1] = x
        ends = [np.full((max(n, 0), *x.shape[1:]), fill) for n in (low, high)]
        x = np.concatenate([ends[0], spread[max(-low, 0) : len(spread) - max(-high, 0)], ends[1]])
        x = np.moveaxis(x, 0, axis)
    return x


def _reshape(eqn: Any, x: np.ndarray) -> np.ndarray:
    return x.reshape(eqn.outvars[0].aval.shape)


PLACES: dict[str, Callable[..., np.ndarray | list[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda eqn, *parts: np.concatenate(parts, eqn.params["dimension"]),
    "expand_dims": _reshape,
    "pad": _pad,
    "reshape": _reshape,
    "rev": lambda eqn, x: np.flip(x, eqn.params["dimensions"]),
    "slice": _slice,
    "split": lambda eqn, x: np.split(x, np.cumsum(eqn.params["sizes"])[:-1], eqn.params["axis"]),
    "squeeze": _reshape,
    "stack": lambda eqn, *parts: np.stack(parts, eqn.params["axis"]),
    "tile": lambda eqn, x: np.tile(x, eqn.params["reps"]),
    "transpose": lambda eqn, x: np.transpose(x, eqn.params["permutation"]),
    "unstack": lambda eqn, x: list(np.moveaxis(x, eqn.params["axis"], 0)),
}
