"""One recurrent layer in every library: `(forward, training step)` programs over the same sizes.

A training step is the value of `mean(ys²)` and its gradients with respect to all parameters and the inputs, as in the
middle of a network. A library that is not installed is left out, and said so.
"""

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.engine.chunks import default_chunk

os.environ.setdefault("KERAS_BACKEND", "jax")

__all__ = ["CELLS", "OURS", "PLAIN", "RIVALS", "RUNS", "SIZE", "Programs", "Size", "drawn", "jax_programs", "programs"]

SIZE = "B, T, I, H"


class Size(NamedTuple):
    batch: int
    time: int
    inputs: int
    hidden: int

    @classmethod
    def read(cls, text: str) -> "Size":
        """`Size.read("32,128,64,128")`."""
        return cls(*map(int, text.split(",")))

    def flops(self, kind: str) -> float:
        """Floating-point operations of the products of one forward pass; a training step has three times as many."""
        return 2 * self.batch * self.time * (self.inputs + self.hidden) * GATES[kind] * self.hidden


class Programs(NamedTuple):
    forward: Callable[[], Any]
    train: Callable[[], Any] | None  # None: inference alone


def jax_programs(apply: Callable[[Any, jax.Array], jax.Array], params: Any, xs: jax.Array) -> Programs:
    forward = jax.jit(apply)
    train = jax.jit(jax.value_and_grad(lambda params, xs: jnp.mean(apply(params, xs) ** 2), (0, 1)))
    return Programs(functools.partial(forward, params, xs), functools.partial(train, params, xs))


def drawn(size: Size, batch_major: bool = False) -> jax.Array:
    """Normal inputs, `[T, B, I]` or `[B, T, I]`."""
    xs = jax.random.normal(jax.random.key(1), (size.time, size.batch, size.inputs), jnp.float32)
    return xs.swapaxes(0, 1) if batch_major else xs


CELLS = {"lstm": jaxrnn.LSTM, "gru": jaxrnn.GRU, "elman": jaxrnn.Elman}
GATES = {"lstm": 4, "gru": 3, "elman": 1}


def scanned(cell: jaxrnn.Cell, params: Any, xs: jax.Array) -> tuple[Any, jax.Array]:
    """`lax.scan` over the cell's operations."""
    return jax.lax.scan(functools.partial(cell, params, path="scan"), cell.initial_state(xs.shape[1:2]), xs)


PLAIN = "plain scan"
RUNS = {"jaxrnn": jaxrnn.unroll, "scan path": functools.partial(jaxrnn.unroll, path="scan"), PLAIN: scanned}
"""What runs a cell of ours, `(cell, params, xs) -> (state, ys)`."""


def own(run: Callable[..., Any], kind: str, size: Size) -> Programs:
    cell = CELLS[kind](size.inputs, size.hidden)
    return jax_programs(lambda params, xs: run(cell, params, xs)[1], cell.init(jax.random.key(0)), drawn(size))


def products(kind: str, size: Size) -> Programs:
    """The products of such a layer and nothing else, two forward and four more in training: a bound on all of them.

    In chunks as `unroll` has them, and with a weight transposed where its product is faster that way.
    """
    batch, time, inputs, hidden = size
    k_x, k_h = jax.random.split(jax.random.key(0))
    width = GATES[kind] * hidden
    w_x = jax.random.normal(k_x, (inputs, width)) / inputs**0.5
    w_h = jax.random.normal(k_h, (hidden, width)) / hidden**0.5
    chunk = default_chunk(time, 4 * batch * width)
    xs = drawn(size)[: time - time % chunk].reshape(-1, chunk * batch, inputs)

    @jax.jit
    def forward(w_x, w_h, xs):
        def body(carry, x):
            z = jax.lax.fori_loop(0, chunk, lambda t, z: z[:, :hidden] @ w_h, carry[0])
            return (z, x @ w_x), None

        start = jnp.zeros((batch, width)), jnp.zeros((chunk * batch, width))
        return jax.lax.scan(body, start, xs)[0]

    @jax.jit
    def train(w_x, w_h, xs):
        _, drive = forward(w_x, w_h, xs)
        hs, w_xt, w_ht = drive[:, :hidden], w_x.T, w_h.T

        def body(carry, x):
            dz, _, dw_x, dw_h = carry
            last = jax.lax.fori_loop(0, chunk, lambda t, d: jnp.tile(d @ w_ht, GATES[kind]), dz[:batch])
            dz = dz.at[:batch].set(last)
            return (dz, dz @ w_xt, dw_x + x.T @ dz, dw_h + hs.T @ dz), None

        start = drive, jnp.zeros((chunk * batch, inputs)), jnp.zeros_like(w_x), jnp.zeros_like(w_h)
        return jax.lax.scan(body, start, xs)[0]

    return Programs(lambda: forward(w_x, w_h, xs), lambda: train(w_x, w_h, xs))


def flax_linen(kind: str, size: Size) -> Programs:
    from flax import linen

    cells = {"lstm": linen.OptimizedLSTMCell, "gru": linen.GRUCell, "elman": linen.SimpleCell}
    rnn = linen.RNN(cells[kind](size.hidden), time_major=True)
    xs = drawn(size)
    return jax_programs(rnn.apply, rnn.init(jax.random.key(0), xs), xs)


