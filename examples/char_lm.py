"""A language model of bytes: an embedding, a stack of recurrent layers, a softmax over the next byte.

    python -m examples.char_lm                        # train on the source text of Python's standard library
    python -m examples.char_lm --sample 500           # write some from the checkpoint
    python -m examples.char_lm --text FILE_OR_FOLDER  # another text

It prints the bits per character of held-out files, beside what simpler models of the same text reach. A larger one that
is trained for longer:

    python -m examples.char_lm --layers 2 --hidden 512 --dropout 0.1 --steps 12000 \\
        --learning-rate 1.5e-3 --warmup 200 --clip 0.5

The same on eight devices, 4 times 2: rows of a batch over four, units of every layer over two:

    python -m examples.char_lm --layers 2 --hidden 512 --mesh data=4,model=2

The recipe that models of tiny Shakespeare are usually compared with, 20 passes of one LSTM layer of 128 units with
rows that read on for a pass:

    python -m examples.char_lm --text tinyshakespeare.txt --cell lstm --hidden 128 --batch 50 --window 50 \\
        --stretch 402 --learning-rate 2e-3 --clip 5 --steps 8030

The size of the minGRU of Feng et al. 2024 on that text, without their convolutions and dense layers in between:

    python -m examples.char_lm --text tinyshakespeare.txt --cell mingru --layers 3 --hidden 384

What they reach: examples/README.md.
"""

import codecs
import itertools
import lzma
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxrnn
import jaxrnn.nnx
from examples import common, corpus
from examples.corpus import END
from jaxrnn import batches, decoding, sharding, training

SYMBOLS = 256
QUICK = {"hidden": 256, "steps": 700, "learning_rate": 6e-3}
SIZES = ("quick", "cell", "layers", "hidden", "embedding", "tied")  # what a checkpoint is of
PASSING = ("mesh", "sample", "prompt", "temperature", "top_k")  # of a call, not of the run
AXES = ROWS, UNITS = "data", "model"


@dataclass(frozen=True)
class Settings:
    """A language model of bytes, trained on text and sampled from."""

    text: Path | None = None
    """A text file, whose last tenth is held out, or a folder, of whose text files one in twenty is held out;
    by default the modules of Python's standard library."""
    directory: Path = Path("runs/char_lm")
    """Where metrics and checkpoints go, and where sampling finds them."""
    quick: bool = False
    """A small model trained for about a minute; sets --hidden, --steps and --learning-rate where they are not given."""
    resume: common.Resume = False

    cell: Literal["gru", "lstm", "mingru"] = "gru"
    """The kind of the layers."""
    layers: int = 1
    """How many."""
    hidden: common.Hidden = 384
    embedding: int = 64
    """Values that stand for a byte."""
    tied: bool = False
    """Whether the softmax shares its weights with the embedding, through a projection where their sizes differ."""
    dropout: float = 0.0
    """Rate at which the outputs of every layer are dropped while training."""

    batch: int = 32
    """Places in the text that are read at once."""
    window: int = 96
    """Bytes of each row in a batch: how far gradients reach back; the state reaches further."""
    stretch: int = 16
    """Windows that a row reads on end before it goes to another place: how far the state reaches."""
    steps: common.Steps = 3000
    learning_rate: float = 4e-3
    """Adam's, at the end of the warmup; a cosine takes it to nearly nothing."""
    warmup: int = 100
    """Steps until then."""
    clip: float = 1.0
    """Norm that gradients are clipped to."""
    spike: float = 4.0
    """Batches whose gradient has more than this many times the usual norm are left out."""
    seed: common.Seed = 0
    mesh: str = ""
    """Devices: data=4,model=2 has the rows of a batch on four, units of each layer on two; names can be left out."""

    sample: int = 0
    """Write this many bytes from the checkpoint instead of training."""
    prompt: str = ""
    """What the sample goes on from; by default the start of a file."""
    temperature: float = 0.7
    """Above 1: bolder; towards 0: only what is likeliest."""
    top_k: int = SYMBOLS
    """Sample among this many of the likeliest bytes."""


# The model.


