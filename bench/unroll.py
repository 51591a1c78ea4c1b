"""How fast is one recurrent layer, forward and training, beside those of the other libraries?

    python -m bench.unroll                          all sizes, LSTM and GRU
    python -m bench.unroll --cells elman --sizes 32,128,64,128
    python -m bench.unroll --json results.json

All libraries take turns in one process. Ratios are rival / jaxrnn: above 1 jaxrnn is faster. GFLOP/s counts the
products only. "scan path" is jaxrnn without its native loops, "plain scan" is `lax.scan` over the very same cell,
"products" its matrix products as XLA makes them and nothing else.
"""

import json
import pathlib
import sys
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table

from bench.rivals import RIVALS, Size, programs
from bench.timing import gemm_peak, geometric_mean, interleaved, machine, versions

# The fifth is long and narrow: there the loop itself costs most. The last five have many rows and few steps.
SIZES = (
    *("32,128,64,128", "32,128,256,256", "64,256,512,512", "1,512,64,128", "8,2048,64,64"),
    *("128,8,16,512", "128,32,16,512", "128,64,256,256", "256,16,64,128", "2048,16,64,64"),
)
PACKAGES = ("jaxrnn", "jax", "jaxlib", "flax", "dm-haiku", "equinox", "keras", "torch", "onnxruntime")
JAX_PEERS = ("flax linen", "flax nnx", "haiku", "equinox", "keras")


@dataclass(frozen=True)
class Settings:
    """Compare one recurrent layer across libraries."""

    cells: tuple[str, ...] = ("lstm", "gru")
    """Which cells: lstm, gru, elman."""
    sizes: tuple[str, ...] = SIZES
    """Sizes B,T,I,H: batch, time, inputs, hidden."""
    rivals: tuple[str, ...] = tuple(RIVALS)
    """Which libraries."""
    repeats: int = 7
    """Turns of each program; the median counts."""
    json: pathlib.Path | None = None
    """Also write all figures here."""


def measure(settings: Settings, peak: float, console: Console) -> list[dict]:
    rows = []
    for kind in settings.cells:
        for text in settings.sizes:
            size = Size(*map(int, text.split(",")))
            made = programs(kind, size, ("jaxrnn", *(r for r in settings.rivals if r != "jaxrnn")))
            table = Table(title=f"{kind}  B, T, I, H = {text}", title_justify="left")
            for column in ("", "forward ms", "ratio", "train ms", "ratio", "train GFLOP/s", "of peak", "compile s"):
                table.add_column(column, justify="left" if column == "" else "right")
            compile_f, forward = interleaved({n: p.forward for n, p in made.items()}, settings.repeats)
            compile_t, train = interleaved({n: p.train for n, p in made.items() if p.train}, settings.repeats)
            for name in made:
                spent = train.get(name, float("nan"))
                rate = 3 * size.flops(kind) / spent
                row = {
                    "cell": kind,
                    "size": text,
                    "library": name,
                    "forward_ms": 1e3 * forward[name],
                    "forward_ratio": forward[name] / forward["jaxrnn"],
                    "train_ms": 1e3 * spent,
                    "train_ratio": spent / train["jaxrnn"],
                    "train_gflops": rate / 1e9,
                    "share_of_peak": rate / peak,
                    "compile_s": compile_f[name] + compile_t.get(name, 0.0),
                }
                rows.append(row)
                table.add_row(name, *(f"{figure:.2f}" for figure in list(row.values())[3:]))
            console.print(table)
            if missing := [name for name in settings.rivals if name not in made]:
                console.print(f"left out, not installed or without such a cell: {', '.join(missing)}")
    return rows


def summary(rows: list[dict], console: Console) -> None:
    """Geometric means over the sizes of the fastest JAX peer's, and of each rival's, time over ours."""
    table = Table(title="rival / jaxrnn, geometric mean over sizes", title_justify="left")
    for column in ("", "rival", "forward", "worst", "train", "worst"):
        table.add_column(column, justify="right" if column in ("forward", "train", "worst") else "left")
    for kind in dict.fromkeys(r["cell"] for r in rows):
        mine = [r for r in rows if r["cell"] == kind]
        sizes = dict.fromkeys(r["size"] for r in mine)
        fastest = [[r for r in mine if r["size"] == s and r["library"] in JAX_PEERS] for s in sizes]
        groups = {"fastest JAX peer": [g for g in fastest if g]} if any(fastest) else {}
        for name in dict.fromkeys(r["library"] for r in mine):
            if name != "jaxrnn":
                groups[name] = [[r] for r in mine if r["library"] == name]
        for name, group in groups.items():
            cells = []
            for figure in ("forward_ratio", "train_ratio"):
                ratios = [min(r[figure] for r in g) for g in group]
                ratios = [ratio for ratio in ratios if ratio == ratio]  # of those that train
                cells += [f"{geometric_mean(ratios):.2f}", f"{min(ratios, default=float('nan')):.2f}"]
            table.add_row(kind, name, *cells)
    console.print(table)


def main(settings: Settings) -> None:
    console = Console(width=110)
    peak = gemm_peak()
    console.print(f"{machine()}; {versions(PACKAGES)}; python {sys.version.split()[0]}")
    console.print(f"peak of a 2048-square float32 product: {peak / 1e9:.0f} GFLOP/s")
    rows = measure(settings, peak, console)
    summary(rows, console)
    if settings.json is not None:
        report = {"machine": machine(), "versions": versions(PACKAGES), "gemm_peak_gflops": peak / 1e9, "rows": rows}
        settings.json.write_text(json.dumps(report, indent=1))
        console.print(f"wrote {settings.json}")


if __name__ == "__main__":
    main(tyro.cli(Settings))
