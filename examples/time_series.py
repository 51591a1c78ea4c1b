"""Forecast a series many steps ahead, with intervals, and say how good forecasts of its past would have been.

    python -m examples.time_series                                      # sunspots by year, 11 years ahead
    python -m examples.time_series --csv FILE --column NAME --season 12 --horizon 12 --context 36

A GRU reads the last `context` values and says of each of the next `horizon` ones in what it differs from the value one
season ago, as a mean and a standard deviation. Several such networks, trained side by side by one `vmap`, are an
ensemble: the intervals hold what each says of the noise, and what they do not agree on (Lakshminarayanan, Pritzel &
Blundell 2017).

The last fifth of the series is for the backtest alone: forecasts from each of its steps on, beside the last value
(persistence) and the values one season ago (seasonal-naive). The fifth before it says when to stop.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, training

WITHIN = 1.645  # standard deviations of a normal distribution on both sides of its mean hold 90 % of it


@dataclass(frozen=True)
class Settings:
    """An ensemble that forecasts a series."""

    csv: Path | None = None
    """A CSV file with a line for each time; by default the sunspots of the package statsmodels."""
    column: str = ""
    """The name of the file's column, as its first line has it; by default the last column."""
    season: int = 11
    """Steps of a season: forecasts begin at the values one season ago; 1: at the last value, where there is none."""
    horizon: int = 11
    """Steps to forecast."""
    context: int = 44
    """Steps that a forecast is made from."""
    hidden: int = 32
    """Units of each network."""
    members: int = 10
    """Networks in the ensemble."""
    batch: common.Batch = 32
    steps: common.Steps = 300
    learning_rate: float = 1e-3
    """Adam's."""
    weight_decay: float = 1e-2
    """AdamW's."""
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/time_series")
    quick: bool = False
    """Few small networks for some seconds; sets --hidden, --members and --steps where they are not given."""


def load(path: Path | None, column: str) -> np.ndarray:
    """The series `[N]` of a file."""
    if path is None:
        path = common.in_package("statsmodels", "datasets/sunspots/sunspots.csv")
    if path is None:
        raise ValueError(
            "csv: got no file, and the package that has the sunspots is not installed; needs --csv FILE, a line for "
            "each time, or: pip install --no-deps statsmodels"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"csv: got {path}, which cannot be read ({error}), needs a CSV file in UTF-8") from None
    full = [number for number, row in enumerate(rows) if any(row)]
    rows = rows[full[0] : full[-1] + 1] if full else []  # an empty line between others is a missing value
    if len(rows) < 2:
        raise ValueError(f"csv: got {path} of {len(rows)} lines, needs a line of names and a line for each time")
    names = [name.strip() for name in rows[0]]
    if column and column not in names:
        raise ValueError(f"column: got {column!r}, needs one of {', '.join(map(repr, names))}")
    place = names.index(column) if column else len(names) - 1
    if not column and np.isfinite(value(names, place)):
        raise ValueError(
            f"csv: got {names[place]!r} as the name of the last column of {path}, needs a first line of names, or "
            f"--column {names[place]} if it is one"
        )
    series = np.array([value(row, place) for row in rows[1:]])
    if not np.isfinite(series).all():
        time = int(np.argmin(np.isfinite(series))) + 1
        raise ValueError(f"csv: got {','.join(rows[time])[:60]!r} as time {time} in {path}, needs a finite number")
    return series


def value(row: Sequence[str], place: int) -> float:
    """The number in a place of a row; NaN where there is none."""
    try:
        return float(row[place])
    except (ValueError, IndexError):
        return np.nan


def repeat(past: Any, season: int, horizon: int) -> Any:
    """The last season over and over: forecasts `[horizon, B]` from `[context, B]`."""
    return past[len(past) - season + np.arange(horizon) % season]


