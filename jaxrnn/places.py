"""Primitives that only move numbers, as functions of the places where these lie.

Each takes the places of its inputs' numbers, arrays of ints, and gives those that the results' numbers come from. Where
a program names places by arrays of its own, `INDICES` compute these, and `named` tells the places.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

__all__ = ["INDICES", "PLACES", "named"]


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

INDICES: dict[str, Callable[..., np.ndarray | list[np.ndarray]]] = PLACES | {
    "add": lambda eqn, a, b: a + b,
    "sub": lambda eqn, a, b: a - b,
    "mul": lambda eqn, a, b: a * b,
    "lt": lambda eqn, a, b: a < b,
    "select_n": lambda eqn, which, *cases: np.choose(which, cases),
    "convert_element_type": lambda eqn, x: x.astype(eqn.params["new_dtype"]),
}
"""Primitives that indices are made by, on arrays of NumPy."""


def named(eqn: Any, at: np.ndarray) -> np.ndarray:
    """Returns the places that a gather reads, or a scatter changes, at indices: one for each number; -1: none."""
    shape = eqn.invars[0].aval.shape
    across, removed, along, *paired = eqn.params["dimension_numbers"]  # a scatter's have the same order
    moved = (eqn.invars[2:] or eqn.outvars)[0].aval.shape
    window = [moved[axis] for axis in across]
    sizes = np.ones(len(shape), int)
    sizes[[axis for axis in range(len(shape)) if axis not in (*removed, *paired[0])]] = window
    starts = np.zeros((*at.shape[:-1], len(shape)), int)
    starts[..., list(along)] = at
    for axis, other in zip(*paired, strict=True):
        starts[..., axis] = np.indices(at.shape[:-1])[other]
    inside = np.clip(starts, 0, np.array(shape) - sizes)
    count = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    first = count[tuple(np.moveaxis(inside, -1, 0))]
    # Windows that don't fit are moved to where they do, or are nowhere.
    if eqn.params["mode"] == lax.GatherScatterMode.FILL_OR_DROP:
        first = np.where((inside == starts).all(-1), first, -count.size)
    within = count[tuple(map(slice, sizes))].reshape(window)
    places = np.maximum(np.add.outer(first, within), -1)
    return np.moveaxis(places, range(first.ndim, places.ndim), across)
