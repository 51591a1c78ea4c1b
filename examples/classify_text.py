"""Say what a piece of text is from: a GRU reads 256 characters in both directions, many to one.

    python -m examples.classify_text                                        # four packages of Python's library
    python -m examples.classify_text --classes asyncio tkinter FOLDER ...   # others, or folders of text files

    forward, backward = gru(characters)         each direction's states
    logits = pool([forward, backward]) W + b    each direction's last state, or every unit's maximum over the window

Whole files are held out. It prints the share of their windows that is right, beside that of naive Bayes on groups of
three characters, and draws which classes are taken for which.
"""

import dataclasses
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, training

SYMBOLS = 256  # of bytes
STRIDE = 16  # characters from one window to train on to the next
UNSEEN = 256  # windows of each class to test on, at most


@dataclass(frozen=True)
class Settings:
    """A bidirectional network that classifies windows of text."""

    classes: tuple[str, ...] = ("asyncio", "email", "multiprocessing", "xml")
    """Packages of Python's standard library, or folders of text files."""
    window: int = 256
    """Characters to read."""
    embedding: int = 32
    """Values that stand for a character."""
    hidden: int = 64
    """Units in each direction."""
    pool: Literal["max", "last"] = "max"
    """What is classified: the maxima over the window, or the last state of each direction."""
    dropout: float = 0.3
    """Rate at which what is classified is dropped while training."""
    batch: int = 32
    """Windows in a batch."""
    steps: int = 1000
    """Batches to train on."""
    learning_rate: float = 4e-3
    """Adam's, at the end of the warmup; a cosine takes it to nothing."""
    seed: int = 0
    """Of the initialization, of the order of windows and of which files are held out."""
    directory: Path = Path("runs/classify_text")
    """Where metrics, checkpoints and the picture go."""
    quick: bool = False
    """Less training, for half a minute; sets --window and --steps where they are not given."""
    resume: bool = False
    """Go on from the newest checkpoint in the directory, with the settings stored there."""


# The text.


def files_of(name: str) -> list[bytes]:
    """The different text files of a class."""
    root = Path(sysconfig.get_path("stdlib")) / name
    folder, pattern = (root, "*.py") if (root / "__init__.py").exists() else (Path(name), "*")
    if not folder.is_dir():
        raise ValueError(f"classes: got {name!r}, needs a package of Python's standard library, or a folder")
    found = dict.fromkeys(path.read_bytes() for path in sorted(folder.rglob(pattern)) if path.is_file())
    return [text for text in found if text.strip() and 0 not in text]


def divided(settings: Settings) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Files to train on and files held out, one in five of each class: `[N, 2]`, characters and the class."""
    train, held_out = [], []
    for number, name in enumerate(settings.classes):
        texts = [np.frombuffer(text, np.uint8) for text in files_of(name) if len(text) >= settings.window]
        if len(texts) < 2:
            raise ValueError(
                f"classes: got {name!r}, which has {len(texts)} text files of a window's {settings.window} characters "
                "(--window) or more, needs 2"
            )
        labelled = [np.stack([text, np.full_like(text, number)], axis=1) for text in texts]
        order = np.random.default_rng((settings.seed, number)).permutation(len(texts)).tolist()
        cut = -(-len(texts) // 5)
        held_out += [labelled[i] for i in order[:cut]]
        train += [labelled[i] for i in order[cut:]]
    return train, held_out


def cut(files: Sequence[np.ndarray], window: int) -> np.ndarray:
    """The windows `[window, N, 2]` of the files, end to end."""
    return np.stack([f[at : at + window] for f in files for at in range(0, len(f) - window + 1, window)], axis=1)


def chosen(windows: np.ndarray, classes: int) -> np.ndarray:
    """Windows to test on, drawn so that the classes have about as many."""
    order = np.random.default_rng(0).permutation(windows.shape[1])
    labels = windows[0, order, 1]
    return windows[:, np.concatenate([order[labels == number][:UNSEEN] for number in range(classes)])]


# The model.


class Classifier(nnx.Module):
    """Embedding, a bidirectional GRU, a linear layer on a summary of the window."""

    def __init__(self, settings: Settings, rngs: nnx.Rngs) -> None:
        net = jaxrnn.Bidirectional(jaxrnn.GRU(settings.embedding, settings.hidden))
        self.embed = nnx.Embed(SYMBOLS, settings.embedding, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(net, time_major=True, rngs=rngs)
        self.dropout = nnx.Dropout(settings.dropout)
        self.head = nnx.Linear(2 * settings.hidden, len(settings.classes), rngs=rngs)
        self.pool = settings.pool

    def __call__(self, characters: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits of the classes: `[T, B] -> [B, classes]`; with `rngs`, dropout."""
        state, ys = self.rnn(self.embed(characters))
        # The last states are not the last output: there the backward direction has read one character only.
        last = jnp.concatenate([state.forward.h, state.backward.h], axis=-1)
        found = last if self.pool == "last" else jnp.max(ys, axis=0)
        return self.head(self.dropout(found, deterministic=rngs is None, rngs=rngs))


