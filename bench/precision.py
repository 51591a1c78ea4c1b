"""What does bfloat16 lose? Parameters and inputs in bfloat16, the state in float32, beside all in float32.

    python -m bench.precision

The error of an array is the length of the difference over the length of the array in float32; of the gradients, the
greatest over all parameters and the inputs. The loss is `mean(ys²)`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

import jaxrnn
from bench.rivals import CELLS, Size
from bench.timing import machine, versions


@dataclass(frozen=True)
class Settings:
    """Measure the loss of accuracy in bfloat16."""

    cells: tuple[str, ...] = ("lstm", "gru", "elman")
    """Which cells: lstm, gru, elman."""
    sizes: tuple[str, ...] = ("8,32,256,256", "8,256,256,256", "8,2048,64,64")
    """Sizes B,T,I,H: batch, time, inputs, hidden."""


def errors(kind: str, size: Size) -> tuple[float, float]:
    """Relative errors of the outputs and of the gradients."""
    cell = CELLS[kind](size.inputs, size.hidden)
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (size.time, size.batch, size.inputs))

    def run(dtype):
        def loss(params, xs):
            ys = jaxrnn.unroll(cell, jaxrnn.cast(params, dtype), xs.astype(dtype))[1].astype(jnp.float32)
            return jnp.mean(ys**2), ys

        slopes, ys = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, xs)
        return ys, slopes

    def error(a, b):
        return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a))

    (ys, slopes), (half_ys, half_slopes) = run(jnp.float32), run(jnp.bfloat16)
    return error(ys, half_ys), max(jax.tree.leaves(jax.tree.map(error, slopes, half_slopes)))


def main(settings: Settings) -> None:
    console = Console(width=110)
    console.print(f"{machine()}; {versions(('jaxrnn', 'jax', 'jaxlib'))}")
    table = Table()
    for column in ("cell", "B, T, I, H", "outputs", "gradients"):
        table.add_column(column)
    for kind in settings.cells:
        for text in settings.sizes:
            outputs, gradients = errors(kind, Size(*map(int, text.split(","))))
            table.add_row(kind, text, f"{outputs:.1%}", f"{gradients:.1%}")
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
