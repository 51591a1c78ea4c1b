"""What do the options of `unroll` cost, in time and in memory, and does the time grow with T alone?

    python -m bench.options
    python -m bench.options --cell gru --sizes 32,128,64,128

A training step of one layer as in `bench.unroll`: with lengths, with resets, with less and with more memory, beside
`lax.scan` over the same cell; temporary memory is the compiler's own count. Then the same at T = 2048 and at sixteen
times that.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import tyro

import jaxrnn
from bench.records import SHARE, Output, Record, progress, report
from bench.rivals import CELLS, PLAIN, RUNS, SIZE, Size, drawn
from bench.timing import interleaved
from bench.unroll import SIZES


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
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
    params, xs = cell.init(jax.random.key(0)), drawn(size)

    def loss(params, xs, arrays):
        return jnp.mean(run(cell, params, xs, **arrays)[1] ** 2)

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, xs, arrays).compile()
    return lambda: compiled(params, xs, arrays), compiled.memory_analysis().temp_size_in_bytes


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
        PLAIN: step(RUNS[PLAIN]),
    }


def records(settings: Settings) -> Iterator[Record]:
    kind = settings.cell
    for text in progress(settings.sizes, "bench.options"):
        size = Size.read(text)
        made = options(CELLS[kind](size.inputs, size.hidden), size, settings.chunk)
        _, seconds = interleaved({name: program for name, (program, _) in made.items()}, settings.repeats)
        for name, (_, temporary) in made.items():
            ours, memory = name != PLAIN, f"{kind}, temporary memory of a training step"
            yield Record(f"{kind}, training step with options", SIZE, text, name, 1e3 * seconds[name], "ms", ours)
            if ours:
                yield Record(memory, SIZE, text, name, temporary / made[PLAIN][1], SHARE)
    cell, (short, long) = CELLS[kind](64, 64), settings.long
    made = {time: training_step(cell, Size(8, time, 64, 64), jaxrnn.unroll) for time in (short, long)}
    _, seconds = interleaved({time: program for time, (program, _) in made.items()}, settings.repeats)
    growth = functools.partial(Record, f"{kind}, training step at B, I, H = 8, 64, 64", "T")
    for time in (short, long):
        yield growth(str(time), "time", 1e3 * seconds[time], "ms")
        yield growth(str(time), f"a step, of that at T = {short}", seconds[time] / seconds[short] * short / time)


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
