"""Translate strings: an encoder reads in both directions, a decoder with attention writes character by character.

    python -m examples.seq2seq                      # dates in words to ISO: third of may 1987 -> 1987-05-03
    python -m examples.seq2seq --task add           # 12+345 -> 357
    python -m examples.seq2seq --task reverse       # abcd -> dcba
    python -m examples.seq2seq --task copy --coupling state

    memory = encoder(source)                        a bidirectional GRU
    logits = decoder(target so far, memory)         a GRU that attends (Bahdanau et al. 2015)

With `--coupling state` the decoder sees nothing of the source but the encoder's last state, in which it begins; the
encoder reads backward, so that the first characters are the last ones it saw (Sutskever, Vinyals & Le 2014).

It prints which share of 1000 unseen strings comes out right as a whole, greedily and by beam search, and draws where
an attending decoder looks while it writes.
"""

import datetime
import string
import zlib
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
from rich.console import Console
from rich.table import Table
from rich.text import Text

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, decoding, sequences, training
from jaxrnn.losses import sequence_loss

SYMBOLS = "\0\1" + string.ascii_lowercase + string.digits + " ,-+"
END, START = 0, 1
UNSEEN = 1000
PASSING = ("show", "beams")  # settings of a call, not of the run
MONTHS = [datetime.date(2000, month, 1).strftime("%B").lower() for month in range(1, 13)]
ONES = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
)
TEENS = "sixteenth seventeenth eighteenth nineteenth twentieth"
DAYS = [*ONES.split(), *TEENS.split(), *(f"twenty {n}" for n in ONES.split()[:9]), "thirtieth", "thirty first"]


@dataclass(frozen=True)
class Settings:
    """An encoder and a decoder with attention, trained on fresh random strings."""

    task: Literal["dates", "add", "reverse", "copy"] = "dates"
    """What to translate; to add takes more --steps, such as 6000."""
    coupling: Literal["attention", "state"] = "attention"
    """What the decoder sees of the source."""
    length: int = 12
    """Most characters of a string to reverse or to copy; most digits of both numbers to add, and the sign."""
    embedding: int = 32
    """Values that stand for a character."""
    hidden: int = 128
    """Units of the encoder, all directions together, and of the decoder."""
    batch: common.Batch = 64
    steps: common.Steps = 1500
    learning_rate: common.WarmRate = 4e-3
    beams: int = 5
    """Unfinished translations that beam search keeps."""
    seed: common.Seed = 0
    show: int = 5
    """Unseen strings to print with what became of them."""
    directory: common.Directory = Path("runs/seq2seq")
    quick: bool = False
    """A smaller network for half a minute; sets --hidden and --steps where they are not given."""
    resume: common.Resume = False


# The strings.


