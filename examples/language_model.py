"""A language model of words by three recipes: Zaremba 2014, Gal & Ghahramani 2016, AWD-LSTM (Merity 2017).

    python -m examples.language_model                               # the documentation of Python's standard library
    python -m examples.language_model --recipe zaremba              # or gal
    python -m examples.language_model --text FILE_OR_FOLDER         # another text

    zaremba     dropout of what enters and leaves LSTM layers, new at every step; a rate of learning that decays
    gal         one mask for a whole window, on recurrent products and whole words as well; the same rate
    awd         the same masks, but dropped recurrent weights; tied weights; AR and TAR; averaged parameters

It prints the perplexity of held-out words beside that of counts of words, draws it over the steps, and writes a text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxrnn
import jaxrnn.nnx
from examples import common, corpus
from jaxrnn import batches, decoding, penalties, regularization, training


class Recipe(NamedTuple):
    """Rates of dropout, and weight decay, as published."""

    words: float  # of whole words
    inputs: float  # of what enters the first layer
    between: float  # of what enters the others
    recurrent: float  # of recurrent products, or weights
    outputs: float  # of what leaves the last layer
    weight_decay: float


RECIPES = {
    "zaremba": Recipe(words=0.0, inputs=0.5, between=0.5, recurrent=0.0, outputs=0.5, weight_decay=0.0),
    "gal": Recipe(words=0.3, inputs=0.5, between=0.5, recurrent=0.3, outputs=0.5, weight_decay=1e-7),
    "awd": Recipe(words=0.1, inputs=0.4, between=0.25, recurrent=0.5, outputs=0.4, weight_decay=1.2e-6),
}


@dataclass(frozen=True)
class Settings:
    """A language model of words."""

    recipe: Literal["zaremba", "gal", "awd"] = "awd"
    """How it is regularized and trained."""
    text: Path | None = None
    """A text file, whose last tenth is held out, or a folder, of whose text files one in twenty is held out;
    by default the documentation of Python's standard library."""
    least: int = 5
    """Words that are seen less often are <unk>."""
    layers: int = 2
    """LSTM layers."""
    hidden: common.Hidden = 192
    embedding: int = 128
    """Values that stand for a word; of awd also the units of the last layer."""
    strength: float = 0.2
    """Share of the published rates of dropout that is taken: 1 for large models and long training."""
    batch: int = 32
    """Places in the text that are read at once."""
    window: int = 35
    """Words of each row in a batch: how far gradients reach back; the state reaches further."""
    steps: common.Steps = 1500
    optimizer: Literal["adam", "sgd"] = "adam"
    """The papers train by SGD; in a few minutes Adam gets further."""
    learning_rate: float | None = None
    """By default 4e-3 for Adam; for --optimizer sgd 20, of awd 30."""
    seed: common.Seed = 0
    sample: int = 120
    """Words to write at the end."""
    directory: common.Directory = Path("runs/language_model")
    quick: bool = False
    """A small model trained for about a minute; sets --hidden, --embedding, --least and --steps where they are not
    given."""
    resume: common.Resume = False


# The model.


