"""Sort numbers: an encoder reads them, its final state alone starts a decoder that writes them in order.

    python -m examples.sorting                            # 16 numbers of 0..31
    python -m examples.sorting --length 32 --low 1 --high 127 --hidden 160 --steps 3600
    python -m examples.sorting --compare runs/a runs/b    # how fast two runs learned

    carry, _ = encoder(embedded numbers)      many to one
    _, ys    = decoder(zeros, from carry)     one to many: nothing but the carry tells it anything
    logits   = linear(ys)                     over low..high, at every position

Numbers are sorted by counting them: with c_v how many are at most v, the t-th in order is the least v with c_v > t. An
LSTM whose gates are open adds up what it reads, and so can count; and if the decoder takes one from every c_v at each
step, neighbors of unlike sign are where the next number is. So encoder and decoder begin as sums: `--start sums`.

What it reaches: examples/README.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, training

UNSEEN = 2048  # sequences to evaluate on
WATCHED = 512  # of these, while it trains
NUMBERS = 10_000  # how many different ones there may be
EMBEDDING = 64
PASSING = ("show", "compare")  # settings of a call, not of the run


def open_gates(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """Biases `[4, H]` of an LSTM whose gates i, f and o are open."""
    return jnp.broadcast_to(jnp.array([[2], [5], [0], [2]], dtype), shape)


SUMS = {"bias_init": open_gates, "forget_bias": 0, "recurrent_init": nnx.initializers.zeros}


@dataclass(frozen=True)
class Settings:
    """A network that sorts numbers, trained on fresh random sequences."""

    length: int = 16
    """Numbers in a sequence."""
    low: int = 0
    """The least number there is."""
    high: int = 31
    """The greatest."""
    cell: Literal["LSTM", "GRU", "Elman"] = "LSTM"
    """Of encoder and decoder."""
    start: Literal["sums", "usual"] = "sums"
    """How an LSTM begins: with open gates and without recurrent weights, or as usual; other cells begin as usual."""
    hidden: int = 128
    """Units of the encoder, and of the decoder."""
    steps: common.Steps = 1500
    batch: common.Batch = 64
    learning_rate: common.WarmRate = 1.5e-2
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/sorting")
    show: int = 4
    """Unseen sequences to print with what the network made of them."""
    compare: tuple[Path, ...] = ()
    """Directories of runs to draw over their minutes in one picture; nothing is trained."""
    quick: bool = False
    """A smaller task for half a minute; sets --length, --high, --hidden and --steps where they are not given."""
    resume: common.Resume = False


def rnn(input_size: int, settings: Settings, rngs: nnx.Rngs) -> jaxrnn.nnx.RNN:
    """A cell over time, as it begins."""
    cell = getattr(jaxrnn, settings.cell)(input_size, settings.hidden)
    begins = SUMS if settings.cell == "LSTM" and settings.start == "sums" else {}
    return jaxrnn.nnx.RNN(cell, time_major=True, initializers=begins, rngs=rngs)


class Sorter(nnx.Module):
    """Encoder and decoder, both as wide, so that one's carry can start the other."""

    def __init__(self, settings: Settings, rngs: nnx.Rngs) -> None:
        symbols = settings.high - settings.low + 1
        # Of unit variance, so that the encoder's gates see inputs of unit scale.
        self.embed = nnx.Embed(symbols, EMBEDDING, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.encoder = rnn(EMBEDDING, settings, rngs)
        self.decoder = rnn(1, settings, rngs)
        self.head = nnx.Linear(settings.hidden, symbols, rngs=rngs)

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """Logits of the sorted numbers: `[T, B]` in 0..N-1 to `[T, B, N]`."""
        carry, _ = self.encoder(self.embed(numbers))
        _, ys = self.decoder(jnp.zeros((*numbers.shape, 1)), initial_carry=carry)
        return self.head(ys)


def draw(key: jax.Array, sequences: int, settings: Settings) -> jax.Array:
    """Random numbers, counted from `low`: `[T, sequences]`."""
    return jax.random.randint(key, (settings.length, sequences), 0, settings.high - settings.low + 1)


def make_batches(key: jax.Array, settings: Settings) -> Callable[[int], Iterator[jax.Array]]:
    """Fresh sequences for every batch; a batch depends on its number alone."""
    return batches.numbered(lambda number: draw(jax.random.fold_in(key, number), settings.batch, settings))


def accuracy(numbers: jax.Array) -> Callable[[Sorter], dict[str, float]]:
    """A function `sorter -> {"positions", "sequences"}`: which fractions of these sequences come out right."""
    target = jnp.sort(numbers, axis=0)

    @jax.jit
    def fractions(sorter: Sorter) -> dict[str, jax.Array]:
        hits = jnp.argmax(sorter(numbers), axis=-1) == target
        return {"positions": jnp.mean(hits), "sequences": jnp.mean(jnp.all(hits, axis=0))}

    return lambda sorter: {name: float(value) for name, value in fractions(sorter).items()}


def table(sorter: Sorter, numbers: jax.Array, low: int) -> Table:
    """Sequences `[T, B]` as they were, as they should be and as the network wrote them."""
    rows = {
        "original": np.asarray(numbers) + low,
        "sorted": np.sort(numbers, axis=0) + low,
        "predicted": np.asarray(jnp.argmax(sorter(numbers), axis=-1)) + low,
    }
    width = max(len(str(n)) for n in (low, low + sorter.head.out_features - 1))
    shown = Table("", f"{numbers.shape[1]} unseen sequences; * marks what is wrong")
    for b in range(numbers.shape[1]):
        for name, values in rows.items():
            wrong = values[:, b] != rows["sorted"][:, b] if name == "predicted" else np.zeros(len(values), bool)
            cells = [
                Text(f"{n:{width}d}{'*' if bad else ' '}", "bold red" if bad else "")
                for n, bad in zip(values[:, b], wrong, strict=True)
            ]
            shown.add_row(name, Text(" ").join(cells), end_section=name == "predicted")
    return shown


def picture(settings: Settings) -> None:
    """What was right over the steps, from the metrics of the run, to `curve.png`."""
    lines = [line for line in common.metrics(settings.directory) if "eval_positions" in line]
    steps = [line["step"] for line in lines]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, label, color in (("positions", "positions", "#1f6fb4"), ("sequences", "whole sequences", "#d1495b")):
        values = [100 * line[f"eval_{name}"] for line in lines]
        axes.plot(steps, values, ".-", color=color, label=f"{label}: {values[-1]:.1f} %")
    axes.set(
        xlabel=f"steps of {settings.batch} sequences of {settings.length} numbers, {settings.low}..{settings.high}",
        ylabel=f"right, % of {WATCHED} unseen sequences",
        xlim=(0, None),
        ylim=(0, 103),
    )
    common.style(axes)
    common.save(figure, settings.directory / "curve.png")


def comparison(settings: Settings) -> None:
    """What was right over the minutes, a line for each run that is compared, to `compare.png`."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for directory in settings.compare:
        run = common.load(Settings, directory)
        lines = [line for line in common.metrics(directory) if "eval_positions" in line]
        if not lines:
            raise ValueError(f"compare: got {directory}, where nothing was evaluated yet, needs a run that was")
        values = [100 * line["eval_positions"] for line in lines]
        name = f"{run.cell}{f', --start {run.start}' if run.cell == 'LSTM' else ''}, rate {run.learning_rate:g}"
        axes.plot([line["seconds"] / 60 for line in lines], values, ".-", label=f"{name}: {values[-1]:.1f} %")
    axes.set(
        xlabel=f"minutes; {run.hidden} units, sequences of {run.length} numbers, {run.low}..{run.high}",
        ylabel=f"positions right, % of {WATCHED} unseen sequences",
        xlim=(0, None),
        ylim=(0, 103),
    )
    common.style(axes)
    settings.directory.mkdir(parents=True, exist_ok=True)
    common.save(figure, settings.directory / "compare.png")


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(
        settings,
        length=(1, common.MOST),
        low=(-common.MOST, common.MOST),
        show=(0, UNSEEN),
    )
    if not settings.low < settings.high < settings.low + NUMBERS:
        raise ValueError(
            f"high: got {settings.high}, needs more than low = {settings.low}, and less than low + {NUMBERS}"
        )


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate and draw; returns the fractions right, `compare` none. `arguments` None: the command line's."""
    settings = common.parse(
        Settings,
        arguments,
        lambda settings: {"length": 8, "high": settings.low + 15, "hidden": 64, "steps": 500},
        partial(common.resumed, passing=PASSING),
        __doc__,
    )
    check(settings)
    if settings.compare:
        comparison(settings)
        return {}
    k_params, k_train, k_batches, k_unseen = jax.random.split(jax.random.key(settings.seed), 4)
    optimizer = common.adam(settings)
    state = training.init_state(k_train, Sorter(settings, nnx.Rngs(k_params)), optimizer)
    state = common.resume_or_begin(settings, state)

    def loss_fn(sorter: Sorter, carry: tuple[()], numbers: jax.Array, key: jax.Array) -> Any:
        del key  # nothing is random but the numbers
        target = jnp.sort(numbers, axis=0)
        losses = optax.softmax_cross_entropy_with_integer_labels(sorter(numbers), target)
        return jnp.mean(losses), (carry, {})

    unseen = draw(k_unseen, UNSEEN, settings)
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(settings, make_batches(k_batches, settings), PASSING),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=accuracy(unseen[:, :WATCHED]),
        eval_every=max(1, settings.steps // 25),
        items_per_batch=settings.batch,
        unit="sequences",
    )
    results = accuracy(unseen)(state.params)
    if settings.show:
        Console().print(table(state.params, unseen[:, : settings.show], settings.low))
    print(f"right, of {UNSEEN} unseen sequences: {results['positions']:.2%} of the positions, ", end="")
    print(f"{results['sequences']:.2%} of the whole sequences")
    picture(settings)
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