class Model(nnx.Module):
    """Embedding, recurrent layers, softmax; every END starts from a fresh state.

    On a mesh it has the same parameters, and the same values up to rounding.
    """

    def __init__(self, settings: Settings, rngs: nnx.Rngs, mesh: Mesh | None = None) -> None:
        kind = {"gru": jaxrnn.GRU, "lstm": jaxrnn.LSTM, "mingru": jaxrnn.MinGRU}[settings.cell]
        sizes = [settings.embedding] + settings.layers * [settings.hidden]
        cells = [kind(i, h) for i, h in itertools.pairwise(sizes)]
        if mesh and UNITS in mesh.shape:
            rows = ROWS if ROWS in mesh.shape else None
            cells = [sharding.SpreadUnits(cell, mesh, UNITS, rows) for cell in cells]
        net = jaxrnn.Stack(tuple(cells), dropout=settings.dropout)
        self.embed = nnx.Embed(SYMBOLS, settings.embedding, rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(net, time_major=True, rngs=rngs)
        self.dropout = nnx.Dropout(settings.dropout)
        self.head = nnx.Linear(settings.hidden, settings.embedding if settings.tied else SYMBOLS, rngs=rngs)
        self.tied = settings.tied

    def __call__(self, symbols: jax.Array, carry: Any = None, rngs: nnx.Rngs | None = None) -> tuple[Any, jax.Array]:
        """Logits of the next bytes: `[T, B] -> (carry, [T, B, 256])`; with `rngs`, dropout."""
        # Inputs of unit variance, from an embedding that is of use to a softmax too; it learns a good deal faster.
        xs = self.embed(symbols) * self.embed.features**0.5
        carry, ys = self.rnn(xs, initial_carry=carry, resets=symbols == END, rngs=rngs)
        ys = self.head(self.dropout(ys, deterministic=rngs is None, rngs=rngs))
        return carry, self.embed.attend(ys) if self.tied else ys

    def step(self, carry: Any, symbol: jax.Array) -> tuple[Any, jax.Array]:
        """The same for one byte of each row, as `decoding` asks for it."""
        carry, logits = self(symbol[None], carry)
        return carry, logits[0]


def bits_of(files: Sequence[bytes]) -> Callable[[Model], dict[str, float]]:
    """A function `model -> {"bits": bits per character}` of these files.

    The END after each file is counted in the bits, not in the characters.
    """
    total = corpus.nats_of(corpus.stream(files), fresh)
    characters = sum(map(len, files))
    return lambda model: {"bits": float(total(model)) / np.log(2) / characters}


# What the number is worth: other models of the same text.


def ngram_bits(train: Sequence[bytes], held_out: Sequence[bytes], order: int) -> float:
    """Bits per character of `corpus.ngram_nats`."""
    nats = corpus.ngram_nats(corpus.stream(train), corpus.stream(held_out), order, SYMBOLS)
    return float(nats / np.log(2) / sum(map(len, held_out)))


def xz_bits(train: Sequence[bytes], held_out: Sequence[bytes]) -> tuple[float, float]:
    """Bits per character of `xz -9e`: of the held-out text alone, and of it after the training text."""
    before, text = b"".join(train), b"".join(held_out)

    def size(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    with ThreadPoolExecutor() as pool:
        alone, both, first = pool.map(size, (text, before + text, before))
    return 8 * alone / len(text), 8 * (both - first) / len(text)


# On a mesh.


def layout(tree: Any, mesh: Mesh) -> Any:
    """Where on a mesh the arrays of a `TrainState` or of its model are: the layers' apart, the others everywhere."""
    rows, units = (name if name in mesh.shape else None for name in AXES)

    def one(path: Any, leaf: jax.Array) -> NamedSharding:
        name = jax.tree_util.keystr(path)
        if name.startswith(".carry"):
            return NamedSharding(mesh, PartitionSpec(rows, units))
        apart = [*[None] * (leaf.ndim - 1), units] if ".rnn." in name else []
        return NamedSharding(mesh, PartitionSpec(*apart))

    return jax.tree_util.tree_map_with_path(one, tree)


def spread_rows(windows: Callable[[int], Iterator[batches.Window]], mesh: Mesh) -> Any:
    """The windows, their rows over the devices."""
    if ROWS not in mesh.shape:
        return windows
    return lambda start: (sharding.spread(window, mesh, ROWS, at=1) for window in windows(start))


def under(mesh: Mesh, train_step: Callable[..., Any]) -> Callable[..., Any]:
    """The train step under the mesh, so that `unroll` knows of it."""

    def run(state: training.TrainState, window: batches.Window) -> Any:
        with jax.set_mesh(mesh):
            return train_step(state, window)

    return run


def on_one_device(model: Model, settings: Settings) -> Model:
    """A copy of the model that runs on one device."""
    alone = nnx.graphdef(nnx.eval_shape(lambda: Model(settings, nnx.Rngs(0))))
    return nnx.merge(alone, jax.device_put(nnx.state(model), jax.devices()[0]))


# Training and sampling.


def fresh(model: Model, rows: int) -> Any:
    """The state before the first byte."""
    return model.rnn.initialize_carry((rows, model.embed.features))


class Guarded(NamedTuple):
    """State of `without_spikes`."""

    usual: jax.Array  # a running mean of the gradient's norm
    inner: Any


def without_spikes(optimizer: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    """The optimizer, which passes over gradients of more than `factor` times the usual norm.

    Clipping is no help against them: Adam divides by the size of gradients, and a spike points anywhere. What is usual
    follows the norms slowly, by at most 2 % of the limit a step, so gradients that stay large are taken in the end.
    """

    def init(params: Any) -> Guarded:
        return Guarded(jnp.zeros(()), optimizer.init(params))

    def update(grads: Any, state: Guarded, params: Any = None) -> tuple[Any, Guarded]:
        norm = optax.tree.norm(grads)
        first = state.usual == 0
        limit = jnp.where(first, norm, factor * state.usual)
        updates, inner = optimizer.update(grads, state.inner, params)
        taken = norm <= limit
        usual = jnp.where(first, norm, 0.98 * state.usual + 0.02 * jnp.minimum(norm, limit))
        updates = jax.tree.map(lambda u: jnp.where(taken, u, jnp.zeros_like(u)), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(taken, new, old), inner, state.inner)
        return updates, Guarded(usual, inner)

    return optax.GradientTransformation(init, update)


def start(settings: Settings, mesh: Mesh | None) -> tuple[optax.GradientTransformation, training.TrainState]:
    """The optimizer and the state before the first step."""
    decay = max(settings.steps, settings.warmup + 1)
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, settings.warmup, decay)
    optimizer = optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(rate))
    optimizer = without_spikes(optimizer, settings.spike)
    model = Model(settings, nnx.Rngs(settings.seed), mesh)
    carry = fresh(model, settings.batch)
    state = training.init_state(jax.random.key(settings.seed), model, optimizer, carry)
    return optimizer, jax.device_put(state, layout(state, mesh)) if mesh else state


def train(settings: Settings) -> dict[str, float]:
    """Train and compare; returns bits per character by model, "this model" among them."""
    mesh = common.make_mesh(settings.mesh, AXES)
    text = corpus.load(settings.text, corpus.modules)
    symbols = corpus.stream(text.train)
    if len(symbols) - 2 < settings.window:
        raise ValueError(
            f"text: got {len(symbols) - 2} characters to train on, needs a window's (--window), {settings.window}"
        )
    optimizer, state = start(settings, mesh)
    state = common.resume_or_begin(settings, state)
    characters = sum(map(len, text.held_out))
    print(f"{sum(map(len, text.train)):,} characters to train on; held out: {characters:,}, {text.name}")

    def loss_fn(model: Model, carry: Any, window: batches.Window, key: jax.Array) -> Any:
        # A row that goes to another place reads on as if a file began there. Rows that stayed in their files would
        # teach the model a few files at a time, and it would forget the others.
        if mesh:  # gradients and new parameters stay where the old ones are, so the step compiles once
            model = jax.lax.with_sharding_constraint(model, layout(model, mesh))
        inputs = jnp.where(window.resets, END, window.xs[:-1])
        carry, logits = model(inputs, carry, nnx.Rngs(dropout=key))
        loss = jnp.mean(corpus.nats(logits, window.xs[1:]))
        return loss, (carry, {"bits": loss / jnp.log(2)})

    measure = bits_of(text.held_out)
    evaluate = (lambda model: measure(on_one_device(model, settings))) if mesh else measure
    windows = batches.streams(symbols, settings.batch, settings.window, stretch=settings.stretch, seed=settings.seed)
    train_step = training.make_train_step(loss_fn, optimizer)
    if mesh:
        windows, train_step = spread_rows(windows, mesh), under(mesh, train_step)
    state = training.fit(
        state,
        train_step,
        common.storing_settings(settings, windows, PASSING),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=evaluate,
        eval_every=max(500, settings.steps // 6),
        items_per_batch=settings.batch * settings.window,
        unit="characters",
    )
    alone, after = xz_bits(text.train, text.held_out)
    bits = {
        "order 0": ngram_bits(text.train, text.held_out, 0),
        "order 3": ngram_bits(text.train, text.held_out, 3),
        "xz -9e": alone,
        "xz -9e after the training text": after,
        "this model": evaluate(state.params)["bits"],
    }
    print("bits per character of the held-out text:")
    for name, value in bits.items():
        print(f"  {value:.2f}  {name}")
    return bits


def encoded(prompt: str) -> bytes:
    """The bytes of a prompt, those too that the command line could not decode."""
    return prompt.encode(errors="surrogateescape")


def sample(settings: Settings) -> str:
    """Print the prompt and what follows it while it is generated; returns what follows."""
    model = training.restore_params(settings.directory, Model(settings, nnx.Rngs(0)))
    prompt = decoding.split_prompt(np.array(list(bytes([END]) + encoded(settings.prompt)))[:, None])
    carry, _ = nnx.jit(Model.__call__)(model, prompt.tokens)
    transforms = (decoding.TopK(settings.top_k), decoding.Temperature(settings.temperature))
    symbols = decoding.stream(
        model.step, carry, prompt.last, settings.sample, key=jax.random.key(settings.seed), transforms=transforms
    )
    decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    print(settings.prompt, end="", flush=True)
    for symbol in symbols:
        piece = "\n" + 78 * "─" + "\n" if symbol == END else decoder.decode(bytes(symbol.tolist()))
        print(piece, end="", flush=True)
        text += piece
    print()
    return text


def check(settings: Settings) -> None:
    """Errors that name the option, what it got and what it needs."""
    common.check(
        settings,
        "clip",
        "spike",
        "temperature",
        layers=(1, 100),
        embedding=(1, 1 << 14),
        window=(1, common.MOST),
        stretch=(1, common.FOREVER),
        warmup=(0, common.FOREVER),
        sample=(0, common.FOREVER),
        top_k=(1, SYMBOLS),
    )
    if settings.spike <= 1:
        raise ValueError(f"spike: got {settings.spike}, needs more than 1")
    sizes = common.mesh_sizes(settings.mesh, AXES)
    if sizes and settings.sample:
        raise ValueError(f"mesh: got {settings.mesh}, needs none with --sample, which runs on one device")
    if UNITS in sizes and settings.cell == "mingru":
        raise ValueError(f"mesh: got {settings.mesh}, needs {ROWS} alone with --cell mingru")
    for name, axis in (("batch", ROWS), ("hidden", UNITS)):
        if getattr(settings, name) % sizes.get(axis, 1):
            needs = f"needs a multiple of {sizes[axis]}, the devices of {axis!r} in --mesh"
            raise ValueError(f"{name}: got {getattr(settings, name)}, {needs}")
    if END in encoded(settings.prompt):
        raise ValueError(f"prompt: got {settings.prompt!r}, needs text without zero bytes")


def must_match(settings: Settings) -> Sequence[str]:
    """The settings that must be those of the run in the directory."""
    return SIZES if settings.sample > 0 else common.resumed(settings, PASSING)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, or sample and return {}, as the arguments say (None: the command line's); bits per character by model."""
    settings = common.parse(Settings, arguments, lambda settings: QUICK, must_match)
    check(settings)
    if settings.sample:
        sample(settings)
        return {}
    return train(settings)


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
