"""Native loops on the CPU: a step's equations, run over all time steps as one call.

`trace` reads a function of one row, `(consts, carry, x) -> (carry, y, sums)`: one example of the batch at one time
step, such as a cell's step or its transpose. `run` runs it over a batch and over time. The room knows neither cells
nor the engine, and needs no compiler on the user's machine: it writes LLVM's language, which llvmlite turns into code.

    function ──rows──▶ graph ──plan──▶ nests ──emit──▶ LLVM IR ──compile──▶ handler ──calls──▶ XLA's program

XLA runs a scan's body as separate loops with their results in memory, and rearranges the whole weight for its product
at every step. Here weights are packed once a call, and a step's products and element-wise equations are one loop.

**Phases.** Only what the next carry needs must wait for the carry. Time is divided into chunks of steps that fit in the
cache, and each chunk in three phases:

              chunk of steps          next chunk
            ┌───────────────────────┬──────────────┄
      rows  │ 0   x W_x + b         │              ┄    all steps of the chunk at once
    of one  │ 1   h ▷ h ▷ h ▷ h ▷ h │ ▷ h ▷ h ▷ h  ┄    step by step
      part  │ 2   y = h W_y, dW, db │              ┄    all steps of the chunk at once
            ├───────────────────────┼──────────────┄
      next  │                       │              ┄    another thread
      part  ┄                       ┄              ┄

**Nests.** A value that is needed as a whole ends a *stage*: the left side of a product, a mean. A *nest* is a loop over
rows and columns that stores all that one stage of a phase can store for vectors of one length. What nobody else reads
stays in registers: a nest of an LSTM loads h and c, and stores h' and c'.

**Tiles.** A nest with products computes a tile of rows by columns at a time, the same columns of every product, as the
four gates of eight units. A *micro kernel* holds the tile's sums in registers over the whole product:

                     K        columns of i  f  g  o
                 ┌───────┐      ┌──┐┌──┐┌──┐┌──┐
            rows │   h   │  ·   │  ││W_││h ││  │ K     packed: these columns side by side
                 └───────┘      └──┘└──┘└──┘└──┘
                             =  ┌──┐┌──┐┌──┐┌──┐
                           rows │  ││  ││  ││  │       then σ, tanh, … while the tile is in the cache
                                └──┘└──┘└──┘└──┘

**Threads.** Many rows are split into *parts*, one a thread or more, which never wait for each other: what a step of a
part computes stays in its core's cache. With few rows and large weights, or with no more rows than members, a *team*
shares one part: each member has some columns of every nest, and a stage ends when all are done. The threads are XLA's.
Parts, and the turns of a team, are claimed by whoever comes first, so a thread that is busy is not waited for. Results
are the same from run to run; sums over rows depend on the number of parts.

**Zeros.** Most runs begin with a state of zeros, and most gradients ask for none of the initial state. The products of
such a state in the first step, what it adds to sums, and in the last step what only such a carry needs, are left out.
So weights that are no numbers show from the second step on: XLA, too, takes a product with zeros for zero.

    graph.py          nodes                                   rows.py           `trace`: equations as nodes
    pointwise.py      primitives that act place by place      equations.py      primitives of several nodes
    plan.py           phases, stages, nests                   vectors.py        LLVM IR as text
    elementary.py     exp, tanh, …                            store.py          kept objects
    emit.py           a row's module                          emit_memory.py    scratch memory
    emit_part.py      the loop of a part, teams, addresses    emit_nests.py     a nest
    emit_products.py  micro kernels, tiles                    emit_packing.py   weights, once a call
    emit_task.py      XLA's call, threads                     abi.py            XLA's memory layout
    compile.py        LLVM                                    division.py       chunks, parts, teams, `slower`
    calls.py          `run`
"""

from jaxrnn.native.calls import Shifted, fits, run
from jaxrnn.native.compile import obstacle
from jaxrnn.native.division import slower, slower_call
from jaxrnn.native.graph import Row, Unsupported
from jaxrnn.native.rows import trace

__all__ = [
    "Row",
    "Shifted",
    "Unsupported",
    "fits",
    "obstacle",
    "run",
    "shifts",
    "slower",
    "slower_call",
    "sums",
    "trace",
]

sums = True
"""Whether a loop adds up what a row function gives beside its output."""

shifts = True
"""Whether a loop reads values one step apart where they lie, by `Shifted`."""
