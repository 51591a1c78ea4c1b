"""Which parts of an LSTM matter: its variants, the GRU and the mutated cells, by random search, with significance.

    python -m examples.variants
    python -m examples.variants --tasks music --rolls JSB_Chorales.mat
    python -m examples.variants --cells V NFG NOAF --trials 64 --steps 2000

    V                   the vanilla LSTM, with peepholes                    (Greff et al. 2017)
    NIG NFG NOG         without the input, forget or output gate
    NIAF NOAF           without the activation of the candidate or of the output
    CIFG NP FGR         coupled gates f = 1 - i; no peepholes; gates see the gates before
    GRU MUT1 MUT2 MUT3                                                      (Jozefowicz et al. 2015)

    arithmetic          5b+hg7ca=12.       the sum of two digits among letters that mean nothing
    xml                 <ca><f></f></ca>   the names of the tags that close
    music               a canon, whose second voice follows the first one; or the pieces of a file (--rolls)

A trial is a training from weights of its own at a learning rate of its own, drawn log-uniformly; all trials of a cell
run side by side by one `vmap`. Those that are best on sequences for validation are compared by their errors on others:
a Mann-Whitney test against V, whose p is multiplied by the number of comparisons (Bonferroni).
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import mannwhitneyu

import jaxrnn
import jaxrnn.nnx
from examples import common, music
from jaxrnn.cells import GREFF, MUT
from jaxrnn.losses import piano_roll_loss, sequence_loss

LETTERS = "abcdefgh"
SYMBOLS = " .+=</>" + string.digits + LETTERS
SCALE = np.array([0, 2, 4, 5, 7, 9, 11])  # semitones of C major
UNSEEN = 512  # sequences for validation, and as many to test on
LEVEL = 0.05  # of significance

CELLS: dict[str, Callable[[int, int], jaxrnn.Layer]] = {
    **{name: partial(jaxrnn.VanillaLSTM, **options) for name, options in GREFF.items()},
    "GRU": partial(jaxrnn.GRU, reset="before"),
    **{f"MUT{n}": partial(MUT, variant=n, project_input=True) for n in (1, 2, 3)},
}


@dataclass(frozen=True)
class Settings:
    """Cells on tasks, by random search."""

    tasks: tuple[Literal["arithmetic", "xml", "music"], ...] = ("arithmetic", "xml", "music")
    """What to learn."""
    cells: tuple[str, ...] = tuple(CELLS)
    """Which cells; V always, as the others are compared with it."""
    rolls: Path | None = None
    """A file of piano rolls as in `examples.music`; by default canons are made up."""
    trials: int = 10
    """Trainings of each cell on each task."""
    best: int = 8
    """How many of them are compared."""
    rates: tuple[float, float] = (5e-3, 1e-1)
    """Bounds of Adam's learning rates."""
    length: int = 24
    """Steps of a sequence."""
    hidden: common.Hidden = 24
    batch: common.Batch = 16
    steps: common.Steps = 250
    seed: common.Seed = 0
    directory: Path = Path("runs/variants")
    """Where the picture goes."""
    quick: bool = False
    """Three cells for half a minute; sets --tasks, --cells, --trials, --best and --steps where they are not given."""


# The tasks.


class Task(NamedTuple):
    """Batches of sequences."""

    inputs: np.ndarray  # [N, T, B] symbols, or [N, T, B, 88] keys
    targets: np.ndarray  # of the same shape
    mask: np.ndarray  # [N, T, B] bool, which targets count


def arithmetic(rng: np.random.Generator, length: int) -> tuple[str, np.ndarray]:
    """A sum, of which the answer counts."""
    a, b = rng.integers(10, size=2).tolist()
    said, answer = f"{a}+{b}=", f"{a + b}."
    for _ in range(int(rng.integers(length + 2 - len(said + answer)))):
        at = int(rng.integers(len(said)))
        said = said[:at] + str(rng.choice(list(LETTERS))) + said[at:]
    counts = np.arange(length + 1)
    return (said + answer).ljust(length + 1), (len(said) <= counts) & (counts < len(said + answer))


def xml(rng: np.random.Generator, length: int) -> tuple[str, np.ndarray]:
    """Nested tags, of which the names of those that close count."""
    text, counts, opened = "", [], []
    while len(text) <= length:
        close = bool(opened) and (len(opened) == 3 or rng.random() < 0.5)
        if not close:
            opened.append("".join(rng.choice(list(LETTERS), int(rng.integers(1, 3)))))
        new = f"</{opened.pop()}>" if close else f"<{opened[-1]}>"
        counts += [close and at > 1 for at in range(len(new))]
        text += new
    return text[: length + 1], np.array(counts[: length + 1])


