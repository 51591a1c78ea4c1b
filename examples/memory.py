"""Which cells remember for how long: the adding, copy and temporal order problems, for any cells by name.

    python -m examples.memory                                           # adding, 50 time steps
    python -m examples.memory --task copy --length 20 --cells LSTM GRU MinGRU
    python -m examples.memory --task order --length 100

    adding      two of T random numbers are marked; their sum            (Hochreiter & Schmidhuber 1997)
    copy        eight symbols, to be written again after T blank steps   (Arjovsky, Shah & Bengio 2016)
    order       two of T symbols are X or Y; in which order?             (Hochreiter & Schmidhuber 1997)

Every cell is trained from several seeds side by side, by one `vmap`, on the same fresh sequences. The picture shows
each cell's error over the steps, the median of its seeds and their range, and that of a guess that remembers nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, training
from jaxrnn.losses import sequence_loss

RECALLED = 8  # symbols to copy, of as many kinds
SIZES = {"adding": (2, 1), "copy": (RECALLED + 2, RECALLED), "order": (6, 4)}  # values in, values out
UNSEEN = 512


@dataclass(frozen=True)
class Settings:
    """Cells on a task that needs memory."""

    task: Literal["adding", "copy", "order"] = "adding"
    """What to remember."""
    length: int = 50
    """T: time steps, those over which eight symbols have to be kept in the task copy."""
    cells: common.Cells = ("Elman", "LSTM", "GRU", "MinGRU")
    hidden: common.Hidden = 64
    seeds: int = 3
    """Networks of each cell that are trained side by side."""
    batch: common.Batch = 50
    steps: common.Steps = 1500
    learning_rate: float = 2e-3
    """Adam's."""
    seed: common.Seed = 0
    directory: Path = Path("runs/memory")
    """Where metrics, checkpoints and the picture go, a folder for each cell."""
    quick: bool = False
    """Short sequences for a minute; sets --length, --cells, --seeds and --steps where they are not given."""


class Batch(NamedTuple):
    """A batch of sequences."""

    xs: np.ndarray  # [T, B, I]
    targets: np.ndarray  # [T, B], numbers or classes
    mask: np.ndarray  # [T, B] bool, where they are asked for


