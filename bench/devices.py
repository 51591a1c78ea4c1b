"""What does one recurrent layer cost on the device that JAX has, forward and training: launches, memory and time?

    python -m bench.devices                                             on a GPU or a TPU
    python -m bench.devices --sizes 8,64,32,32 --repeats 3              on a CPU, where the usual sizes take long

All libraries take turns in one process. "kernels a step" are launched anew at every time step, "fused runs" are runs
over all time steps that are one kernel (`bench.kernels` counts both). "of the product rate" compares the layer's matrix
products with one large square product on the same device. Products of float32 have JAX's default precision in all of
them: TF32 on a GPU, bfloat16 on a TPU. "cudnn" is NVIDIA's LSTM by `jax.experimental.rnn`, on a GPU alone.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import tyro

from bench.kernels import launches
from bench.records import Output, Record, progress, report
from bench.rivals import OURS, Size, programs
from bench.timing import gemm_peak, interleaved

SIZES = ("64,256,512,512", "32,128,256,256", "256,128,128,128", "8,1024,64,64", "16,64,1024,1024")
PRODUCT, PRODUCT_ON_CPU = 8192, 2048


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Measure one recurrent layer on JAX's default device."""

    cells: tuple[str, ...] = ("lstm", "gru")
    """Which cells: lstm, gru, elman."""
    sizes: tuple[str, ...] = SIZES
    """Sizes B,T,I,H: batch, time, inputs, hidden."""
    rivals: tuple[str, ...] = ("scan path", "plain scan", "flax linen", "flax nnx", "haiku", "cudnn")
    """What runs beside it, of JAX's libraries in `bench.unroll`; those that are not available are left out."""
    repeats: int = 7
    """Turns of each program; the median counts."""
    product: int | None = None
    """Rows of the square product whose rate is the measure; by default 2048 on a CPU, else 8192."""


def compiled(program: Callable[..., Any]) -> tuple[Any, Callable[[], Any]]:
    """A program of `bench.rivals` as JAX compiles it: `(the compiled one, a call of it)`."""
    made = program.func.lower(*program.args).compile()
    return made, functools.partial(made, *program.args)


def records(settings: Settings) -> Iterator[Record]:
    on_cpu = jax.default_backend() == "cpu"
    rate = gemm_peak(settings.product or (PRODUCT_ON_CPU if on_cpu else PRODUCT))
    for kind, text in progress([(k, size) for k in settings.cells for size in settings.sizes], "bench.devices"):
        size = Size.read(text)
        made = programs(kind, size, ("jaxrnn", *settings.rivals))
        for task, products in (("forward", 1), ("training step", 3)):
            ready = {name: compiled(p.train if products == 3 else p.forward) for name, p in made.items()}
            _, seconds = interleaved({name: call for name, (_, call) in ready.items()}, settings.repeats)
            for name, (program, _) in ready.items():
                found = launches(program)
                figure = functools.partial(Record, f"{kind}, {task} at {text}", "", name, ours=name in OURS)
                yield figure("time", 1e3 * seconds[name], "ms")
                share = products * size.flops(kind) / (seconds[name] * rate)
                yield figure("of the product rate", 100 * share, "%")
                yield figure("kernels a step", found.kernels)
                yield figure("fused runs", found.fused)
                yield figure("temporary memory", found.temporary / 1e6, "MB")


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
