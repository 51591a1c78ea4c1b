"""Pictures of what `jaxrnn.inspection` and `jaxrnn.gradients` find; each returns matplotlib's axes."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from jaxrnn.typing import Array

__all__ = ["alignment", "gradient_norms", "heat", "text"]


def alignment(
    weights: Array, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None, ax: Any = None
) -> Any:
    """Draws one row's attention weights `[outputs, inputs]` as a heat map, inputs to the right, outputs downwards.

    Args:
        weights: numbers in 0..1; white is 0, the darkest color is the greatest.
        inputs: labels, one an input.
        outputs: labels, one an output.
        ax: matplotlib's axes; None: new ones.

    Raises:
        ValueError: `weights` has not two axes, a negative value, or not one label for each.

    Reference: Bahdanau, Cho & Bengio 2015, figure 3.
    """
    values = np.asarray(weights, np.float64)
    if values.ndim != 2:
        raise ValueError(f"weights: got the shape {values.shape}, needs [outputs, inputs] of one row of a batch")
    if not (values >= 0).all():
        raise ValueError(f"weights: got values from {values.min()} on, needs at least 0; see heat for signed values")
    for name, labels, size in (("inputs", inputs, values.shape[1]), ("outputs", outputs, values.shape[0])):
        if labels is not None and len(labels) != size:
            raise ValueError(f"{name}: got {len(labels)} labels, needs {size}, the shape of weights is {values.shape}")
    ax = plt.subplots()[1] if ax is None else ax
    image = ax.imshow(values, aspect="auto", cmap="Greys", vmin=0)
    ax.figure.colorbar(image, ax=ax)
    ax.set_xlabel("input")
    ax.set_ylabel("output")
    if inputs is not None:
        ax.set_xticks(range(len(inputs)), list(inputs))
    if outputs is not None:
        ax.set_yticks(range(len(outputs)), list(outputs))
    return ax


def gradient_norms(norms: Array, ax: Any = None) -> Any:
    """Plots norms `[T, *batch]` from `state_gradient_norms` against time on a logarithmic axis, one line per row.

    Raises:
        ValueError: `norms` is empty or has no time axis.
    """
    if not np.size(norms) or not np.ndim(norms):
        raise ValueError(f"norms: got the shape {np.shape(norms)}, needs [T, *batch], a step at least")
    ax = plt.subplots()[1] if ax is None else ax
    ax.semilogy(np.reshape(norms, (len(norms), -1)))
    ax.set_xlabel("step")
    ax.set_ylabel("norm of the state's gradient")
    return ax


def heat(values: Array, labels: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Draws activations `[T, H]` as a heat map, time to the right, `labels` below the steps. Attention: `alignment`."""
    ax = plt.subplots()[1] if ax is None else ax
    limit = float(np.max(np.abs(values))) or 1.0
    image = ax.imshow(np.asarray(values).T, aspect="auto", cmap="coolwarm", vmin=-limit, vmax=limit)
    ax.figure.colorbar(image, ax=ax)
    ax.set_xlabel("step")
    ax.set_ylabel("unit")
    if labels is not None:
        ax.set_xticks(range(len(labels)), list(labels))
    return ax


def text(characters: Sequence[str], values: Array, ax: Any = None, width: int = 60) -> Any:
    """Prints characters `[T]` on the colors of one unit's activations `[T]`, `width` of them to a line.

    Raises:
        ValueError: there are no characters, or not one value for each.
    """
    if not len(characters):
        raise ValueError("characters: got none, needs one at least")
    if len(characters) != len(values):
        raise ValueError(f"values: got {len(values)}, needs one for each of the {len(characters)} characters")
    lines = -(-len(characters) // width)
    ax = plt.subplots(figsize=(width / 6, lines / 3 + 0.3))[1] if ax is None else ax
    limit = float(np.max(np.abs(values))) or 1.0
    colors = plt.get_cmap("coolwarm")
    for i, (character, value) in enumerate(zip(characters, values, strict=True)):
        shown = {"\n": "⏎", "\t": "⇥"}.get(character, character)
        color = colors(0.5 + 0.5 * float(value) / limit)
        ax.text(i % width, -(i // width), shown, family="monospace", ha="center", va="center", backgroundcolor=color)
    ax.set_xlim(-1, width)
    ax.set_ylim(-lines, 1)
    ax.axis("off")
    return ax
