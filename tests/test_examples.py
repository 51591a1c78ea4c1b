"""The examples `sine`, `sorting` and `demo`, run small."""

import datetime
import io
import itertools
import json
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
import tyro
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console

from examples import __main__ as listing
from examples import char_lm, common, demo, memory, seq2seq, sine, sorting
from jaxrnn.training import NonFiniteError

SINE = ["--waves", "6", "--length", "40", "--future", "20", "--hidden", "4", "--steps", "6", "--eval-every", "3"]
SORTING = ["--length", "2", "--high", "3", "--hidden", "16", "--steps", "150", "--batch", "64", "--learning-rate=2e-2"]


def assert_is_picture(path: Path) -> None:
    """A PNG that is large enough to look at and shows more than paper."""
    pixels = matplotlib.image.imread(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(pixels.shape[:2]) > 400
    # Four bytes a pixel are one number, and numbers sort in a fraction of the time of rows.
    assert len(np.unique((pixels * 255).astype(np.uint8).view(np.uint32))) > 50


@pytest.mark.exhaustive
def test_sine_trains_continues_and_draws(tmp_path, capsys):
    directory = tmp_path / "new"
    errors = sine.main([*SINE, "--directory", str(directory)])
    assert sorted(errors) == ["free-run", "test", "train"]
    assert errors["train"] < 0.5, "no better than the mean of the waves"
    assert np.isfinite(list(errors.values())).all()
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(line["evaluations"] >= line["step"] for line in lines)
    kept = min(lines, key=lambda line: line["eval_train_run"])
    assert [errors["train"], errors["test"], errors["free-run"]] == [
        kept[f"eval_{name}"] for name in ("train", "test", "test_run")
    ]
    assert f"kept: step {kept['step']}, which continues the training waves best" in capsys.readouterr().out
    assert_is_picture(directory / "predictions.png")
    assert_is_picture(directory / "errors.png")
    assert jnp.ones(1).dtype == jnp.float32, "float64 is for the example alone"


@pytest.mark.exhaustive
def test_sine_learns_by_adam_and_goes_on_where_it_was_stopped(tmp_path):
    arguments = [*SINE, "--optimizer", "adam", "--learning-rate", "0.1", "--directory"]
    errors = sine.main([*arguments, str(tmp_path / "whole")])
    assert errors["train"] < 0.5
    fit = sine.training.fit

    def stopped(state, train_step, batches, **options):
        def until(start):
            for n in batches(start):
                if n == 3:
                    signal.raise_signal(signal.SIGINT)
                yield n

        return fit(state, train_step, until, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sine.training, "fit", stopped)
        with pytest.raises(KeyboardInterrupt, match="after step 4 of 6"):
            sine.main([*arguments, str(tmp_path / "parts")])
    assert sine.main(["--resume", "--directory", str(tmp_path / "parts")]) == errors


def test_sine_has_the_waves_of_pytorchs_example():
    period, points, waves = 20, 1000, 100
    x = np.empty((waves, points), "int64")
    x[:] = np.array(range(points)) + np.random.RandomState(2).randint(-4 * period, 4 * period, waves).reshape(waves, 1)
    np.testing.assert_array_equal(sine.make_waves(waves, points)[..., 0].T, np.sin(x / 1.0 / period))


@pytest.mark.exhaustive
def test_sine_continues_with_its_own_predictions(x64):
    model, xs = sine.Predictor(3), jnp.asarray(sine.make_waves(2, 5))
    params = model.init(jax.random.key(0), xs)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float64)}
    assert all(np.abs(leaf).max() <= 3**-0.5 and leaf.any() for leaf in jax.tree.leaves(params))
    predict = jax.jit(lambda xs: model.apply({"params": params}, xs))
    carry, ys = predict(xs)
    continued = sine.free_run(model, params, carry, ys[-1], 4)
    assert continued.shape == (4, 2, 1)
    fed = jnp.concatenate([xs, ys[-1:], continued[:-1]])
    np.testing.assert_allclose(continued, predict(fed)[1][-4:], rtol=1e-12)


