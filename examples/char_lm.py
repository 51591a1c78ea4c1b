"""A language model of bytes: an embedding, a stack of recurrent layers, a softmax over the next byte.

    python -m examples.char_lm                        # train on the source text of Python's standard library
    python -m examples.char_lm --sample 500           # write some from the checkpoint
    python -m examples.char_lm --text FILE_OR_FOLDER  # another text

Bits per character of held-out files, beside what simpler models of the same text reach (Python 3.11's library, 11.3 MB
to train on, 0.77 MB held out): this model 1.60 after five minutes on two cores, order 0 4.65, order 3 2.03, `xz -9e`
1.63, `xz -9e` after the training text 1.29. A larger one trained for longer was seen to reach
1.40 after 8000 steps and 1.36 after 10 000 of these:

    python -m examples.char_lm --layers 2 --hidden 512 --dropout 0.1 --steps 12000 \\
        --learning-rate 1.5e-3 --warmup 200 --clip 0.5

The recipe that models of tiny Shakespeare are usually compared with, 20 passes of one LSTM layer of 128 units with
rows that read on for a pass (order 3 2.56, `xz -9e` after the training text 2.52), reaches 2.33 bits in 6 minutes on
one core:

    python -m examples.char_lm --text tinyshakespeare.txt --cell lstm --hidden 128 --batch 50 --window 50 \\
        --stretch 402 --learning-rate 2e-3 --clip 5 --steps 8030
"""

import codecs
import functools
import itertools
import lzma
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrnn
from examples import common
from jaxrnn import training
from jaxrnn.ops import dropout

END = 0  # the byte that stands before, between and after files; a text has none of its own
SYMBOLS = 256
SPAN = 512  # steps that evaluation takes at a time
QUICK = {"hidden": 256, "steps": 700, "learning_rate": 6e-3}
SIZES = ("quick", "cell", "layers", "hidden", "embedding", "tied")  # what a checkpoint is of
TRAINING = ("text", "dropout", "batch", "window", "stretch", "steps", "learning_rate", "warmup", "clip", "seed")
PASSING = ("resume", "sample", "prompt", "temperature", "top_k")  # of a call, not of the run


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
    resume: bool = False
    """Go on from the newest checkpoint in the directory, with the settings stored there."""

    cell: Literal["gru", "lstm"] = "gru"
    """The kind of the layers."""
    layers: int = 1
    """How many."""
    hidden: int = 384
    """Units of each."""
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
    steps: int = 3000
    """Batches to train on."""
    learning_rate: float = 4e-3
    """Adam's, at the end of the warmup; a cosine takes it to nearly nothing."""
    warmup: int = 100
    """Steps until then."""
    clip: float = 1.0
    """Norm that gradients are clipped to."""
    seed: int = 0
    """Of the initialization, of dropout and of sampling."""

    sample: int = 0
    """Write this many bytes from the checkpoint instead of training."""
    prompt: str = ""
    """What the sample goes on from; by default the start of a file."""
    temperature: float = 0.7
    """Above 1: bolder; towards 0: only what is likeliest."""
    top_k: int = SYMBOLS
    """Sample among this many of the likeliest bytes."""


# The text.


class Text(NamedTuple):
    """Files to train on and files held out."""

    train: list[bytes]
    held_out: list[bytes]
    name: str