# What it reached.


def naive_bayes(train: np.ndarray, windows: np.ndarray, classes: int) -> np.ndarray:
    """The likeliest class of each window by its groups of three characters, counted as if they were independent."""

    def groups(windows: np.ndarray) -> np.ndarray:
        first, second, third = windows[:-2, :, 0], windows[1:-1, :, 0], windows[2:, :, 0]
        return (first.astype(int) << 16) | (second.astype(int) << 8) | third

    scores = []
    for number in range(classes):
        seen = groups(train[:, train[0, :, 1] == number])
        counts = np.bincount(seen.ravel(), minlength=SYMBOLS**3)[groups(windows)]
        scores.append(np.log((counts + 0.01) / (seen.size + 0.01 * SYMBOLS**3)).sum(0))
    return np.argmax(scores, axis=0)


def picture(settings: Settings, labels: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """Which share of each class is taken for which."""
    counts = np.zeros(2 * (len(settings.classes),))
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / counts.sum(1, keepdims=True)
    names = [Path(name).name for name in settings.classes]
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    for row, column in np.ndindex(shares.shape):
        color = "white" if shares[row, column] > 0.5 else "black"
        text = f"{shares[row, column]:.0%}\n{counts[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    right = np.mean(labels == predicted)
    axes.set(xlabel="taken for", ylabel="from", title=f"{right:.1%} of {len(labels)} windows of files held out")
    figure.savefig(path, dpi=130)


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check_between(
        settings,
        window=(3, common.MOST),
        embedding=(1, 1 << 14),
        hidden=(1, 1 << 14),
        batch=(1, common.MOST),
        steps=(1, common.FOREVER),
        seed=(0, common.SEEDS),
    )
    common.check_positive(settings, "learning_rate")
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"dropout: got {settings.dropout}, needs a rate in [0, 1)")
    if not 2 <= len(set(settings.classes)) == len(settings.classes) <= SYMBOLS:
        raise ValueError(f"classes: got {' '.join(settings.classes)}, needs two or more, all different")


def must_match(settings: Settings) -> Sequence[str]:
    """The settings that must be those of the run in the directory."""
    names = [field.name for field in dataclasses.fields(settings)]
    return [name for name in names if name not in ("directory", "resume")] if settings.resume else ()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test and draw; returns the shares right. `arguments` None: the command line's."""
    settings = common.parse(Settings, arguments, lambda settings: {"window": 64, "steps": 600}, must_match, __doc__)
    check(settings)
    train, held_out = divided(settings)
    unseen = chosen(cut(held_out, settings.window), len(settings.classes))
    labels = unseen[0, :, 1]
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, min(100, settings.steps // 10), max(settings.steps, 2)
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    state = training.init_state(Classifier(settings, nnx.Rngs(settings.seed)), optimizer, jax.random.key(settings.seed))
    if settings.resume:
        state = training.restore(settings.directory, state)
    else:
        common.refuse_a_run(settings.directory)

    def loss_fn(model: Classifier, carry: tuple[()], batch: np.ndarray, key: jax.Array) -> Any:
        logits = model(batch[..., 0], nnx.Rngs(dropout=key))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[0, :, 1].astype(jnp.int32))
        return jnp.mean(losses), (carry, {})

    predict = jax.jit(lambda model: jnp.argmax(model(unseen[..., 0]), axis=-1))
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.keeping(
            settings,
            batches.windows(train, settings.window, settings.batch, stride=STRIDE, seed=settings.seed),
            ("resume",),
        ),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda model: {"right": np.mean(predict(model) == labels)},
        eval_every=max(1, settings.steps // 10),
        items_per_batch=settings.batch,
        unit="windows",
    )
    predicted = np.asarray(predict(state.params))
    simple = naive_bayes(cut(train, settings.window), unseen, len(settings.classes))
    results = {"this model": np.mean(predicted == labels), "naive Bayes": np.mean(simple == labels)}
    print(f"right, of {len(labels)} windows of files held out: ", end="")
    print(", ".join(f"{value:.1%} by {name}" for name, value in results.items()))
    path = settings.directory / "confusion.png"
    picture(settings, labels, predicted, path)
    print(f"picture: {path}")
    return results


if __name__ == "__main__":
    common.run(main, "; here: --resume with the same directory")