def flax_nnx(kind: str, size: Size) -> Programs:
    from flax import nnx

    cells = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell, "elman": nnx.SimpleCell}
    rnn = nnx.RNN(cells[kind](size.inputs, size.hidden, rngs=nnx.Rngs(0)), time_major=True)
    graph, params, rest = nnx.split(rnn, nnx.Param, ...)
    zeros = jnp.zeros((size.batch, size.hidden))
    carry = (zeros, zeros) if kind == "lstm" else zeros
    return jax_programs(lambda p, xs: nnx.merge(graph, p, rest)(xs, initial_carry=carry), params, drawn(size))


def haiku(kind: str, size: Size) -> Programs:
    import haiku as hk

    cells = {"lstm": hk.LSTM, "gru": hk.GRU, "elman": hk.VanillaRNN}

    @hk.without_apply_rng
    @hk.transform
    def network(xs):
        cell = cells[kind](size.hidden)
        return hk.dynamic_unroll(cell, xs, cell.initial_state(size.batch))[0]

    xs = drawn(size)
    return jax_programs(network.apply, network.init(jax.random.key(0), xs), xs)


def equinox(kind: str, size: Size) -> Programs:
    import equinox as eqx

    cells = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}
    cell = cells[kind](size.inputs, size.hidden, key=jax.random.key(0))

    def apply(cell, xs):
        zeros = jnp.zeros((size.batch, size.hidden))

        def step(state, x):
            state = jax.vmap(cell)(x, state)
            return state, state[0] if kind == "lstm" else state

        return jax.lax.scan(step, (zeros, zeros) if kind == "lstm" else zeros, xs)[1]

    return jax_programs(apply, cell, drawn(size))


def keras(kind: str, size: Size) -> Programs:
    import keras

    layers = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "elman": keras.layers.SimpleRNN}
    layer = layers[kind](size.hidden, return_sequences=True)
    xs = drawn(size, batch_major=True)
    layer.build(xs.shape)
    params = [v.value for v in layer.trainable_variables]
    rest = [v.value for v in layer.non_trainable_variables]
    return jax_programs(lambda p, xs: layer.stateless_call(p, rest, xs)[0], params, xs)


def cudnn(kind: str, size: Size) -> Programs:
    """NVIDIA's LSTM, called by JAX: the batch first, all weights in one array."""
    from jax.experimental import rnn

    from jaxrnn import convert

    cell = CELLS[kind](size.inputs, size.hidden)
    weights = jnp.asarray(convert.to_cudnn(cell, cell.init(jax.random.key(0))))
    zeros = jnp.zeros((1, size.batch, size.hidden))
    lengths = jnp.full(size.batch, size.time, jnp.int32)

    def apply(weights, xs):
        # one layer, no dropout, not bidirectional
        return rnn.lstm(xs, zeros, zeros, weights, lengths, size.inputs, size.hidden, 1, 0.0, False)[0]

    return jax_programs(apply, weights, drawn(size, batch_major=True))


def torch(kind: str, size: Size) -> Programs:
    import torch

    layers = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    layer = layers[kind](size.inputs, size.hidden).to(device)
    xs = torch.randn(size.time, size.batch, size.inputs, device=device, requires_grad=True)

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def forward():
        with torch.no_grad():
            layer(xs)
        wait()

    def train():
        layer.zero_grad(set_to_none=True)
        xs.grad = None
        layer(xs)[0].square().mean().backward()
        wait()

    return Programs(forward, train)


def onnxruntime(kind: str, size: Size) -> Programs:
    import onnxruntime

    from jaxrnn import convert

    cell = CELLS[kind](size.inputs, size.hidden)
    model = convert.to_onnx(cell, cell.init(jax.random.key(0)))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning threads slow whoever is next
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in session.get_inputs())
    xs = np.asarray(drawn(size))
    return Programs(lambda: session.run(None, {name: xs}), None)


RIVALS: dict[str, tuple[str, Callable[[str, Size], Programs]]] = {
    **{name: ("jaxrnn", functools.partial(own, run)) for name, run in RUNS.items()},
    "products": ("jaxrnn", products),
    "flax linen": ("flax", flax_linen),
    "flax nnx": ("flax", flax_nnx),
    "haiku": ("haiku", haiku),
    "equinox": ("equinox", equinox),
    "keras": ("keras", keras),
    "cudnn": ("jax", cudnn),
    "torch": ("torch", torch),
    "onnxruntime": ("onnxruntime", onnxruntime),
}
"""Name in the table -> (the package it needs, how its programs are made)."""

OURS = ("jaxrnn", "scan path")


def available(name: str, kind: str) -> bool:
    """Whether a rival is installed and has the cell; cuDNN has the LSTM alone, and runs on GPUs."""
    if name == "cudnn":
        return kind == "lstm" and jax.default_backend() == "gpu"
    return importlib.util.find_spec(RIVALS[name][0]) is not None and not (name == "equinox" and kind == "elman")


def programs(kind: str, size: Size, names: tuple[str, ...]) -> dict[str, Programs]:
    """The programs of all rivals that are available."""
    return {name: RIVALS[name][1](kind, size) for name in names if available(name, kind)}