class Model(nnx.Module):
    """Embedding, LSTM layers, softmax; every END starts from a fresh state."""

    def __init__(self, settings: Settings, words: int, rngs: nnx.Rngs) -> None:
        rates = Recipe(*(settings.strength * rate for rate in RECIPES[settings.recipe]))
        self.words, self.tied = rates.words, settings.recipe == "awd"
        sizes = [settings.embedding, *settings.layers * [settings.hidden]]
        if self.tied:
            sizes[-1] = settings.embedding
        locked = settings.recipe != "zaremba"  # one mask for all steps of a window
        layers: list[Any] = []
        for n in range(settings.layers):
            cell: Any = jaxrnn.LSTM(sizes[n], sizes[n + 1])
            if settings.recipe == "gal":
                cell = jaxrnn.RecurrentDropout(cell, rates.recurrent)
            elif settings.recipe == "awd":
                cell = jaxrnn.WeightDrop(cell, rates.recurrent)
            rate = rates.between if n else rates.inputs
            layers.append(jaxrnn.Dropout(cell, rate, share=("time",) if locked else ()))
        self.embed = nnx.Embed(words, settings.embedding, rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(jaxrnn.Stack(tuple(layers)), time_major=True, rngs=rngs)
        self.dropout = nnx.Dropout(rates.outputs, broadcast_dims=(0,) if locked else ())
        self.bias = nnx.Param(jnp.zeros(words))
        self.head = None if self.tied else nnx.Linear(settings.hidden, words, use_bias=False, rngs=rngs)

    def hidden(self, words: jax.Array, carry: Any, rngs: nnx.Rngs | None) -> tuple[Any, jax.Array, jax.Array]:
        """The outputs of the last layer, before and after dropout; without `rngs`, there is none."""
        # Inputs of unit variance, from an embedding that is of use to a softmax too.
        xs = self.embed(words) * self.embed.features**0.5
        if rngs is not None and self.words:
            share = ("batch",) if self.tied else ()  # of awd, dropped words are those of all rows
            xs = regularization.embedding_dropout(rngs.dropout(), self.words, words, xs, share)
        carry, ys = self.rnn(xs, initial_carry=carry, resets=words == corpus.END, rngs=rngs)
        return carry, ys, self.dropout(ys, deterministic=rngs is None, rngs=rngs)

    def logits(self, ys: jax.Array) -> jax.Array:
        """Logits of the next words."""
        return (self.embed.attend(ys) if self.head is None else self.head(ys)) + self.bias

    def __call__(self, words: jax.Array, carry: Any = None) -> tuple[Any, jax.Array]:
        """Without dropout: `[T, B] -> (carry, [T, B, words])`."""
        carry, ys, _ = self.hidden(words, carry, None)
        return carry, self.logits(ys)

    def step(self, carry: Any, word: jax.Array) -> tuple[Any, jax.Array]:
        """The same for one word of each row, as `decoding` asks for it."""
        carry, logits = self(word[None], carry)
        return carry, logits[0]


def fresh(model: Model, rows: int) -> Any:
    """The state before the first word."""
    return model.rnn.initialize_carry((rows, model.embed.features))


# Training, and what it reached.


def nats_a_word(words: np.ndarray) -> Callable[[Model], jax.Array]:
    """A function `model -> ` mean code length of these words."""
    total = corpus.nats_of(words, fresh, span=128)
    return lambda model: total(model) / (len(words) - 1)


def learning_rate(settings: Settings) -> float:
    """The rate that is given, or else one by which the optimizer learns."""
    usual = 4e-3 if settings.optimizer == "adam" else 30.0 if settings.recipe == "awd" else 20.0
    return usual if settings.learning_rate is None else settings.learning_rate


def make_optimizer(settings: Settings, validate: Callable[[Model], jax.Array]) -> optax.GradientTransformation:
    """SGD or Adam: for awd averaged, else of a rate that decays to a fiftieth in the second half."""
    rate: Any = learning_rate(settings)
    half, average = max(1, settings.steps // 2), []
    if settings.recipe == "awd":
        average = [training.triggered_average(validate, every=40)]
    else:
        rate = optax.exponential_decay(rate, half, 0.02, transition_begin=half)
    descent = {"adam": optax.adam, "sgd": optax.sgd}[settings.optimizer](rate)
    decay = optax.add_decayed_weights(RECIPES[settings.recipe].weight_decay)
    return optax.chain(optax.clip_by_global_norm(0.25), decay, descent, *average)


def params_of(state: training.TrainState) -> Model:
    """The parameters to use: of awd the averages."""
    return training.averaged_params(state.opt_state) if state.params.tied else state.params


def loss_fn(model: Model, carry: Any, window: batches.Window, key: jax.Array) -> Any:
    """Mean code length of a word, of awd with AR and TAR."""
    inputs = jnp.where(window.resets, corpus.END, window.xs[:-1])
    carry, ys, dropped = model.hidden(inputs, carry, nnx.Rngs(dropout=key))
    nats = jnp.mean(corpus.nats(model.logits(dropped), window.xs[1:]))
    extra = jnp.zeros(())
    if model.tied:
        extra = penalties.activation_regularization(dropped, 2.0)
        extra += penalties.temporal_activation_regularization(ys, 1.0)
    return nats + extra, (carry, {"perplexity": jnp.exp(nats)})


def known_only(logits: jax.Array, counts: jax.Array | None) -> jax.Array:
    """Never <unk>."""
    return logits.at[..., corpus.UNKNOWN].set(-jnp.inf)


def write(model: Model, known: Sequence[str], settings: Settings) -> str:
    """A text that begins as files do."""
    key, transforms = jax.random.key(settings.seed), (known_only, decoding.Temperature(0.8), decoding.TopP(0.95))
    start = jnp.array([corpus.END])
    found = decoding.generate(model.step, fresh(model, 1), start, settings.sample, key=key, transforms=transforms)
    return corpus.decode(found.tokens[:, 0].tolist(), known)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, compare, draw and write; returns perplexities of words. `arguments` None: the command line's."""
    quick = {"hidden": 64, "embedding": 64, "least": 20, "steps": 400}
    settings = common.parse(
        Settings, arguments, lambda settings: quick, lambda given: common.resumed(given, ("sample",)), __doc__
    )
    sizes = {name: (1, 1 << 14) for name in ("embedding", "layers")}
    common.check(settings, **sizes, **{name: (1, common.MOST) for name in ("least", "window", "sample")})
    if not 0 <= settings.strength <= 1:
        raise ValueError(f"strength: got {settings.strength}, needs 0 to 1")
    text = corpus.load(settings.text, corpus.documentation)
    words, test = corpus.words(text.train), corpus.words(text.held_out)
    cut = len(words) - len(test) // 4  # the rest of these is looked at while training
    if cut <= settings.window:
        raise ValueError(f"text: got {cut} words to train on, needs more than a window's {settings.window} (--window)")
    if len(test) < 8:  # a quarter of as many is looked at while training, and has to have a word to predict
        raise ValueError(f"text: got {len(test)} held-out words, needs 8 or more")
    known = corpus.vocabulary(words[:cut], settings.least)
    train, look, test = (corpus.encode(part, known) for part in (words[:cut], words[cut:], test))
    print(f"{cut:,} words to train on, {len(known):,} different; held out: {corpus.unknown(test)}, {text.name}")

    validate = nats_a_word(look)
    optimizer = make_optimizer(settings, validate)
    model = Model(settings, len(known), nnx.Rngs(settings.seed))
    state = training.init_state(jax.random.key(settings.seed), model, optimizer, fresh(model, settings.batch))
    state = training.fit(
        common.resume_or_begin(settings, state),
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(
            settings,
            batches.streams(train, settings.batch, settings.window, stretch=16, seed=settings.seed),
            ("sample",),
        ),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda model: {"perplexity": np.exp(validate(model))},
        params_of=params_of,
        eval_every=100,
        items_per_batch=settings.batch * settings.window,
        unit="words",
    )
    model = params_of(state)
    simple = corpus.perplexities(train, test, len(known))
    results = simple | {"this model": float(np.exp(nats_a_word(test)(model)))}
    print("perplexity of a word of the held-out text:")
    for name, value in results.items():
        print(f"  {value:.1f}  {name}")
    print(f"a text of its own:\n{write(model, known, settings)}")
    lines = common.metrics(settings.directory)
    curves = {
        label: [(line["step"], line[name]) for line in lines if name in line]
        for name, label in (("perplexity", "training, with dropout"), ("eval_perplexity", "validation"))
    }
    labels = {"xlabel": f"steps of {settings.batch * settings.window} words", "ylabel": "perplexity of a word"}
    levels = {f"validation: {name}": level for name, level in corpus.perplexities(train, look, len(known)).items()}
    corpus.draw(curves, levels, settings.directory / "perplexity.png", **labels, yscale="log")
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
