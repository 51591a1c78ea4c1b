"""The examples `language_model`, `nce_lm` and `bidirectional_lm`, run small, and what the text examples share."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
import tyro
from flax import nnx

from examples import bidirectional_lm, corpus, language_model, nce_lm


def assert_is_picture(path: Path) -> None:
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique((pixels * 255).astype(np.uint8).view(np.uint32))) > 50


# What they share.


def test_words_are_split_counted_and_joined():
    found = corpus.words([b"It's 12 (or so) --\n\n  isn't_it?\n\n", "Über 12".encode()])
    assert found == [
        *("<end>", "it's", "12", "(", "or", "so", ")", "--", "¶", "isn't", "_", "it", "?", "¶", "<end>"),
        *("über", "12", "<end>"),
    ]
    known = corpus.vocabulary(found, 2)
    assert known == ["<end>", "<unk>", "12", "¶"]
    assert corpus.encode(["<end>", "12", "so"], known).tolist() == [corpus.END, 2, corpus.UNKNOWN]
    assert corpus.decode(range(len(found)), found) == ("\n\nit's 12 (or so) --\n\nisn't _ it?\n\nüber 12\n\n")
    assert corpus.words([b"aB_1 = c2(d)"], nce_lm.NAMES, lower=False) == ["<end>", "aB_1", "c2", "d", "<end>"]


def test_rare_words_are_unknown_and_said_to_be():
    known = corpus.vocabulary(["<end>", "a", "b", "a", "c", "<end>"], 2)
    assert known == ["<end>", "<unk>", "a"]
    assert corpus.unknown(corpus.encode(["a", "b", "a", "new"], known)) == "4, 50.0% of them <unk>"
    with pytest.raises(ValueError, match="least: got 3, needs 2 or less, as often as the most frequent word is seen"):
        corpus.vocabulary(["a", "b", "a"], 3)


def test_documentation_has_each_docstring_once(monkeypatch):
    modules = [
        b'"""One."""\ndef f():\n    """Two."""\n',
        b'class A:\n    """Two."""\n    def g(self):\n        "Three"\n',
    ]
    monkeypatch.setattr(corpus, "modules", lambda: [*modules, b"x = 1"])
    found = corpus.documentation()
    assert found[:2] == [b"One.\n\nTwo.", b"Three"]
    assert len(found) - 2 == len(corpus.topics.topics) > 50


@pytest.mark.parametrize("example", [language_model, nce_lm, bidirectional_lm])
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("missing", None, "which does not exist, needs a text file or a folder"),
        ("empty", b"\n \n", "which is empty, needs a text file"),
        ("binary", b"ab\0cd", "which is binary .*, needs a text file"),
        ("short", b"one two", "text: got .* needs"),
        ("folder", Path, "a folder of 0 different text files, needs 2 or more"),
    ],
)
def test_bad_texts_are_named_and_nothing_is_written(tmp_path, example, name, data, message):
    if data is Path:
        (tmp_path / name).mkdir()
    elif data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        example.main(["--text", str(tmp_path / name), "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("example", "arguments", "message"),
    [
        (language_model, ["--strength", "2"], "strength: got 2.0, needs 0 to 1"),
        (language_model, ["--window", "0"], "window: got 0, needs 1 to 1048576"),
        (language_model, ["--least", "1000000"], r"least: got 1000000, needs \d+ or less, as often as the most"),
        (nce_lm, ["--samples", "0"], "samples: got 0, needs 1 to 1048576"),
        (nce_lm, ["--seconds", "inf"], "seconds: got inf, needs a finite number above 0"),
        (bidirectional_lm, ["--gaps", "1"], "gaps: got 1.0, needs a share between 0 and 1"),
        (bidirectional_lm, ["--gaps", "1e-9"], "gaps: got 1e-09, needs more: none of .* held-out characters is hidden"),
        (bidirectional_lm, ["--show", "257"], "show: got 257, needs 0 to 256"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(example, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        example.main([*arguments, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_a_directory_that_cannot_be_made_is_an_error_before_the_training(sentences, tmp_path, monkeypatch):
    monkeypatch.setattr(nce_lm, "train", lambda *_: pytest.fail("it trains"))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        nce_lm.main(["--text", str(sentences), "--directory", str(tmp_path / "file")])


def test_too_few_words_are_held_out(tmp_path):
    (tmp_path / "text").write_text("the cat sat on the mat and the dog sat on the cat a b ")
    options = ["--window", "4", "--least", "1", "--text", str(tmp_path / "text")]
    with pytest.raises(ValueError, match=r"text: got \d held-out words, needs 8 or more"):
        language_model.main([*options, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


# Words.


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """Files in which each animal has its own sound and two words stand between them."""
    root, rng = tmp_path_factory.mktemp("sentences"), np.random.default_rng(0)
    sounds = {"dogs": "bark", "cats": "meow", "birds": "sing", "cows": "moo"}
    for n in range(4):
        animals = rng.choice(list(sounds), 150)
        (root / f"{n}.txt").write_text(" ".join(f"{animal} do always {sounds[animal]}." for animal in animals))
    return root


def tiny(sentences, *arguments):
    sizes = {
        "hidden": 16,
        "embedding": 12,
        "layers": 1,
        "batch": 4,
        "window": 10,
        "steps": 80,
        "least": 2,
        "sample": 12,
    }
    options = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in sizes.items())
    return [*options, "--learning-rate", "2e-2", "--text", str(sentences), *arguments]


@pytest.mark.exhaustive
def test_language_model_learns_writes_draws_and_resumes(sentences, tmp_path, capsys):
    directory = str(tmp_path)
    results = language_model.main(tiny(sentences, "--directory", directory))
    out = capsys.readouterr().out
    assert results["this model"] < 3, "1.3 where every sound is known"
    assert results["how often each word occurs"] > 5
    assert f"{results['this model']:.1f}  this model" in out
    assert "always" in out.split("a text of its own:")[1]
    assert "<unk>" not in out.split("a text of its own:")[1]
    assert_is_picture(tmp_path / "perplexity.png")
    with pytest.raises(ValueError, match="recipe: got gal, needs awd as in the run in"):
        language_model.main(["--resume", "--recipe", "gal", "--directory", directory])


@pytest.mark.exhaustive
@pytest.mark.parametrize("arguments", [["--recipe", "gal"], ["--recipe", "zaremba", "--optimizer", "adam"]])
def test_language_model_learns_by_the_other_recipes(sentences, tmp_path, arguments):
    results = language_model.main(tiny(sentences, "--directory", str(tmp_path), *arguments))
    assert results["this model"] < 3


def test_language_model_has_the_rate_of_its_optimizer():
    rates = {
        (): 4e-3,
        ("--recipe", "gal"): 4e-3,
        ("--optimizer", "sgd"): 30,
        ("--optimizer", "sgd", "--recipe", "zaremba"): 20,
        ("--optimizer", "sgd", "--learning-rate", "7"): 7,
    }
    for arguments, rate in rates.items():
        assert language_model.learning_rate(tyro.cli(language_model.Settings, args=arguments)) == rate


@pytest.mark.exhaustive
def test_language_model_has_the_masks_of_its_recipe():
    """Zaremba's are new at each step; those of awd last for a window."""
    words, models = jnp.full((6, 4), 3), []
    for recipe in ("zaremba", "awd"):
        settings = language_model.Settings(recipe=recipe, layers=1, hidden=8, embedding=8, strength=1.0)
        models.append(language_model.Model(settings, 10, nnx.Rngs(0)))
    run = jax.jit(lambda models: [model.hidden(words, None, nnx.Rngs(dropout=1))[1:] for model in models])
    for (before, after), locked in zip(run(models), (False, True), strict=True):
        dropped = np.asarray((after == 0) & (before != 0))
        assert 0 < dropped.mean() < 1
        assert (dropped == dropped[0]).all() == locked
    assert [model.head is None for model in models] == [False, True], "tied"


