"""The benchmarks' figures are printed, stored and compared as they were measured; the programs compared are alike."""

import io
import math
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import matplotlib as mpl
import numpy as np
import pytest
from jax.experimental import rnn
from rich.console import Console

mpl.use("agg")

from matplotlib import pyplot as plt

import jaxrnn
from bench import all as everything
from bench import compiled, devices, kernels, plot, rivals, rl, unroll
from bench.records import SHARE, Record, collect, compare, load, show, store

BENCH = Path(__file__).parent.parent / "bench"
README = (BENCH / "README.md").read_text()
TITLE = "lstm, training step"


def made(ours: float, theirs: float, memory: float = 0.5) -> list[Record]:
    """Two sizes of a made-up run."""
    return [
        Record(TITLE, "B, T, I, H", "2,8,3,4", "jaxrnn", ours, "ms"),
        Record(TITLE, "B, T, I, H", "2,8,3,4", "torch", theirs, "ms", ours=False),
        Record(TITLE, "B, T, I, H", "2,8,3,4", unroll.LIMIT, theirs / 4, "ms", ours=False),
        Record(TITLE, "B, T, I, H", "256,8,3,4", "jaxrnn", 2 * ours, "ms"),
        Record(TITLE, "B, T, I, H", "256,8,3,4", "torch", 2 * theirs, "ms", ours=False),
        Record(TITLE, "B, T, I, H", "256,8,3,4", unroll.LIMIT, 1.5 * theirs / 4, "ms", ours=False),
        Record("memory", "B, T, I, H", "2,8,3,4", "lengths", memory, SHARE),
        Record("cells", "cell", "`LSTM(heads=n, rank=L)`", "parameters", 1234),
        Record("cells", "cell", "`LSTM(heads=n, rank=L)`", "compilation", math.nan, "s"),
    ]


def printed(records: list[Record]) -> list[str]:
    text = io.StringIO()
    show(records, Console(file=text, width=200))
    return [" ".join(line.split()) for line in text.getvalue().splitlines() if line.strip()]


def test_tables_are_markdown_with_a_dash_for_what_was_not_measured():
    lines = printed(made(3.0, 40.0))
    assert lines[0] == f"{TITLE}, ms"
    assert lines[1] == "| B, T, I, H | jaxrnn | torch | limit |"
    assert lines[3] == "| 2, 8, 3, 4 | 3.00 | 40.0 | 10.0 |"
    assert lines[-3] == "| cell | parameters | compilation, s |"
    assert lines[-1] == "| `LSTM(heads=n, rank=L)` | 1234 | – |"


def test_what_was_measured_is_kept_when_the_rest_is_stopped():
    def records():
        yield made(3.0, 4.0)[0]
        raise KeyboardInterrupt

    assert collect(records()) == (made(3.0, 4.0)[:1], False)
    assert collect(made(3.0, 4.0)[:2]) == (made(3.0, 4.0)[:2], True)


def test_files_keep_every_figure(tmp_path):
    records = made(3.0, 4.0)[:-1]
    store(tmp_path / "folder" / "results.json", records)
    assert load(tmp_path / "folder" / "results.json") == records
    with pytest.raises(ValueError, match="records: got two of lstm, training step, 2,8,3,4, jaxrnn, needs one"):
        store(tmp_path / "twice.json", records + records[:1])


@pytest.mark.parametrize(
    ("later", "pace", "slower"),
    [
        (made(3.0, 4.0), 1.0, []),
        (made(6.0, 8.0), 2.0, []),  # the machine is half as fast
        (made(3.0, 2.0), 0.5, [2.0, 2.0]),  # it is twice as fast, and ours is not
        (made(3.9, 4.0), 1.0, [1.3, 1.3]),
        (made(1.0, 4.0, memory=0.52), 1.0, []),
        (made(3.0, 8.0, memory=0.75), 2.0, [1.5]),
    ],
)
def test_slower_is_what_the_machine_does_not_explain(later, pace, slower):
    found, ours = compare(made(3.0, 4.0), later)
    assert found == pytest.approx(pace)
    assert [s.ratio for s in ours] == pytest.approx(slower)


def test_all_writes_its_files_and_a_slowdown_fails(tmp_path, monkeypatch, capsys):
    def run(ours, **settings):
        part = everything.Part(lambda _: iter(made(ours, 4.0)), None, None, 1)
        monkeypatch.setitem(everything.PARTS, "unroll", part)
        everything.main(everything.Settings(only=("unroll",), quick=True, **settings))

    run(3.0, directory=tmp_path / "earlier")
    results = tmp_path / "earlier" / "results.json"
    assert {path.name for path in results.parent.iterdir()} == {"results.json", "tables.md", "speed.png"}
    assert "| 256, 8, 3, 4 |" in (results.parent / "tables.md").read_text()
    run(3.1, directory=tmp_path / "same", against=results)
    assert "nothing of ours is slower" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        run(4.5, directory=tmp_path / "later", against=results)
    assert "50%" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="only: got nothing, needs some of unroll"):
        everything.main(everything.Settings(only=("nothing",)))


