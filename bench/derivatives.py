"""How long do derivatives take that are no plain gradient: in forward mode, and of gradients?

    python -m bench.derivatives
    python -m bench.derivatives --cell gru --sizes 32,128,64,128

The outputs' tangents in the direction of ones, in parameters and inputs, in inputs alone, and in four directions at
once by `vmap`; and the product of the Hessian of `mean(ys²)` with such a direction, forward over reverse. All beside
jaxrnn without its native loops and beside `lax.scan` over the same cell.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from bench.records import Output, Record, progress, report
from bench.rivals import CELLS, OURS, PLAIN, RUNS, SIZE, Size, drawn
from bench.timing import geometric_mean, interleaved
from bench.unroll import SIZES

DIRECTIONS = 4


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Measure forward mode and Hessian-vector products."""

    cell: Literal["lstm", "gru", "elman"] = "lstm"
    """Which cell."""
    sizes: tuple[str, ...] = (*SIZES[:2], *SIZES[3:5], *SIZES[-2:])
    """Sizes B,T,I,H: batch, time, inputs, hidden."""
    repeats: int = 5
    """Turns of each program; the median counts."""


def tasks(run: Callable[..., Any], params: Any, xs: jax.Array) -> dict[str, Callable[[], Any]]:
    """Each derivative of `run(params, xs) -> (state, ys)` as a program."""

    def outputs(params, xs):
        return run(params, xs)[1]

    def loss(params, xs):
        return jnp.mean(outputs(params, xs) ** 2)

    def along(params, xs, dparams, dxs):
        return jax.jvp(outputs, (params, xs), (dparams, dxs))[1]

    def along_inputs(params, xs, dxs):
        return jax.jvp(functools.partial(outputs, params), (xs,), (dxs,))[1]

    ones = functools.partial(jax.tree.map, jnp.ones_like)
    many = functools.partial(jax.tree.map, lambda a: jnp.broadcast_to(a, (DIRECTIONS, *a.shape)))
    moved = ones(params), ones(xs)
    programs = {
        "forward mode": (along, moved),
        "forward mode, inputs": (along_inputs, moved[1:]),
        f"forward mode, {DIRECTIONS} directions": (jax.vmap(along, (None, None, 0, 0)), many(moved)),
        "Hessian-vector product": (lambda *args: jax.jvp(jax.grad(loss, (0, 1)), args[:2], args[2:])[1], moved),
    }
    return {name: functools.partial(jax.jit(f), params, xs, *args) for name, (f, args) in programs.items()}


def records(settings: Settings) -> Iterator[Record]:
    ratios: dict[str, list[float]] = {}
    for text in progress(settings.sizes, "bench.derivatives"):
        size = Size.read(text)
        cell = CELLS[settings.cell](size.inputs, size.hidden)
        params = cell.init(jax.random.key(0))
        xs = drawn(size)
        made = {name: tasks(functools.partial(run, cell), params, xs) for name, run in RUNS.items()}
        for task in made["jaxrnn"]:
            _, seconds = interleaved({name: programs[task] for name, programs in made.items()}, settings.repeats)
            table = f"{settings.cell}, {task}"
            for name, spent in seconds.items():
                yield Record(table, SIZE, text, name, 1e3 * spent, "ms", name in OURS)
            ratios.setdefault(task, []).append(seconds[PLAIN] / seconds["jaxrnn"])
    for task, values in ratios.items():
        figure = functools.partial(Record, f"{settings.cell}, {PLAIN} / jaxrnn", "derivative", task)
        yield figure("geometric mean", geometric_mean(values))
        yield figure("least", min(values))


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
