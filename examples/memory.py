"""Which cells remember for how long: adding, copy, temporal order and timed spikes, for any cells by name.

    python -m examples.memory                                           # adding, 50 time steps
    python -m examples.memory --task copy --length 20 --cells LSTM GRU MinGRU
    python -m examples.memory --task order --length 100 --learning-rates 1e-3 3e-3 1e-2

    adding      two of T random numbers are marked; their sum            (Hochreiter & Schmidhuber 1997)
    copy        eight symbols, to be written again after T blank steps   (Arjovsky, Shah & Bengio 2016)
    order       two of T symbols are X or Y; in which order?             (Hochreiter & Schmidhuber 1997)
    spikes      two spikes T/2 to T steps apart; the next one, as far on (Gers, Schraudolph & Schmidhuber 2002)

Every cell is trained from several seeds and at several rates side by side, by one `vmap`, on the same fresh sequences.
The picture shows each cell's error over the steps, the median of its seeds and their range, and that of a guess that
remembers nothing; of several rates, the one with the least median error on the last batches of the training.

Most cells begin as they do by default. Those of `recipes` begin as their papers say for long memories.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
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
SIZES = {"adding": (2, 1), "copy": (RECALLED + 2, RECALLED), "order": (6, 4), "spikes": (1, 2)}  # values in, out
UNSEEN = 512
LAST = 10  # batches of the training, by which a rate is chosen


@dataclass(frozen=True)
class Settings:
    """Cells on a task that needs memory."""

    task: Literal["adding", "copy", "order", "spikes"] = "adding"
    """What to remember."""
    length: int = 50
    """T: time steps; in the task copy those over which eight symbols are kept, in spikes the longest interval."""
    cells: common.Cells = ("Elman", "LSTM", "GRU", "MinGRU")
    """Names of classes in `jaxrnn.cells` that are made by two sizes, or of `recipes`, such as LSTM-chrono."""
    hidden: common.Hidden = 64
    seeds: int = 3
    """Networks of each cell at each rate; all are trained side by side."""
    batch: common.Batch = 50
    steps: common.Steps = 1500
    learning_rates: tuple[float, ...] = (2e-3,)
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
    if settings.task == "spikes":
        interval = rng.integers((steps + 1) // 2, steps + 1, count)
        times = np.arange(2 * steps + 1)[:, None]
        xs = (times == 0) | (times == interval)
        return Batch(xs[..., None].astype(np.float32), (times == 2 * interval).astype(int), times > interval)
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
    if settings.task == "spikes":
        asked = 2 * settings.length - np.arange((settings.length + 1) // 2, settings.length + 1).mean()
        return float(-np.log(1 / asked) / asked - np.log(1 - 1 / asked) * (1 - 1 / asked))
    return {"adding": 1 / 6, "copy": float(np.log(RECALLED)), "order": float(np.log(4))}[settings.task]


class Recipe(NamedTuple):
    """A cell and how its parameters begin."""

    cell: jaxrnn.Layer
    initializers: Mapping[str, Any] = MappingProxyType({})


def recipes(settings: Settings) -> dict[str, Recipe]:
    """What papers do for long memories, by names that `--cells` takes beside those of classes."""
    size, h, steps = SIZES[settings.task][0], settings.hidden, max(3, settings.length)

    def block(cell: jaxrnn.Layer) -> jaxrnn.Layer:
        """A layer around a cell that is linear and as wide as its input."""
        return jaxrnn.Stack((jaxrnn.Linear(size, h), jax.nn.gelu, cell, jax.nn.gelu))

    def lasting(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """Recurrent weights that halve a state at most, or double it, over all steps (Li et al. 2018)."""
        return jax.random.uniform(key, shape, dtype, 0.5 ** (1 / steps), 2 ** (1 / steps))

    chrono = jaxrnn.initializers.chrono(steps)
    return {
        "LSTM-chrono": Recipe(jaxrnn.LSTM(size, h), {"bias_init": chrono, "forget_bias": 0.0}),
        "GRU-chrono": Recipe(jaxrnn.GRU(size, h), {"bias_init": chrono}),
        "IndRNN": Recipe(jaxrnn.IndRNN(size, h), {"recurrent_init": lasting}),
        "CoRNN": Recipe(jaxrnn.CoRNN(size, h, step_size=0.06, frequency=66.0, damping=15.0)),  # the authors' for adding
        "Orthogonal-ModReLU": Recipe(jaxrnn.networks.Orthogonal(jaxrnn.ModReLU(size, h))),
        "LRU": Recipe(block(jaxrnn.LRU(h, h)), {"r_min": 0.9, "r_max": 0.999}),
        "S5": Recipe(block(jaxrnn.S5(h, h))),
    }


class Network(nnx.Module):
    """A cell and a linear layer."""

    def __init__(self, recipe: Recipe, outputs: int, rngs: nnx.Rngs) -> None:
        cell, initializers = recipe
        self.rnn = jaxrnn.nnx.RNN(cell, time_major=True, initializers=initializers, rngs=rngs)
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


def train(settings: Settings, recipe: Recipe, directory: Path) -> None:
    """Trains networks of a cell side by side; `directory` gets the errors of each."""

    def network(key: jax.Array) -> Network:
        return Network(recipe, SIZES[settings.task][1], nnx.Rngs(key))

    keys = jax.random.split(jax.random.key(settings.seed), settings.seeds)
    networks = jax.vmap(network)(jnp.tile(keys, len(settings.learning_rates)))
    rates = jnp.repeat(jnp.array(settings.learning_rates), settings.seeds)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        def one(grads: Any, state: Any, rate: jax.Array) -> Any:
            updates, state = optimizer.update(grads, state)
            return jax.tree.map(lambda leaf: -rate * leaf, updates), state

        return jax.vmap(one)(grads, state, rates)

    for_each = optax.GradientTransformation(jax.vmap(optimizer.init), update)  # norms and a rate of its own

    def loss_fn(networks: Network, carry: tuple[()], batch: Batch, key: jax.Array) -> Any:
        return jnp.sum(jax.vmap(error, (0, None))(networks, batch)), (carry, {})

    def batch(number: int) -> Batch:
        return draw(settings, (settings.seed, 0, number), settings.batch)

    last = [batch(number) for number in range(settings.steps)[-LAST:]]
    parts = {
        "train": Batch(*(np.concatenate(leaves, 1) for leaves in zip(*last, strict=True))),
        "unseen": draw(settings, (settings.seed, 1), UNSEEN),
    }
    errors = jax.jit(jax.vmap(error, (0, None)))

    def evaluate(networks: Network) -> dict[str, float]:
        found = {name: errors(networks, part).tolist() for name, part in parts.items()}
        return {f"{name}_{n}": value for name, values in found.items() for n, value in enumerate(values)}

    training.fit(
        training.init_state(jax.random.key(settings.seed), networks, for_each),
        training.make_train_step(loss_fn, for_each),
        batches.numbered(batch),
        steps=settings.steps,
        directory=directory,
        evaluate=evaluate,
        eval_every=max(1, settings.steps // 20),
        log_every=settings.steps,
        items_per_batch=settings.batch * len(rates),
        unit="sequences",
    )


class Curves(NamedTuple):
    """What a cell's networks reached at the rate chosen for them."""

    rate: float
    steps: np.ndarray  # [N]
    errors: np.ndarray  # [N, seeds], on unseen sequences


