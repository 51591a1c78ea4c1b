"""The examples `classify_text`, `visual_attention` and `sequential_digits`, run small."""

import dataclasses
import gzip
from pathlib import Path

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from examples import classify_text, common, sequential_digits, visual_attention
from jaxrnn import reinforce


def assert_is_picture(path: Path) -> None:
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique((pixels * 255).astype(np.uint8).view(np.uint32))) > 50


# Text


def write_texts(folder: Path) -> list[str]:
    """Two folders of texts in different letters, and what is no text of length among them."""
    rng = np.random.default_rng(0)
    for name, letters in (("first", b"abcd"), ("second", b"cdef")):
        (folder / name).mkdir()
        for n in range(6):
            (folder / name / f"{n}.txt").write_bytes(rng.choice(np.frombuffer(letters, np.uint8), 400).tobytes())
        (folder / name / "copy.txt").write_bytes((folder / name / "0.txt").read_bytes())
        (folder / name / "binary").write_bytes(500 * b"\0")
        (folder / name / "short").write_bytes(b"ab")
    return [str(folder / "first"), str(folder / "second")]


@pytest.mark.exhaustive
def test_classify_text_learns_draws_and_stores_its_settings(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(classify_text, "UNSEEN", 8)  # as many in all as in a batch, so that kernels are compiled once
    names = write_texts(tmp_path)
    arguments = ["--classes", *names, "--window", "12", "--embedding", "4", "--hidden", "8", "--batch", "16"]
    arguments += ["--steps", "60", "--learning-rate", "5e-2", "--directory", str(tmp_path / "run")]
    results = classify_text.main(arguments)
    assert results["this model"] > 0.9
    assert results["naive Bayes"] > 0.9
    assert "right, of 16 windows of files held out" in capsys.readouterr().out
    assert_is_picture(tmp_path / "run" / "confusion.png")
    assert common.load(classify_text.Settings, tmp_path / "run").classes == tuple(names)
    with pytest.raises(ValueError, match="pool: got last, needs max as in the run in"):
        classify_text.main(["--resume", "--pool", "last", "--directory", str(tmp_path / "run")])


def test_classify_text_holds_whole_files_out(tmp_path):
    settings = classify_text.Settings(classes=tuple(write_texts(tmp_path)), window=12)
    train, held_out = classify_text.split_files(settings)
    assert (len(train), len(held_out)) == (8, 4), "each content once; nothing that is short or binary"
    texts = [{file[:, 0].tobytes() for file in files} for files in (train, held_out)]
    assert not texts[0] & texts[1]
    for file in train + held_out:
        assert set(file[:, 0].tobytes()) <= set((b"abcd", b"cdef")[file[0, 1]])
    cut = classify_text.cut_windows(held_out, 12)
    assert cut[:, 34, 0].tobytes() == held_out[1][12:24, 0].tobytes()


def test_classify_text_counts_all_classes_as_much():
    files = [np.full((n, 2), label, np.uint8) for n, label in ((30, 0), (10, 1), (40, 0), (80, 2))]
    weights = classify_text.weights_of(files, 3)
    np.testing.assert_allclose(weights * [70, 10, 80], 160 / 3, rtol=1e-6)


# Digits among clutter


def test_visual_attention_fields_have_a_digit_each():
    train, held_out = visual_attention.digits()
    assert len(train.labels) + len(held_out.labels) == 1797
    settings = visual_attention.Settings(field=11, clutter=0)
    images, labels = visual_attention.draw(settings, held_out, (0, 1), 20)
    for image, label in zip(images[..., 0], labels, strict=True):
        places = [image[top : top + 8, left : left + 8] for top in range(4) for left in range(4)]
        there = [np.array_equal(digit, place) for digit in held_out.images[..., 0] for place in places]
        assert held_out.labels[np.flatnonzero(there)[0] // len(places)] == label
        assert image.sum() == places[np.flatnonzero(there)[0] % len(places)].sum(), "and nothing else"
    cluttered = visual_attention.draw(dataclasses.replace(settings, clutter=3), held_out, (0, 1), 20).images
    assert (cluttered.sum((1, 2, 3)) > images.sum((1, 2, 3))).any()


def test_visual_attention_draws_the_pixels_it_saw():
    settings = visual_attention.Settings(field=11, size=4)
    image = jnp.arange(1.0, 122.0).reshape(1, 11, 11, 1)
    for location in ([-1.0, -1.0], [0.0, 0.3], [1.0, -0.4], [0.31, 1.0]):
        patch = reinforce.glimpse(image, jnp.array([location]), 4, 1)[0, ..., 0]
        top, left = visual_attention.corners(settings, jnp.array(location)).astype(int)
        padded = np.pad(image[0, ..., 0], 4)
        np.testing.assert_array_equal(patch, padded[top + 4 : top + 8, left + 4 : left + 8])


@pytest.mark.exhaustive
def test_visual_attention_trains_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(visual_attention, "UNSEEN", 100)
    arguments = ["--field", "8", "--clutter", "0", "--glimpses", "2", "--hidden", "16", "--batch", "32"]
    arguments += ["--patches", "1", "--steps", "80", "--learning-rate", "2e-2", "--directory", str(tmp_path)]
    results = visual_attention.main(arguments)
    assert results["accuracy"] > 0.2, "by chance one in ten"
    out = capsys.readouterr().out
    assert f"one of 360 digits held out: {results['accuracy']:.1%}" in out
    assert "by one answer, without draws" in out
    assert_is_picture(tmp_path / "glimpses.png")
    visual_attention.main([*arguments[:-1], str(tmp_path / "random"), "--policy", "random", "--steps", "2"])
    assert "without draws" not in capsys.readouterr().out


# Digits pixel by pixel


def idx_bytes(array: np.ndarray) -> bytes:
    return np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def write_digits(folder: Path) -> dict[str, np.ndarray]:
    """Images of 3 by 3 pixels, whose brightness says the class; the last two files compressed."""
    rng, arrays = np.random.default_rng(0), {}
    for images, labels, n in ((*sequential_digits.MNIST[:2], 40), (*sequential_digits.MNIST[2:], 20)):
        arrays[labels] = rng.integers(2, size=n).astype(np.uint8)
        arrays[images] = rng.integers(60, size=(n, 3, 3)).astype(np.uint8) + 150 * arrays[labels][:, None, None]
    for name, array in arrays.items():
        if name.startswith("t10k"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return arrays


@pytest.mark.exhaustive
def test_sequential_digits_reads_mnists_files_learns_and_draws(tmp_path, capsys):
    arrays = write_digits(tmp_path)
    settings = sequential_digits.Settings(images=tmp_path)
    train, test = sequential_digits.load(settings)
    np.testing.assert_array_equal(test.labels, arrays["t10k-labels-idx1-ubyte"])
    np.testing.assert_allclose(train.pixels[..., 0] * 255, arrays["train-images-idx3-ubyte"].reshape(40, 9), rtol=1e-6)
    permuted = sequential_digits.load(sequential_digits.Settings(images=tmp_path, permuted=True))[0]
    assert not np.array_equal(permuted.pixels, train.pixels)
    np.testing.assert_array_equal(np.sort(permuted.pixels, 1), np.sort(train.pixels, 1))
    arguments = ["--images", str(tmp_path), "--cells", "GRU", "--hidden", "8", "--batch", "20", "--steps", "40"]
    results = sequential_digits.main([*arguments, "--learning-rate", "5e-2", "--directory", str(tmp_path / "run")])
    assert results["GRU"] > 0.9
    assert "of 20 test images" in capsys.readouterr().out
    assert_is_picture(tmp_path / "run" / "curves.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "which does not begin as a file of the format IDX does"),
        (b"not of this format", "which does not begin as a file of the format IDX does"),
        (np.array([0x803] + 3 * [0xFFFFFFFF], ">u4").tobytes(), "which does not begin as a file of the format IDX"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], r"needs 18 values of the shape \[2, 3, 3\]"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8)) + b"\0", "of another length than it says"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8)), "whose files do not fit each other"),
        (None, "which has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz"),
    ],
)
def test_sequential_digits_names_a_damaged_file(tmp_path, content, message):
    write_digits(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"images: got .*{message}"):
        sequential_digits.load(sequential_digits.Settings(images=tmp_path))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"\x1f\x8b\x08 nonsense", lambda data: b"x"])
