"""Train on a vocabulary of 65 000 names: noise-contrastive estimation and sampled softmax beside the full softmax.

    python -m examples.nce_lm                           # names in the source of Python's standard library and its tests
    python -m examples.nce_lm --text FILE_OR_FOLDER     # of other source code

    hidden = projected LSTM(embedding of the names before)
    nce                 tells each name from `--samples` others, drawn as often as they occur
    sampled softmax     a softmax over the name and these others
    full softmax        a softmax over all names

Each loss gets the same time. It prints names a second and the perplexity of held-out names, always by the full softmax,
beside that of counts of names, and draws perplexity over time.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.table import Table

import jaxrnn
import jaxrnn.nnx
from examples import common, corpus
from jaxrnn import batches, losses, training

NAMES = re.compile(r"[^\W\d]\w*")
LOSSES = ("nce", "sampled softmax", "full softmax")
LOOKS = 6  # at held-out names during training
SPAN = 32  # steps that evaluation takes at a time


@dataclass(frozen=True)
class Settings:
    """Three losses for a large vocabulary."""

    text: Path | None = None
    """A text file, whose last tenth is held out, or a folder, of whose text files one in twenty is held out;
    by default the modules of Python's standard library, its tests included."""
    least: int = 2
    """Names that are seen less often are <unk>."""
    embedding: int = 32
    """Values that stand for a name."""
    hidden: common.Hidden = 256
    projection: int = 32
    """Values that its outputs are projected to, which the softmax sees."""
    samples: int = 256
    """Names drawn for each batch."""
    batch: int = 128
    """Places in the text that are read at once."""
    window: int = 32
    """Names of each row in a batch."""
    seconds: float = 45.0
    """Time to train by each loss, evaluation and compilation aside."""
    learning_rate: float = 1e-2
    """Adam's."""
    held_out: int = 16384
    """Held-out names that the last perplexities are of, at most."""
    seed: common.Seed = 0
    directory: Path = Path("runs/nce_lm")
    """Where the picture goes."""
    quick: bool = False
    """A smaller vocabulary and less training, for a minute; sets --least, --seconds and --held-out where they are not
    given."""


# The model.