def read(settings: Settings, name: str) -> Curves:
    """The curves of the cell `name`."""
    lines = common.metrics(settings.directory / name)

    def values(part: str) -> np.ndarray:
        found = [[value for key, value in line.items() if key.startswith(f"eval_{part}_")] for line in lines]
        return np.array(found, float).reshape(len(lines), len(settings.learning_rates), settings.seeds)

    chosen = int(np.argmin(np.nan_to_num(np.median(values("train")[-1], -1), nan=np.inf)))
    steps = np.array([line["step"] for line in lines])
    return Curves(settings.learning_rates[chosen], steps, values("unseen")[:, chosen])


def picture(settings: Settings) -> None:
    """Each cell's error over the steps."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(common.CURVES)
    for name in settings.cells:
        rate, steps, errors = read(settings, name)
        (line,) = axes.plot(steps, np.median(errors, 1), label=f"{name}, rate {rate:g}")
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
    if not settings.learning_rates or not all(0 < rate < np.inf for rate in settings.learning_rates):
        raise ValueError(f"learning_rates: got {settings.learning_rates}, needs finite numbers above 0")
    known = recipes(settings)
    others = [name for name in settings.cells if name not in known]
    known |= {n: Recipe(c) for n, c in common.make_cells(others, SIZES[settings.task][0], settings.hidden).items()}
    cells = {name: known[name] for name in settings.cells}
    for name in cells:
        common.refuse_a_run(settings.directory / name, resumes=False)
    results, table = {}, Table("cell", "rate", "error", "of seeds", title=f"guess: {guess(settings):.3g}")
    for name, recipe in cells.items():
        print(name)
        train(settings, recipe, settings.directory / name)
        curves = read(settings, name)
        last = curves.errors[-1]
        results[name] = float(np.median(last))
        table.add_row(name, f"{curves.rate:g}", f"{results[name]:.2g}", f"{last.min():.2g} to {last.max():.2g}")
    Console().print(table)
    picture(settings)
    return results


if __name__ == "__main__":
    common.run(main, "here: anew, with another directory")
