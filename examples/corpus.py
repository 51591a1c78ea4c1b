"""What the text examples share: files, words and their numbers, perplexity, counts to compare with, and a picture."""

import ast
import collections
import itertools
import re
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from pydoc_data import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from examples import common

END = 0  # the symbol that stands before, between and after files; a text has no zero byte of its own
UNKNOWN = 1  # words that are too rare to have a number of their own
# Words, numbers, the ends of paragraphs, and what stands between words: one symbol, however often it is repeated.
WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|\n\s*\n|([^\w\s]|_)\1*")
PARAGRAPH = "¶"


# Files.


class Text(NamedTuple):
    """Files to train on and files held out."""

    train: list[bytes]
    held_out: list[bytes]
    name: str


def contents(paths: Iterable[Path]) -> list[bytes]:
    """What is in the text files among `paths`, each content once, so that no copy of what is held out is trained on."""
    found = dict.fromkeys(path.read_bytes() for path in paths if path.is_file())
    return [data for data in found if data.strip() and END not in data]


def modules(tests: bool = False) -> list[bytes]:
    """The modules of Python's standard library, with or without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    beside = {"site-packages", "dist-packages"} | (set() if tests else {"test", "tests", "idle_test"})
    return contents(p for p in sorted(root.rglob("*.py")) if not beside & set(p.relative_to(root).parts))


def documentation() -> list[bytes]:
    """The docstrings of each module of Python's standard library, each once, and the topics of `help`."""
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    seen: set[str | None] = {None}
    found = []
    for data in modules():
        said = dict.fromkeys(ast.get_docstring(n) for n in ast.walk(ast.parse(data)) if isinstance(n, described))
        found.append("\n\n".join(text for text in said if text not in seen))
        seen.update(said)
    return [text.encode() for text in (*found, *topics.topics.values()) if text.strip()]


