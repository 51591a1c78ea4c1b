"""Say what a piece of text is from: a GRU reads 256 characters in both directions, many to one.

    python -m examples.classify_text                                        # four packages of Python's library
    python -m examples.classify_text --classes asyncio tkinter FOLDER ...   # others, or folders of text files

    forward, backward = gru(characters)         each direction's states
    logits = pool([forward, backward]) W + b    each direction's last state, or every unit's maximum over the window

Whole files are held out. It prints the share of their windows that is right, beside that of naive Bayes on groups of
three characters, and draws which classes are taken for which.
"""

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

import jaxrnn
import jaxrnn.nnx
from examples import common, corpus
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
    batch: common.Batch = 32
    steps: common.Steps = 1000
    learning_rate: common.WarmRate = 4e-3
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/classify_text")
    quick: bool = False
    """Less training, for half a minute; sets --window and --steps where they are not given."""
    resume: common.Resume = False


# The text.


def files_of(name: str) -> list[bytes]:
    """The different text files of a class."""
    root = Path(sysconfig.get_path("stdlib")) / name
    folder, pattern = (root, "*.py") if (root / "__init__.py").exists() else (Path(name), "*")
    if not folder.is_dir():
        raise ValueError(f"classes: got {name!r}, needs a package of Python's standard library, or a folder")
    return corpus.contents(sorted(folder.rglob(pattern)))


def split_files(settings: Settings) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Files to train on and files held out, one in five of each class: `[N, 2]`, characters and the class."""
    train, held_out = [], []
    for number, name in enumerate(settings.classes):
        texts = [np.frombuffer(text, np.uint8) for text in files_of(name) if len(text) >= settings.window]
        if len(texts) < 2:
            raise ValueError(
                f"classes: got {name!r}, which has {len(texts)} text files of a window's {settings.window} characters "
                "(--window) or more, needs 2"
            )
        labeled = [np.stack([text, np.full_like(text, number)], axis=1) for text in texts]
        order = np.random.default_rng((settings.seed, number)).permutation(len(texts)).tolist()
        cut = -(-len(texts) // 5)
        held_out += [labeled[i] for i in order[:cut]]
        train += [labeled[i] for i in order[cut:]]
    return train, held_out


def cut_windows(files: Sequence[np.ndarray], window: int) -> np.ndarray:
    """The windows `[window, N, 2]` of the files, end to end."""
    return np.stack([f[at : at + window] for f in files for at in range(0, len(f) - window + 1, window)], axis=1)


def balanced(windows: np.ndarray, classes: int) -> np.ndarray:
    """Windows to test on, drawn so that the classes have about as many."""
    order = np.random.default_rng(0).permutation(windows.shape[1])
    labels = windows[0, order, 1]
    return windows[:, np.concatenate([order[labels == number][:UNSEEN] for number in range(classes)])]


def weights_of(files: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """What a window of each class counts, so that all classes count as much: 1 on average over the characters."""
    sizes = sum(np.bincount(file[:, 1], minlength=classes) for file in files)
    return (sizes.mean() / sizes).astype(np.float32)


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


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(settings, window=(3, common.MOST), embedding=(1, 1 << 14))
    if not 0 <= settings.dropout < 1:
        raise ValueError(f"dropout: got {settings.dropout}, needs a rate in [0, 1)")
    if not 2 <= len(set(settings.classes)) == len(settings.classes) <= SYMBOLS:
        raise ValueError(f"classes: got {' '.join(settings.classes)}, needs two or more, all different")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test and draw; returns the shares right. `arguments` None: the command line's."""
    settings = common.parse(Settings, arguments, lambda settings: {"window": 64, "steps": 600}, description=__doc__)
    check(settings)
    train, held_out = split_files(settings)
    unseen = balanced(cut_windows(held_out, settings.window), len(settings.classes))
    labels = unseen[0, :, 1]
    weights = jnp.asarray(weights_of(train, len(settings.classes)))
    optimizer = common.adam(settings)
    state = training.init_state(jax.random.key(settings.seed), Classifier(settings, nnx.Rngs(settings.seed)), optimizer)
    state = common.resume_or_begin(settings, state)

    def loss_fn(model: Classifier, carry: tuple[()], batch: np.ndarray, key: jax.Array) -> Any:
        logits, labels = model(batch[..., 0], nnx.Rngs(dropout=key)), batch[0, :, 1].astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(weights[labels] * losses), (carry, {})

    predict = jax.jit(lambda model: jnp.argmax(model(unseen[..., 0]), axis=-1))
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(
            settings,
            batches.windows(train, settings.window, settings.batch, stride=STRIDE, seed=settings.seed),
        ),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda model: {"accuracy": np.mean(predict(model) == labels)},
        eval_every=max(1, settings.steps // 10),
        items_per_batch=settings.batch,
        unit="windows",
    )
    predicted = np.asarray(predict(state.params))
    simple = naive_bayes(cut_windows(train, settings.window), unseen, len(settings.classes))
    results = {"this model": np.mean(predicted == labels), "naive Bayes": np.mean(simple == labels)}
    print(f"right, of {len(labels)} windows of files held out: ", end="")
    print(", ".join(f"{value:.1%} by {name}" for name, value in results.items()))
    names = [Path(name).name for name in settings.classes]
    what = "windows of files held out"
    common.confusion(labels, predicted, names, what, settings.directory / "confusion.png")
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
