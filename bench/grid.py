"""Is jaxrnn the fastest at any size, or only at chosen ones?

    python -m bench.grid 17 100                 100 random sizes of the seed 17, LSTM and GRU by turns
    python -m bench.grid 17 100 --json results.json

Sizes are log-uniform: B in 1..2048, T in 1..1024, I in 1..512, H in 16..768, between 2 MFLOP and 25 GFLOP a forward
pass. The rivals of each size, a plain scan and the JAX libraries, take turns in one process.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
import tyro

from bench.records import Output, Record, progress, report
from bench.rivals import OURS, SIZE, Size, programs
from bench.timing import geometric_mean, interleaved

TASKS = {"forward": "forward", "training step": "train"}
HIGHEST = Size(2048, 1024, 512, 768)
LOWEST = Size(1, 1, 1, 16)


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
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


def sizes(seed: int, count: int, most: float) -> list[tuple[str, Size]]:
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        kind = ("lstm", "gru")[len(found) % 2]
        size = Size(*(round(np.exp(rng.uniform(np.log(a), np.log(b)))) for a, b in zip(LOWEST, HIGHEST, strict=True)))
        if 2e6 <= size.flops(kind) <= most:
            found.append((kind, size))
    return found


def records(settings: Settings) -> Iterator[Record]:
    ratios: dict[str, list[float]] = {task: [] for task in TASKS}
    for kind, size in progress(sizes(settings.seed, settings.count, settings.most), "bench.grid"):
        made = programs(kind, size, ("jaxrnn", *settings.rivals))
        for task, attribute in TASKS.items():
            _, spent = interleaved({n: getattr(p, attribute) for n, p in made.items()}, settings.repeats, 0.03)
            figure = functools.partial(Record, f"random sizes of seed {settings.seed}, {task}", SIZE)
            for name, seconds in spent.items():
                row = f"{kind} {','.join(map(str, size))}"
                yield figure(row, name, 1e3 * seconds, "ms", name in OURS)
            mine = spent.pop("jaxrnn")
            ratios[task].append(min(spent.values()) / mine)
        jax.clear_caches()
    for task, found in ratios.items():
        figure = functools.partial(Record, f"fastest rival / jaxrnn at {len(found)} random sizes", "", task)
        yield figure("geometric mean", geometric_mean(found))
        yield figure("least", min(found))
        yield figure("somebody is faster by 5 %", sum(ratio < 1 / 1.05 for ratio in found), "of the sizes")


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