def canon(rng: np.random.Generator, length: int, delay: int = 4) -> np.ndarray:
    """A melody that moves on a scale, and a voice an octave below that follows it: keys `[length, 88]`."""
    place = rng.integers(28) + np.cumsum(rng.choice([-2, -1, 1, 2], length))
    degrees = np.abs(place % 28 - 14)  # turns around at the ends of two octaves
    keys = 39 + 12 * (degrees // 7) + SCALE[degrees % 7]
    roll = np.zeros((length, music.KEYS), np.float32)
    roll[np.arange(length), keys] = 1
    roll[np.arange(delay, length), keys[:-delay] - 12] = 1
    return roll


def excerpt(rng: np.random.Generator, length: int, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """`length` steps of a piece, or all of a shorter one."""
    piece = pieces[int(rng.integers(len(pieces)))]
    start = int(rng.integers(max(1, len(piece) - length + 1)))
    return piece[start : start + length]


def draw(
    settings: Settings, name: str, part: Literal["train", "valid", "test"], rolls: music.Rolls | None = None
) -> Task:
    """A task's batches to train on, or one for validation or to test on."""
    parts = ("train", "valid", "test")
    rng, length = np.random.default_rng((settings.seed, parts.index(part))), settings.length
    shape = (settings.steps, settings.batch) if part == "train" else (1, UNSEEN)
    count = shape[0] * shape[1]
    if name == "music":
        pieces = getattr(rolls, part) if rolls else None
        found = [excerpt(rng, length + 1, pieces) if pieces else canon(rng, length + 1) for _ in range(count)]
        steps = np.array([len(roll) for roll in found])
        values = np.zeros((count, length + 1, music.KEYS), bool)
        for row, roll in zip(values, found, strict=True):
            row[: len(roll)] = roll
        mask = np.arange(1, length + 1) < steps[:, None]
    else:
        write = {"arithmetic": arithmetic, "xml": xml}[name]
        texts, counts = zip(*(write(rng, length) for _ in range(count)), strict=True)
        values = np.array([[SYMBOLS.index(c) for c in text] for text in texts], np.int8)
        mask = np.stack(counts)[:, 1:]
    values = np.moveaxis(values.reshape(*shape, *values.shape[1:]), 1, 2)
    return Task(values[:, :-1], values[:, 1:], np.moveaxis(mask.reshape(*shape, length), 1, 2))


# The training.


class Network(nnx.Module):
    """A cell and a linear layer."""

    def __init__(self, cell: jaxrnn.Layer, outputs: int, rngs: nnx.Rngs) -> None:
        # The same for all cells; the default of each would be that of its paper.
        alike = {"input_init": jaxrnn.initializers.lecun_normal(), "recurrent_init": jaxrnn.initializers.orthogonal()}
        self.rnn = jaxrnn.nnx.RNN(cell, time_major=True, initializers=alike, rngs=rngs)
        self.head = nnx.Linear(cell.output_size, outputs, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Logits of what comes next: `[T, B]` symbols or `[T, B, 88]` keys to `[T, B, outputs]`."""
        outputs = self.head.out_features
        xs = jax.nn.one_hot(inputs, outputs) if inputs.ndim == 2 else inputs.astype(jnp.float32)
        return self.head(self.rnn(xs)[1])


def error(network: Network, task: Task) -> jax.Array:
    """Nats of a symbol that counts, or of a step's keys."""
    logits = network(task.inputs)
    if task.inputs.ndim == 2:
        per_step = optax.softmax_cross_entropy_with_integer_labels
        return sequence_loss(per_step, logits, task.targets.astype(jnp.int32), task.mask)
    return piano_roll_loss(logits, task.targets.astype(jnp.float32), task.mask)


def optimizer(rate: Any) -> optax.GradientTransformation:
    """Adam on clipped gradients."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, None))
def update(network: Network, state: Any, rate: jax.Array, batch: Task) -> tuple[Network, Any]:
    """A step of every trial, each at its own rate, all on the same batch."""
    updates, state = optimizer(rate).update(jax.grad(error)(network, batch), state)
    return optax.apply_updates(network, updates), state


errors_of = jax.jit(jax.vmap(error, (0, None)))


def search(
    cell: jaxrnn.Layer, outputs: int, keys: jax.Array, rates: jax.Array, train: Task, valid: Task, test: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Trains from each key at each rate, side by side; returns the errors `[trials]` of validation and of the test."""
    networks = jax.vmap(lambda key: Network(cell, outputs, nnx.Rngs(key)))(keys)
    states = jax.vmap(lambda network: optimizer(0.0).init(network))(networks)
    for batch in map(Task, *train):
        networks, states = update(networks, states, rates, batch)
    return tuple(np.asarray(errors_of(networks, Task(*(leaf[0] for leaf in part)))) for part in (valid, test))


# What it says.


class Result(NamedTuple):
    """A cell on a task."""

    errors: np.ndarray  # [best], of the trials that are best on validation, on the test
    p: float  # of its difference from V, corrected for the number of comparisons; 1 for V itself


def compared(settings: Settings, found: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Result]:
    """The cells beside V, by the errors of validation and test of their trials; those that diverged are the worst."""
    best = {}
    for name, (valid, test) in found.items():
        order = np.argsort(valid)[: settings.best]  # NaN is last
        best[name] = np.where(np.isnan(test), np.inf, test)[order]
    results = {"V": Result(best["V"], 1.0)}
    for name in best.keys() - {"V"}:
        p = mannwhitneyu(best[name], best["V"]).pvalue * (len(best) - 1)
        results[name] = Result(best[name], min(1.0, float(p)))
    return {name: results[name] for name in best}


def color(result: Result, vanilla: Result) -> str:
    """Of what differs from V: red if worse, blue if better."""
    if result.p >= LEVEL:
        return "0.8"
    return "#e07b7b" if np.median(result.errors) > np.median(vanilla.errors) else "#7ba7e0"


def picture(settings: Settings, results: dict[str, dict[str, Result]]) -> None:
    """A box for each cell on each task."""
    figure = Figure(figsize=(1.2 + 4.2 * len(results), 5), layout="constrained")
    for axes, (task, by_name) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        finite = [result.errors[np.isfinite(result.errors)] for result in by_name.values()]
        boxes = axes.boxplot(finite, tick_labels=list(by_name), patch_artist=True, medianprops={"color": "black"})
        for box, result in zip(boxes["boxes"], by_name.values(), strict=True):
            box.set_facecolor(color(result, by_name["V"]))
        axes.axhline(np.median(by_name["V"].errors), color="0.5", ls=":", lw=1)
        axes.tick_params(axis="x", rotation=90)
        axes.set(title=task, ylabel=f"test error, nats a {'step' if task == 'music' else 'symbol'}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    what = {"0.8": "not significant", "#e07b7b": "worse than V", "#7ba7e0": "better than V"}
    patches = [Patch(facecolor=face, edgecolor="black", label=label) for face, label in what.items()]
    figure.legend(handles=patches, loc="outside upper center", ncols=3, frameon=False)
    common.save(figure, settings.directory / "variants.png")


def table(results: dict[str, dict[str, Result]], counts: dict[str, int]) -> Table:
    """Medians of the errors, and which differ from V's."""
    shown = Table(
        "cell",
        f"parameters, {next(iter(results))}",
        *results,
        title=f"median test error, nats; * differs from V (p < {LEVEL})",
    )
    for name, count in counts.items():
        row = [by_name[name] for by_name in results.values()]
        marked = [f"{np.median(result.errors):.3f}{'*' if result.p < LEVEL else ' '}" for result in row]
        shown.add_row(name, str(count), *marked)
    return shown


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(settings, length=(10, common.MOST), trials=(2, 10_000), best=(2, settings.trials))
    if not 0 < settings.rates[0] <= settings.rates[1] < np.inf:
        raise ValueError(f"rates: got {settings.rates}, needs two finite numbers above 0, the smaller one first")
    if unknown := [name for name in settings.cells if name not in CELLS]:
        raise ValueError(f"cells: got {unknown[0]!r}, needs some of {' '.join(CELLS)}")
    if not settings.tasks:
        raise ValueError("tasks: got none, needs some of arithmetic, xml, music")


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Result]]:
    """Train, compare and draw; returns the results by task and cell. `arguments` None: the command line's."""
    quick = {"tasks": ("xml",), "cells": ("V", "NOAF", "GRU"), "trials": 6, "best": 4, "steps": 100}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    check(settings)
    rolls = music.load(settings.rolls) if settings.rolls else None
    names = [name for name in CELLS if name in {"V", *settings.cells}]
    k_rates, k_trials = jax.random.split(jax.random.key(settings.seed))
    keys = jax.random.split(k_trials, settings.trials)
    low, high = np.log(settings.rates)
    rates = jnp.exp(jax.random.uniform(k_rates, (settings.trials,), minval=low, maxval=high))
    results, counts = {}, {}
    settings.directory.mkdir(parents=True, exist_ok=True)  # before the time that training takes
    for task in settings.tasks:
        parts = [draw(settings, task, part, rolls) for part in ("train", "valid", "test")]
        outputs = music.KEYS if task == "music" else len(SYMBOLS)
        found = {}
        for name in track(names, task):
            cell = CELLS[name](outputs, settings.hidden)
            found[name] = search(cell, outputs, keys, rates, *parts)
            leaves = jax.tree.leaves(jax.eval_shape(cell.init, keys[0]))
            counts.setdefault(name, sum(leaf.size for leaf in leaves))
        results[task] = compared(settings, found)
    Console().print(table(results, counts))
    picture(settings, results)
    return results


if __name__ == "__main__":
    common.run(main, "stopped")
