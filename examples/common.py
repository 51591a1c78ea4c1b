"""What the examples share: settings and their checks, quick forms, an optimizer, pictures, errors of one line."""

import dataclasses
import importlib.util
import io
import json
import math
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import matplotlib
import numpy as np
import optax
import tyro
from cycler import cycler
from jax.sharding import AxisType, Mesh
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tyro.conf import arg

import jaxrnn
from jaxrnn import training

S = TypeVar("S")

MOST = 1 << 20  # of what costs memory
FOREVER = (1 << 31) - 1  # of what costs time
SEEDS = (1 << 32) - 1
CURVES = cycler(ls=("-", "--", ":", "-.")) * cycler(color=matplotlib.color_sequences["tab10"])
BOUNDS = {"hidden": (1, 1 << 14), "batch": (1, MOST), "steps": (1, FOREVER), "seed": (0, SEEDS)}

# Types of settings that mean the same in every example, with what `--help` says of them.
Hidden = Annotated[int, arg(help="Units of each layer.")]
Batch = Annotated[int, arg(help="Sequences in a batch.")]
Steps = Annotated[int, arg(help="Batches to train on.")]
WarmRate = Annotated[float, arg(help="Adam's rate at the end of the warmup; a cosine takes it to nothing.")]
Seed = Annotated[int, arg(help="Of the initialization and of all else that is drawn.")]
Directory = Annotated[Path, arg(help="Where metrics, checkpoints and all that is written go.")]
Cells = Annotated[
    tuple[str, ...], arg(help="Names of classes in `jaxrnn.cells` that are made by their input size and hidden size.")
]
Resume = Annotated[
    bool, arg(help="Go on from the newest checkpoint in the directory, with the settings that are stored there.")
]


def of_run(settings: Any, passing: Sequence[str] = ()) -> list[str]:
    """The names of the settings that stay with a run; `passing`: those that are of a call."""
    return [f.name for f in dataclasses.fields(settings) if f.name not in ("directory", "resume", *passing)]


def resumed(settings: Any, passing: Sequence[str] = ()) -> list[str]:
    """The same, if a run is gone on with; else none."""
    return of_run(settings, passing) if getattr(settings, "resume", False) else []


def parse(
    kind: type[S],
    arguments: Sequence[str] | None,
    quick: Callable[[S], dict[str, Any]],
    must_match: Callable[[S], Sequence[str]] = resumed,
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


def storing_settings(
    settings: Any, batches: Callable[[int], Iterator[Any]], passing: Sequence[str] = ()
) -> Callable[[int], Iterator[Any]]:
    """`batches`, and once `fit` asks for them, and so has the directory for itself, the settings are stored there.

    `passing`: the names of settings that are of a call, not of the run.
    """

    def started(start: int) -> Iterator[Any]:
        values = {name: getattr(settings, name) for name in of_run(settings, passing)}
        stored = {name: str(v.absolute()) if isinstance(v, Path) else v for name, v in values.items()}
        path = settings.directory / "settings.json"
        partial = path.with_suffix(".json.partial")
        partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
        return batches(start)

    return started


def mesh_sizes(text: str, names: Sequence[str]) -> dict[str, int]:
    """The axes that `--mesh` asks for, such as "data=4,model=2", which may leave names out."""
    sizes = {}
    for part in text.split(",") if text else []:
        name, _, size = part.partition("=")
        if name not in names or name in sizes or not size.isdecimal() or int(size) < 1:
            example = ",".join(f"{name}=2" for name in names)
            raise ValueError(f"mesh: got {text!r}, needs numbers of devices such as {example}; names can be left out")
        sizes[name] = int(size)
    return sizes


def make_mesh(text: str, names: Sequence[str]) -> Mesh | None:
    """The devices that `--mesh` asks for; None if it is empty."""
    if not (sizes := mesh_sizes(text, names)):
        return None
    needed, there = math.prod(sizes.values()), jax.device_count()
    if needed > there:
        way = f"on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count={needed} makes as many"
        raise ValueError(f"mesh: got {text}, {needed} devices, needs at most the {there} that JAX has; {way}")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def in_package(package: str, path: str) -> Path | None:
    """A file that comes with a package, if that is installed; the package is not imported."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent / path if found and found.origin else None


def refuse_a_run(directory: Path, *, resumes: bool = True) -> None:
    """Raise if `directory` holds a run; `resumes`: whether the program could go on with it."""
    if any(path.name.isdigit() for path in (directory / "checkpoints").glob("*")):
        needs = "--resume to go on with it, or another" if resumes else "another"
        raise ValueError(f"directory: got {directory}, which holds a run, needs {needs}")


def resume_or_begin(settings: Any, state: training.TrainState) -> training.TrainState:
    """The state to train from: `state`, or with `resume` the newest checkpoint's."""
    if settings.resume:
        return training.restore(settings.directory, state)
    refuse_a_run(settings.directory)
    return state


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def adam(settings: Any) -> optax.GradientTransformation:
    """Adam on clipped gradients; its rate rises for at most 100 steps, then a cosine takes it to nothing."""
    warmup = min(100, settings.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, max(settings.steps, 2))
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def make_cells(names: Sequence[str], input_size: int, hidden: int) -> dict[str, jaxrnn.Layer]:
    """Cells by the names of their classes."""
    found = {}
    for name in names:
        try:
            found[name] = getattr(jaxrnn.cells, name, None)(input_size, hidden)  # type: ignore[misc]
        except (TypeError, ValueError):
            found[name] = None
        if not isinstance(found[name], jaxrnn.Layer):
            raise ValueError(f"cells: got {name!r}, needs cells such as LSTM, made by two sizes")
    return found


def style(axes: Axes) -> None:
    """Axes for curves: a light grid, a legend, no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    legend = axes.legend(frameon=False, ncols=1 + len(axes.get_legend_handles_labels()[1]) // 15)
    legend.set_in_layout(False)  # a long one would leave no room for the curves


def save(figure: Figure, path: Path) -> None:
    """Writes a picture and says where."""
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], what: str, path: Path) -> np.ndarray:
    """Draws how much of each class (rows) is taken for which (columns); returns the counts. `what` was classified."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
        slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if max(map(len, classes)) > 3 else {}
        axes.set_xticks(range(len(classes)), classes, **slanted)
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="taken for", ylabel="class", title=f"{np.mean(labels == predicted):.1%} of {len(labels)} {what}")
    save(figure, path)
    return counts


def check(settings: Any, *positive: str, **bounds: tuple[int, int]) -> None:
    """Raise unless what all examples have, and what is named, is within bounds, or finite and above zero."""
    usual = {name: pair for name, pair in BOUNDS.items() if getattr(settings, name, None) is not None}
    check_between(settings, **usual | bounds)
    rates = [name for name in ("learning_rate",) if getattr(settings, name, None) is not None]
    check_positive(settings, *rates, *positive)
    if getattr(settings, "cells", None) == ():
        raise ValueError("cells: got none, needs one or more")


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
    """Call `main`; what goes wrong with its options, its files or memory ends it with one line, and so does Ctrl-C.

    `stopped`: what to say after Ctrl-C, beside what `fit` says.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal that is not UTF-8 cannot show
    try:
        main()
    except training.NonFiniteError as error:
        sys.exit(f"error: {error}; here: a smaller learning rate and another directory")
    except (ValueError, OSError, MemoryError) as error:
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:  # such as of memory, said once for each part of the program
        sys.exit(f"error: {str(error).splitlines()[0].rpartition('Error dispatching computation: ')[2]}")
    except KeyboardInterrupt as stop:
        sys.exit("; ".join(part for part in (str(stop), stopped) if part))