def test_all_has_every_benchmark_and_names_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    programs = {path.stem for path in BENCH.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert programs == set(everything.PARTS) | {"all", "plot"}
    monkeypatch.setattr(everything, "found_compilers", list)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    everything.main(everything.Settings(only=("compiled", "devices"), directory=tmp_path))
    said = capsys.readouterr().out
    assert "bench.compiled is left out: needs libtpu, or JAX's extra cuda12" in said
    assert "bench.devices is left out: needs a TPU or a GPU" in said


def test_the_summary_is_a_geometric_mean_by_rows():
    found = [r for r in made(1.0, 4.0) if r.table == TITLE]
    found[4] = found[4]._replace(value=18.0)  # nine times ours
    summary = {(r.table, r.row, r.column): r.value for r in unroll.summary(found)}
    few, many = (f"others / jaxrnn, geometric mean, {rows}" for rows in ("fewer than 128 rows", "128 rows or more"))
    assert summary[few, "lstm, torch", "training step"] == pytest.approx(4.0)
    assert summary[many, "lstm, torch", "training step, least"] == pytest.approx(9.0)


def test_the_plot_shows_every_library_and_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "close", lambda figure: None)
    plot.draw(made(3.0, 4.0), tmp_path / "speed.png")
    (ax,) = plt.gcf().axes
    assert [line.get_label() for line in ax.lines] == ["jaxrnn", "torch", "the products alone, at the machine's rate"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1 / 3, 1.5 / 6])
    with pytest.raises(ValueError, match="records: got none of bench"):
        plot.draw(made(3.0, 4.0)[-1:], tmp_path / "none.png")