@pytest.mark.exhaustive
def test_sorting_learns_shows_draws_and_resumes(tmp_path, capsys):
    arguments = [*SORTING, "--directory", str(tmp_path)]
    results = sorting.main(arguments)
    out = capsys.readouterr().out
    assert results["positions"] > 0.95
    assert results["sequences"] <= results["positions"]
    assert f"{results['sequences']:.2%} of the whole sequences" in out
    assert out.count("original") == out.count("sorted") == out.count("predicted") == 4
    assert_is_picture(tmp_path / "curve.png")
    assert sorting.main([*arguments, "--resume"]) == results
    assert sorting.main(["--directory", str(tmp_path), "--resume"]) == results, "the settings stay with the run"
    for option, message in (
        (["--seed", "1"], "seed: got 1, needs 0 as in the run in"),
        (["--batch", "65"], "batch: got 65, needs 64 as in the run in"),
        (["--quick"], "quick: got True, needs False as in the run in"),
    ):
        with pytest.raises(ValueError, match=message):
            sorting.main(["--directory", str(tmp_path), "--resume", *option])
    with pytest.raises(ValueError, match="which holds a run, needs --resume"):
        sorting.main([*arguments, "--seed", "1"])
    assert sorting.main([*arguments, "--resume"]) == results, "nothing was changed"
    (tmp_path / "settings.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"directory: got .*settings\.json, which is of something else, needs a run"):
        sorting.main([*arguments, "--resume"])


def test_sorting_batches_depend_on_their_number_alone():
    key, settings = jax.random.key(0), sorting.Settings(length=5, batch=2, low=1, high=3)
    make = sorting.make_batches(key, settings)
    first = list(itertools.islice(make(0), 4))
    assert first[3].shape == (5, 2)
    np.testing.assert_array_equal(first[3], next(make(3)))
    assert not np.array_equal(first[2], first[3])
    assert np.unique(first).tolist() == [0, 1, 2], "counted from low"


def test_sorting_begins_with_an_encoder_that_adds_up():
    settings = sorting.Settings(length=5, high=3, hidden=4)
    sorter, numbers = sorting.Sorter(settings, nnx.Rngs(0)), sorting.draw(jax.random.key(1), 2, settings)
    w_x, b = np.asarray(sorter.encoder.cell.params.w_x, float), np.asarray(sorter.encoder.cell.params.b, float)
    i, f, g, _ = np.split(np.asarray(sorter.embed.embedding, float)[numbers] @ w_x + b, 4, -1)
    c = np.zeros((2, 4))
    for t in range(5):
        c = c / (1 + np.exp(-f[t])) + np.tanh(g[t]) / (1 + np.exp(-i[t]))
    np.testing.assert_allclose(sorter.encoder(sorter.embed(numbers))[0].c, c, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(b.reshape(4, 4), [[2] * 4, [5] * 4, [0] * 4, [2] * 4])


def test_sorting_draws_runs_beside_each_other(tmp_path, capsys):
    for cell in ("LSTM", "GRU"):
        (tmp_path / cell).mkdir()
        (tmp_path / cell / "settings.json").write_text(json.dumps({"cell": cell, "hidden": 8}))
        lines = [{"step": 50, "loss": 1.0}, {"step": 60, "seconds": 3.5, "eval_positions": 0.75}]
        (tmp_path / cell / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    compared = ["--compare", str(tmp_path / "LSTM"), str(tmp_path / "GRU"), "--directory", str(tmp_path / "new")]
    assert sorting.main(compared) == {}
    assert_is_picture(tmp_path / "new" / "compare.png")
    with pytest.raises(FileNotFoundError, match="which has no run, needs one in which this was trained"):
        sorting.main(["--compare", str(tmp_path / "none")])
    (tmp_path / "GRU" / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"compare: got .*GRU, where nothing was evaluated yet"):
        sorting.main(compared)


def test_sorting_marks_what_is_wrong():
    settings = sorting.Settings(length=5, low=7, high=12, hidden=4)
    sorter, numbers = sorting.Sorter(settings, nnx.Rngs(0)), sorting.draw(jax.random.key(1), 3, settings)
    text = io.StringIO()
    Console(file=text, width=200).print(sorting.table(sorter, numbers, settings.low))
    rows = [line.replace("│", "").split() for line in text.getvalue().splitlines() if "│" in line]
    shown = {name: [row[1:] for row in rows if row[0] == name] for name in ("original", "sorted", "predicted")}
    assert shown["original"] == (np.asarray(numbers).T + 7).astype(str).tolist()
    assert shown["sorted"] == (np.sort(numbers, axis=0).T + 7).astype(str).tolist()
    right = sorting.accuracy(numbers)(sorter)["positions"]
    marks = [entry.endswith("*") for row in shown["predicted"] for entry in row]
    assert 0 < right < 1
    assert np.mean(marks) == pytest.approx(1 - right)
    for predicted, target in zip(shown["predicted"], shown["sorted"], strict=True):
        assert [p.endswith("*") for p in predicted] == [
            p.rstrip("*") != t for p, t in zip(predicted, target, strict=True)
        ]


@pytest.mark.parametrize(
    ("example", "arguments", "message"),
    [
        (sine, ["--length", "1"], "length: got 1, needs 4 to 1048576"),
        (sine, ["--waves", "3"], "waves: got 3, needs 4 to 1048576"),
        (sine, ["--learning-rate", "0"], "learning_rate: got 0.0, needs a finite number above 0"),
        (sine, ["--learning-rate", "inf"], "learning_rate: got inf, needs a finite number above 0"),
        (sine, ["--hidden", "99999999999"], "hidden: got 99999999999, needs 1 to 16384"),
        (sine, ["--quick", "--hidden", "0"], "hidden: got 0, needs 1 to 16384"),
        (sine, ["--quick", "--steps", "0"], "steps: got 0, needs 1 to 2147483647"),
        (sorting, ["--length", "0"], "length: got 0, needs 1 to 1048576"),
        (sorting, ["--low", "5", "--high", "3"], "high: got 3, needs more than low = 5"),
        (sorting, ["--high", "2147483647"], "high: got 2147483647, needs more than low = 0, and less than"),
        (sorting, ["--learning-rate", "nan"], "learning_rate: got nan, needs a finite number above 0"),
        (sorting, ["--show", "-1"], "show: got -1, needs 0 to 2048"),
        (sorting, ["--batch", "1000000000000"], "batch: got 1000000000000, needs 1 to 1048576"),
        (sorting, ["--seed", "100000000000000000000"], "seed: got 100000000000000000000, needs 0 to 4294967295"),
        (sorting, ["--quick", "--hidden", "0"], "hidden: got 0, needs 1 to 16384"),
        (seq2seq, ["--hidden", "7"], "hidden: got 7, needs an even number"),
        (seq2seq, ["--task", "add", "--length", "2"], "length: got 2, needs 3 to 64"),
        (seq2seq, ["--beams", "0"], "beams: got 0, needs 1 to 1000"),
        (memory, ["--cells", "LSTM", "GRUU"], "cells: got 'GRUU', needs cells such as LSTM"),
        (memory, ["--cells", "GRU", "LSTMState"], "cells: got 'LSTMState', needs cells such as LSTM"),
        (memory, ["--cells", "MDLSTM"], "cells: got 'MDLSTM', needs cells such as LSTM"),
        (memory, ["--cells"], "cells: got none, needs one or more"),
        (memory, ["--length", "1"], "length: got 1, needs 2 to 1048576"),
        (
            memory,
            ["--learning-rates", "1e-3", "0"],
            r"learning_rates: got \(0.001, 0.0\), needs finite numbers above 0",
        ),
    ],
)
def test_bad_sizes_are_named_and_nothing_is_written(example, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        example.main([*arguments, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_quick_sets_what_is_not_given():
    def parse(*arguments):
        return common.parse(sorting.Settings, arguments, lambda settings: {"high": settings.low + 15, "hidden": 64})

    assert parse("--quick", "--hidden", "128") == sorting.Settings(quick=True, high=15)
    assert parse("--quick", "--low", "3") == sorting.Settings(quick=True, low=3, high=18, hidden=64)
    assert parse() == sorting.Settings()


@pytest.mark.exhaustive
def test_training_that_ends_in_nan_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"learning_rate: got 1e\+300, needs a smaller one: no error was finite"):
        sine.main([*SINE, "--optimizer", "adam", "--learning-rate", "1e300", "--directory", str(tmp_path)])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("high: got 3"), "error: high: got 3"),
        (NonFiniteError("not finite"), "error: not finite; here: a smaller learning rate and another directory"),
        (MemoryError("Unable to allocate 8 TiB"), "error: Unable to allocate 8 TiB"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore\nof it"),
            "error: RESOURCE_EXHAUSTED: Out of memory",
        ),
        (jax.errors.JaxRuntimeError(f"INTERNAL: {9 * 'Error dispatching computation: '}no memory"), "error: no memory"),
        (KeyboardInterrupt("after step 3"), "after step 3; here"),
        (KeyboardInterrupt(), "here"),
    ],
)
def test_what_goes_wrong_is_one_line(error, line):
    def main():
        raise error

    with pytest.raises(SystemExit, match=f"^{line}$"):
        common.run(main, "here")


def test_an_unknown_optimizer_is_an_error_that_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        sine.main(["--optimizer", "sgd"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "sgd" in error
    assert "lbfgs" in error


@pytest.mark.parametrize(
    ("reached", "failed"),
    [
        ({"test": 9e-4, "positions": 0.9, "this model": 3.0}, None),
        ({"test": 0.5, "positions": 0.5, "this model": 4.6}, "did not learn: sine, sorting, char_lm"),
        ({"test": float("nan"), "positions": 0.95, "this model": 2.5}, "did not learn: sine"),
    ],
)
def test_demo_runs_all_and_fails_when_one_did_not_learn(reached, failed, tmp_path, monkeypatch, capsys):
    asked = []

    def stand_in(example, picture=None):
        def main(arguments):
            settings = tyro.cli(example.Settings, args=arguments)
            asked.append((settings, example))
            if picture:
                settings.directory.mkdir(parents=True)
                (settings.directory / picture).touch()
            return reached

        return main

    monkeypatch.setattr(sine, "main", stand_in(sine, "predictions.png"))
    monkeypatch.setattr(sorting, "main", stand_in(sorting, "curve.png"))
    monkeypatch.setattr(char_lm, "main", stand_in(char_lm))
    if failed is None:
        demo.main(["--directory", str(tmp_path)])
    else:
        with pytest.raises(SystemExit) as stop:
            demo.main(["--directory", str(tmp_path)])
        assert stop.value.code == failed
    assert [example for _, example in asked] == [sine, sorting, char_lm, char_lm]
    assert all(settings.quick for settings, _ in asked)
    training, sampling = asked[2][0], asked[3][0]
    assert (training.sample, sampling.sample) == (0, 400)
    assert training.directory == sampling.directory
    out = capsys.readouterr().out
    for path in ("sine/predictions.png", "sorting/curve.png"):
        assert any(line.startswith(f"picture: {tmp_path}") and line.endswith(path) for line in out.splitlines())


SEQ2SEQ = [
    "--hidden",
    "16",
    "--embedding",
    "8",
    "--length",
    "3",
    "--batch",
    "64",
    "--steps",
    "120",
    "--learning-rate=2e-2",
]


@pytest.mark.parametrize("task", ["dates", "add", "reverse", "copy"])
def test_seq2seq_strings_are_right_and_fit_their_shapes(task):
    settings = seq2seq.Settings(task=task, length=9)
    train, unseen = (seq2seq.pairs(settings, (0, n), 500, unseen=bool(n)) for n in range(2))
    for source, target in [*train, *unseen]:
        if task == "dates":
            date = datetime.date.fromisoformat(target)
            assert str(date.year) in source
            assert seq2seq.MONTHS[date.month - 1][:3] in source
            assert str(date.day) in source.split() or seq2seq.DAYS[date.day - 1] in source or f" {date.day}," in source
        elif task == "add":
            assert sum(map(int, source.split("+"))) == int(target)
        else:
            assert target == (source if task == "copy" else source[::-1])
    side = int(task == "dates")  # all manners of writing a date are held out together
    trained = seq2seq.pairs(settings, (0, 2), 5000)
    assert not {pair[side] for pair in trained} & {pair[side] for pair in unseen}
    shortest = seq2seq.Settings(task=task, length=3 if task == "add" else 1)  # some are held out of these, too
    assert len(seq2seq.pairs(shortest, (0, 0), 9, unseen=True)) == 9
    strings = seq2seq.encode(settings, unseen)
    assert strings.sources.shape[1] == 500
    assert [seq2seq.decode(row) for row in strings.targets.T] == [target for _, target in unseen]
    assert strings.valid.sum() == sum(len(target) + 1 for _, target in unseen)


@pytest.mark.exhaustive
def test_seq2seq_decoders_begin_in_the_encoders_last_state():
    """Which has seen the first character last, and nothing beyond the lengths."""
    settings = seq2seq.Settings(coupling="state", hidden=6, embedding=3)
    model = seq2seq.Translator(settings, 4, nnx.Rngs(0))
    sources, lengths = jnp.array([[2, 3], [4, 5], [6, 0], [7, 1]]), jnp.array([4, 2])
    h = model.read(sources, lengths).h
    cell, params = model.encoder.cell.cell.cell, nnx.as_pure(model.encoder.cell.params)
    for row, size in enumerate([4, 2]):
        state = cell.initial_state()
        for token in sources[:size, row][::-1]:
            state, _ = cell(params, state, model.embed(token))
        np.testing.assert_allclose(h[row], state.h, rtol=1e-5, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("coupling", ["attention", "state"])
def test_seq2seq_learns_searches_and_draws(tmp_path, capsys, coupling):
    arguments = ["--task", "copy", "--coupling", coupling, *SEQ2SEQ, "--directory", str(tmp_path)]
    results = seq2seq.main(arguments)
    out = capsys.readouterr().out
    assert results["greedy"] > 0.1, "by chance one in a thousand"
    assert f"{results['greedy']:.1%} greedily, {results['beam']:.1%} by beam search" in out
    if coupling == "attention":
        assert_is_picture(tmp_path / "alignment.png")
    with pytest.raises(ValueError, match="seed: got 1, needs 0 as in the run in"):
        seq2seq.main(["--directory", str(tmp_path), "--resume", "--seed", "1"])


def test_memory_tasks_are_what_they_say():
    for task in ("adding", "copy", "order", "spikes"):
        settings = memory.Settings(task=task, length=9)
        xs, targets, mask = memory.draw(settings, (0, 0), 40)
        assert xs.shape[1:] == (40, memory.SIZES[task][0])
        assert targets.shape == mask.shape == xs.shape[:2]
        if task == "adding":
            assert (xs[..., 1].sum(0) == 2).all()
            assert (xs[:4, :, 1].sum(0) == 1).all()
            np.testing.assert_allclose(targets[-1], (xs[..., 0] * xs[..., 1]).sum(0), rtol=1e-6)
        elif task == "copy":
            assert len(xs) == 9 + 2 * memory.RECALLED
            np.testing.assert_array_equal(xs[: memory.RECALLED].argmax(-1), targets[-memory.RECALLED :])
            assert (xs[memory.RECALLED :, :, : memory.RECALLED] == 0).all()
            assert xs[memory.RECALLED + 8, :, -1].all(), "the cue"
            assert mask[-memory.RECALLED :].all()
            assert not mask[: -memory.RECALLED].any()
        elif task == "spikes":
            for row in range(40):
                first, second = np.flatnonzero(xs[:, row, 0])
                (third,) = np.flatnonzero(targets[:, row])
                assert (first, third, len(xs)) == (0, 2 * second, 2 * 9 + 1)
                assert 5 <= second <= 9
                assert np.flatnonzero(mask[:, row]).tolist() == list(range(second + 1, len(xs)))
            p = targets.sum() / mask.sum()
            nats = -np.log(np.where(targets[mask], p, 1 - p)).mean()
            assert memory.guess(settings) == pytest.approx(nats, rel=0.1)
        else:
            found = xs[..., 4:].sum(-1)
            assert (found.sum(0) == 2).all()
            for row in range(40):
                first, second = xs[found[:, row] > 0, row, 5]
                assert (targets[-1, row] == 2 * first + second).all()
        if task in ("adding", "order"):
            assert mask[-1].all()
            assert not mask[:-1].any()


def test_memory_cells_begin_as_their_papers_say():
    known, key = memory.recipes(memory.Settings(length=100, hidden=8)), jax.random.key(0)
    cell, initializers = known["LSTM-chrono"]
    i, f, _, _ = np.split(cell.init(key, **initializers).b, 4)
    np.testing.assert_array_equal(i, -f)
    assert (np.exp(f) < 99).all(), "forgets within the sequence"
    assert np.exp(f).max() > 10
    cell, initializers = known["IndRNN"]
    u = np.asarray(cell.init(key, **initializers).u, float)
    assert ((u**100 >= 0.49) & (u**100 <= 2.01)).all()
    cell, initializers = known["LRU"]
    radius = np.exp(-np.exp(cell.init(key, **initializers)[2].nu))
    assert ((radius > 0.9) & (radius < 0.999)).all()
    assert cell.output_size == 8


def test_memory_draws_the_rate_that_trains_best(tmp_path):
    lines = [
        {"step": 1, "train": [5, 5, 5, 9, 9, 9], "unseen": [1, 1, 1, 2, 2, 2]},
        {"step": 2, "train": [4, 4, 1, 3, 3, 9], "unseen": [1, 2, 1, 5, 6, None]},
    ]
    (tmp_path / "GRU").mkdir()
    with (tmp_path / "GRU" / "metrics.jsonl").open("w") as file:
        for line in lines:
            errors = {f"eval_{part}_{n}": v for part in ("train", "unseen") for n, v in enumerate(line[part])}
            file.write(json.dumps({"step": line["step"], "loss": 0} | errors) + "\n")
    rate, steps, errors = memory.read(memory.Settings(seeds=3, learning_rates=(0.1, 0.2), directory=tmp_path), "GRU")
    assert (rate, steps.tolist()) == (0.2, [1, 2])
    np.testing.assert_array_equal(errors, [[2, 2, 2], [5, 6, np.nan]])


@pytest.mark.exhaustive
def test_memory_trains_side_by_side_and_draws(tmp_path, capsys):
    arguments = ["--length", "4", "--hidden", "8", "--seeds", "2", "--steps", "60"]
    arguments += ["--learning-rates", "1e-6", "2e-2", "2e-7"]
    results = memory.main([*arguments, "--cells", "GRU", "--directory", str(tmp_path)])
    assert results["GRU"] < 0.1, "0.167 without memory"
    assert "GRU" in capsys.readouterr().out
    assert_is_picture(tmp_path / "curves.png")
    rates = (1e-6, 2e-2, 2e-7)
    rate, steps, errors = memory.read(memory.Settings(seeds=2, learning_rates=rates, directory=tmp_path), "GRU")
    assert (rate, steps[-1], errors.shape[1]) == (2e-2, 60, 2)
    assert errors[-1, 0] != errors[-1, 1], "of different seeds"
    with pytest.raises(ValueError, match=r"which holds a run, needs another$"):
        memory.main([*arguments, "--cells", "GRU", "--directory", str(tmp_path)])


def test_many_curves_differ_and_their_names_leave_them_room():
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(common.CURVES)
    lines = [axes.plot([0, 1], [n, 0], label=f"cell {n}")[0] for n in range(28)]
    common.style(axes)
    figure.draw_without_rendering()
    assert axes.get_position().height > 0.6
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines)


def test_all_examples_are_listed():
    folder = Path(sine.__file__).parent
    shared = {"__init__", "__main__", "common", "corpus", "environments"}
    programs = {path.stem for path in folder.glob("*.py")} - shared
    assert set(listing.MINUTES) == programs
    text = io.StringIO()
    Console(file=text, width=300).print(listing.listed())
    assert all(f"python -m examples.{name}" in text.getvalue() for name in programs)
