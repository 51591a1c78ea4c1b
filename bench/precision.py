"""What does bfloat16 lose? Parameters and inputs in bfloat16, the state in float32, beside all in float32.

    python -m bench.precision

The error of an array is the length of the difference over the length of the array in float32; of the gradients, the
greatest over all parameters and the inputs. The loss is `mean(ys²)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import tyro

import jaxrnn
from bench.records import Output, Record, progress, report
from bench.rivals import CELLS, SIZE, Size, drawn


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Measure the loss of accuracy in bfloat16."""

    cells: tuple[str, ...] = ("lstm", "gru", "elman")
    """Which cells: lstm, gru, elman."""
    sizes: tuple[str, ...] = ("8,32,256,256", "8,256,256,256", "8,2048,64,64")
    """Sizes B,T,I,H: batch, time, inputs, hidden."""


class Errors(NamedTuple):
    outputs: float
    gradients: float


def errors(kind: str, size: Size) -> Errors:
    """Relative errors in bfloat16."""
    cell = CELLS[kind](size.inputs, size.hidden)
    params, xs = cell.init(jax.random.key(0)), drawn(size)

    def run(dtype):
        def loss(params, xs):
            ys = jaxrnn.unroll(cell, jaxrnn.cast(params, dtype), xs.astype(dtype))[1].astype(jnp.float32)
            return jnp.mean(ys**2), ys

        slopes, ys = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, xs)
        return ys, slopes

    def error(a, b):
        return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a))

    (ys, slopes), (half_ys, half_slopes) = run(jnp.float32), run(jnp.bfloat16)
    return Errors(error(ys, half_ys), max(jax.tree.leaves(jax.tree.map(error, slopes, half_slopes))))


def records(settings: Settings) -> Iterator[Record]:
    for text in progress(settings.sizes, "bench.precision"):
        for kind in settings.cells:
            for name, error in errors(kind, Size.read(text))._asdict().items():
                yield Record("errors in bfloat16", SIZE, text, f"{kind}, {name}", 100 * error, "%")


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
