"""What does every cell cost: parameters, state, products in the loop, time of a step, time to compile?

    python -m bench.cells
    python -m bench.cells --cells LSTM VanillaLSTM MinGRU --repeats 1

Training is the value of `mean(ys²)` and its gradients with respect to all parameters and the inputs. Cells that are
linear in their state run both ways. "plain scan" is `lax.scan` over the same cell; above 1 jaxrnn is faster. A cell
over a plane has its I inputs and H units at 16 places together.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import tyro

import jaxrnn
from bench.loops import products
from bench.records import Output, Record, progress, report
from bench.rivals import PLAIN, RUNS, SIZE, Size, jax_programs
from bench.timing import geometric_mean, interleaved


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Measure all cells at one size."""

    cells: tuple[str, ...] = ()
    """Which, by their names in the table; none: all."""
    size: str = "32,128,64,128"
    """B,T,I,H: batch, time, inputs, hidden; I and H multiples of 16."""
    repeats: int = 7
    """Turns of each program; the median counts."""


def cells(inputs: int, hidden: int) -> dict[str, jaxrnn.Cell]:
    """Returns one cell for each row of the table in `docs/cells.md`, by its name there."""
    i, h = inputs, hidden
    plane, row, features = (4, 4, i // 16), (16, i // 16), h // 16
    return {
        "Elman": jaxrnn.Elman(i, h),
        "LSTM": jaxrnn.LSTM(i, h),
        "Projected(LSTM, projection_size=R)": jaxrnn.Projected(jaxrnn.LSTM(i, h), h // 2),
        "Projected(LSTM, nonrecurrent_size=Q)": jaxrnn.Projected(jaxrnn.LSTM(i, h), nonrecurrent_size=h // 4),
        "LSTM(heads=n)": jaxrnn.LSTM(i, h, heads=4),
        "VanillaLSTM": jaxrnn.VanillaLSTM(i, h),
        'VanillaLSTM(peephole="full")': jaxrnn.VanillaLSTM(i, h, peephole="full"),
        'VanillaLSTM(**GREFF["CIFG"])': jaxrnn.VanillaLSTM(i, h, **jaxrnn.cells.GREFF["CIFG"]),
        "VanillaLSTM(gate_recurrence=True)": jaxrnn.VanillaLSTM(i, h, gate_recurrence=True),
        "MUT(variant=1)": jaxrnn.MUT(h, h, variant=1),
        "MUT(variant=2)": jaxrnn.MUT(h, h, variant=2),
        "MUT(variant=3)": jaxrnn.MUT(i, h, variant=3),
        "GRU": jaxrnn.GRU(i, h),
        'GRU(reset="before")': jaxrnn.GRU(i, h, reset="before"),
        "LayerNormLSTM": jaxrnn.LayerNormLSTM(i, h),
        "LayerNormGRU": jaxrnn.LayerNormGRU(i, h),
        "BatchNormLSTM(steps=S)": jaxrnn.BatchNormLSTM(i, h, steps=8),
        "CoRNN": jaxrnn.CoRNN(i, h),
        "LEM": jaxrnn.LEM(i, h),
        "Highway(depth=L)": jaxrnn.Highway(i, h, depth=3),
        "Highway(depth=L, coupled=False)": jaxrnn.Highway(i, h, depth=3, coupled=False),
        "Clockwork(periods=…)": jaxrnn.Clockwork(i, h, periods=(1, 2, 4, 8)),
        "PhasedLSTM": jaxrnn.PhasedLSTM(i, h),
        "OrderedLSTM(chunk=k)": jaxrnn.OrderedLSTM(i, h, chunk=4),
        "HyperLSTM(hyper_size=Ĥ, embedding_size=E)": jaxrnn.HyperLSTM(i, h, hyper_size=h // 4, embedding_size=4),
        "LMU(order=d, theta=θ)": jaxrnn.LMU(i, h, order=h // 2, theta=128.0),
        "Orthogonal(ModReLU)": jaxrnn.networks.Orthogonal(jaxrnn.ModReLU(i, h)),
        "Antisymmetric(Euler)": jaxrnn.networks.Antisymmetric(jaxrnn.Euler(i, h)),
        "MGU": jaxrnn.MGU(i, h),
        'MGU(reset="after")': jaxrnn.MGU(i, h, reset="after"),
        "UGRNN": jaxrnn.UGRNN(i, h),
        "Multiplicative(Elman)": jaxrnn.Multiplicative(jaxrnn.Elman(i, h)),
        "Multiplicative(LSTM)": jaxrnn.Multiplicative(jaxrnn.LSTM(i, h)),
        "NestedLSTM(depth=n)": jaxrnn.NestedLSTM(i, h, depth=3),
        "IndRNN": jaxrnn.IndRNN(i, h),
        "SCRN(context_size=S)": jaxrnn.SCRN(i, h, context_size=h // 4),
        "SCRN(context_size=S, adaptive=True)": jaxrnn.SCRN(i, h, context_size=h // 4, adaptive=True),
        "MuFuRu(operations=…)": jaxrnn.MuFuRu(i, h),
        "MinGRU": jaxrnn.MinGRU(i, h),
        "MinLSTM": jaxrnn.MinLSTM(i, h),
        "QRNN": jaxrnn.QRNN(i, h),
        'QRNN(pooling="ifo")': jaxrnn.QRNN(i, h, pooling="ifo"),
        "LRU": jaxrnn.LRU(i, h),
        "S5": jaxrnn.S5(i, h),
        "RGLRU(heads=n)": jaxrnn.RGLRU(h, heads=4),
        "SRU": jaxrnn.SRU(i, h),
        "ConvLSTM": jaxrnn.ConvLSTM(plane, features, kernel_size=3),
        "ConvLSTM(peephole=True)": jaxrnn.ConvLSTM(plane, features, kernel_size=3, peephole=True),
        "ConvGRU": jaxrnn.ConvGRU(plane, features, kernel_size=3),
        "SLSTM(heads=n)": jaxrnn.SLSTM(i, h, heads=4),
        "MLSTM(heads=n)": jaxrnn.MLSTM(i, h, heads=4),
        "GatedLinearAttention(heads=n, rank=L)": jaxrnn.GatedLinearAttention(i, h, heads=4, rank=16),
        "DeltaNet(heads=n)": jaxrnn.DeltaNet(i, h, heads=4),
        "MDRNN": jaxrnn.MDRNN(row, features),
        "MDLSTM": jaxrnn.MDLSTM(row, features),
        "MDLSTM(peephole=True, stable=True)": jaxrnn.MDLSTM(row, features, peephole=True, stable=True),
    }


def ways(name: str, cell: jaxrnn.Cell) -> dict[str, jaxrnn.Cell]:
    """The cell, and beside it the same with an associative scan where it is linear."""
    if not isinstance(cell, jaxrnn.LinearCell):
        return {name: cell}
    return {name: cell, f"{name}, associative": dataclasses.replace(cell, scan="associative")}


def size_of(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def parameters(cell: jaxrnn.Cell) -> int:
    return size_of(jax.eval_shape(cell.init, jax.random.key(0)))


def products_a_step(cell: jaxrnn.Cell, steps: int = 5) -> int:
    """Products in the loop over time; what a loop before it has, for parameters made of others, is not counted."""
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.tree.map(lambda s: jax.ShapeDtypeStruct((steps, 2, *s.shape), s.dtype), cell.input_spec)
    counts = products(functools.partial(jaxrnn.unroll, cell, chunk=steps, path="scan"), params, xs)
    return counts[-1] if counts else 0


def programs(cell: jaxrnn.Cell, batch: int, time: int) -> dict[tuple[str, str], Callable[[], object]]:
    """The programs of a cell, `(what it does, by what)`."""
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (time, batch, *cell.input_spec.shape))
    made = {}
    for name in ("jaxrnn", PLAIN):
        both = jax_programs(lambda params, xs, run=RUNS[name]: run(cell, params, xs)[1], params, xs)
        made["forward", name], made["training", name] = both.forward, both.train
    return made


def records(settings: Settings) -> Iterator[Record]:
    size = Size.read(settings.size)
    made = cells(size.inputs, size.hidden)
    if unknown := set(settings.cells) - set(made):
        raise SystemExit(f"cells: got {', '.join(unknown)}, needs some of {', '.join(made)}")
    ratios: dict[str, list[float]] = {}
    for picked in progress(settings.cells or tuple(made), "bench.cells"):
        for name, cell in ways(picked, made[picked]).items():
            figure = functools.partial(Record, f"{SIZE} = {settings.size}", "cell", f"`{name}`")
            yield figure("parameters", parameters(cell))
            yield figure("state", size_of(cell.initial_state()))
            yield figure("products", products_a_step(cell))
            compiling, seconds = interleaved(programs(cell, size.batch, size.time), settings.repeats)
            for task in ("forward", "training"):
                yield figure(f"{task}, a step", 1e6 * seconds[task, "jaxrnn"] / size.time, "µs")
                ratio = seconds[task, PLAIN] / seconds[task, "jaxrnn"]
                yield figure(f"{task}, {PLAIN} / jaxrnn", ratio)
                ratios.setdefault(task, []).append(ratio)
            yield figure("compilation", sum(compiling[task, "jaxrnn"] for task in ("forward", "training")), "s")
    for task, values in ratios.items():
        total = functools.partial(Record, f"{PLAIN} / jaxrnn, all cells", "task", task)
        yield total("geometric mean", geometric_mean(values))
        yield total("least", min(values))


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
