"""What a benchmark gives: figures. One place prints them as tables, stores them, and compares them with earlier ones.

Every benchmark has `records(settings)`, which measures, and ends with `report(records(settings), settings)`.
"""

import json
import pathlib
import platform
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxrnn
from bench.timing import machine, versions

__all__ = [
    "WIDTH",
    "Output",
    "Record",
    "Slower",
    "collect",
    "compare",
    "described",
    "load",
    "progress",
    "report",
    "say",
    "show",
    "store",
    "tables",
]

PACKAGES = (
    *("jax", "jaxlib", "llvmlite", "numpy", "flax", "dm-haiku", "equinox", "keras", "optax", "torch", "onnxruntime"),
    *("libtpu", "jax-cuda12-plugin", "nvidia-cudnn-cu12", "jax-cuda13-plugin", "nvidia-cudnn-cu13"),
)
WIDTH = 240  # a wrapped row is no Markdown
TIMES = ("s", "ms", "µs")
SHARE = "of plain scan"
T = TypeVar("T")


class Record(NamedTuple):
    """One figure of a table."""

    table: str  # its title
    rows: str  # what its rows are: the header of their column
    row: str
    column: str
    value: float
    unit: str = ""  # one of `TIMES`, `SHARE` for memory; other figures have a unit of their own, or none
    ours: bool = True  # of this library; the time that others take tells how fast the machine was

    @property
    def place(self) -> tuple[str, str, str]:
        """What an earlier run calls the same figure."""
        return self.table, self.row, self.column


@dataclass(frozen=True, kw_only=True)
class Output:
    """What becomes of the figures, a part of each benchmark's settings."""

    json: pathlib.Path | None = None
    """Also write all figures here."""
    against: pathlib.Path | None = None
    """Compare with what an earlier run wrote: says what became slower, and exits with 1 if anything did."""


def progress(cases: Sequence[T], name: str) -> Iterator[T]:
    """The cases, one after the other, with a bar on standard error."""
    return iter(track(cases, name, console=Console(stderr=True)))


# Tables


def figure(record: Record) -> str:
    """Three digits or more; a dash for what was not measured."""
    value, percent = record.value, "%" if record.unit == "%" else ""
    if value != value:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}{percent}" if abs(value) >= 10 or percent else f"{value:#.3g}"


def tables(records: Iterable[Record]) -> list[Table]:
    """One table a title, as Markdown; a unit that all figures share stands in the title, others above their column."""
    by_title: dict[str, list[Record]] = {}
    for record in records:
        by_title.setdefault(record.table, []).append(record)
    made = []
    for title, found in by_title.items():
        units = {record.column: record.unit.replace("%", "") for record in found}
        shared = units[found[0].column] if len(set(units.values())) == 1 else ""
        table = Table(title=", ".join(filter(None, (title, shared))), title_justify="left", box=box.MARKDOWN)
        table.add_column(found[0].rows)
        for column, unit in units.items():
            table.add_column(column if shared else ", ".join(filter(None, (column, unit))), justify="right")
        cells = {(record.row, record.column): figure(record) for record in found}
        for row in dict.fromkeys(record.row for record in found):
            table.add_row(re.sub(r",(?! )", ", ", row), *(cells.get((row, column), "–") for column in units))
        made.append(table)
    return made


def show(records: Iterable[Record], console: Console) -> None:
    for table in tables(records):
        console.print()
        console.print(table, markup=False)


# Files


def described() -> dict[str, str]:
    """What the figures depend on."""
    own = f"Python {platform.python_version()}, jaxrnn {jaxrnn.__version__}"
    return {"machine": machine(), "versions": f"{own}, {versions(PACKAGES)}"}


def store(path: pathlib.Path, records: Sequence[Record]) -> None:
    """Writes the figures; two of the same place would be one in a comparison."""
    if twice := [place for place, n in Counter(record.place for record in records).items() if n > 1]:
        raise ValueError(f"records: got two of {', '.join(twice[0])}, needs one")
    path.parent.mkdir(parents=True, exist_ok=True)
    report = described() | {"records": [record._asdict() for record in records]}
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")


def load(path: pathlib.Path) -> list[Record]:
    return [Record(**record) for record in json.loads(path.read_text(encoding="utf-8"))["records"]]


# Comparison


class Slower(NamedTuple):
    """A figure of ours that is worse than earlier."""

    earlier: Record
    later: Record
    ratio: float  # later / earlier; of times, beyond what the machine's pace explains


def compare(earlier: Sequence[Record], later: Sequence[Record], bound: float = 1.1) -> tuple[float, list[Slower]]:
    """`(pace, slower)`: how much longer the other libraries take now, and what of ours takes longer than that.

    Machines drift. The median over all times of the other libraries, which did not change, is the machine's part.

    Args:
        earlier: what a run gave.
        later: what another one gave; figures that only one of them has don't count.
        bound: the least ratio, beyond the machine's part, that counts as slower.
    """
    before = {record.place: record for record in earlier}
    both = [(before[new.place], new) for new in later if new.place in before and new.value == new.value]
    both = [(old, new) for old, new in both if old.value > 0 and new.unit in (*TIMES, SHARE)]
    pace = [new.value / old.value for old, new in both if not new.ours and new.unit in TIMES]
    drift = statistics.median(pace) if pace else 1.0
    ratios = [
        Slower(old, new, new.value / old.value / (drift if new.unit in TIMES else 1.0)) for old, new in both if new.ours
    ]
    return drift, sorted((s for s in ratios if s.ratio > bound), key=lambda s: -s.ratio)


def say(earlier: Sequence[Record], later: Sequence[Record], console: Console, bound: float = 1.1) -> bool:
    """Prints a comparison; whether anything became slower."""
    drift, slower = compare(earlier, later, bound)
    common = {record.place for record in earlier} & {record.place for record in later}
    console.print(f"\n{len(common)} figures in common; the other libraries take {drift:.2f} of their earlier time")
    if not slower:
        console.print(f"nothing of ours is slower by more than {bound - 1:.0%} beyond that")
        return False
    table = Table("slower beyond that", "row", "column", "earlier", "now", "by", box=box.MARKDOWN)
    for old, new, ratio in slower:
        table.add_row(*new.place, figure(old), f"{figure(new)} {new.unit}", f"{ratio - 1:.0%}")
    console.print(table, markup=False)
    return True


def collect(records: Iterable[Record]) -> tuple[list[Record], bool]:
    """`(found, whole)`: Ctrl-C keeps what there is, and then it is not whole."""
    found: list[Record] = []
    try:
        for record in records:
            found.append(record)
    except KeyboardInterrupt:
        return found, False
    return found, True


def report(records: Iterable[Record], output: Output) -> None:
    """Measures, prints, stores, compares."""
    console = Console(width=WIDTH)
    earlier = None if output.against is None else load(output.against)
    console.print("; ".join(described().values()))
    found, _ = collect(records)
    show(found, console)
    if output.json is not None:
        store(output.json, found)
    if earlier is not None and say(earlier, found, console):
        raise SystemExit(1)
