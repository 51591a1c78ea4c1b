"""Small cells on a toy input: what they do, and the pictures of it in the catalog."""

import inspect
import re
from pathlib import Path
from typing import Any


def toy(cls: type) -> Any:
    """A small cell with one input, or with as many as it needs."""
    import jax.numpy as jnp

    import jaxrnn

    def leaky(params: Any, state: Any, x: Any) -> Any:
        h = 0.9 * state + 0.1 * jnp.tanh(x @ params)
        return h, h

    special = {
        "BatchNormLSTM": lambda: cls(1, 4, steps=48),
        "Clockwork": lambda: cls(1, 4, periods=(1, 2, 4, 8)),
        "ConvGRU": lambda: cls((8, 1), 1, 3),
        "ConvLSTM": lambda: cls((8, 1), 1, 3),
        "Function": lambda: cls(
            leaky, lambda key, dtype: jnp.ones((1, 4), dtype) * jnp.arange(1, 5), lambda b, dtype: jnp.zeros((*b, 4)), 1
        ),
        "HyperLSTM": lambda: cls(1, 4, hyper_size=3),
        "LMU": lambda: cls(1, 4, order=6, theta=24.0),
        "MDLSTM": lambda: cls((8, 1), 1),
        "MDRNN": lambda: cls((8, 1), 1),
        "MUT": lambda: cls(1, 4, variant=3),
        "Multiplicative": lambda: cls(jaxrnn.LSTM(1, 4)),
        "Projected": lambda: cls(jaxrnn.LSTM(1, 4), 2),
        "RGLRU": lambda: cls(4),
        "SCRN": lambda: cls(1, 4, context_size=2),
        "Window": lambda: cls(1, 4),
    }
    return special.get(cls.__name__, lambda: cls(1, 4))()


def letters(cls: type) -> list[str]:
    """The gates by name, in the order of the drive, as the cell's `project` says them.

    Those of two cells are more than one function of a sum, of which `Inspected` finds the first.
    """
    import jaxrnn

    found = re.search(r"as the tuple ((?:[^\W\d](?:_\w+)?, )+[^\W\d]\b(?:_\w+)?)", inspect.getdoc(cls.project) or "")
    stepped = cls.run is jaxrnn.Cell.run  # a cell that runs in its own way has no single steps to look into
    return found[1].split(", ") if found and stepped and cls.__name__ not in ("OrderedLSTM", "SLSTM") else []


def run(cls: type) -> tuple[Any, Any, dict[str, Any]]:
    """Input `[T, ...]`, outputs `[T, values]` and gates `[T]` of the first unit of a toy cell with fresh parameters."""
    import jax
    import numpy as np

    import jaxrnn

    cell, steps, names = toy(cls), 48, letters(cls)
    times = np.arange(steps)
    signal = np.where((times >= 4) & (times < 16), 1.5, 0) + np.where(times >= 24, 1.5 * np.sin((times - 24) / 2), 0)
    shape = cell.input_spec.shape
    xs = np.broadcast_to(signal.astype(np.float32).reshape(steps, *[1] * len(shape)), (steps, *shape))
    if len(shape) == 2:  # a row of places: a bar that moves
        xs = np.where((np.arange(shape[0]) == times[:, None] // 6)[..., None], np.float32(2), np.float32(0))
    seen = jaxrnn.networks.Inspected(cell) if names else cell
    ys = jax.jit(lambda key, xs: jaxrnn.unroll(seen, cell.init(key), xs, path="scan")[1])(jax.random.key(1), xs)
    gates = {}
    if names:
        leaves = jax.tree.leaves(ys.gates, is_leaf=lambda leaf: leaf is None)
        ys = ys.y
        # Gates of one number for each unit; the names do not say what else there may be.
        if len(leaves) >= len(names):
            gates = {
                n: np.asarray(g).reshape(steps, -1)[:, 0] for n, g in zip(names, leaves, strict=False) if g is not None
            }
    return np.asarray(xs), np.asarray(ys).reshape(steps, -1), gates


COLORS = ("#1f6fb2", "#d1622b", "#2f8f5b", "#8a5fb5", "#b03a5b", "#6b6b6b")


def draw(cls: type, path: Path) -> None:
    """The picture of a cell: its input, its outputs, its gates."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    xs, ys, gates = run(cls)
    plane = xs.ndim == 3
    heights = [1.0 if plane else 0.7, 1.2, *([1.2] if gates and not plane else [])]
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "jaxrnn"}):
        figure = Figure(figsize=(7.2, 1.25 * sum(heights) + 0.4), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        if plane:
            for ax, values, name in ((axes[0], xs[..., 0], "input"), (axes[1], ys, "output")):
                limit = abs(values).max() or 1.0
                ax.imshow(values.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
                ax.set_ylabel(f"{name},\nplaces")
        else:
            axes[0].plot(xs.reshape(len(xs), -1)[:, 0], color="0.35", lw=1.4)
            axes[0].set_ylabel("input")
            for n, y in enumerate(ys.T):
                axes[1].plot(y, lw=1.4, color=COLORS[n % len(COLORS)])
            axes[1].set_ylabel("outputs")
            if len(heights) == 3:
                for n, (name, gate) in enumerate(gates.items()):
                    axes[2].plot(gate, lw=1.4, label=name, color=COLORS[n % len(COLORS)])
                axes[2].set_ylabel("gates of\nthe first unit")
                axes[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        axes[-1].set_xlabel("time step")
        figure.align_ylabels(axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def constructed(cell: Any) -> str:
    """A cell as a call, without the values that are defaults; functions by their names."""
    text = re.sub(r"<function (?:\w+\.)*(?:<locals>\.)?(\S+) at 0x\w+>", r"\1", repr(cell))
    return text.replace("<lambda>", "…")