def draw(settings: Settings, seed: Sequence[int], count: int) -> Batch:
    """Random sequences of a task."""
    rng, steps = np.random.default_rng(seed), settings.length
    if settings.task == "copy":
        symbols = rng.integers(RECALLED, size=(RECALLED, count))
        blank, cue = np.full((steps - 1, count), RECALLED), np.full((1, count), RECALLED + 1)
        inputs = np.concatenate([symbols, blank, cue, np.full((RECALLED, count), RECALLED)])
        targets = np.zeros_like(inputs)
        targets[-RECALLED:] = symbols
        mask = np.broadcast_to(np.arange(len(inputs))[:, None] >= steps + RECALLED, inputs.shape)
        return Batch(np.eye(RECALLED + 2, dtype=np.float32)[inputs], targets, mask)
    # One place in each half.
    first, second = rng.integers(0, steps // 2, count), rng.integers(steps // 2, steps, count)
    mask = np.broadcast_to(np.arange(steps)[:, None] == steps - 1, (steps, count))
    rows = np.arange(count)
    if settings.task == "adding":
        numbers, marks = rng.uniform(size=(steps, count)), np.zeros((steps, count))
        marks[first, rows] = marks[second, rows] = 1
        targets = np.broadcast_to((numbers * marks).sum(0), (steps, count))
        return Batch(np.stack([numbers, marks], -1).astype(np.float32), targets.astype(np.float32), mask)
    symbols, which = rng.integers(4, size=(steps, count)), rng.integers(2, size=(2, count))
    symbols[first, rows], symbols[second, rows] = 4 + which
    targets = np.broadcast_to(2 * which[0] + which[1], (steps, count))
    return Batch(np.eye(6, dtype=np.float32)[symbols], targets, mask)


def guess(settings: Settings) -> float:
    """The error of who remembers nothing."""
    return {"adding": 1 / 6, "copy": float(np.log(RECALLED)), "order": float(np.log(4))}[settings.task]


class Network(nnx.Module):
    """A cell and a linear layer."""

    def __init__(self, cell: jaxrnn.Layer, outputs: int, rngs: nnx.Rngs) -> None:
        self.rnn = jaxrnn.nnx.RNN(cell, time_major=True, rngs=rngs)
        self.head = nnx.Linear(cell.output_size, outputs, rngs=rngs)

    def __call__(self, xs: jax.Array) -> jax.Array:
        """`[T, B, I] -> [T, B, outputs]`."""
        return self.head(self.rnn(xs)[1])


def error(network: Network, batch: Batch) -> jax.Array:
    """The mean squared error of a sum, or the cross-entropy of classes, in nats."""
    ys = network(batch.xs)
    if ys.shape[-1] == 1:
        return sequence_loss(optax.squared_error, ys[..., 0], batch.targets, batch.mask)
    return sequence_loss(optax.softmax_cross_entropy_with_integer_labels, ys, batch.targets, batch.mask)


def train(settings: Settings, cell: jaxrnn.Layer, directory: Path) -> None:
    """Trains networks of a cell side by side; `directory` gets the errors of each."""

    def network(key: jax.Array) -> Network:
        return Network(cell, SIZES[settings.task][1], nnx.Rngs(key))

    networks = jax.vmap(network)(jax.random.split(jax.random.key(settings.seed), settings.seeds))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate))
    for_each = optax.GradientTransformation(jax.vmap(optimizer.init), jax.vmap(optimizer.update))  # norms of its own

    def loss_fn(networks: Network, carry: tuple[()], batch: Batch, key: jax.Array) -> Any:
        return jnp.sum(jax.vmap(error, (0, None))(networks, batch)), (carry, {})

    unseen = draw(settings, (settings.seed, 1), UNSEEN)
    errors = jax.jit(lambda networks: jax.vmap(error, (0, None))(networks, unseen))

    def evaluate(networks: Network) -> dict[str, float]:
        return {f"error_{n}": float(value) for n, value in enumerate(errors(networks))}

    training.fit(
        training.init_state(networks, for_each, jax.random.key(settings.seed)),
        training.make_train_step(loss_fn, for_each),
        batches.numbered(lambda number: draw(settings, (settings.seed, 0, number), settings.batch)),
        steps=settings.steps,
        directory=directory,
        evaluate=evaluate,
        eval_every=max(1, settings.steps // 20),
        log_every=settings.steps,
        items_per_batch=settings.batch * settings.seeds,
        unit="sequences",
    )


def read(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """The steps `[N]` and the errors `[N, seeds]` of a run."""
    lines = common.metrics(directory)
    values = [[value for name, value in line.items() if name.startswith("eval_error")] for line in lines]
    return np.array([line["step"] for line in lines]), np.array(values, float)


def picture(settings: Settings) -> None:
    """Each cell's error over the steps."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name in settings.cells:
        steps, errors = read(settings.directory / name)
        (line,) = axes.plot(steps, np.median(errors, 1), label=name)
        axes.fill_between(steps, errors.min(1), errors.max(1), color=line.get_color(), alpha=0.15, lw=0)
    axes.axhline(guess(settings), color="0.5", ls=":", label="remembers nothing")
    measure = "mean squared error" if settings.task == "adding" else "cross-entropy, nats"
    axes.set(xlabel=f"steps of {settings.batch} sequences", ylabel=measure, yscale="log", xlim=(0, None))
    axes.set_title(f"{settings.task}, {settings.length} time steps, {settings.seeds} seeds: median and range")
    common.style(axes)
    common.save(figure, settings.directory / "curves.png")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train all cells and draw; returns each one's median error. `arguments` None: the command line's."""
    quick = {"length": 20, "cells": ("Elman", "GRU"), "seeds": 2, "steps": 400}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    common.check(settings, length=(2, common.MOST), seeds=(1, 1000))
    cells = common.make_cells(settings.cells, SIZES[settings.task][0], settings.hidden)
    for name in cells:
        common.refuse_a_run(settings.directory / name, resumes=False)
    results, table = {}, Table("cell", "error", "of seeds", title=f"guess: {guess(settings):.3g}")
    for name, cell in cells.items():
        print(name)
        train(settings, cell, settings.directory / name)
        last = read(settings.directory / name)[1][-1]
        results[name] = float(np.median(last))
        table.add_row(name, f"{results[name]:.2g}", f"{last.min():.2g} to {last.max():.2g}")
    Console().print(table)
    picture(settings)
    return results


if __name__ == "__main__":
    common.run(main, "")