def test_sequential_digits_names_a_damaged_gzip_file(tmp_path, damage):
    write_digits(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"images: got .*t10k-images-idx3-ubyte\.gz, which is damaged"):
        sequential_digits.load(sequential_digits.Settings(images=tmp_path))


@pytest.mark.parametrize(
    ("example", "arguments", "message"),
    [
        (classify_text, ["--classes", "asyncio", "nowhere"], "classes: got 'nowhere', needs a package of Python's"),
        (classify_text, ["--classes", "asyncio"], "classes: got asyncio, needs two or more, all different"),
        (
            classify_text,
            ["--window", "1000000"],
            "classes: got 'asyncio', which has 0 text files of a window's 1000000",
        ),
        (classify_text, ["--dropout", "1"], r"dropout: got 1.0, needs a rate in \[0, 1\)"),
        (visual_attention, ["--field", "7"], "field: got 7, needs 8 to 1024"),
        (visual_attention, ["--size", "17"], "size: got 17, needs 1 to 16"),
        (visual_attention, ["--std", "0"], "std: got 0.0, needs a finite number above 0"),
        (sequential_digits, ["--cells", "GRUU"], "cells: got 'GRUU', needs cells such as LSTM"),
        (sequential_digits, ["--images", "nowhere"], "images: got nowhere, which has no train-images-idx3-ubyte"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(example, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        example.main([*arguments, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