def pairs(settings: Settings, seed: Sequence[int], count: int, *, unseen: bool = False) -> list[tuple[str, str]]:
    """Random sources and their translations, either to train on or unseen: one source in ten, or one date."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        drawn = draw(settings, rng, count + count // 4)
        # All manners of writing a date are held out together.
        keys = [target if settings.task == "dates" else source for source, target in drawn]
        found += [pair for pair, key in zip(drawn, keys, strict=True) if (zlib.crc32(key.encode()) % 10 == 0) == unseen]
    return found[:count]


def draw(settings: Settings, rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Random sources and their translations."""
    if settings.task == "dates":
        ordinals = rng.integers(datetime.date(1900, 1, 1).toordinal(), datetime.date(2100, 1, 1).toordinal(), count)
        return [in_words(datetime.date.fromordinal(n), int(rng.integers(4))) for n in ordinals.tolist()]
    if settings.task == "add":
        digits = max(1, (settings.length - 1) // 2)
        numbers = 10 ** rng.integers(1, digits + 1, (count, 2))
        return [(f"{a}+{b}", str(a + b)) for a, b in rng.integers(0, numbers).tolist()]
    letters = [rng.choice(list(string.ascii_lowercase), n) for n in rng.integers(1, settings.length + 1, count)]
    return [(s := "".join(word), s if settings.task == "copy" else s[::-1]) for word in letters]


def in_words(date: datetime.date, manner: int) -> tuple[str, str]:
    """A date as people write it, in one of four manners, and as ISO does."""
    day, month, year = DAYS[date.day - 1], MONTHS[date.month - 1], date.year
    said = (
        f"{day} of {month} {year}",
        f"{month} {day}, {year}",
        f"{date.day} {month[:3]} {year}",
        f"{month} {date.day} {year}",
    )
    return said[manner], date.isoformat()


class Strings(NamedTuple):
    """A batch of sources and targets, padded by END."""

    sources: np.ndarray  # [S, B]
    lengths: np.ndarray  # [B]
    targets: np.ndarray  # [T, B], each with an END
    valid: np.ndarray  # [T, B] bool


def encode(settings: Settings, found: Sequence[tuple[str, str]]) -> Strings:
    """Strings as numbers, in shapes that depend on the task alone."""
    longest = {"dates": (32, 11), "add": (settings.length, settings.length // 2 + 2)}
    steps = longest.get(settings.task, (settings.length, settings.length + 1))
    numbers = {symbol: n for n, symbol in enumerate(SYMBOLS)}
    sources, lengths, _ = sequences.pad([np.array([numbers[c] for c in s], np.int32) for s, _ in found], steps[0])
    ended = [np.array([numbers[c] for c in t] + [END], np.int32) for _, t in found]
    targets, sizes, _ = sequences.pad(ended, steps[1])
    return Strings(sources, lengths, targets, np.arange(steps[1])[:, None] < sizes)


def decode(tokens: Any) -> str:
    """The characters before END."""
    return "".join(SYMBOLS[n] for n in np.asarray(tokens).tolist()).split("\0")[0]


# The model.


class Translator(nnx.Module):
    """An encoder, and a decoder that attends to it or begins in its last state."""

    def __init__(self, settings: Settings, source_steps: int, rngs: nnx.Rngs) -> None:
        e, h = settings.embedding, settings.hidden
        self.attends = settings.coupling == "attention"
        encoder: jaxrnn.Layer = jaxrnn.networks.Reversed(jaxrnn.GRU(e, h))
        decoder: jaxrnn.Layer = jaxrnn.GRU(e, h)
        if self.attends:
            encoder = jaxrnn.Bidirectional(jaxrnn.GRU(e, h // 2))
            decoder = jaxrnn.Attention(jaxrnn.GRU(e + h, h), memory_size=h, memory_steps=source_steps)
        self.embed = nnx.Embed(len(SYMBOLS), e, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.encoder = jaxrnn.nnx.RNN(encoder, time_major=True, rngs=rngs)
        self.decoder = jaxrnn.nnx.RNN(decoder, time_major=True, rngs=rngs)
        self.head = nnx.Linear(2 * h if self.attends else h, len(SYMBOLS), rngs=rngs)

    def read(self, sources: jax.Array, lengths: jax.Array) -> Any:
        """The decoder's first state, which holds what the encoder makes of `[S, B]`."""
        state, memory = self.encoder(self.embed(sources), seq_lengths=lengths)
        if not self.attends:
            return state
        decoder, params = self.decoder.pure()
        return decoder.attend(params, memory, sequences.mask_from_lengths(lengths, len(sources)))

    def __call__(self, strings: Strings) -> tuple[jax.Array, jax.Array | None]:
        """Logits `[T, B, V]` along the targets (teacher forcing), and alignments `[T, B, S]` if it attends."""
        before = jnp.concatenate([jnp.full_like(strings.targets[:1], START), strings.targets[:-1]])
        carry = self.read(strings.sources, strings.lengths)
        _, seen = self.decoder(self.embed(before), initial_carry=carry)
        return (self.head(seen.y), seen.alignment) if self.attends else (self.head(seen), None)

    def step(self, carry: Any, token: jax.Array) -> tuple[Any, jax.Array]:
        """One character, as `decoding` asks for it."""
        carry, seen = self.decoder.step(carry, self.embed(token))
        return carry, self.head(seen.y if self.attends else seen)


def begin(model: Translator, strings: Strings) -> tuple[Any, jax.Array]:
    """Where decoding begins: the state and START."""
    carry = nnx.jit(Translator.read)(model, strings.sources, strings.lengths)
    return carry, jnp.full(strings.sources.shape[1], START)


def greedy(model: Translator, strings: Strings) -> np.ndarray:
    """The likeliest characters one by one, `[T, B]`."""
    return np.asarray(decoding.generate(model.step, *begin(model, strings), len(strings.targets), stop=(END,)).tokens)


def accuracy(strings: Strings, tokens: Any) -> float:
    """The share of strings that are right as a whole."""
    return float(np.mean(np.all(np.asarray(tokens) == strings.targets, axis=0)))


# What it reached.


def picture(model: Translator, strings: Strings, path: Path) -> None:
    """Where the decoder looks while it writes the first three strings."""
    written = greedy(model, strings)
    alignment = np.asarray(nnx.jit(Translator.__call__)(model, strings._replace(targets=written))[1])
    figure = Figure(figsize=(13, 5), layout="constrained")
    for row, axes in enumerate(figure.subplots(1, 3)):
        source, target = decode(strings.sources[:, row]), decode(written[:, row]) + "∎"
        axes.imshow(alignment[: len(target), row, : len(source)], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(source)), list(source))
        axes.set_yticks(range(len(target)), list(target))
        axes.set(xlabel="reads", ylabel="writes", title=source)
    figure.suptitle("where the decoder looks: one row for each character that it writes")
    common.save(figure, path)


def table(strings: Strings, by_name: dict[str, np.ndarray], show: int) -> Table:
    """Sources, targets and translations; what is wrong in red, with a star."""
    shown = Table("source", "target", *by_name)
    for row in range(show):
        target = decode(strings.targets[:, row])
        written = [decode(tokens[:, row]) for tokens in by_name.values()]
        cells = [Text(w if w == target else f"{w} *", "" if w == target else "bold red") for w in written]
        shown.add_row(decode(strings.sources[:, row]), target, *cells)
    return shown


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(
        settings,
        length=(3, 64) if settings.task == "add" else (1, 1 << 10),
        embedding=(1, 1 << 14),
        hidden=(2, 1 << 14),
        beams=(1, 1000),
        show=(0, UNSEEN),
    )
    if settings.hidden % 2:
        raise ValueError(f"hidden: got {settings.hidden}, needs an even number, half of it for each direction")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, translate and draw; returns the shares right. `arguments` None: the command line's."""
    quick, must_match = {"hidden": 64, "steps": 400}, partial(common.resumed, passing=PASSING)
    settings = common.parse(Settings, arguments, lambda settings: quick, must_match, __doc__)
    check(settings)
    unseen = encode(settings, pairs(settings, (settings.seed, 1), UNSEEN, unseen=True))
    model = Translator(settings, len(unseen.sources), nnx.Rngs(settings.seed))
    optimizer = common.adam(settings)
    state = training.init_state(jax.random.key(settings.seed), model, optimizer)
    state = common.resume_or_begin(settings, state)

    def loss_fn(model: Translator, carry: tuple[()], strings: Strings, key: jax.Array) -> Any:
        logits, _ = model(strings)
        per_step: Callable[..., jax.Array] = optax.softmax_cross_entropy_with_integer_labels
        return sequence_loss(per_step, logits, strings.targets, strings.valid), (carry, {})

    def fresh(number: int) -> Strings:
        return encode(settings, pairs(settings, (settings.seed, 0, number), settings.batch))

    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(settings, batches.numbered(fresh), PASSING),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda model: {"accuracy": accuracy(unseen, greedy(model, unseen))},
        eval_every=max(1, settings.steps // 10),
        items_per_batch=settings.batch,
        unit="strings",
    )
    model = state.params
    found = decoding.beam_search(
        model.step, *begin(model, unseen), len(unseen.targets), beams=settings.beams, stop=(END,)
    )
    by_name = {"greedy": greedy(model, unseen), "beam": np.asarray(found.tokens[..., 0])}
    if settings.show:
        Console().print(table(unseen, by_name, settings.show))
    results = {name: accuracy(unseen, tokens) for name, tokens in by_name.items()}
    print(f"right, of {UNSEEN} unseen strings: {results['greedy']:.1%} greedily, {results['beam']:.1%} by beam search")
    if model.attends:
        picture(model, Strings(*(leaf[..., :3] for leaf in unseen)), settings.directory / "alignment.png")
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