def load(path: Path | None, default: Callable[[], list[bytes]]) -> Text:
    """The text that `--text` names, or that of `default`, divided."""
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
    files = default() if path is None else contents(sorted(path.rglob("*")))
    if len(files) < 2:
        raise ValueError(f"text: got {path}, a folder of {len(files)} different text files, needs 2 or more")
    name = "Python's standard library" if path is None else path
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    cut = -(-len(files) // 20)
    return Text(files[cut:], files[:cut], f"{name}, {cut} of {len(files)} files")


def stream(files: Sequence[bytes]) -> np.ndarray:
    """The files end to end, each between two END bytes: `[N]` uint8."""
    joined = bytes([END]).join([b"", *files, b""])
    return np.frombuffer(joined, np.uint8)


# Words.


def words(files: Iterable[bytes], pattern: re.Pattern[str] = WORDS, lower: bool = True) -> list[str]:
    """The words of the files, by default in lower case, "<end>" before, between and after files."""
    found = ["<end>"]
    for data in files:
        text = data.decode(errors="replace")
        matches = pattern.finditer(text.lower() if lower else text)
        found += [PARAGRAPH if match[0].isspace() else match[0] for match in matches]
        found.append("<end>")
    return found


def vocabulary(seen: Iterable[str], least: int) -> list[str]:
    """END, UNKNOWN and the words that are seen `least` times, the most frequent first."""
    counts = collections.Counter(seen)
    del counts["<end>"]
    if least > (most := max(counts.values(), default=0)):
        raise ValueError(f"least: got {least}, needs {most} or less, as often as the most frequent word is seen")
    return ["<end>", "<unk>", *(word for word, count in counts.most_common() if count >= least)]


def unknown(symbols: np.ndarray) -> str:
    """How many words there are, and which share of them is too rare to be told apart: easy to guess."""
    return f"{len(symbols):,}, {np.mean(symbols == UNKNOWN):.1%} of them <unk>"


def encode(found: Iterable[str], known: Sequence[str]) -> np.ndarray:
    """The numbers of the words in the vocabulary: `[N]` int32."""
    numbers = {word: number for number, word in enumerate(known)}
    return np.fromiter((numbers.get(word, UNKNOWN) for word in found), np.int32)


def decode(symbols: Iterable[int], known: Sequence[str]) -> str:
    """Words as a text to read."""
    text = " ".join(known[symbol] for symbol in symbols).replace("<end>", PARAGRAPH)
    text = re.sub(r" ([,.;:!?)\]}])", r"\1", re.sub(r"([(\[{]) ", r"\1", text))
    return re.sub(rf"(\s*{PARAGRAPH}\s*)+", "\n\n", text)


# What a model makes of a text.


def nats(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The code length of every target under the logits."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets.astype(jnp.int32))


def nats_of(symbols: np.ndarray, fresh: Callable[[Any, int], Any], span: int = 512) -> Callable[[Any], jax.Array]:
    """A jitted function `model -> nats` of all symbols but the first.

    Long texts are cut into up to 32 rows; every cut costs the model its memory of what came before, none of it is
    left out.

    Args:
        symbols: `[N]`.
        fresh: `(model, rows) -> carry`, the state before the first symbol; `model(symbols, carry) -> (carry, logits)`.
        span: steps that are taken at a time.
    """
    targets = len(symbols) - 1
    rows = int(np.clip(targets // (32 * span), 1, 32))
    spans = -(-targets // (rows * span))
    padded = np.full(rows * spans * span + 1, -1, np.int32)
    padded[: len(symbols)] = symbols
    inputs = np.maximum(padded[:-1], END).reshape(rows, spans, span).transpose(1, 2, 0)
    outputs = padded[1:].reshape(rows, spans, span).transpose(1, 2, 0)

    @jax.jit
    def total(model: Any) -> jax.Array:
        def one(carry: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            xs, ys = part
            carry, logits = model(xs, carry)
            return carry, jnp.sum(jnp.where(ys >= 0, nats(logits, jnp.maximum(ys, 0)), 0.0))

        return jnp.sum(jax.lax.scan(one, fresh(model, rows), (inputs, outputs))[1])

    return total


def ngram_nats(seen: np.ndarray, new: np.ndarray, order: int, symbols: int) -> float:
    """Nats of `new[1:]` by an interpolated n-gram model of `seen`, which sees `order` symbols of context.

        P_n(w | context) = (max(count(context w) - d, 0) + d k P_{n-1}(w | shorter context)) / count(context)

    where k is the number of different symbols seen after the context, d = n_1 / (n_1 + 2 n_2) of those seen once and
    twice, and P_{-1} = 1 / symbols. But for the highest order, it counts the different symbols that a string was seen
    after (Kneser & Ney 1995). What stands before the first symbol counts as END.
    """

    def grams(text: np.ndarray, n: int) -> np.ndarray:
        """The numbers of the strings of n + 1 symbols, the oldest symbol highest."""
        padded = np.concatenate([np.full(order, END), text]).astype(np.int64)
        return sum(padded[order + 1 - i : len(padded) - i] * symbols**i for i in range(n + 1))

    p = np.full(len(new) - 1, 1 / symbols)
    for n in range(order + 1):
        found = grams(seen, n) if n == order else np.unique(grams(seen, n + 1)) % symbols ** (n + 1)
        joint, counts = np.unique(found, return_counts=True)
        contexts, first, kinds = np.unique(joint // symbols, return_index=True, return_counts=True)
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        d = once / (once + 2 * twice) if once else 0.5
        wanted = grams(new, n)
        count = _look_up(joint, counts, wanted)
        total, k = (_look_up(contexts, v, wanted // symbols) for v in (np.add.reduceat(counts, first), kinds))
        p = np.where(total > 0, (np.maximum(count - d, 0) + d * k * p) / np.maximum(total, 1), p)
    return float(-np.log(p).sum())


def perplexities(seen: np.ndarray, new: np.ndarray, symbols: int) -> dict[str, float]:
    """The perplexity of `new[1:]` by counts of `seen`, of words alone and after two others."""
    orders = {"how often each word occurs": 0, "counts after two words (Kneser-Ney)": 2}
    return {
        name: float(np.exp(ngram_nats(seen, new, order, symbols) / (len(new) - 1))) for name, order in orders.items()
    }


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values at sorted `keys`, 0 where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def draw(curves: dict[str, Any], levels: dict[str, float], path: Path, **labels: Any) -> None:
    """Curves `[points, 2]` of what models reached while they were trained, and the levels that counts reach."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*np.transpose(points), marker="o", markersize=3, label=name)
    for (name, level), style in zip(levels.items(), itertools.cycle((":", "--", "-."))):
        axes.axhline(level, color="black", linestyle=style, linewidth=1, label=name)
    axes.set(**labels)
    common.style(axes)
    common.save(figure, path)
