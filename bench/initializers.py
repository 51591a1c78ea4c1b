"""Which initializer of the input weights trains better, `glorot_uniform` or Flax's `lecun_normal`, at which sizes?

    python -m bench.initializers

An [I, H] block of `glorot_uniform` has the variance 2 / (I + H), one of `lecun_normal` 1 / I: the same where I = H, and
less by 2I / (I + H) where inputs are narrow. Four tasks, from narrow inputs to wide ones:

    adding   I << H    the sum of the two marked numbers of a sequence (Hochreiter & Schmidhuber 1997), error²
    recall   I << H    five symbols again after a delay (after the same paper), nats a symbol
    chain    I = H     the next state of a Markov chain, nats above its entropy
    average  I >> H    a moving average of one direction of the inputs, error²

Both initializers have the same data, and for each seed the same recurrent weights and readout. All runs of a cell are
trained side by side by `vmap`.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import jaxrnn
from bench.records import Output, Record, progress, report
from bench.rivals import CELLS

INITIALIZERS = {
    "glorot_uniform": jaxrnn.initializers.glorot_uniform(),
    "lecun_normal": jaxrnn.initializers.lecun_normal(),
}
STEPS, ROWS = 20, 16


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Compare initializers of the input weights."""

    cells: tuple[str, ...] = ("lstm", "gru", "elman")
    """Which cells: lstm, gru, elman."""
    tasks: tuple[str, ...] = ("adding", "recall", "chain", "average")
    """Which tasks: adding, recall, chain, average."""
    updates: int = 300
    """Updates of Adam, each by a batch of its own."""
    rate: float = 3e-3
    """Learning rate."""
    seeds: int = 5
    """Runs of each network."""


class Task(NamedTuple):
    """A task: its sizes, and its batches for a generator and a number of them."""

    inputs: int
    hidden: int
    outputs: int
    batches: Callable[[Any, int], tuple[Any, Any]]  # inputs [N, T, B, I] or symbols [N, T, B], and targets
    asked: int  # how many of the last steps have targets
    least: float = 0.0  # the loss below which nothing can be


def adding(rng, n):
    """Numbers and two marks; the target is the sum of the marked numbers, at the last step."""
    numbers, half = rng.random((n, STEPS, ROWS)), STEPS // 2
    times, at = np.arange(STEPS)[:, None], rng.integers(0, half, (2, n, 1, ROWS))
    marks = (times == at[0]) | (times == at[1] + half)
    targets = np.broadcast_to((numbers * marks).sum(1, keepdims=True), numbers.shape)
    return np.stack([numbers, marks], -1), targets[..., None]


SYMBOLS, LENGTH = 6, 5


def recall(rng, n):
    """Five symbols, a delay, and a signal at each step at which one of them is asked for."""
    symbols = rng.integers(0, SYMBOLS, (n, LENGTH, ROWS))
    blanks = np.full((n, STEPS - 2 * LENGTH, ROWS), SYMBOLS)
    asks = np.full((n, LENGTH, ROWS), SYMBOLS + 1)
    return np.concatenate([symbols, blanks, asks], 1), np.concatenate([asks * 0, blanks * 0, symbols], 1)


STATES = 32
_LOGITS = 2 * np.random.default_rng(0).normal(size=(STATES, STATES))
MOVES = np.exp(_LOGITS) / np.exp(_LOGITS).sum(1, keepdims=True)


def chain(rng, n):
    """A path of a Markov chain; the target is the next state."""
    path, below = [rng.integers(0, STATES, (n, ROWS))], MOVES.cumsum(1)
    for _ in range(STEPS):
        path.append((below[path[-1]] < rng.random((n, ROWS, 1))).sum(-1).clip(max=STATES - 1))
    return np.stack(path[:-1], 1), np.stack(path[1:], 1)


def chain_entropy() -> float:
    """Nats of a move, given the state before it."""
    often = np.linalg.matrix_power(MOVES, 1000)[0]
    return float(-(often[:, None] * MOVES * np.log(MOVES)).sum())


WIDE = 128


def average(rng, n):
    """Normal inputs; the target is the moving average of their part in one direction, of variance 1."""
    xs = rng.normal(size=(n, STEPS, ROWS, WIDE)).astype(np.float32)
    parts, ys = xs @ (rng.normal(size=WIDE) / WIDE**0.5), [np.zeros((n, ROWS))]
    for t in range(STEPS):
        ys.append(0.8 * ys[-1] + 0.6 * parts[:, t])
    return xs, np.stack(ys[1:], 1)[..., None]


TASKS = {
    "adding": Task(2, 64, 1, adding, 1),
    "recall": Task(SYMBOLS + 2, 64, SYMBOLS, recall, LENGTH),
    "chain": Task(STATES, 32, STATES, chain, STEPS, chain_entropy()),
    "average": Task(WIDE, 16, 1, average, STEPS),
}


def final_losses(task: Task, kind: str, settings: Settings) -> np.ndarray:
    """The losses above the least, `[seeds, initializers]`: means over the last tenth of the updates."""
    cell = CELLS[kind](task.inputs, task.hidden)
    data = task.batches(np.random.default_rng(0), settings.updates)
    data = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32 if a.dtype.kind == "f" else jnp.int32), data)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.rate))

    def fresh(seed, init):
        to_cell, to_readout = jax.random.split(jax.random.key(seed))
        w = jax.nn.initializers.lecun_normal()(to_readout, (task.hidden, task.outputs))
        return cell.init(to_cell, input_init=init), w, jnp.zeros(task.outputs)

    def loss(params, xs, targets):
        of_cell, w, b = params
        xs = jax.nn.one_hot(xs, task.inputs) if xs.dtype == jnp.int32 else xs
        ys = jaxrnn.unroll(cell, of_cell, xs, path="scan")[1][-task.asked :] @ w + b
        targets = targets[-task.asked :]
        if targets.dtype == jnp.int32:
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(ys, targets))
        return jnp.mean((ys - targets) ** 2)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def train(params, data):
        def update(carry, batch):
            params, state = carry
            value, slopes = jax.value_and_grad(loss)(params, *batch)
            changes, state = optimizer.update(slopes, state)
            return (optax.apply_updates(params, changes), state), value

        losses = jax.lax.scan(update, (params, optimizer.init(params)), data)[1]
        return jnp.mean(losses[-max(1, settings.updates // 10) :])

    runs = [fresh(seed, init) for seed in range(settings.seeds) for init in INITIALIZERS.values()]
    losses = train(jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs), data)
    return np.asarray(losses).reshape(settings.seeds, len(INITIALIZERS)) - task.least


def records(settings: Settings) -> Iterator[Record]:
    for name, kind in progress(
        [(name, kind) for name in settings.tasks for kind in settings.cells], "bench.initializers"
    ):
        task = TASKS[name]
        losses = np.sort(final_losses(task, kind, settings), axis=0)
        row = f"{name}, {task.inputs}, {task.hidden}, {kind}"
        figure = functools.partial(Record, "initializers, losses at the end", "task, I, H, cell", row)
        for initializer, of in zip(INITIALIZERS, losses.T, strict=True):
            yield figure(f"`{initializer}`", float(np.median(of)))
            yield figure(f"`{initializer}`, least", float(of[0]))
            yield figure(f"`{initializer}`, greatest", float(of[-1]))


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