class Forecaster(nnx.Module):
    """A GRU whose last output says in what the series goes on differently from one season ago."""

    def __init__(self, settings: Settings, rngs: nnx.Rngs) -> None:
        # The default, lecun_normal, makes the weights of the one input several times as large, and forecasts worse.
        small = {"input_init": nnx.initializers.glorot_uniform()}
        self.rnn = jaxrnn.nnx.RNN(jaxrnn.GRU(1, settings.hidden), time_major=True, initializers=small, rngs=rngs)
        self.season, self.horizon = settings.season, settings.horizon
        self.head = nnx.Linear(settings.hidden, 2 * settings.horizon, rngs=rngs)

    def __call__(self, past: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`[context, B]` to means and standard deviations `[horizon, B]`."""
        _, ys = self.rnn(past[..., None])
        change, spread = jnp.split(self.head(ys[-1]).T, 2)
        return repeat(past, self.season, self.horizon) + change, 0.01 + nnx.softplus(spread)


def nll(forecaster: Forecaster, windows: jax.Array) -> jax.Array:
    """Negative log-likelihood of what comes after the context, nats a value."""
    context = len(windows) - forecaster.horizon
    means, spreads = forecaster(windows[:context])
    return -jnp.mean(jax.scipy.stats.norm.logpdf(windows[context:], means, spreads))


def mixture(means: Any, spreads: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of what all members say together, `[horizon, B]` from `[members, horizon, B]`."""
    return means.mean(0), ((spreads**2).mean(0) + means.var(0)) ** 0.5


def train(settings: Settings, series: np.ndarray, parts: Sequence[int]) -> Forecaster:
    """The ensemble, of the step at which it is best on the second part; nothing sees the third one."""
    keys = jax.random.split(jax.random.key(settings.seed), settings.members)
    members = jax.vmap(lambda key: Forecaster(settings, nnx.Rngs(key)))(keys)
    optimizer = optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay)
    length = settings.context + settings.horizon
    held_out = windows_of(series[parts[0] - settings.context : parts[1]], length)
    nlls = jax.jit(jax.vmap(nll, (0, None)))

    def loss_fn(members: Forecaster, carry: tuple[()], windows: jax.Array, key: jax.Array) -> Any:
        return jnp.sum(jax.vmap(nll, (0, None))(members, windows)), (carry, {})

    state = training.init_state(keys[0], members, optimizer)
    training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        batches.windows(series[: parts[0]], length, settings.batch, seed=settings.seed),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda members: {"nll": float(nlls(members, held_out).mean())},
        eval_every=max(10, settings.steps // 30),
        log_every=max(10, settings.steps // 30),
        best="eval_nll",
        items_per_batch=settings.batch,
        unit="windows",
    )
    return training.restore_params(settings.directory, members, step="best")


# The backtest.


def windows_of(series: np.ndarray, length: int) -> np.ndarray:
    """All windows, `[length, N]`."""
    return np.lib.stride_tricks.sliding_window_view(series, length).T


def table(settings: Settings, errors: dict[str, np.ndarray], covered: float) -> Table:
    """Mean absolute errors."""
    columns = ("forecast", "1 step", f"{settings.horizon} steps", "all", "RMSE", "in 90 %")
    shown = Table(*columns, title="backtest: mean absolute errors so many steps ahead")
    for name, wrong in errors.items():
        size = np.abs(wrong)
        values = [size[0].mean(), size[-1].mean(), size.mean(), np.sqrt((wrong**2).mean())]
        inside = f"{covered:.0%}" if name == "this ensemble" else ""
        shown.add_row(name, *(f"{value:.4g}" for value in values), inside)
    return shown


def picture(settings: Settings, truth: np.ndarray, mean: np.ndarray, spread: np.ndarray, errors: Any) -> None:
    """Forecasts that follow each other through the backtest, and the errors by how far ahead they are."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 2))
    above.plot(np.concatenate([truth[0], truth[1:, -1]]), color="0.4", lw=1.5, label="what came")
    for start in range(0, truth.shape[1], settings.horizon):
        times = start + np.arange(settings.horizon)
        low, high = mean[:, start] - WITHIN * spread[:, start], mean[:, start] + WITHIN * spread[:, start]
        names = ("forecast", "90 % interval") if start == 0 else (None, None)
        above.plot(times, mean[:, start], color="#1f6fb4", lw=2, label=names[0])
        above.fill_between(times, low, high, color="#1f6fb4", alpha=0.2, lw=0, label=names[1])
    above.set(xlabel="steps of the backtest", title=f"forecasts of {settings.horizon} steps, one after the other")
    for name, wrong in errors.items():
        below.plot(1 + np.arange(settings.horizon), np.abs(wrong).mean(1), ".-", label=name)
    below.set(xlabel="steps ahead", ylabel="mean absolute error", ylim=(0, None))
    for axes in (above, below):
        common.style(axes)
    common.save(figure, settings.directory / "forecasts.png")


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(
        settings,
        weight_decay=(0, 100),
        season=(1, common.MOST),
        horizon=(1, common.MOST),
        context=(1, common.MOST),
        members=(1, 1000),
    )
    if settings.season > settings.context:
        raise ValueError(f"season: got {settings.season}, needs no more than context = {settings.context}")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test and draw; returns mean absolute errors by name. `arguments` None: the command line's."""
    quick = {"hidden": 16, "members": 4, "steps": 100}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    check(settings)
    series = load(settings.csv, settings.column)
    parts = [len(series) * 3 // 5, len(series) * 4 // 5]
    length = settings.context + settings.horizon
    if parts[0] < length or min(parts[1] - parts[0], len(series) - parts[1]) < settings.horizon:
        raise ValueError(
            f"csv: got {len(series)} times, needs {max(-(-length * 5 // 3), 5 * settings.horizon)} for context + "
            f"horizon = {length}"
        )
    common.refuse_a_run(settings.directory, resumes=False)
    seen = series[: parts[0]]
    offset, scale = seen.mean(), seen.std() if np.ptp(seen) > 0 else 1.0
    scaled = ((series - offset) / scale).astype(np.float32)  # not before: large values differ by less than it resolves
    members = train(settings, scaled, parts)

    past, truth = np.split(windows_of(series[parts[1] - settings.context :], length), [settings.context])
    said = jax.jit(jax.vmap(Forecaster.__call__, (0, None)))(
        members, windows_of(scaled[parts[1] - settings.context :], length)[: settings.context]
    )
    mean, spread = (np.asarray(values) * scale for values in mixture(*said))
    mean = mean + offset
    by_name = {
        "persistence": repeat(past, 1, settings.horizon),
        "seasonal-naive": repeat(past, settings.season, settings.horizon),
        "this ensemble": mean,
    }
    errors = {name: values - truth for name, values in by_name.items()}
    covered = float(np.mean(np.abs(errors["this ensemble"]) < WITHIN * spread))
    Console().print(table(settings, errors, covered))
    picture(settings, truth, mean, spread, errors)
    return {name: float(np.abs(wrong).mean()) for name, wrong in errors.items()} | {"covered": covered}


if __name__ == "__main__":
    common.run(main, "here: anew, with another directory")