# Names.


@pytest.mark.exhaustive
def test_nce_lm_trains_by_each_loss_for_the_same_time(sentences, tmp_path, capsys, monkeypatch):
    draw, drawn = corpus.draw, {}
    monkeypatch.setattr(
        corpus, "draw", lambda curves, *args, **labels: drawn.update(curves) or draw(curves, *args, **labels)
    )
    arguments = ["--embedding", "8", "--hidden", "8", "--projection", "8", "--samples", "4", "--batch", "4"]
    arguments += ["--window", "10", "--seconds", "0.5", "--learning-rate", "3e-2", "--directory", str(tmp_path)]
    results = nce_lm.main([*arguments, "--text", str(sentences)])
    assert "names a second" in capsys.readouterr().out
    for name in nce_lm.LOSSES:
        assert results[name] < results["how often each word occurs"], name
        seconds = [point[0] for point in drawn[name]]
        assert len(seconds) == nce_lm.LOOKS
        assert seconds == sorted(seconds)
        assert seconds[-1] >= 0.2, "of 0.5, on a machine whose pace changes"
    assert_is_picture(tmp_path / "perplexity.png")


# Gaps.


@pytest.mark.exhaustive
def test_bidirectional_lm_sees_what_follows(tmp_path, capsys, monkeypatch):
    """Every letter is doubled: what a gap holds stands before it or after it."""
    monkeypatch.setattr(bidirectional_lm, "UNSEEN", 32)  # as many as in a batch, so that kernels are compiled once
    letters = np.repeat(np.random.default_rng(0).choice(np.frombuffer(b"abcdefgh", np.uint8), 3000), 2)
    (tmp_path / "text").write_bytes(letters.tobytes())
    arguments = ["--text", str(tmp_path / "text"), "--window", "16", "--hidden", "16", "--embedding", "8"]
    arguments += ["--layers", "1", "--batch", "32", "--steps", "250", "--learning-rate", "2e-2", "--show", "2"]
    results = bidirectional_lm.main([*arguments, "--directory", str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert results["both directions"] > max(0.7, results["forward alone"] + 0.1)
    assert results["by both neighbors"] > results["by the character before"] > results["the most frequent character"]
    assert f"{results['both directions']:.1%}  both directions" in out
    assert_is_picture(tmp_path / "run" / "right.png")
    with pytest.raises(ValueError, match=r"gaps: got 0\.5, needs 0\.2 as in the run in"):
        bidirectional_lm.main(["--resume", "--gaps", "0.5", "--directory", str(tmp_path / "run")])


def test_counts_of_characters_fill_gaps():
    """After x, a is likeliest, but b between x and y; where a neighbor is hidden, less context decides."""
    train, marked = (np.frombuffer(text, np.uint8)[:, None] for text in (b"xaxaxbybyby.", b"x\0yx\0\0"))
    found = bidirectional_lm.by_counts(train, marked)
    assert {name: bytes(guess[marked == 0].tolist()) for name, guess in found.items()} == {
        "the most frequent character": b"bbb",
        "by the character before": b"aab",
        "by both neighbors": b"bab",
    }


def test_gaps_are_shown_with_what_is_wrong():
    text, gaps = np.frombuffer(b"ab\ncd", np.uint8), np.array([False, True, False, True, True])
    assert bidirectional_lm.filled(text, gaps, np.frombuffer(b"zbzxd", np.uint8)) == "a_ __\nab xd\n   ^"
    text, gaps = np.frombuffer("ä\x85b".encode(), np.uint8), np.array([False, True, False, False, True])
    filled = bidirectional_lm.filled(text, gaps, np.frombuffer(b"\0\x85\0\0b", np.uint8))
    assert filled == "·_··_\n····b\n ^", "bytes are no characters, and none controls a terminal"


def test_gaps_are_hidden_at_their_rate():
    windows = np.full((50, 40), 7, np.uint8)
    marked, gaps = bidirectional_lm.hide(windows, jax.random.key(0), bidirectional_lm.Settings(gaps=0.3))
    assert float(gaps.mean()) == pytest.approx(0.3, abs=0.05)
    np.testing.assert_array_equal(marked, np.where(gaps, 0, 7))
