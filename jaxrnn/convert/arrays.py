"""Arrays of other libraries as NumPy and JAX arrays, never in a narrower dtype, and gates in another order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxrnn.typing import Array, Params, PyTree

__all__ = [
    "IGFO",
    "ZRN",
    "blocks",
    "check_axes",
    "check_names",
    "check_shape",
    "of_two_biases",
    "opened",
    "reorder",
    "shared_dtype",
    "to_jax",
    "to_numpy",
    "two_biases",
]

IGFO = (0, 2, 1, 3)
"""The gates i, g, f, o among i, f, g, o, and the other way round."""
ZRN = (1, 0, 2)
"""The gates z, r, n among r, z, n, and the other way round."""


def to_numpy(name: str, array: Any) -> np.ndarray:
    """Returns an array, a PyTorch tensor or a Keras variable as a NumPy array of the same dtype."""
    if hasattr(array, "detach"):  # a tensor of PyTorch
        array = array.detach().cpu()
        if "bfloat16" in str(array.dtype):  # NumPy has no such dtype of its own
            return array.float().numpy().astype(ml_dtypes.bfloat16)
        array = array.numpy()
    values = np.asarray(array)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name}: got {values.dtype}, needs real values")
    return values.astype(values.dtype.newbyteorder("="), copy=False)  # JAX reads the machine's byte order alone


def to_jax(name: str, array: np.ndarray) -> Array:
    """Returns a NumPy array as a JAX array; raises where JAX would round it."""
    if array.dtype.itemsize > 8:
        raise ValueError(f"{name}: got {array.dtype}, which JAX does not have; needs arrays in float64 or float32")
    found = jnp.asarray(array)
    if found.dtype != array.dtype:
        raise ValueError(
            f"{name}: got {array.dtype}, which JAX would round to {found.dtype}; "
            "needs jax.enable_x64(True), or arrays in float32"
        )
    return found


def shared_dtype(params: Params, *among: str) -> str:
    """Returns the dtype of all parameters; raises unless they share one of those that another library has."""
    found = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)} or {"float32"})
    if len(found) > 1 or found[0] not in among:
        needs = f"{', '.join(among[:-1])} or {among[-1]}"
        raise ValueError(f"params: got {', '.join(found)}, needs all {needs}; see cast")
    return found[0]


def blocks(a: np.ndarray, n: int) -> list[np.ndarray]:
    """Splits the last axis into `n` gates; raises unless they are of one size."""
    if not a.ndim or a.shape[-1] % n:
        raise ValueError(f"got an array of the shape {a.shape}, needs {n} gates of one size along its last axis")
    return np.split(a, n, axis=-1)


def reorder(a: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Puts the gates of the last axis into another order.

    Example:
        >>> reorder(np.arange(6), ZRN).tolist()
        [2, 3, 0, 1, 4, 5]
    """
    parts = blocks(a, len(order))
    return np.concatenate([parts[i] for i in order], axis=-1)


def opened(b: np.ndarray, by: float) -> np.ndarray:
    """Returns the bias of i, f, g, o with `by` added to f, as some libraries do when they run.

    Example:
        >>> opened(np.zeros(4), 1).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    i, f, g, o = blocks(b, 4)
    return np.concatenate([i, f + np.asarray(by, f.dtype), g, o], axis=-1)


def of_two_biases(b_x: np.ndarray, b_h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `b` and `b_n` of a GRU with the biases r, z, n of the input and of the state: their sum, but for n.

    Example:
        >>> b, b_n = of_two_biases(np.arange(6), np.arange(10, 16))
        >>> b.tolist(), b_n.tolist()
        ([10, 12, 14, 16, 4, 5], [14, 15])
    """
    r_z = 2 * b_x.size // 3
    return np.concatenate([b_x[:r_z] + b_h[:r_z], b_x[r_z:]]), b_h[r_z:]


def two_biases(b: np.ndarray, b_n: Array | np.ndarray | None = None) -> np.ndarray:
    """Returns our biases as two, of the input and of the state: `b`, and zeros, with `b_n` in the last places.

    Example:
        >>> two_biases(np.arange(6), np.array([14, 15])).tolist()
        [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 14, 15]]
    """
    both = np.stack([b, np.zeros_like(b)])
    if b_n is not None:
        both[1, -b_n.size :] = b_n
    return both


def check_names(where: str, arrays: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises unless the names are those needed."""
    if arrays.keys() != set(needed):
        raise ValueError(f"{where}: got the names {sorted(arrays)}, needs {sorted(needed)}")


def check_axes(name: str, array: np.ndarray, axes: int) -> None:
    """Raises unless an array has at least so many axes."""
    if array.ndim < axes:
        raise ValueError(f"{name}: got the shape {array.shape}, needs {axes} axes")


def check_shape(name: str, array: PyTree, shape: tuple[int, ...]) -> None:
    """Raises unless an array has the shape."""
    if np.shape(array) != shape:
        raise ValueError(f"{name}: got the shape {np.shape(array)}, needs {shape}")
