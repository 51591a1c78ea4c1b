"""How fast is one recurrent layer, forward and training, beside those of the other libraries?

    python -m bench.unroll                          all sizes, LSTM and GRU
    python -m bench.unroll --cells elman --sizes 32,128,64,128
    python -m bench.unroll --json results.json

All libraries take turns in one process. Ratios are rival / jaxrnn: above 1 jaxrnn is faster. "scan path" is jaxrnn
without its native loops, "plain scan" is `lax.scan` over the very same cell. "limit" is the layer's matrix products
alone at the machine's rate, that of a 2048-square product. `--rivals products` are these products as XLA makes them.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tyro

from bench.records import Output, Record, progress, report
from bench.rivals import OURS, RIVALS, SIZE, Size, programs
from bench.timing import gemm_peak, geometric_mean, interleaved

# The fifth is long and narrow: there the loop itself costs most. The last five have many rows and few steps.
SIZES = (
    *("32,128,64,128", "32,128,256,256", "64,256,512,512", "1,512,64,128", "8,2048,64,64"),
    *("128,8,16,512", "128,32,16,512", "128,64,256,256", "256,16,64,128", "2048,16,64,64"),
)
MANY = 128  # rows
JAX_PEERS = ("flax linen", "flax nnx", "haiku", "equinox", "keras")
LIMIT = "limit"


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Compare one recurrent layer across libraries."""

    cells: tuple[str, ...] = ("lstm", "gru")
    """Which cells: lstm, gru, elman."""
    sizes: tuple[str, ...] = SIZES
    """Sizes B,T,I,H: batch, time, inputs, hidden."""
    rivals: tuple[str, ...] = tuple(name for name in RIVALS if name not in ("jaxrnn", "products"))
    """Which libraries; those that are not installed or have no such cell are left out."""
    repeats: int = 7
    """Turns of each program; the median counts."""


def records(settings: Settings) -> Iterator[Record]:
    peak, found = gemm_peak(), []
    for kind, text in progress([(kind, text) for kind in settings.cells for text in settings.sizes], "bench.unroll"):
        size = Size.read(text)
        made = programs(kind, size, ("jaxrnn", *settings.rivals))
        compiling, forward = interleaved({n: p.forward for n, p in made.items()}, settings.repeats)
        compiling_too, train = interleaved({n: p.train for n, p in made.items() if p.train}, settings.repeats)
        for task, seconds, products in (("forward", forward, 1), ("training step", train, 3)):
            times = seconds | {LIMIT: products * size.flops(kind) / peak}
            for name, spent in times.items():
                found.append(Record(f"{kind}, {task}", SIZE, text, name, 1e3 * spent, "ms", name in OURS))
                yield found[-1]
        for name, spent in compiling.items():
            both = spent + compiling_too.get(name, 0.0)
            yield Record(f"{kind}, compilation of both", SIZE, text, name, both, "s", name in OURS)
    yield from summary(found)


def summary(found: Sequence[Record]) -> Iterator[Record]:
    """Geometric means over the sizes of the fastest JAX library's time, and of each rival's, over ours."""
    for many in (False, True):
        times: dict[tuple[str, str], dict[str, float]] = {}
        for record in found:
            if (Size.read(record.row).batch >= MANY) == many:
                times.setdefault((record.table, record.row), {})[record.column] = record.value
        ratios: dict[tuple[str, str, str], list[float]] = {}
        for (table, _), spent in times.items():
            kind, task = table.split(", ")
            mine = spent.pop("jaxrnn")
            peers = [spent[name] for name in JAX_PEERS if name in spent]
            rivals = {"fastest JAX library": min(peers)} if peers else {}
            for name, theirs in (rivals | spent).items():
                ratios.setdefault((kind, name, task), []).append(theirs / mine)
        rows = f"{MANY} rows or more" if many else f"fewer than {MANY} rows"
        for (kind, name, task), values in ratios.items():
            figure = functools.partial(Record, f"others / jaxrnn, geometric mean, {rows}", "", f"{kind}, {name}")
            yield figure(task, geometric_mean(values))
            yield figure(f"{task}, least", min(values))


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
