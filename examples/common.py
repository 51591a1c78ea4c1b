"""What the examples share: checked options, quick forms, settings that stay with a run, errors of one line."""

import dataclasses
import importlib.util
import io
import json
import math
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro

from jaxrnn import training

S = TypeVar("S")

MOST = 1 << 20  # of what costs memory
FOREVER = (1 << 31) - 1  # of what costs time
SEEDS = (1 << 32) - 1


def parse(
    kind: type[S],
    arguments: Sequence[str] | None,
    quick: Callable[[S], dict[str, Any]],
    must_match: Callable[[S], Sequence[str]] = lambda settings: (),
    description: str | None = None,
) -> S:
    """The settings on the command line.

    Options that are not given are those of the run in `directory` where it is gone on with or sampled from, else those
    of `--quick` where that is given, else the defaults. Options that are given are never replaced.

    Args:
        kind: a dataclass.
        arguments: None: the command line's.
        quick: what `--quick` sets.
        must_match: the names of what must be as it is in the run in `directory`; none: that run does not matter.
        description: of the program; None: of `kind`.

    Raises:
        ValueError, FileNotFoundError: an option differs from the run's, or there is no run.
    """

    def read(default: S) -> S:
        return tyro.cli(kind, args=arguments, default=default, description=description)

    settings = given = read(kind())
    if given.quick:
        settings = read(dataclasses.replace(kind(), quick=True, **quick(given)))
    if names := must_match(given):
        stored = load(kind, given.directory)
        settings = read(stored)
        for name in names:
            got, has = getattr(settings, name), getattr(stored, name)
            if (got.absolute() if isinstance(got, Path) else got) != has:
                raise ValueError(
                    f"{name}: got {got}, needs {has} as in the run in {given.directory}; leave the option out, or give "
                    "another directory"
                )
    return settings


def load(kind: type[S], directory: Path) -> S:
    """The settings of the run in `directory`."""
    path = directory / "settings.json"
    if not path.exists():
        raise FileNotFoundError(f"directory: got {directory}, which has no run, needs one in which this was trained")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        paths = {f.name for f in dataclasses.fields(kind) if f.type is Path or Path in typing.get_args(f.type)}
        values = {name: Path(value) if name in paths and value else value for name, value in stored.items()}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return kind(**values, directory=directory)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"directory: got {path}, which is of something else, needs a run of this example") from None


def keeping(
    settings: Any, batches: Callable[[int], Iterator[Any]], passing: Sequence[str]
) -> Callable[[int], Iterator[Any]]:
    """`batches`, and once `fit` asks for them, and so has the directory for itself, the settings are stored there.

    `passing`: the names of settings that are of a call, not of the run.
    """

    def started(start: int) -> Iterator[Any]:
        stored = {
            name: str(value.absolute()) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(settings).items()
            if name not in ("directory", *passing)
        }
        path = settings.directory / "settings.json"
        partial = path.with_suffix(".json.partial")
        partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
        return batches(start)

    return started


def in_package(package: str, path: str) -> Path | None:
    """A file that comes with a package, if that is installed; the package is not imported."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent / path if found and found.origin else None


def refuse_a_run(directory: Path, *, resumes: bool = True) -> None:
    """Raise if `directory` holds a run; `resumes`: whether the program could go on with it."""
    if any(path.name.isdigit() for path in (directory / "checkpoints").glob("*")):
        needs = "--resume to go on with it, or another" if resumes else "another"
        raise ValueError(f"directory: got {directory}, which holds a run, needs {needs}")


def check_between(settings: Any, **bounds: tuple[int, int]) -> None:
    """Raise unless every setting is within its bounds."""
    for name, (least, most) in bounds.items():
        if not least <= getattr(settings, name) <= most:
            raise ValueError(f"{name}: got {getattr(settings, name)}, needs {least} to {most}")


def check_positive(settings: Any, *names: str) -> None:
    """Raise unless every setting is a finite number above zero."""
    for name in names:
        value = getattr(settings, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: got {value!r}, needs a finite number above 0")


def run(main: Callable[[], Any], stopped: str) -> None:
    """Call `main`; what goes wrong with its options, its files or memory ends it with one line, and so does Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal that is not UTF-8 cannot show
    try:
        main()
    except (ValueError, OSError, MemoryError, training.NonFiniteError) as error:
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:  # such as of memory, said once for each part of the program
        sys.exit(f"error: {str(error).splitlines()[0].rpartition('Error dispatching computation: ')[2]}")
    except KeyboardInterrupt as stop:
        sys.exit(f"{stop}{stopped}")
