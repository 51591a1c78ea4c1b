"""Recognize digits that are read pixel by pixel, by any cells by name: a test of memory on real images.

    python -m examples.sequential_digits                                # 64 pixels of scikit-learn's digits
    python -m examples.sequential_digits --permuted --cells LSTM IndRNN LEM
    python -m examples.sequential_digits --images FOLDER                # 784 pixels of MNIST's

    state  = cell(pixel, state)         row by row from the top, or in one random order (--permuted)
    logits = state's output W + b       after the last pixel

FOLDER holds MNIST's four files of the format IDX, plain or compressed by gzip; Fashion-MNIST's have the same names.
It prints the share of test images that each cell gets right, and draws it over the steps.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, training

HELD_OUT = 360  # of scikit-learn's digits
CLASSES = 10
AT_ONCE = 500  # images that are tested side by side
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Settings:
    """Cells that read images pixel by pixel."""

    images: Path | None = None
    """A folder of MNIST's files; by default scikit-learn's digits, of 8 by 8 pixels."""
    permuted: bool = False
    """Read the pixels in one random order, the same for all images."""
    cells: common.Cells = ("Elman", "LSTM", "GRU", "LEM")
    hidden: common.Hidden = 64
    batch: common.Batch = 64
    steps: common.Steps = 1500
    learning_rate: common.WarmRate = 4e-3
    seed: common.Seed = 0
    directory: Path = Path("runs/sequential_digits")
    """Where metrics, checkpoints and the picture go, a folder for each cell."""
    quick: bool = False
    """One cell for half a minute; sets --cells and --steps where they are not given."""


# The images.


class Images(NamedTuple):
    """Images as sequences."""

    pixels: np.ndarray  # [N, T, 1] in 0..1
    labels: np.ndarray  # [N]


def idx(folder: Path, name: str, axes: int) -> np.ndarray:
    """An array of bytes from a file of the format IDX: 0, 0, 8, the number of axes, their sizes, the values."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise ValueError(f"images: got {folder}, which has no {name} or {name}.gz, needs MNIST's four files")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = np.frombuffer(file.read(4 + 4 * axes), ">u4")
            shape = head[1:].tolist()
            size = math.prod(shape)
            if len(head) != 1 + axes or head[0] != 0x800 + axes or not 0 < size <= 1 << 30:
                raise ValueError(f"images: got {path}, which does not begin as a file of the format IDX does")
            values = np.frombuffer(file.read(size + 1), np.uint8)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"images: got {path}, which is damaged ({error}), needs MNIST's file") from None
    if len(values) != size:
        raise ValueError(
            f"images: got {path}, of another length than it says, needs {size} values of the shape {shape}"
        )
    return values.reshape(shape)


def load(settings: Settings) -> tuple[Images, Images]:
    """Images to train on, and images to test on."""
    if settings.images is None:
        found = load_digits()
        order = np.random.default_rng(0).permutation(len(found.target))
        parts = [(found.images[part] / 16, found.target[part]) for part in (order[HELD_OUT:], order[:HELD_OUT])]
    else:
        arrays = [idx(settings.images, name, 1 if "labels" in name else 3) for name in MNIST]
        parts = [(arrays[0] / 255, arrays[1]), (arrays[2] / 255, arrays[3])]
        for images, labels in parts:
            if len(images) != len(labels) or images.shape[1:] != parts[0][0].shape[1:] or labels.max() >= CLASSES:
                raise ValueError(
                    f"images: got {settings.images}, whose files do not fit each other, needs MNIST's four"
                )
    steps = parts[0][0][0].size
    order = np.random.default_rng(settings.seed).permutation(steps) if settings.permuted else np.arange(steps)
    return tuple(Images(np.float32(x.reshape(len(x), -1)[:, order, None]), np.int32(y)) for x, y in parts)


# The model.


class Classifier(nnx.Module):
    """A cell, a linear layer on its last output."""

    def __init__(self, cell: jaxrnn.Layer, rngs: nnx.Rngs) -> None:
        self.rnn = jaxrnn.nnx.RNN(cell, rngs=rngs)
        self.head = nnx.Linear(cell.output_size, CLASSES, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Logits of the classes: `[*batch, T, 1] -> [*batch, 10]`."""
        return self.head(self.rnn(pixels)[1][..., -1, :])


def train(settings: Settings, cell: jaxrnn.Layer, images: Images, unseen: Images, directory: Path) -> None:
    """Trains a cell; `directory` gets the shares right."""
    optimizer = common.adam(settings)
    model = Classifier(cell, nnx.Rngs(settings.seed))

    def loss_fn(model: Classifier, carry: tuple[()], batch: Images, key: jax.Array) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(model(batch.pixels), batch.labels)
        return jnp.mean(losses), (carry, {})

    @jax.jit
    def accuracy(model: Classifier) -> jax.Array:
        logits = jax.lax.map(model, unseen.pixels, batch_size=AT_ONCE)
        return jnp.mean(jnp.argmax(logits, axis=-1) == unseen.labels)

    training.fit(
        training.init_state(jax.random.key(settings.seed), model, optimizer),
        training.make_train_step(loss_fn, optimizer),
        batches.shuffled(images, settings.batch, seed=settings.seed),
        steps=settings.steps,
        directory=directory,
        evaluate=lambda model: {"accuracy": float(accuracy(model))},
        eval_every=max(1, settings.steps // 20),
        log_every=settings.steps,
        items_per_batch=settings.batch,
        unit="images",
    )


def read(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """The steps and the shares right of a run."""
    lines = common.metrics(directory)
    return np.array([line["step"] for line in lines]), np.array([line["eval_accuracy"] for line in lines])


def picture(settings: Settings, unseen: Images) -> None:
    """Each cell's share right over the steps, beside an image as the cells read it."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes, strip = figure.subplots(1, 2, width_ratios=(6, 1))
    axes.set_prop_cycle(common.CURVES)
    for name in settings.cells:
        steps, shares = read(settings.directory / name)
        axes.plot(steps, shares, label=f"{name}, {shares[-1]:.1%}")
    axes.axhline(1 / CLASSES, color="0.5", ls=":", label="a guess")
    axes.set(xlabel=f"steps of {settings.batch} images", ylabel="test images right", xlim=(0, None), ylim=(0, 1))
    order = "in one random order" if settings.permuted else "row by row"
    axes.set_title(f"{unseen.pixels.shape[1]} pixels {order}")
    common.style(axes)
    strip.imshow(unseen.pixels[:8, :, 0].T, cmap="gray_r", aspect="auto", interpolation="nearest")
    strip.set_xticks(range(min(8, len(unseen.labels))), [str(label) for label in unseen.labels[:8]])
    strip.set(ylabel="pixels, from the first to the last", title="digits")
    common.save(figure, settings.directory / "curves.png")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train all cells and draw; returns the share that each gets right. `arguments` None: the command line's."""
    quick = {"cells": ("GRU",), "steps": 400}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    common.check(settings)
    cells = common.make_cells(settings.cells, 1, settings.hidden)
    images, unseen = load(settings)
    for name in cells:
        common.refuse_a_run(settings.directory / name, resumes=False)
    results, table = {}, Table("cell", "right", title=f"of {len(unseen.labels)} test images")
    for name, cell in cells.items():
        print(name)
        train(settings, cell, images, unseen, settings.directory / name)
        results[name] = float(read(settings.directory / name)[1][-1])
        table.add_row(name, f"{results[name]:.1%}")
    Console().print(table)
    picture(settings, unseen)
    return results


if __name__ == "__main__":
    common.run(main, "here: anew, with another directory")
