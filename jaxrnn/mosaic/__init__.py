"""Kernels on the TPU: a step's equations, run over all time steps as one kernel.

`trace` reads a function of one row, `(consts, carry, x) -> (carry, y, ())`, and `run` runs it over a batch and time, as
those of `native` do. The room knows neither cells nor the engine. Mosaic is the compiler of Pallas kernels on TPUs.

Only what the next carry needs waits for the carry. A row function is divided in phases; the two outer ones are ordinary
JAX, products over all steps and rows at once. The step is a kernel, in which the rows of a batch are the rows of its
products:

     before   x W_x + b    x_1 … x_T           XLA: all steps at once
                            │     │
     step     h W_h, …      ▼     ▼            one kernel: W_h and h in VMEM, blocks of steps streamed from and to HBM
                     h_0 ─▶ ■ ─…─▶ ■ ─▶ h_T
                            │     │
     after    h W_y         ▼     ▼            XLA: all steps at once
                            y_1 … y_T

A kernel adds nothing up over steps. The gradients of the weights are products over all steps at once, too.

    phases.py   `trace`: a row function in phases        memory.py   what is kept in VMEM: steps of a block, by bytes
    rules.py    equations that Mosaic has no code for    kernel.py   the kernel
    calls.py    `run`, `fits`

Its kernels have been compiled for TPUs and carried out by JAX on a CPU. They have not run on a TPU yet.
"""

from jaxrnn.mosaic.calls import fits, obstacle, run, slower, slower_call
from jaxrnn.mosaic.phases import Row, Unsupported, trace

__all__ = ["Row", "Unsupported", "fits", "obstacle", "run", "shifts", "slower", "slower_call", "sums", "trace"]

sums = False
"""Whether a kernel adds up what a row function gives beside its output."""

shifts = False
"""Whether a kernel reads values one step apart where they lie."""