def load(path: Path | None) -> Text:
    """The text that `--text` names, divided."""
    if path is not None and not path.exists():
        raise ValueError(f"text: got {path}, which does not exist, needs a text file or a folder of them")
    if path is not None and path.is_file():
        data = path.read_bytes()
        if not data.strip() or END in data:
            what = "binary (it holds zero bytes)" if END in data else "empty"
            raise ValueError(f"text: got {path}, which is {what}, needs a text file")
        cut = len(data) * 9 // 10
        return Text([data[:cut]], [data[cut:]], f"{path}, the last tenth of it")
    if path is not None and not path.is_dir():
        raise ValueError(f"text: got {path}, which is neither, needs a text file or a folder of them")
    if path is not None:
        found, name = sorted(path.rglob("*")), str(path)
    else:
        root, name = Path(sysconfig.get_path("stdlib")), "Python's standard library"
        beside = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
        found = [p for p in sorted(root.rglob("*.py")) if not beside & set(p.relative_to(root).parts)]
    # Each content once, so that no copy of what is held out is trained on.
    contents = dict.fromkeys(path.read_bytes() for path in found if path.is_file())
    files = [data for data in contents if data.strip() and END not in data]
    if len(files) < 2:
        raise ValueError(f"text: got {path}, a folder of {len(files)} different text files, needs 2 or more")
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    cut = -(-len(files) // 20)
    return Text(files[cut:], files[:cut], f"{name}, {cut} of {len(files)} files")


def stream(files: Sequence[bytes]) -> np.ndarray:
    """The files end to end, each between two END bytes: `[N]` uint8."""
    joined = bytes([END]).join([b"", *files, b""])
    return np.frombuffer(joined, np.uint8)


def batches(symbols: np.ndarray, batch: int, window: int, stretch: int, start: int) -> Iterator[np.ndarray]:
    """Windows `[window + 1, batch]` from number `start` on: inputs and, one later, targets.

    Every row reads `stretch` windows on end, then goes to another place, picked at random, as if a file began there.
    Rows that stayed in their files would teach the model a few files at a time, and it would forget the others.
    """
    times = np.arange(window + 1)[:, None]
    while True:
        number, turn = divmod(start, stretch)
        places = np.random.default_rng(number).integers(len(symbols), size=batch)
        found = symbols[(places + turn * window + times) % len(symbols)]
        if turn == 0:
            found[0] = END
        yield found
        start += 1


# The model.


class Params(NamedTuple):
    """Parameters of the language model."""

    embedding: jax.Array  # [256, E]
    net: Any
    project: jax.Array | None  # [H, E], where tied weights need it
    softmax: jax.Array | None  # [H, 256], None where tied
    b: jax.Array  # [256]


@dataclass(frozen=True)
class Model:
    """Embedding, stack and softmax; sizes only, as the stack itself."""

    net: jaxrnn.Stack
    embedding: int
    tied: bool

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        k_embedding, k_net, k_project, k_softmax = jax.random.split(key, 4)
        hidden, glorot = self.net.output_size, jaxrnn.initializers.glorot_uniform()
        return Params(
            embedding=jax.random.normal(k_embedding, (SYMBOLS, self.embedding)) / self.embedding**0.5,
            net=self.net.init(k_net),
            project=glorot(k_project, (hidden, self.embedding)) if self.tied and hidden != self.embedding else None,
            softmax=None if self.tied else glorot(k_softmax, (hidden, SYMBOLS)),
            b=jnp.zeros(SYMBOLS),
        )

    def __call__(self, params: Params, state: Any, symbols: jax.Array, key: jax.Array | None = None) -> Any:
        """Logits of the next bytes: `symbols [T, B] -> (state, [T, B, 256])`; every END starts from a fresh state."""
        # Inputs of unit variance, from an embedding that is of use to a softmax too; it learns a good deal faster.
        xs, resets = params.embedding[symbols] * self.embedding**0.5, symbols == END
        k_net, k_top = (None, None) if key is None else jax.random.split(key)
        state, ys = jaxrnn.unroll(self.net, params.net, xs, state, resets=resets, key=k_net)
        if k_top is not None and self.net.dropout:
            ys = dropout(k_top, self.net.dropout, ys)
        if params.project is not None:
            ys = ys @ params.project
        return state, jaxrnn.ops.affine(ys, params.embedding.T if params.softmax is None else params.softmax, params.b)


def nats(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The code length of every target under the logits."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets.astype(jnp.int32))


def bits_of(model: Model, files: Sequence[bytes]) -> Callable[[Params], dict[str, float]]:
    """A function `params -> {"bits": bits per character}` of these files.

    Long texts are cut into up to 32 rows; every cut costs the model its memory of what came before, none of it is
    left out. The END after each file is counted in the bits, not in the characters.
    """
    symbols = stream(files).astype(np.int32)
    targets = len(symbols) - 1
    rows = int(np.clip(targets // 16384, 1, 32))
    spans = -(-targets // (rows * SPAN))
    padded = np.full(rows * spans * SPAN + 1, -1, np.int32)
    padded[: len(symbols)] = symbols
    inputs = np.maximum(padded[:-1], END).reshape(rows, spans, SPAN).transpose(1, 2, 0)
    outputs = padded[1:].reshape(rows, spans, SPAN).transpose(1, 2, 0)

    @jax.jit
    def total(params: Params) -> jax.Array:
        def span(state: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            xs, ys = part
            state, logits = model(params, state, xs)
            return state, jnp.sum(jnp.where(ys >= 0, nats(logits, jnp.maximum(ys, 0)), 0.0))

        return jnp.sum(jax.lax.scan(span, model.net.initial_state((rows,)), (inputs, outputs))[1])

    characters = sum(map(len, files))
    return lambda params: {"bits": float(total(params)) / np.log(2) / characters}


# What the number is worth: other models of the same text.


def ngram_bits(train: Sequence[bytes], held_out: Sequence[bytes], order: int) -> float:
    """Bits per character of an interpolated n-gram model that sees `order` characters of context.

        P_n(c | context) = (count(context c) + k P_{n-1}(c | shorter context)) / (count(context) + k)

    where k is the number of different characters seen after the context (Witten & Bell 1991), and P_{-1} = 1 / 256.
    """
    seen, new = stream(train).astype(np.int64), stream(held_out).astype(np.int64)
    grams, new_grams = np.zeros_like(seen[1:]), np.zeros_like(new[1:])  # the context, the oldest character highest
    p = np.full(len(new) - 1, 1 / SYMBOLS)
    for n in range(order + 1):
        if n:
            # What stands before the first character of the text counts as END.
            grams += np.concatenate([np.full(n - 1, END), seen[: len(seen) - n]]) << 8 * (n - 1)
            new_grams += np.concatenate([np.full(n - 1, END), new[: len(new) - n]]) << 8 * (n - 1)
        joint, counts = np.unique(grams << 8 | seen[1:], return_counts=True)
        contexts, first, kinds = np.unique(joint >> 8, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        count = _look_up(joint, counts, new_grams << 8 | new[1:])
        total, k = _look_up(contexts, totals, new_grams), _look_up(contexts, kinds, new_grams)
        p = np.where(total > 0, (count + k * p) / np.maximum(total + k, 1), p)
    return float(-np.log2(p).sum() / sum(map(len, held_out)))


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values at sorted `keys`, 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def xz_bits(train: Sequence[bytes], held_out: Sequence[bytes]) -> tuple[float, float]:
    """Bits per character of `xz -9e`: of the held-out text alone, and of it after the training text."""
    before, text = b"".join(train), b"".join(held_out)

    def size(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    with ThreadPoolExecutor() as pool:
        alone, both, first = pool.map(size, (text, before + text, before))
    return 8 * alone / len(text), 8 * (both - first) / len(text)


# Training and sampling.


def build(settings: Settings) -> Model:
    """The model of these settings."""
    kind = {"gru": jaxrnn.GRU, "lstm": jaxrnn.LSTM}[settings.cell]
    sizes = [settings.embedding] + settings.layers * [settings.hidden]
    net = jaxrnn.Stack(tuple(kind(i, h) for i, h in itertools.pairwise(sizes)), dropout=settings.dropout)
    return Model(net, settings.embedding, settings.tied)


def start(settings: Settings) -> tuple[Model, optax.GradientTransformation, training.TrainState]:
    """The model of these settings, its optimizer and the state before the first step."""
    model = build(settings)
    decay = max(settings.steps, settings.warmup + 1)
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, settings.warmup, decay)
    optimizer = optax.chain(optax.clip_by_global_norm(settings.clip), optax.adam(rate))
    k_params, k_train = jax.random.split(jax.random.key(settings.seed))
    carry = model.net.initial_state((settings.batch,))
    return model, optimizer, training.init_state(model.init(k_params), optimizer, k_train, carry)


def train(settings: Settings) -> dict[str, float]:
    """Train and compare; returns bits per character by model, "this model" among them."""
    text = load(settings.text)
    symbols = stream(text.train)
    if len(symbols) - 2 < settings.window:
        raise ValueError(
            f"text: got {len(symbols) - 2} characters to train on, needs a window's (--window), {settings.window}"
        )
    model, optimizer, state = start(settings)
    if settings.resume:
        state = training.restore(settings.directory, state)
    else:
        common.refuse_a_run(settings.directory)
    characters = sum(map(len, text.held_out))
    print(f"{sum(map(len, text.train)):,} characters to train on; held out: {characters:,}, {text.name}")

    def loss_fn(params: Params, state: Any, symbols: jax.Array, key: jax.Array) -> Any:
        state, logits = model(params, state, symbols[:-1], key)
        loss = jnp.mean(nats(logits, symbols[1:]))
        return loss, (state, {"bits": loss / jnp.log(2)})

    evaluate = bits_of(model, text.held_out)
    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.keeping(
            settings, functools.partial(batches, symbols, settings.batch, settings.window, settings.stretch), PASSING
        ),
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


def generate(model: Model, params: Params, settings: Settings) -> Iterator[int]:
    """Bytes after the prompt, one jitted step each, in constant memory."""

    @jax.jit
    def step(params: Params, state: Any, symbol: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        state, logits = model(params, state, symbol[None])
        likeliest, which = jax.lax.top_k(logits[0] / settings.temperature, settings.top_k)
        chosen = jax.random.categorical(key, likeliest)
        return state, jnp.take_along_axis(which, chosen[:, None], axis=1)[:, 0]

    state, key = model.net.initial_state((1,)), jax.random.key(settings.seed)
    for i, given in enumerate(bytes([END]) + encoded(settings.prompt)):
        state, symbol = step(params, state, jnp.array([given]), jax.random.fold_in(key, i))
    for j in range(i + 1, i + 1 + settings.sample):
        yield int(symbol[0])
        state, symbol = step(params, state, symbol, jax.random.fold_in(key, j))


def sample(settings: Settings) -> str:
    """Print the prompt and what follows it while it is generated; returns what follows."""
    model = build(settings)
    params = training.restore_params(settings.directory, model.init(jax.random.key(0)))
    decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    print(settings.prompt, end="", flush=True)
    for symbol in generate(model, params, settings):
        piece = "\n" + 78 * "─" + "\n" if symbol == END else decoder.decode(bytes([symbol]))
        print(piece, end="", flush=True)
        text += piece
    print()
    return text


def check(settings: Settings) -> None:
    """Errors that name the option, what it got and what it needs."""
    common.check_between(
        settings,
        layers=(1, 100),
        hidden=(1, 1 << 14),
        embedding=(1, 1 << 14),
        batch=(1, common.MOST),
        window=(1, common.MOST),
        stretch=(1, common.FOREVER),
        steps=(1, common.FOREVER),
        warmup=(0, common.FOREVER),
        seed=(0, common.SEEDS),
        sample=(0, common.FOREVER),
        top_k=(1, SYMBOLS),
    )
    common.check_positive(settings, "learning_rate", "clip", "temperature")
    if END in encoded(settings.prompt):
        raise ValueError(f"prompt: got {settings.prompt!r}, needs text without zero bytes")


def must_match(settings: Settings) -> Sequence[str]:
    """The settings that must be those of the run in the directory."""
    return SIZES if settings.sample > 0 else SIZES + TRAINING if settings.resume else ()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, or sample and return {}, as the arguments say (None: the command line's); bits per character by model."""
    settings = common.parse(Settings, arguments, lambda settings: QUICK, must_match)
    check(settings)
    if settings.sample:
        sample(settings)
        return {}
    return train(settings)


if __name__ == "__main__":
    common.run(main, "; here: --resume with the same directory")