class Model(nnx.Module):
    """Embedding, projected LSTM, and the weights of a softmax; every END starts from a fresh state."""

    def __init__(self, settings: Settings, frequencies: np.ndarray, rngs: nnx.Rngs) -> None:
        cell = jaxrnn.Projected(jaxrnn.LSTM(settings.embedding, settings.hidden), settings.projection)
        names = len(frequencies)
        self.embed = nnx.Embed(names, settings.embedding, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(cell, time_major=True, rngs=rngs)
        self.head = nnx.Linear(settings.projection, names, kernel_init=nnx.initializers.zeros, rngs=rngs)
        # Every name begins as likely as it is frequent, so scores are as normalized as NCE takes them to be.
        self.head.bias[...] = jnp.log(jnp.asarray(frequencies, jnp.float32))

    def hidden(self, names: jax.Array, carry: Any) -> tuple[Any, jax.Array]:
        """What the softmax sees: `[T, B] -> (carry, [T, B, projection])`."""
        return self.rnn(self.embed(names), initial_carry=carry, resets=names == corpus.END)

    def __call__(self, names: jax.Array, carry: Any) -> tuple[Any, jax.Array]:
        """Logits of the next names."""
        carry, ys = self.hidden(names, carry)
        return carry, self.head(ys)


def fresh(model: Model, rows: int) -> Any:
    """The state before the first name."""
    return model.rnn.initialize_carry((rows, model.embed.features))


def make_loss(name: str, settings: Settings, table: losses.AliasTable) -> Any:
    """The loss of a window by one of `LOSSES`."""
    sampled = {"nce": losses.nce_loss, "sampled softmax": losses.sampled_softmax_loss}.get(name)

    def loss_fn(model: Model, carry: Any, window: batches.Window, key: jax.Array) -> Any:
        inputs = jnp.where(window.resets, corpus.END, window.xs[:-1])
        carry, ys = model.hidden(inputs, carry)
        if sampled is None:
            found = corpus.nats(model.head(ys), window.xs[1:])
        else:
            w, b = model.head.kernel[...], model.head.bias[...]
            found = sampled(key, ys, w, b, window.xs[1:], table, settings.samples)
        return jnp.mean(found), (carry, {})

    return loss_fn


def perplexity(symbols: np.ndarray) -> Callable[[Model], dict[str, float]]:
    """A function `model -> {"perplexity": of these names}`, by the full softmax."""
    total = corpus.nats_of(symbols, fresh, SPAN)
    return lambda model: {"perplexity": float(np.exp(total(model) / (len(symbols) - 1)))}


# Training for a time.


def train(
    name: str, settings: Settings, seen: np.ndarray, frequencies: np.ndarray, look: Callable[[Model], dict[str, float]]
) -> tuple[Model, int, list[tuple[float, float]]]:
    """Train by one loss; returns the model, names a second, and (seconds, perplexity) after each sixth of the time."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate))
    train_step = training.make_train_step(make_loss(name, settings, losses.alias_table(frequencies)), optimizer)
    windows = batches.streams(seen, settings.batch, settings.window, stretch=16, seed=settings.seed)

    def begin() -> training.TrainState:
        model = Model(settings, frequencies, nnx.Rngs(settings.seed))
        return training.init_state(jax.random.key(settings.seed), model, optimizer, fresh(model, settings.batch))

    def go_on(state: training.TrainState, steps: int) -> tuple[training.TrainState, float]:
        """The state some steps later, and the seconds that they took."""
        start, until = time.perf_counter(), int(state.step) + steps
        state = training.fit(
            state, train_step, windows, steps=until, items_per_batch=settings.batch * settings.window, unit="names"
        )
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    state, pace = go_on(go_on(begin(), 1)[0], 1)  # the first step is also compiled
    state, seconds, points = begin(), 0.0, []
    for looks in range(LOOKS, 0, -1):
        state, taken = go_on(state, max(1, round((settings.seconds - seconds) / looks / pace)))
        seconds += taken
        pace = seconds / int(state.step)
        points.append((seconds, look(state.params)["perplexity"]))
    return state.params, round(settings.batch * settings.window / pace), points


# What it reached.


def table_of(results: dict[str, float], paces: dict[str, int]) -> Table:
    """Names a second and perplexities."""
    table = Table("model", "names a second", "perplexity")
    for name, value in results.items():
        table.add_row(name, f"{paces[name]:,}" if name in paces else "", f"{value:,.1f}")
    return table


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train by each loss and compare; returns perplexities. `arguments` None: the command line's."""
    quick = {"least": 20, "seconds": 5.0, "held_out": 4096}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    bounds = {name: (1, 1 << 14) for name in ("embedding", "projection")}
    bounds |= {name: (1, common.MOST) for name in ("least", "samples", "window", "held_out")}
    common.check(settings, "seconds", **bounds)
    text = corpus.load(settings.text, lambda: corpus.modules(tests=True))
    train_names, test_names = (corpus.words(files, NAMES, lower=False) for files in (text.train, text.held_out))
    if len(train_names) <= settings.window:
        raise ValueError(
            f"text: got {len(train_names)} names to train on, needs more than {settings.window}, a window's"
        )
    known = corpus.vocabulary(train_names, settings.least)
    seen, new = corpus.encode(train_names, known), corpus.encode(test_names, known)[: settings.held_out + 1]
    print(f"{len(seen):,} names to train on, {len(known):,} different; held out: {corpus.unknown(new)}, {text.name}")
    simple = corpus.perplexities(seen, new, len(known))
    counts = np.bincount(seen, minlength=len(known)) + 1e-3  # <unk> may be in the held-out text alone
    frequencies = counts / counts.sum()
    some = new[: len(new) // 8 + 2]  # what the curves are of
    look, evaluate = perplexity(some), perplexity(new)
    results, paces, curves = dict(simple), {}, {}
    settings.directory.mkdir(parents=True, exist_ok=True)  # before the time that training takes
    for name in LOSSES:
        print(name)
        model, paces[name], curves[name] = train(name, settings, seen, frequencies, look)
        results[name] = evaluate(model)["perplexity"]
    Console().print(table_of(results, paces))
    labels = {"xlabel": "seconds of training", "ylabel": f"perplexity of {len(some) - 1:,} names", "yscale": "log"}
    levels = corpus.perplexities(seen, some, len(known))
    corpus.draw(curves, levels, settings.directory / "perplexity.png", **labels)
    return results


if __name__ == "__main__":
    common.run(main, "stopped")
