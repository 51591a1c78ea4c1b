"""Sort numbers: an encoder reads them, its final state alone starts a decoder that writes them in order.

    python -m examples.sorting                                               # 16 numbers of 0..31
    python -m examples.sorting --length 32 --low 1 --high 127 --steps 8000   # 32 numbers of 1..127

    carry, _ = encoder(embedded numbers)      many to one
    _, ys    = decoder(zeros, from carry)     one to many: nothing but the carry tells it anything
    logits   = linear(ys)                     over low..high, at every position

What it reaches: examples/README.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
NUMBERS = 10_000  # how many different ones there may be
PASSING = ("show",)  # settings of a call, not of the run


@dataclass(frozen=True)
class Settings:
    """A network that sorts numbers, trained on fresh random sequences."""

    length: int = 16
    """Numbers in a sequence."""
    low: int = 0
    """The least number there is."""
    high: int = 31
    """The greatest."""
    hidden: int = 256
    """Units of the encoder, and of the decoder."""
    steps: common.Steps = 2500
    batch: common.Batch = 128
    learning_rate: common.WarmRate = 5e-3
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/sorting")
    show: int = 4
    """Unseen sequences to print with what the network made of them."""
    quick: bool = False
    """A smaller task for half a minute; sets --length, --high, --hidden and --steps where they are not given."""
    resume: common.Resume = False


class Sorter(nnx.Module):
    """Encoder and decoder, both as wide, so that one's carry can start the other."""

    def __init__(self, settings: Settings, rngs: nnx.Rngs) -> None:
        symbols, hidden = settings.high - settings.low + 1, settings.hidden
        # Of unit variance, so that the encoder's gates see inputs of unit scale.
        self.embed = nnx.Embed(symbols, hidden, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.encoder = jaxrnn.nnx.RNN(jaxrnn.GRU(hidden, hidden), time_major=True, rngs=rngs)
        self.decoder = jaxrnn.nnx.RNN(jaxrnn.GRU(1, hidden), time_major=True, rngs=rngs)
        self.head = nnx.Linear(hidden, symbols, rngs=rngs)

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
        ylabel=f"right, % of {UNSEEN} unseen sequences",
        xlim=(0, None),
        ylim=(0, 103),
    )
    common.style(axes)
    common.save(figure, settings.directory / "curve.png")


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
    """Train, evaluate and draw; returns the fractions right. `arguments` None: the command line's."""
    settings = common.parse(
        Settings,
        arguments,
        lambda settings: {"length": 8, "high": settings.low + 15, "hidden": 128, "steps": 800},
        partial(common.resumed, passing=PASSING),
        __doc__,
    )
    check(settings)
    k_params, k_train, k_batches, k_unseen = jax.random.split(jax.random.key(settings.seed), 4)
    optimizer = common.adam(settings)
    state = training.init_state(Sorter(settings, nnx.Rngs(k_params)), optimizer, k_train)
    state = common.resume_or_begin(settings, state)

    def loss_fn(sorter: Sorter, carry: tuple[()], numbers: jax.Array, key: jax.Array) -> Any:
        del key  # nothing is random but the numbers
        target = jnp.sort(numbers, axis=0)
        losses = optax.softmax_cross_entropy_with_integer_labels(sorter(numbers), target)
        return jnp.mean(losses), (carry, {})

    unseen = draw(k_unseen, UNSEEN, settings)
    evaluate = accuracy(unseen)
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(settings, make_batches(k_batches, settings), PASSING),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=evaluate,
        eval_every=max(1, settings.steps // 25),
        items_per_batch=settings.batch,
        unit="sequences",
    )
    results = evaluate(state.params)
    if settings.show:
        Console().print(table(state.params, unseen[:, : settings.show], settings.low))
    print(f"right, of {UNSEEN} unseen sequences: {results['positions']:.2%} of the positions, ", end="")
    print(f"{results['sequences']:.2%} of the whole sequences")
    picture(settings)
    return results


if __name__ == "__main__":
    common.run(main, "; here: --resume with the same directory")
