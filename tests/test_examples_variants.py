"""The example `variants`, run small."""

import json
import re

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from examples import variants
from tests.test_examples import assert_is_picture


def test_arithmetic_asks_for_the_sum():
    rng = np.random.default_rng(0)
    for _ in range(100):
        text, counts = variants.arithmetic(rng, 14)
        assert len(text) == len(counts) == 15
        said, answer = text.split("=")
        a, b = re.sub(f"[{variants.LETTERS}]", "", said).split("+")
        assert answer.rstrip() == f"{int(a) + int(b)}."
        assert "".join(np.array(list(text))[counts]) == answer.rstrip()


def test_xml_asks_for_the_names_of_tags_that_close():
    rng = np.random.default_rng(0)
    for _ in range(100):
        text, counts = variants.xml(rng, 30)
        assert len(text) == len(counts) == 31
        opened, asked = [], np.zeros(31, bool)
        for tag in re.finditer(r"<(/?)([a-h]{1,2})>", text):
            if tag[1]:
                assert opened.pop() == tag[2]
                asked[tag.start(2) : tag.end()] = True
            else:
                opened.append(tag[2])
        whole = text.rfind("<")  # the last tag may be cut
        np.testing.assert_array_equal(counts[:whole], asked[:whole])
        assert len(opened) <= 3


def test_canons_have_a_voice_that_follows():
    roll = variants.canon(np.random.default_rng(0), 20)
    melody = []
    for now in range(20):
        sounding = np.flatnonzero(roll[now]).tolist()
        if now >= 4:
            follower = melody[now - 4] - 12
            assert follower in sounding
            sounding = [key for key in sounding if key != follower] or [follower]
        melody += sounding
    assert len(melody) == 20, "one voice more, at each step"
    white = {0, 2, 4, 5, 7, 9, 11}
    assert {(key + variants.music.LOWEST) % 12 for key in np.flatnonzero(roll.any(0))} <= white


def test_pieces_of_a_file_are_cut_and_short_ones_padded(tmp_path):
    pieces = {
        "train": [[[60], [62], [64]], [[40 + n] for n in range(30)]],
        "valid": [[[60], [62]]],
        "test": [[[60]] * 9],
    }
    (tmp_path / "rolls.json").write_text(json.dumps(pieces))
    settings = variants.Settings(length=10, batch=4, steps=5)
    task = variants.draw(settings, "music", "train", variants.music.load(tmp_path / "rolls.json"))
    assert task.inputs.shape == task.targets.shape == (5, 10, 4, 88)
    np.testing.assert_array_equal(task.inputs[:, 1:], task.targets[:, :-1])
    assert set(task.mask.sum(1).ravel()) == {2, 10}, "the short piece has two steps to predict"
    assert (task.targets.sum(-1) == task.mask).all()


def test_p_is_that_of_counting_and_what_diverged_is_worst():
    settings = variants.Settings(trials=5, best=4)
    vanilla, worse = np.array([4.0, 3, 2, 1, 9]), np.array([np.nan, 14, 12, 11, 13])
    found = {"V": (vanilla, vanilla + 0.5), "NFG": (worse, worse), "GRU": (vanilla, vanilla + 0.5)}
    results = variants.compared(settings, found)
    np.testing.assert_array_equal(results["V"].errors, [1.5, 2.5, 3.5, 4.5])
    np.testing.assert_array_equal(results["NFG"].errors, [11, 12, 13, 14])
    # Of the 70 ways to divide eight into four and four, two are as extreme; two cells are compared with V.
    assert results["NFG"].p == pytest.approx(2 * 2 / 70)
    assert (results["V"].p, results["GRU"].p) == (1, 1)
    diverged = variants.compared(settings, {"V": found["V"], "NFG": (np.full(5, np.nan),) * 2})
    assert diverged["NFG"].p == pytest.approx(stats.mannwhitneyu([5, 5, 5, 5], [1, 2, 3, 4]).pvalue)


@pytest.mark.exhaustive
def test_trials_side_by_side_are_single_trainings(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(variants, "UNSEEN", 8)
    sizes = ["--hidden", "4", "--batch", "8", "--length", "10", "--steps", "3", "--trials", "3", "--best", "2"]
    arguments = [*sizes, "--tasks", "arithmetic", "--cells", "V", "--rates", "1e-2", "1e-1"]
    seen = {}
    search = variants.search

    def spy(cell, outputs, keys, rates, *parts):
        seen[cell] = (outputs, keys, rates, parts, search(cell, outputs, keys, rates, *parts))
        return seen[cell][-1]

    monkeypatch.setattr(variants, "search", spy)
    results = variants.main([*arguments, "--directory", str(tmp_path)])
    assert list(results["arithmetic"]) == ["V"]
    assert len(results["arithmetic"]["V"].errors) == 2
    assert "V " in capsys.readouterr().out
    assert_is_picture(tmp_path / "variants.png")

    cell, (outputs, keys, rates, (train, _, test), (_, errors)) = next(iter(seen.items()))
    assert ((rates > 1e-2) & (rates < 1e-1)).all()
    networks = jax.vmap(lambda key: variants.Network(cell, outputs, nnx.Rngs(key)))(keys)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(float(rates[1])))

    @jax.jit
    def alone(network, train, test):
        state = optimizer.init(network)
        for n in range(3):
            batch = variants.Task(*(leaf[n] for leaf in train))
            updates, state = optimizer.update(jax.grad(variants.error)(network, batch), state)
            network = optax.apply_updates(network, updates)
        return variants.error(network, variants.Task(*(leaf[0] for leaf in test)))

    network = jax.tree.map(lambda leaf: leaf[1], networks)
    np.testing.assert_allclose(errors[1], alone(network, train, test), rtol=1e-4)


def test_a_directory_that_cannot_be_made_is_an_error_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "search", lambda *_: pytest.fail("it trains"))
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        variants.main(["--quick", "--directory", str(tmp_path / "file")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rolls", "nowhere.mat"], "rolls: got nowhere.mat, which cannot be read"),
        (["--cells", "LSTM"], "cells: got 'LSTM', needs some of V NIG"),
        (["--rates", "1e-1", "1e-2"], r"rates: got \(0\.1, 0\.01\), needs two finite numbers above 0"),
        (["--best", "11"], "best: got 11, needs 2 to 10"),
        (["--length", "9"], "length: got 9, needs 10 to 1048576"),
        (["--hidden", "0"], "hidden: got 0, needs 1 to 16384"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        variants.main([*arguments, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
