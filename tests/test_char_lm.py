"""The character language model at tiny sizes: it learns, samples, resumes, and refuses bad input."""

import collections
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from examples import char_lm, common, corpus
from jaxrnn import training
from tests.conftest import QUICK_FLAGS
from tests.registry import rare

TINY = [
    "--hidden",
    "16",
    "--embedding",
    "8",
    "--batch",
    "3",
    "--window",
    "7",
    "--warmup",
    "1",
    "--learning-rate",
    "3e-2",
]


def settings(**changes):
    sizes = {"hidden": 16, "embedding": 8, "batch": 3, "window": 7, "warmup": 1, "learning_rate": 3e-2}
    return char_lm.Settings(**(sizes | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five modules of regular code, one file that is binary and an empty one."""
    root = tmp_path_factory.mktemp("text")
    for n, name in enumerate(("spam", "eggs", "ham", "bacon", "beans")):
        lines = [f"def {name}_{i}(x):\n    return x + {i * n}\n\n\n" for i in range(12)]
        (root / f"{name}.py").write_text("".join(lines))
    (root / "picture.bin").write_bytes(b"\x89\x00\x01")
    (root / "__init__.py").write_text("")
    (root / "copy.py").write_bytes((root / "spam.py").read_bytes())
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The directory of a run and the bits it reached."""
    directory = tmp_path_factory.mktemp("runs") / "char_lm"
    return directory, char_lm.train(settings(text=folder, directory=directory, steps=120))


# The text.


def test_files_are_held_out_whole_and_never_trained_on(folder):
    text = corpus.load(folder, corpus.modules)
    assert (len(text.train), len(text.held_out)) == (4, 1)
    assert sorted(text.train + text.held_out) == sorted({p.read_bytes() for p in folder.glob("[a-z]*.py")})


def test_the_default_text_is_the_standard_library():
    text = corpus.load(None, corpus.modules)
    whole = set(text.train) | set(text.held_out)
    assert {Path(module.__file__).read_bytes() for module in (json, collections)} <= whole
    assert not set(text.train) & set(text.held_out)
    assert sum(map(len, text.train)) > 5e6


def test_the_last_tenth_of_a_single_file_is_held_out(tmp_path):
    (tmp_path / "text").write_bytes(bytes(range(1, 101)))
    text = corpus.load(tmp_path / "text", corpus.modules)
    assert text.train == [bytes(range(1, 91))]
    assert text.held_out == [bytes(range(91, 101))]


# The model, against slow and simple ways to the same numbers.


def slow_ngram_bits(train, held_out, order):
    """Interpolated Kneser-Ney, one character at a time."""
    pad = [0] * order
    seen, new = ([*pad, 0, *itertools.chain.from_iterable([*file, 0] for file in files)] for files in (train, held_out))
    strings = collections.Counter(tuple(seen[at - order : at + 1]) for at in range(order + 1, len(seen)))
    counts = {order: strings}
    for n in range(order - 1, -1, -1):
        longer = {tuple(seen[at - n - 1 : at + 1]) for at in range(order + 1, len(seen))}
        counts[n] = collections.Counter(string[1:] for string in longer)
    bits = 0.0
    for at in range(order + 1, len(new)):
        p = 1 / 256
        for n in range(order + 1):
            context = tuple(new[at - n : at])
            after = {string[-1]: count for string, count in counts[n].items() if string[:-1] == context}
            if after:
                once, twice = (sum(count == c for count in counts[n].values()) for c in (1, 2))
                d = once / (once + 2 * twice) if once else 0.5
                total = sum(after.values())
                p = (max(after.get(new[at], 0) - d, 0) + d * len(after) * p) / total
        bits -= math.log2(p)
    return bits / sum(map(len, held_out))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_ngram_bits(order):
    train, held_out = [b"abracadabra", b"abacus", b"\xff\xfe~"], [b"cadaver", b"abra!", b"\xff\xfe"]
    assert char_lm.ngram_bits(train, held_out, order) == pytest.approx(
        slow_ngram_bits(train, held_out, order), rel=1e-12
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [{"cell": "lstm"}, *rare({"tied": True, "layers": 2}, {"cell": "mingru"})])
def test_bits_are_those_of_files_read_byte_by_byte_from_a_fresh_state(options):
    model = char_lm.Model(settings(**options), nnx.Rngs(0))
    step = nnx.jit(char_lm.Model.step)

    files, bits = [b"one file", b"another", b"x"], 0.0
    for file in files:
        carry = char_lm.fresh(model, 1)
        for symbol, target in itertools.pairwise([0, *file, 0]):
            carry, logits = step(model, carry, jnp.array([symbol]))
            bits -= float(jax.nn.log_softmax(logits[0])[target]) / math.log(2)
    assert char_lm.bits_of(files)(model)["bits"] == pytest.approx(bits / 16, rel=1e-5)


@pytest.mark.exhaustive
def test_bits_of_a_long_text_are_those_of_its_rows():
    model = char_lm.Model(settings(), nnx.Rngs(0))
    file = np.random.default_rng(0).integers(1, 256, 40000, dtype=np.uint8).tobytes()
    symbols = corpus.stream([file]).astype(np.int32)
    length = 40 * 512  # two rows of whole spans
    nats = 0.0

    @jax.jit
    def total(row):
        _, logits = model(row[:-1, None])
        return corpus.nats(logits[:, 0], row[1:]).sum()

    for row in (symbols[: length + 1], symbols[length:]):
        nats += float(total(row))
    got = char_lm.bits_of([file])(model)["bits"]
    assert got == pytest.approx(nats / math.log(2) / 40000, rel=1e-5)


def test_tied_weights_are_shared():
    model = char_lm.Model(settings(tied=True), nnx.Rngs(0))
    assert {leaf.shape for leaf in jax.tree.leaves(nnx.state(model)) if 256 in leaf.shape} == {(256, 8)}
    _, ys = model.rnn(model.embed(jnp.array([[7]])) * 8**0.5)
    want = model.head(ys) @ model.embed.embedding.T
    np.testing.assert_allclose(model(jnp.array([[7]]))[1], want, rtol=1e-5)


def test_dropout_acts_with_rngs_and_follows_their_key():
    model = char_lm.Model(settings(layers=1, dropout=0.5), nnx.Rngs(0))
    inputs = jnp.ones((5, 2), jnp.int32)
    dropped = jax.jit(lambda key: model(inputs, rngs=nnx.Rngs(dropout=key))[1])
    runs = [model(inputs)[1], dropped(jax.random.key(0)), dropped(jax.random.key(1))]
    assert not np.allclose(runs[0], runs[1])
    assert not np.allclose(runs[1], runs[2])
    np.testing.assert_array_equal(dropped(jax.random.key(1)), runs[2])


def test_spikes_of_the_gradient_are_passed_over_until_they_are_usual():
    guarded = char_lm.without_spikes(optax.sgd(1.0), 4.0)
    state, update = guarded.init(jnp.zeros(2)), jax.jit(guarded.update)
    seen = []
    for norm in (1.0, 3.0, 65.0, 1.0, 3.9):
        updates, state = update(jnp.array([norm, 0.0]), state)
        seen.append(-float(updates[0]))
    assert seen == pytest.approx([1.0, 3.0, 0.0, 1.0, 3.9])
    assert float(state.usual) == pytest.approx(1.14, abs=0.03)
    large = [float(update(jnp.array([10.0, 0.0]), state)[0][0])]
    while not large[-1]:
        updates, state = update(jnp.array([10.0, 0.0]), state)
        large.append(float(updates[0]))
    assert 5 < len(large) < 40


# Training and sampling.


def restored(directory):
    return training.restore_params(directory, char_lm.Model(settings(), nnx.Rngs(1)))


@pytest.mark.exhaustive
def test_it_learns_and_says_what_that_is_worth(trained):
    directory, bits = trained
    assert bits["this model"] < bits["order 0"] - 1
    assert set(bits) == {"order 0", "order 3", "xz -9e", "xz -9e after the training text", "this model"}
    last = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 120
    assert last["eval_bits"] == pytest.approx(bits["this model"], rel=1e-6)


@pytest.mark.exhaustive
def test_a_sample_is_what_the_model_finds_likeliest(trained, folder, capsys):
    directory, _ = trained
    # The batch of the run does not matter.
    options = ["--batch", "5", "--sample", "30", "--prompt", "def spam", "--top-k", "1"]
    char_lm.main([*TINY, "--directory", str(directory), *options])
    printed = capsys.readouterr().out
    assert printed.startswith("def spam")
    model = restored(directory)
    rest = printed[8:-1].replace("\n" + 78 * "─" + "\n", "\0")
    assert len(rest) == 30
    symbols = np.array(list(f"\0def spam{rest}".encode()))
    _, logits = model(symbols[:, None])
    np.testing.assert_array_equal(np.argmax(logits[8:-1, 0], axis=-1), symbols[9:])


@pytest.mark.exhaustive
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_sample_is_written_where_not_all_of_it_can_be_shown(trained, monkeypatch, encoding):
    directory, _ = trained
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", shown)
    options = ["--directory", str(directory), "--sample", "20", "--top-k", "1", "--prompt", "def ─ü\udcff"]
    common.run(lambda: char_lm.main(options), "")
    shown.flush()
    text = shown.buffer.getvalue().decode(encoding)
    assert text.startswith("def ?" + ("ü?" if encoding == "latin-1" else "??"))
    assert len(text) > 20


@pytest.mark.exhaustive
def test_the_settings_of_the_run_are_those_of_the_sample(trained, capsys):
    directory, _ = trained
    char_lm.main(["--directory", str(directory), "--sample", "20", "--prompt", "def "])
    alone = capsys.readouterr().out
    char_lm.main([*TINY, "--directory", str(directory), "--sample", "20", "--prompt", "def "])
    assert capsys.readouterr().out == alone


@pytest.mark.exhaustive
def test_samples_follow_the_seed_the_temperature_and_top_k(trained):
    directory, _ = trained

    def sample(**options):
        return char_lm.sample(settings(directory=directory, sample=20, prompt="def ", **options))

    bold = sample(temperature=1.5)
    assert bold == sample(temperature=1.5)
    assert bold != sample(temperature=1.5, seed=1)
    assert sample(temperature=1e-4) == sample(top_k=1, seed=1)


@pytest.mark.exhaustive
def test_generation_keeps_its_memory(trained, monkeypatch):
    """The prompt is read at once; the state that goes round is that of one position, however long the text."""
    directory, _ = trained
    call, traces = char_lm.Model.__call__, []

    def counting(model, symbols, *args, **kwargs):
        traces.append(symbols.shape)
        return call(model, symbols, *args, **kwargs)

    monkeypatch.setattr(char_lm.Model, "__call__", counting)
    char_lm.sample(settings(directory=directory, sample=25, prompt="def "))
    assert set(traces) == {(4, 1), (1, 1)}
    assert len(traces) <= 3


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """A folder of two runs, "whole" and "parts", which Ctrl-C stopped after the fourth of six steps."""
    root = tmp_path_factory.mktemp("runs")

    def options(name):
        return [*TINY, "--steps", "6", "--dropout", "0.3", "--text", str(folder), "--directory", str(root / name)]

    char_lm.main(options("whole"))
    whole_batches = char_lm.batches.streams

    def pressed(*arguments, **options):
        def from_start(start):
            for n, made in zip(itertools.count(start), whole_batches(*arguments, **options)(start), strict=False):
                if n == 3:
                    signal.raise_signal(signal.SIGINT)
                yield made

        return from_start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(char_lm.batches, "streams", pressed)
        with pytest.raises(KeyboardInterrupt, match="after step 4 of 6"):
            char_lm.main(options("parts"))
    return root


def last(directory):
    """The last line of metrics, without the time that it took."""
    line = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert line.pop("seconds") > 0
    return line


@pytest.mark.exhaustive
def test_ctrl_c_and_resume_give_the_numbers_of_a_whole_run(runs, tmp_path):
    shutil.copytree(runs / "parts", tmp_path / "parts")
    char_lm.main(["--resume", "--directory", str(tmp_path / "parts")])
    assert last(tmp_path / "parts") == last(runs / "whole")


@pytest.mark.exhaustive
@pytest.mark.parametrize("mesh", ["data=3,model=2", *rare("data=3", "model=8")])
def test_a_run_goes_on_over_a_mesh(runs, tmp_path, mesh):
    """One device began; the checkpoint at the end can be read by one device."""
    shutil.copytree(runs / "parts", tmp_path / "parts")
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": "."}
    command = [sys.executable, "-m", "examples.char_lm", "--mesh", mesh, "--resume", "--directory"]
    done = subprocess.run([*command, str(tmp_path / "parts")], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert last(tmp_path / "parts") == pytest.approx(last(runs / "whole"), rel=1e-5)
    found, expected = (jax.tree.leaves(nnx.state(restored(d))) for d in (tmp_path / "parts", runs / "whole"))
    for there, here in zip(found, expected, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-5)


# Bad input: the argument, what it got, what it needs, and nothing written.


def content(path):
    return {p: p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing", None, "text: got .*missing, which does not exist, needs a text file or a folder"),
        ("empty", b"\n \n", "text: got .*empty, which is empty, needs a text file"),
        ("binary", b"ab\0cd", "text: got .*binary, which is binary .*, needs a text file"),
        ("short", b"abcdefg", r"text: got 6 characters to train on, needs a window's \(--window\), 7"),
    ],
)
def test_bad_texts(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=message):
        char_lm.main([*TINY, "--text", str(tmp_path / name), "--directory", str(tmp_path / "run")])
    assert content(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_pipe_is_no_text(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"text: got .*pipe, which is neither, needs a text file or a folder"):
        corpus.load(tmp_path / "pipe", corpus.modules)


def test_a_folder_without_texts(tmp_path):
    (tmp_path / "one").write_text("the only one")
    with pytest.raises(ValueError, match="a folder of 1 different text files, needs 2 or more"):
        corpus.load(tmp_path, corpus.modules)


@pytest.mark.exhaustive
def test_bad_directories(trained, folder, tmp_path):
    directory, _ = trained
    before = content(directory)
    with pytest.raises(FileNotFoundError, match=r"directory: got .*none, which has no run"):
        char_lm.main([*TINY, "--directory", str(tmp_path / "none"), "--sample", "5"])
    with pytest.raises(ValueError, match="hidden: got 17, needs 16 as in the run in"):
        char_lm.main([*TINY, "--hidden", "17", "--directory", str(directory), "--sample", "5"])
    with pytest.raises(ValueError, match="mesh: got data=3, needs none with --sample, which runs on one device"):
        char_lm.main(["--mesh", "data=3", "--directory", str(directory), "--sample", "5"])
    for option, message in (
        (["--seed", "1"], "seed: got 1, needs 0 as in the run in"),
        (["--batch", "4"], "batch: got 4, needs 3 as in the run in"),
        (["--text", str(tmp_path)], f"text: got {tmp_path}, needs {folder} as in the run in"),
    ):
        with pytest.raises(ValueError, match=message):
            char_lm.main([*option, "--directory", str(directory), "--resume"])
    with pytest.raises(ValueError, match=r"directory: got .*, which holds a run, needs --resume"):
        char_lm.main([*TINY, "--text", str(folder), "--directory", str(directory)])
    assert content(directory) == before
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--top-k", "0"], "top_k: got 0, needs 1 to 256"),
        (["--temperature", "0"], "temperature: got 0.0, needs a finite number above 0"),
        (["--learning-rate", "inf"], "learning_rate: got inf, needs a finite number above 0"),
        (["--spike", "1"], "spike: got 1.0, needs more than 1"),
        (["--window", "0"], "window: got 0, needs 1 to 1048576"),
        (["--hidden", "99999999999"], "hidden: got 99999999999, needs 1 to 16384"),
        (["--seed", "100000000000000000000"], "seed: got 100000000000000000000, needs 0 to 4294967295"),
        (["--quick", "--hidden", "0"], "hidden: got 0, needs 1 to 16384"),
        (["--sample", "-1"], "sample: got -1, needs 0 to 2147483647"),
        (["--prompt", "a\0"], "prompt: got 'a.x00', needs text without zero bytes"),
        (["--dropout", "1.5"], "dropout: got 1.5, needs a rate"),
        (["--mesh", "data=3,time=2"], "mesh: got 'data=3,time=2', needs numbers of devices such as data=2,model=2"),
        (["--mesh", "data=0"], "mesh: got 'data=0', needs numbers of devices"),
        (["--mesh", "model=2,model=2"], "mesh: got 'model=2,model=2', needs numbers of devices"),
        (["--mesh", "data=2"], "batch: got 3, needs a multiple of 2, the devices of 'data' in --mesh"),
        (["--mesh", "model=5"], "hidden: got 16, needs a multiple of 5, the devices of 'model' in --mesh"),
        (["--mesh", "data=3,model=2", "--cell", "mingru"], "needs data alone with --cell mingru"),
        (["--mesh", "data=3"], "mesh: got data=3, 3 devices, .*, XLA_FLAGS=--xla_force_host"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(ValueError, match=message):
        char_lm.main([*TINY, *option])
