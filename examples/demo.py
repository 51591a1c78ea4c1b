"""Three of the examples in their quick forms, about three minutes in all on two cores: `make demo`.

Each one has a generous bound to reach; when one did not learn, the exit status is 1.

    sine       test MSE                        at most 1e-3   (a constant: 0.5)
    sorting    share of right positions        at least 0.9   (the likeliest number at each position: 0.23)
    char_lm    bits per character, held out    at most 3.0    (frequencies of characters: about 4.6)
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from examples import char_lm, common, sine, sorting


@dataclass(frozen=True)
class Settings:
    """Three of the examples in their quick forms."""

    directory: Path = Path("runs/demo")
    """Every run writes into a new folder in here."""
    sample: int = 400
    """Characters of text to generate at the end."""


class Result(NamedTuple):
    """What an example reached, beside what it should."""

    name: str
    measured: str
    value: float
    bound: float
    at_least: bool
    seconds: float

    @property
    def learned(self) -> bool:
        """Whether the value is within the bound; NaN is not."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def train(folder: Path) -> list[Result]:
    """Run the examples, each into a folder of its name."""
    parts = (
        ("sine", sine.main, "test", "test MSE", 1e-3, False),
        ("sorting", sorting.main, "positions", "right positions", 0.9, True),
        ("char_lm", char_lm.main, "this model", "bits per character", 3.0, False),
    )
    results = []
    for name, main_of, key, measured, bound, at_least in parts:
        Console().rule(name)
        begin = time.monotonic()
        value = main_of(["--quick", "--directory", str(folder / name)])[key]
        results.append(Result(name, measured, value, bound, at_least, time.monotonic() - begin))
    return results


def summary(results: Sequence[Result]) -> Table:
    """What was reached, what was to be reached, and how long it took."""
    table = Table("example", "measured", "reached", "bound", "seconds", "")
    for result in results:
        sign, verdict = "≥" if result.at_least else "≤", "learned" if result.learned else "[bold red]did not learn"
        table.add_row(
            result.name,
            result.measured,
            f"{result.value:.3g}",
            f"{sign} {result.bound:g}",
            f"{result.seconds:.0f}",
            verdict,
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, sample, sum up; exits with 1 when an example did not learn. `arguments` None: the command line's."""
    settings = tyro.cli(Settings, args=arguments, description=__doc__)
    common.check_between(settings, sample=(1, common.FOREVER))
    folder = settings.directory / time.strftime("%Y%m%d-%H%M%S")
    results = train(folder)
    Console().rule("a sample from char_lm")
    char_lm.main(["--quick", "--directory", str(folder / "char_lm"), "--sample", str(settings.sample)])
    Console().rule("in short")
    Console().print(summary(results))
    for path in sorted(folder.rglob("*.png")):
        print(f"picture: {path}")
    if failed := [result.name for result in results if not result.learned]:
        sys.exit(f"did not learn: {', '.join(failed)}")


if __name__ == "__main__":
    common.run(main, "stopped")
