"""Classify series of different lengths: which of nine men says a vowel, from 7 to 29 steps of 12 numbers.

    python -m examples.classify_series                                  # with: pip install --no-deps aeon
    python -m examples.classify_series --train X_TRAIN.ts --test X_TEST.ts

Files are of the form `.ts`, in which timeseriesclassification.com has two hundred sets of series.

    a bidirectional GRU; the mean of its outputs over each row's own length; a linear layer

It trains for a fixed number of steps, so the test series have no say in what is kept, and draws which classes are taken
for which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, sequences, training


@dataclass(frozen=True)
class Settings:
    """A classifier of series."""

    train: Path | None = None
    """A `.ts` file to learn from; by default the set JapaneseVowels of the package aeon."""
    test: Path | None = None
    """The one to test on; by default the file beside it with TEST instead of TRAIN in its name."""
    hidden: int = 32
    """Units of each direction."""
    dropout: float = 0.3
    """Rate at which the mean's values are dropped while training."""
    batch: common.Batch = 16
    steps: common.Steps = 1000
    learning_rate: float = 3e-3
    """Adam's at the beginning; a cosine takes it to nothing."""
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/classify_series")
    quick: bool = False
    """Fewer steps for some seconds; sets --steps where it is not given."""


# The data.


class Data(NamedTuple):
    """Series with their classes."""

    series: list[np.ndarray]  # each [T_i, I]
    labels: np.ndarray  # [N], numbers of classes
    classes: list[str]


def load(path: Path) -> Data:
    """A `.ts` file: `@` lines, then a line for each series, `1.0,1.5,0.5:0.2,0.1,0.3:label` of two channels."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"train, test: got {path}, which cannot be read ({error}), needs a .ts file") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    starts = [number for number, line in enumerate(lines) if line.lower() == "@data"]
    header = {line.lower().split()[0]: line.split()[1:] for line in lines[: starts[0] if starts else 0]}
    classes = header.get("@classlabel", [])[1:]
    if not starts or not classes or header.get("@timestamps", ["false"])[0].lower() != "false":
        raise ValueError(
            f"train, test: got {path}, needs a .ts file with @classLabel true and all labels, without time stamps, and "
            "its series after @data, as on timeseriesclassification.com"
        )
    series, labels = [], []
    for number, line in enumerate(lines[starts[0] + 1 :], 1):
        *channels, label = line.split(":")
        try:
            values = np.array([np.array(channel.split(","), np.float32) for channel in channels]).T
            labels.append(classes.index(label.strip()))
        except ValueError:
            values = np.empty(0)
        if values.ndim != 2 or values.shape[1:] != (series or [values])[0].shape[1:] or not np.isfinite(values).all():
            raise ValueError(
                f"train, test: got {line[:40]!r}… as series {number} of {path}, needs channels of finite numbers, all "
                "as long, between colons, as many as in the first series, and one of the labels"
            )
        series.append(values)
    if not series:
        raise ValueError(f"train, test: got {path} without any series after @data, needs one at least")
    return Data(series, np.array(labels), classes)


def find(settings: Settings) -> tuple[Data, Data]:
    """The series to learn from and those to test on, scaled by the former."""
    path = settings.train or common.in_package("aeon", "datasets/data/JapaneseVowels/JapaneseVowels_TRAIN.ts")
    if path is None:
        raise ValueError(
            "train: got no file, and the package that has JapaneseVowels is not installed; needs --train X_TRAIN.ts, "
            "such as of timeseriesclassification.com, or: pip install --no-deps aeon"
        )
    if settings.test is None and "TRAIN" not in path.name:
        raise ValueError(f"test: got no file, and {path} has no TRAIN in its name to replace, needs --test FILE")
    train, test = load(path), load(settings.test or path.with_name(path.name.replace("TRAIN", "TEST")))
    if train.classes != test.classes or train.series[0].shape[1] != test.series[0].shape[1]:
        raise ValueError(f"test: got other classes or channels than {path} has, needs the same")
    steps = np.concatenate(train.series)
    offset, scale = steps.mean(0), np.where(np.ptp(steps, axis=0) > 0, steps.std(0), 1)

    def scaled(data: Data) -> Data:
        return data._replace(series=[(values - offset) / scale for values in data.series])

    return scaled(train), scaled(test)


# The model.


class Classifier(nnx.Module):
    """A bidirectional GRU, the mean of its outputs, a linear layer."""

    def __init__(self, channels: int, classes: int, hidden: int, dropout: float, rngs: nnx.Rngs) -> None:
        both = jaxrnn.Bidirectional(jaxrnn.GRU(channels, hidden))
        self.rnn = jaxrnn.nnx.RNN(both, time_major=True, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.head = nnx.Linear(2 * hidden, classes, rngs=rngs)

    def __call__(self, xs: jax.Array, lengths: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits `[B, classes]` of series `[T, B, I]`; with `rngs`: with dropout."""
        _, ys = self.rnn(xs, seq_lengths=lengths)
        mean = sequences.mean_output(ys, sequences.mask_from_lengths(lengths, len(xs)))
        return self.head(self.dropout(mean, deterministic=rngs is None, rngs=rngs))


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(settings)
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"dropout: got {settings.dropout}, needs 0 or more and less than 1")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test and draw; returns the accuracy. `arguments` None: the command line's."""
    settings = common.parse(Settings, arguments, lambda settings: {"steps": 300}, description=__doc__)
    check(settings)
    train, test = find(settings)
    common.refuse_a_run(settings.directory, resumes=False)
    model = Classifier(
        train.series[0].shape[1], len(train.classes), settings.hidden, settings.dropout, nnx.Rngs(settings.seed)
    )
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    state = training.init_state(jax.random.key(settings.seed), model, optimizer)

    def loss_fn(model: Classifier, carry: tuple[()], rows: batches.PaddedRows, key: jax.Array) -> Any:
        logits = model(rows.xs, rows.lengths, nnx.Rngs(dropout=key))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, rows.labels)), (carry, {})

    unseen = sequences.pad(test.series)
    classify = jax.jit(lambda model: jnp.argmax(model(unseen.xs, unseen.lengths), axis=-1))
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        batches.padded(train.series, settings.batch, labels=train.labels, seed=settings.seed),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda model: {"accuracy": float(np.mean(classify(model) == test.labels))},
        eval_every=max(10, settings.steps // 10),
        log_every=max(10, settings.steps // 10),
        items_per_batch=settings.batch,
        unit="series",
    )
    predicted = np.asarray(classify(state.params))
    accuracy = float(np.mean(predicted == test.labels))
    lengths = f"of {unseen.lengths.min()} to {len(unseen.xs)} steps"
    print(f"right: {accuracy:.1%} of {len(predicted)} unseen series, {lengths}")
    common.confusion(test.labels, predicted, test.classes, "unseen series", settings.directory / "confusion.png")
    return {"accuracy": accuracy}


if __name__ == "__main__":
    common.run(main, "here: anew, with another directory")
