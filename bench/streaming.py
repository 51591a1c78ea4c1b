"""How long does one time step of a deep stack take, batch 1, as in generation or control?

    python -m bench.streaming
    python -m bench.streaming --layers 4 --hidden 512

A step is one call from Python with the state donated, the output waited for. PyTorch runs its `LSTMCell`s in
`inference_mode`, Flax its `OptimizedLSTMCell`s under `jit`, with the state donated too.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import tyro

import jaxrnn
from bench.records import Output, Record, report
from bench.rivals import OURS
from bench.timing import interleaved


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Measure one time step of a stack of LSTMs."""

    layers: int = 3
    """How many."""
    hidden: int = 256
    """Units of each, and inputs."""
    batch: int = 1
    """Rows."""
    repeats: int = 9
    """Turns of each program; the median counts."""


def _stream(step: Callable, state, x) -> Callable[[], object]:
    """A program that takes one step further at every call."""
    holder = [state]

    def program():
        holder[0], y = step(holder[0], x)
        return y

    return program


def ours(s: Settings) -> Callable[[], object]:
    net = jaxrnn.Stack(tuple(jaxrnn.LSTM(s.hidden, s.hidden) for _ in range(s.layers)))
    params = net.init(jax.random.key(0))
    step = jax.jit(net, donate_argnums=1)
    return _stream(lambda state, x: step(params, state, x), net.initial_state((s.batch,)), _x(s))


def flax(s: Settings) -> Callable[[], object]:
    from flax import linen

    cells = [linen.OptimizedLSTMCell(s.hidden) for _ in range(s.layers)]
    state = [cell.initialize_carry(jax.random.key(0), (s.batch, s.hidden)) for cell in cells]
    params = [cell.init(jax.random.key(0), carry, _x(s)) for cell, carry in zip(cells, state, strict=True)]

    def step(params, state, x):
        new = []
        for cell, p, carry in zip(cells, params, state, strict=True):
            carry, x = cell.apply(p, carry, x)
            new.append(carry)
        return new, x

    jitted = jax.jit(step, donate_argnums=1)
    return _stream(lambda state, x: jitted(params, state, x), state, _x(s))


def torch(s: Settings) -> Callable[[], object]:
    import torch

    cells = [torch.nn.LSTMCell(s.hidden, s.hidden) for _ in range(s.layers)]
    zeros = torch.zeros(s.batch, s.hidden)

    @torch.inference_mode()
    def step(state, x):
        new = []
        for cell, (h, c) in zip(cells, state, strict=True):
            h, c = cell(x, (h, c))
            new.append((h, c))
            x = h
        return new, x

    return _stream(step, [(zeros, zeros)] * s.layers, torch.ones(s.batch, s.hidden))


def _x(s: Settings) -> jax.Array:
    return jnp.ones((s.batch, s.hidden))


RIVALS = {"jaxrnn": ours, "flax": flax, "torch": torch}


def records(s: Settings) -> Iterator[Record]:
    made = {name: make(s) for name, make in RIVALS.items() if importlib.util.find_spec(name) is not None}
    _, seconds = interleaved(made, s.repeats)
    for name in made:
        row = f"{s.batch},{s.layers},{s.hidden}"
        yield Record(
            "one step of LSTM layers", "batch, layers, units", row, name, 1e6 * seconds[name], "µs", name in OURS
        )


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
