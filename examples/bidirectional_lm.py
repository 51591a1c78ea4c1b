"""Fill gaps in a text: GRUs read what stands on both sides of each hidden character.

    python -m examples.bidirectional_lm                         # the documentation of Python's standard library
    python -m examples.bidirectional_lm --text FILE_OR_FOLDER   # another text

    hidden characters   one in five, each replaced by a mark
    ys                  two bidirectional GRU layers over the text with the marks
    logits              a linear layer on each hidden character's y

Beside it, a model learns the same from the same batches with GRUs that read forward alone. It prints the share of the
hidden characters of held-out files that each fills in right, beside counts of characters, and some of the texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxrnn
import jaxrnn.nnx
from examples import common, corpus
from jaxrnn import batches, losses, training

SYMBOLS = 256  # of bytes
MARK = 0  # what stands in a gap: the byte that texts do not have
UNSEEN = 256  # windows to test on, at most
MODELS = ("both directions", "forward alone")


@dataclass(frozen=True)
class Settings:
    """A model that fills gaps in text."""

    text: Path | None = None
    """A text file, whose last tenth is held out, or a folder, of whose text files one in twenty is held out;
    by default the documentation of Python's standard library."""
    gaps: float = 0.2
    """Share of the characters that is hidden."""
    window: int = 128
    """Characters to read."""
    embedding: int = 32
    """Values that stand for a character."""
    hidden: int = 64
    """Units of a layer in each direction; the forward model has twice as many in its one."""
    layers: int = 2
    """GRU layers."""
    batch: common.Batch = 32
    steps: common.Steps = 600
    learning_rate: common.WarmRate = 4e-3
    seed: common.Seed = 0
    show: int = 4
    """How many filled texts to print."""
    directory: common.Directory = Path("runs/bidirectional_lm")
    quick: bool = False
    """A small model trained for about a minute; sets --hidden and --steps where they are not given."""
    resume: common.Resume = False


# The text and its gaps.


def cut(files: Sequence[bytes], settings: Settings) -> np.ndarray:
    """Windows `[window, N]` of the files, end to end, in an order of their own."""
    size = settings.window
    starts = [(file, at) for file in files for at in range(0, len(file) - size + 1, size)]
    if not starts:
        raise ValueError(f"text: got files of {max(map(len, files))} characters at most, needs {size} (--window)")
    order = np.random.default_rng(0).permutation(len(starts))
    return np.stack([np.frombuffer(starts[n][0], np.uint8, size, starts[n][1]) for n in order], axis=1)


def hide(windows: Any, key: jax.Array, settings: Settings) -> tuple[jax.Array, jax.Array]:
    """The windows with marks in the gaps, and where these are."""
    gaps = jax.random.bernoulli(key, settings.gaps, windows.shape)
    return jnp.where(gaps, MARK, windows), gaps


# The models.


