"""Is jaxrnn the fastest at any size, or only at chosen ones?

    python -m bench.grid 17 100                 100 random sizes of the seed 17, LSTM and GRU by turns
    python -m bench.grid 17 100 --json results.json

Sizes are log-uniform: B in 1..2048, T in 1..1024, I in 1..512, H in 16..768, between 2 MFLOP and 25 GFLOP a forward
pass. The rivals of each size, a plain scan and the JAX libraries, take turns in one process.
"""

import json
import pathlib
import sys
from dataclasses import dataclass

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from bench.rivals import Size, programs
from bench.timing import geometric_mean, interleaved, machine, versions

PACKAGES = ("jaxrnn", "jax", "jaxlib", "flax", "dm-haiku")
HIGHEST = Size(2048, 1024, 512, 768)
LOWEST = Size(1, 1, 1, 16)


@dataclass(frozen=True)
class Settings:
    """Compare at random sizes."""

    seed: tyro.conf.Positional[int]
    """Of the sizes; take one that nothing was tuned on."""
    count: tyro.conf.Positional[int] = 100
    """Number of sizes."""
    rivals: tuple[str, ...] = ("plain scan", "flax linen", "haiku")
    """Which libraries."""
    repeats: int = 5
    """Turns of each program; the median counts."""
    most: float = 25e9
    """Floating-point operations of a forward pass, at most."""
    json: pathlib.Path | None = None
    """Also write all figures here."""


def sizes(seed: int, count: int, most: float) -> list[tuple[str, Size]]:
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        kind = ("lstm", "gru")[len(found) % 2]
        size = Size(*(round(np.exp(rng.uniform(np.log(a), np.log(b)))) for a, b in zip(LOWEST, HIGHEST, strict=True)))
        if 2e6 <= size.flops(kind) <= most:
            found.append((kind, size))
    return found


def main(settings: Settings) -> None:
    console = Console(width=110)
    console.print(f"{machine()}; {versions(PACKAGES)}; python {sys.version.split()[0]}")
    rows = []
    for kind, size in track(sizes(settings.seed, settings.count, settings.most), console=Console(stderr=True)):
        made = programs(kind, size, ("jaxrnn", *settings.rivals))
        row: dict = {"cell": kind, "size": size}
        for task in ("forward", "train"):
            _, spent = interleaved({name: getattr(p, task) for name, p in made.items()}, settings.repeats, 0.01)
            mine = spent.pop("jaxrnn")
            best = min(spent, key=spent.__getitem__)
            row |= {f"{task}_ms": 1e3 * mine, f"{task}_fastest": best, f"{task}_ratio": spent[best] / mine}
        rows.append(row)
        console.print(
            f"{kind:4} {','.join(map(str, size)):>18}"
            + "".join(
                f"   {t} {row[f'{t}_ms']:8.2f} ms, {row[f'{t}_fastest']:>10} {row[f'{t}_ratio']:.2f}"
                for t in ("forward", "train")
            )
        )
        jax.clear_caches()
    for task in ("forward", "train"):
        ratios = [row[f"{task}_ratio"] for row in rows]
        behind = sum(ratio < 1 / 1.05 for ratio in ratios)
        console.print(
            f"{task}: fastest rival / jaxrnn {geometric_mean(ratios):.2f} (geometric mean), least {min(ratios):.2f}; "
            f"somebody is faster by 5 % at {behind} of {len(rows)}"
        )
    if settings.json is not None:
        settings.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Settings))
