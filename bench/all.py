"""Makes the tables of bench/README.md and its plot: an hour or so on two cores.

    python -m bench.all
    python -m bench.all --against runs/bench/results.json --directory runs/later
    python -m bench.all --quick                                         whether all of it runs, some minutes

What the machine lacks something for is left out, and named: `bench.compiled` needs the compiler for a TPU or a GPU,
`bench.devices` needs a TPU or a GPU.
`results.json`, `tables.md` and `speed.png` in the directory are written anew after every benchmark, so that what was
measured is kept when the rest is stopped.
"""

import importlib.util
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import tyro
from rich.console import Console

from bench import (
    cells,
    compiled,
    derivatives,
    devices,
    grid,
    initializers,
    options,
    plot,
    precision,
    rl,
    streaming,
    unroll,
)
from bench.records import WIDTH, Record, collect, described, load, say, show, store


class Part(NamedTuple):
    """One benchmark."""

    records: Callable[[Any], Iterator[Record]]
    settings: Any
    quick: Any
    minutes: float | None  # about, on two cores; None where it was not measured
    lacks: Callable[[], str] = lambda: ""  # what the machine has to have, if it is not there


COMPILERS = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}
"""The packages that compile for a device that isn't there."""


def found_compilers() -> list[str]:
    return [device for device, package in COMPILERS.items() if importlib.util.find_spec(package)]


def compiled_records(runs: tuple[compiled.Settings, ...]) -> Iterator[Record]:
    """Those of the compilers that are there."""
    there = found_compilers()
    return itertools.chain.from_iterable(compiled.records(run) for run in runs if run.device in there)


PARTS = {
    "unroll": Part(
        unroll.records,
        unroll.Settings(),
        unroll.Settings(sizes=("4,16,8,16", "128,8,8,16"), repeats=1),
        25,
    ),
    "grid": Part(
        grid.records,
        grid.Settings(seed=2026, count=30),
        grid.Settings(seed=2026, count=2, repeats=1, most=1e7),
        8,
    ),
    "options": Part(
        options.records,
        options.Settings(),
        options.Settings(sizes=("4,16,8,16",), long=(16, 64), repeats=1),
        7,
    ),
    "derivatives": Part(
        derivatives.records,
        derivatives.Settings(),
        derivatives.Settings(sizes=("4,16,8,16",), repeats=1),
        5,
    ),
    "precision": Part(precision.records, precision.Settings(), precision.Settings(sizes=("2,8,16,16",)), 1),
    "initializers": Part(
        initializers.records,
        initializers.Settings(),
        initializers.Settings(tasks=("chain",), cells=("gru",), updates=10, seeds=2),
        3,
    ),
    "streaming": Part(streaming.records, streaming.Settings(), streaming.Settings(hidden=16, repeats=1), 1),
    "rl": Part(rl.records, rl.Settings(), rl.Settings(sizes=("16,8,16",), repeats=1), 4),
    "compiled": Part(
        compiled_records,
        (
            compiled.Settings(),
            compiled.Settings(devices=4, rivals=("scan path", "plain scan", "flax linen")),
            compiled.Settings(cells=("all",), size="16,64,128,128"),
            compiled.Settings(device="cuda"),
        ),
        tuple(compiled.Settings(device=device, cells=("gru",), size="8,8,8,128", rivals=()) for device in COMPILERS),
        25,
        lambda: "" if found_compilers() else "libtpu, or JAX's extra cuda12",
    ),
    "devices": Part(
        devices.records,
        devices.Settings(),
        devices.Settings(sizes=("8,64,32,32",), repeats=1),
        None,
        lambda: "a TPU or a GPU" if jax.default_backend() == "cpu" else "",
    ),
    "cells": Part(
        cells.records,
        cells.Settings(repeats=3),
        cells.Settings(cells=("LSTM", "MinGRU"), size="4,16,16,16", repeats=1),
        12,
    ),
}


@dataclass(frozen=True)
class Settings:
    """Run all benchmarks."""

    directory: pathlib.Path = pathlib.Path("runs/bench")
    """Everything is written here."""
    only: tuple[str, ...] = tuple(PARTS)
    """Which benchmarks."""
    quick: bool = False
    """Small sizes, one turn each: tests that everything runs, measures nothing."""
    against: pathlib.Path | None = None
    """Compare with the `results.json` of an earlier run; exits with 1 if anything became slower."""


def main(settings: Settings) -> None:
    if unknown := set(settings.only) - set(PARTS):
        raise SystemExit(f"only: got {', '.join(sorted(unknown))}, needs some of {', '.join(PARTS)}")
    console, begin = Console(width=WIDTH), time.monotonic()
    earlier = None if settings.against is None else load(settings.against)
    settings.directory.mkdir(parents=True, exist_ok=True)
    console.print("; ".join(described().values()))
    found: list[Record] = []
    for name in settings.only:
        part = PARTS[name]
        if lacks := part.lacks():
            console.rule(f"bench.{name} is left out: needs {lacks}")
            continue
        spent = (time.monotonic() - begin) / 60
        about = "" if settings.quick or part.minutes is None else f", about {part.minutes:g} minutes"
        console.rule(f"bench.{name}{about}, {spent:.0f} minutes so far")
        new, whole = collect(part.records(part.quick if settings.quick else part.settings))
        show(new, console)
        found += new
        write(settings.directory, found)
        if not whole:
            break
    console.print(f"\n{(time.monotonic() - begin) / 60:.1f} minutes; tables and plot in {settings.directory}")
    if earlier is not None and say(earlier, found, console):
        raise SystemExit(1)


def write(directory: pathlib.Path, found: list[Record]) -> None:
    """The figures, their tables, and the plot where `bench.unroll` ran."""
    store(directory / "results.json", found)
    with open(directory / "tables.md", "w", encoding="utf-8") as file:
        show(found, Console(file=file, width=WIDTH))
    if any(record.column == unroll.LIMIT for record in found):
        plot.draw(found, directory / "speed.png")


if __name__ == "__main__":
    plt.switch_backend("agg")
    main(tyro.cli(Settings))
