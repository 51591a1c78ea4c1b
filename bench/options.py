"""What do the options of `unroll` cost, in time and in memory, and does the time grow with T alone?

    python -m bench.options
    python -m bench.options --cell gru --sizes 32,128,64,128

A training step of one layer as in `bench.unroll`: with lengths, with resets, with less and with more memory, beside
`lax.scan` over the same cell; temporary memory is the compiler's own count. Then the same at T = 2048 and at sixteen
times that.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

import jaxrnn
from bench.rivals import CELLS, Size
from bench.timing import interleaved, machine, versions
from bench.unroll import SIZES


@dataclass(frozen=True)
class Settings:
    """Measure the options of `unroll`."""

    cell: Literal["lstm", "gru", "elman"] = "lstm"
    """Which cell."""
    sizes: tuple[str, ...] = SIZES
    """Sizes B,T,I,H: batch, time, inputs, hidden."""
    long: tuple[int, int] = (2048, 32768)
    """Two lengths to compare, at B = 8 and I = H = 64."""
    chunk: int | None = None
    """Steps a chunk; by default `unroll` chooses."""
    repeats: int = 7
    """Turns of each program; the median counts."""


def training_step(cell, size: Size, run, **arrays):
    """`(program, temporary bytes)` of the value of `mean(ys²)` and all its gradients."""
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (size.time, size.batch, size.inputs))

    def loss(params, xs, arrays):
        return jnp.mean(run(cell, params, xs, **arrays)[1] ** 2)

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, xs, arrays).compile()
    return lambda: compiled(params, xs, arrays), compiled.memory_analysis().temp_size_in_bytes


def plain_scan(cell, params, xs):
    return jax.lax.scan(functools.partial(cell, params), cell.initial_state(xs.shape[1:2]), xs)


def options(cell, size: Size, chunk: int | None) -> dict:
    lengths = jnp.arange(size.batch) * size.time // size.batch + 1
    resets = jax.random.bernoulli(jax.random.key(2), 0.02, (size.time, size.batch))
    step = functools.partial(training_step, cell, size)
    unroll = functools.partial(jaxrnn.unroll, chunk=chunk)
    return {
        "as it is": step(unroll),
        "lengths": step(unroll, lengths=lengths),
        "resets": step(unroll, resets=resets),
        "lengths and resets": step(unroll, lengths=lengths, resets=resets),
        'save="boundaries"': step(functools.partial(unroll, save="boundaries")),
        'save="residuals"': step(functools.partial(unroll, save="residuals")),
        "plain scan": step(plain_scan),
    }


def show(console: Console, title: str, made: dict, repeats: int) -> dict[str, float]:
    seconds = interleaved({name: program for name, (program, _) in made.items()}, repeats)[1]
    first = next(iter(made))
    table = Table(title=title, title_justify="left")
    for column in ("", "ms", "of the first", "temporary MB", "of the last"):
        table.add_column(column, justify="left" if column == "" else "right")
    last = list(made.values())[-1][1]
    for name, (_, temporary) in made.items():
        figures = 1e3 * seconds[name], seconds[name] / seconds[first], temporary / 1e6, temporary / last
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    console.print(table)
    return seconds


def main(settings: Settings) -> None:
    console = Console(width=110)
    console.print(f"{machine()}; {versions(('jaxrnn', 'jax', 'jaxlib'))}")
    for text in settings.sizes:
        size = Size(*map(int, text.split(",")))
        cell = CELLS[settings.cell](size.inputs, size.hidden)
        show(console, f"{settings.cell}  B, T, I, H = {text}", options(cell, size, settings.chunk), settings.repeats)
    cell = CELLS[settings.cell](64, 64)
    made = {f"T = {time}": training_step(cell, Size(8, time, 64, 64), jaxrnn.unroll) for time in settings.long}
    seconds = list(show(console, f"{settings.cell}  B, I, H = 8, 64, 64", made, settings.repeats).values())
    short, long = settings.long
    console.print(
        f"time at {long} / ({long // short} x time at {short}): {seconds[1] / seconds[0] / (long / short):.2f}"
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