@pytest.mark.parametrize("task", ["training step", "forward"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_tables_are_those_of_the_results(cell, task):
    """In `bench/README.md`, training before forward, the LSTM before the GRU."""
    records = [r for r in load(BENCH / "results.json") if r.table == f"{cell}, {task}" and r.column != unroll.LIMIT]
    found = re.findall(r"^\| B, T, I, H \| (jaxrnn .*)\n\|[-|]*\n((?:^\|.*\n)+)", README, flags=re.MULTILINE)
    header, body = found[2 * (task == "forward") + (cell == "gru")]
    rows = [line.strip("| ").split(" | ") for line in body.splitlines()]
    columns = header.strip("| ").split(" | ")
    measured = {(r.row, r.column): r.value for r in records}
    assert {
        (row.replace(" ", ""), c): float(v) for row, *values in rows for c, v in zip(columns, values, strict=True)
    } == measured


def test_the_ratios_are_those_of_the_results():
    lines = printed(list(unroll.summary([r for r in load(BENCH / "results.json") if r.column != unroll.LIMIT])))
    ratios = [line for line in lines if re.match(r"\| (lstm|gru), ", line)]
    assert len(ratios) == 32  # of two cells: seven libraries and the fastest, at few rows and at many
    assert [line for line in README.splitlines() if line in ratios] == ratios


def test_commands_of_the_page_are_there():
    commands = set(re.findall(r"python -m bench\.(\w+)", README))
    assert commands >= set(everything.PARTS) | {"all", "plot"}
    assert [name for name in commands if not (BENCH / f"{name}.py").exists()] == []


# Devices.


def test_kernels_are_those_of_innermost_loops_and_of_what_they_call():
    text = """HloModule made_up

%fused (p: f32[2]) -> f32[2] {
  ROOT %sum = f32[2] add(%p, %p), metadata={op_name="a fusion(of two)"}
}

%called (p: f32[2]) -> f32[2] {
  %a = f32[2] fusion(%p), kind=kLoop, calls=%fused
  ROOT %b = f32[2] fusion(%a), kind=kLoop, calls=%fused
}

%inner.1 (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %both = f32[2] call(%x), to_apply=%called
  %product = f32[2] custom-call(%both), custom_call_target="__cublas$gemm"
  ROOT %out = (s32[], f32[2]) tuple(%i, %product)
}

%outer (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %copy = f32[2] copy(%x)
  ROOT %loop = (s32[], f32[2]) while(%p), condition=%less, body=%inner.1
}

%last (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  ROOT %again = (s32[], f32[2]) fusion(%p), kind=kLoop, calls=%fused
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %run = (f32[2], f32[2]) custom-call(%p), custom_call_target="tpu_custom_call"
  %one = (s32[], f32[2]) while(%p), condition=%less, body=%outer
  ROOT %two = (s32[], f32[2]) while(%one), condition=%less, body=%last
}
"""
    memory = SimpleNamespace(temp_size_in_bytes=12)
    program = SimpleNamespace(as_text=lambda: text, memory_analysis=lambda: memory)
    found = kernels.launches(program)
    assert found == (1, (("fusion", "fusion", "custom-call", "tuple"), ("fusion",)), 12)
    assert found.kernels == 4


@pytest.mark.usefixtures("without_kernels")
def test_devices_measures_each_program_of_each_library():
    names, sizes = ("jaxrnn", rivals.PLAIN), ("2,3,4,5",)
    settings = devices.Settings(sizes=sizes, cells=("elman",), rivals=(rivals.PLAIN, "cudnn"), product=64, repeats=1)
    values = {record.place: record.value for record in devices.records(settings)}
    tables = ["elman, forward at 2,3,4,5", "elman, training step at 2,3,4,5"]
    columns = ["time", "of the product rate", "kernels a step", "fused runs", "temporary memory"]
    assert list(values) == [(table, name, column) for table in tables for name in names for column in columns]
    # Time by share is the work; backward has twice as much.
    work = [
        values[table, name, "time"] * values[table, name, "of the product rate"] for table in tables for name in names
    ]
    assert work == pytest.approx([work[0], work[0], 3 * work[0], 3 * work[0]])
    for table in tables:
        assert values[table, rivals.PLAIN, "kernels a step"] > values[table, "jaxrnn", "kernels a step"] > 0
        assert values[table, rivals.PLAIN, "fused runs"] == 0


@pytest.mark.usefixtures("without_kernels")
def test_compiled_has_a_table_a_kind_beside_rivals_and_two_of_cells(monkeypatch):
    monkeypatch.setitem(compiled.DEVICES, "tpu", ("CPU", lambda: jax.devices()[:1], "cpu"))
    settings = compiled.Settings(cells=("elman", "IndRNN"), size="2,3,16,16", rivals=(rivals.PLAIN,))
    values = {record.place: record.value for record in compiled.records(settings)}
    rows = {
        ("elman, training step", "jaxrnn"): 2,
        ("elman, training step", rivals.PLAIN): 2,
        ("cells, forward", "`IndRNN`"): 1,
        ("cells, training step", "`IndRNN`"): 2,
    }
    for (title, row), loops in rows.items():
        place = f"{title} at 2,3,16,16, compiled for CPU", row
        assert (values[(*place, "loops")], values[(*place, "fused runs")]) == (loops, 0)
        assert values[(*place, "kernels in them, a step")] > 0
    with pytest.raises(SystemExit, match="cells: got IndRN, needs all, or some of lstm, gru, elman, Elman, LSTM"):
        next(compiled.records(compiled.Settings(cells=("IndRN",))))


def test_cudnn_is_asked_for_what_the_cell_computes(monkeypatch):
    """By the reference that JAX has for its call, and the shapes by the call itself."""
    size = rivals.Size(2, 5, 3, 4)

    def reference(x, h_0, c_0, weights, seq_lengths, *sizes):
        input_size, hidden_size, num_layers, _, bidirectional = sizes
        parts = rnn.unpack_lstm_weights(weights, input_size, hidden_size, num_layers, bidirectional)
        return rnn.lstm_ref(x, h_0, c_0, *parts, seq_lengths, *sizes)

    reserve = SimpleNamespace(compute_rnn_workspace_reserve_space_sizes=lambda *sizes: (0, 8))
    monkeypatch.setattr(rnn, "gpu_rnn", reserve)
    train = rivals.cudnn("lstm", size).train
    loss, (dweights, dxs) = jax.eval_shape(train.func, *train.args)
    assert (loss.shape, dweights.shape, dxs.shape) == ((), train.args[0].shape, (2, 5, 3))
    monkeypatch.setattr(rnn, "lstm", reference)
    theirs, ours = rivals.cudnn("lstm", size).train(), rivals.own(jaxrnn.unroll, "lstm", size).train()
    np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-5)
    np.testing.assert_allclose(theirs[1][1].swapaxes(0, 1), ours[1][1], rtol=1e-4, atol=1e-7)


def test_cudnn_is_a_rival_of_the_lstm_on_a_gpu(monkeypatch):
    assert not rivals.available("cudnn", "lstm")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rivals.available("cudnn", "lstm")
    assert not rivals.available("cudnn", "gru")


def test_episodes_cut_and_paste():
    resets = np.zeros((5, 2), bool)
    resets[2, 0] = resets[0, 1] = resets[4, 1] = True
    gather, scatter, rows = rl.episodes(resets)
    assert gather.shape == (4, 4)  # lengths 2, 3, 4, 1
    np.testing.assert_array_equal(rows, [0, -1, -1, -1])
    values = np.arange(10)  # of [T, B]
    np.testing.assert_array_equal(values[gather].reshape(-1)[scatter], values)
    np.testing.assert_array_equal(values[gather][:3, 1], [4, 6, 8])


@pytest.mark.exhaustive
def test_updates_of_ppo_are_the_same_in_every_library():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        programs = rl.programs(rl.start(3, 5, 4, ends=0.3))
        losses = {name: np.array([float(program()) for _ in range(6)]) for name, program in programs.items()}
    expected = losses["flax linen"]
    for found in losses.values():
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(found[0] - found[-1], expected[0] - expected[-1], rtol=1e-4)