class Filler(nnx.Module):
    """Embedding, GRU layers in both directions or forward alone, a linear layer."""

    def __init__(self, settings: Settings, name: str, rngs: nnx.Rngs) -> None:
        layers: list[Any] = []
        for n in range(settings.layers):
            size = 2 * settings.hidden if n else settings.embedding
            both = jaxrnn.Bidirectional(jaxrnn.GRU(size, settings.hidden))
            layers.append(both if name == "both directions" else jaxrnn.GRU(size, 2 * settings.hidden))
        self.embed = nnx.Embed(SYMBOLS, settings.embedding, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(jaxrnn.Stack(tuple(layers)), time_major=True, rngs=rngs)
        self.head = nnx.Linear(2 * settings.hidden, SYMBOLS, rngs=rngs)

    def __call__(self, marked: jax.Array) -> jax.Array:
        """Logits of every character: `[T, B] -> [T, B, 256]`."""
        return self.head(self.rnn(self.embed(marked))[1])


def train(settings: Settings, files: Sequence[bytes], marked: Any, gaps: Any, test: Any) -> dict[str, np.ndarray]:
    """Train both by one optimizer on one sum of losses, on the same batches with the same gaps; how they fill `marked`.

    The text to fill is `test`, its gaps are `gaps`.
    """
    optimizer = common.adam(settings)
    models = {name: Filler(settings, name, nnx.Rngs(settings.seed)) for name in MODELS}
    state = training.init_state(jax.random.key(settings.seed), models, optimizer)
    state = common.resume_or_begin(settings, state)

    def loss_fn(models: dict[str, Filler], carry: tuple[()], batch: np.ndarray, key: jax.Array) -> Any:
        marked, gaps = hide(batch, key, settings)
        each = {
            name: losses.sequence_loss(corpus.nats, model(marked), jnp.asarray(batch), gaps)
            for name, model in models.items()
        }
        return sum(each.values()), (carry, each)

    predict = jax.jit(lambda model: jnp.argmax(model(marked), axis=-1))
    texts = [np.frombuffer(file, np.uint8) for file in files]
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(
            settings,
            batches.windows(texts, settings.window, settings.batch, stride=settings.window // 2, seed=settings.seed),
            ("show",),
        ),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda models: {name: np.mean((predict(m) == test)[gaps]) for name, m in models.items()},
        eval_every=max(1, settings.steps // 10),
        items_per_batch=settings.batch * settings.window,
        unit="characters",
    )
    return {name: np.asarray(predict(model)) for name, model in state.params.items()}


# What they reached.


def by_counts(train: np.ndarray, marked: np.ndarray) -> dict[str, np.ndarray]:
    """The likeliest character of each gap: of all, after the one before, and between both neighbors.

    Where a neighbor is hidden, or was never seen so, the one with less context decides.
    """
    before, here, after = (train[n : len(train) - 2 + n].astype(int) for n in range(3))
    padded = np.pad(marked.astype(int), ((1, 1), (0, 0)), constant_values=MARK)
    left, right = padded[:-2], padded[2:]
    guess = np.full(marked.shape, np.bincount(here.ravel()).argmax())
    found = {"the most frequent character": guess}
    for name, seen, asked, known in (
        ("by the character before", before, left, left != MARK),
        ("by both neighbors", before * SYMBOLS + after, left * SYMBOLS + right, (left != MARK) & (right != MARK)),
    ):
        counts = np.zeros((int(max(seen.max(), asked.max())) + 1, SYMBOLS), np.int32)
        np.add.at(counts, (seen, here), 1)
        guess = np.where(known & counts.any(-1)[asked], counts.argmax(-1)[asked], guess)
        found[name] = guess
    return found


def filled(text: np.ndarray, gaps: np.ndarray, guess: np.ndarray) -> str:
    """A text with its gaps, as it was filled, and marks below what is wrong."""

    def line(symbols: np.ndarray) -> str:
        """One sign for each byte, so that the lines match; "·" for those that are only a part of a character."""
        return "".join("·" if symbol > 126 else chr(max(symbol, 32)) for symbol in symbols.tolist())

    wrong = np.where(gaps & (guess != text), ord("^"), ord(" "))
    return f"{line(np.where(gaps, ord('_'), text))}\n{line(np.where(gaps, guess, text))}\n{line(wrong).rstrip()}"


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, compare, draw and fill; returns the shares right. `arguments` None: the command line's."""
    quick = {"hidden": 32, "steps": 300}
    settings = common.parse(
        Settings, arguments, lambda settings: quick, lambda given: common.resumed(given, ("show",)), __doc__
    )
    sizes = {name: (1, 1 << 14) for name in ("embedding", "layers")}
    common.check(settings, window=(3, common.MOST), show=(0, UNSEEN), **sizes)
    if not 0 < settings.gaps < 1:
        raise ValueError(f"gaps: got {settings.gaps}, needs a share between 0 and 1")
    text = corpus.load(settings.text, corpus.documentation)
    seen, test = cut(text.train, settings), cut(text.held_out, settings)[:, :UNSEEN]
    marked, gaps = map(np.asarray, hide(test, jax.random.key(0), settings))
    if not gaps.any():
        raise ValueError(f"gaps: got {settings.gaps}, needs more: none of {test.size} held-out characters is hidden")
    print(f"{seen.size:,} characters to train on; {gaps.sum():,} gaps to fill in {text.name}")
    simple = by_counts(seen, marked)
    guesses = simple | train(settings, text.train, marked, gaps, test)
    results = {name: float(np.mean((guess == test)[gaps])) for name, guess in guesses.items()}
    print("right, of the gaps in held-out files:")
    for name, value in results.items():
        print(f"  {value:.1%}  {name}")
    for n in range(min(settings.show, test.shape[1])):
        print(filled(test[:, n], gaps[:, n], guesses["both directions"][:, n]))
    lines = [line for line in common.metrics(settings.directory) if f"eval_{MODELS[0]}" in line]
    curves = {name: [(line["step"], line[f"eval_{name}"]) for line in lines] for name in MODELS}
    levels = {name: results[name] for name in simple}
    labels = {"xlabel": "steps", "ylabel": "share of gaps filled in right", "ylim": (0, 1)}
    corpus.draw(curves, levels, settings.directory / "right.png", **labels)
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
