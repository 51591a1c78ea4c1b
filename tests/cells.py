"""Cells as a user would write them, away from the usual: pytree and integer inputs, integer state, postponed work."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import Cell
from jaxrnn.ops import affine, dot, look_up
from jaxrnn.typing import Array


class CounterState(NamedTuple):
    h: Array  # [*batch, H]
    count: Array  # [*batch] int32, steps so far


@dataclass(frozen=True)
class Counter(Cell):
    """A leaky unit that counts its steps: the input is a dict, a leaf of the state an integer.

    h' = tanh(x W_x + h W_h) / (1 + count)          y = h' V + gain
    """

    input_size: int
    hidden_size: int

    @property
    def input_spec(self):
        return {
            "x": jax.ShapeDtypeStruct((self.input_size,), jnp.float32),
            "gain": jax.ShapeDtypeStruct((), jnp.float32),
        }

    @property
    def output_size(self):
        return 2

    def init(self, key, *, dtype=jnp.float32):
        del key
        h = self.hidden_size
        return {
            "w_x": jnp.ones((self.input_size, h), dtype),
            "w_h": jnp.ones((h, h), dtype),
            "v": jnp.ones((h, 2), dtype),
        }

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return CounterState(jnp.zeros((*batch_shape, self.hidden_size), dtype), jnp.zeros(batch_shape, jnp.int32))

    def project(self, params, x):
        return affine(x["x"], params["w_x"], None), x["gain"]

    def step(self, params, state, drive):
        h = jnp.tanh(drive[0] + dot(state.h, params["w_h"]))
        h = h / (1 + state.count[..., None]).astype(h.dtype)
        return CounterState(h, state.count + 1), h

    def readout(self, params, output, drive):
        y = affine(output, params["v"], None)
        return y + jnp.broadcast_to(drive[1][..., None], y.shape)


def counter_reference(cell, params, state, x):
    h = np.tanh(np.dot(x["x"], params["w_x"]) + np.dot(state.h, params["w_h"])) / (1 + state.count)
    return CounterState(h, state.count + 1), np.dot(h, params["v"]) + x["gain"]


@dataclass(frozen=True)
class Token(Cell):
    """An Elman unit over tokens: the input is an integer, the input product a look-up. h' = tanh(E[x] + h W_h)."""

    input_size: int
    hidden_size: int

    @property
    def input_spec(self):
        return jax.ShapeDtypeStruct((), jnp.int32)

    def init(self, key, *, dtype=jnp.float32):
        keys = jax.random.split(key)
        return {
            "e": jax.random.normal(keys[0], (self.input_size, self.hidden_size), dtype),
            "w_h": jax.random.normal(keys[1], (self.hidden_size, self.hidden_size), dtype),
        }

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, self.hidden_size), dtype)

    def project(self, params, x):
        return look_up(params["e"], x)

    def step(self, params, state, drive):
        h = jnp.tanh(drive + dot(state, params["w_h"]))
        return h, h


def token_reference(cell, params, state, x):
    h = np.tanh(params["e"][x] + np.dot(state, params["w_h"]))
    return h, h


class DiagonalParams(NamedTuple):
    a: Array  # [H] complex
    w_x: Array  # [I, H] complex
    w_y: Array  # [H, I] real


class DiagonalState(NamedTuple):
    h: Array  # [*batch, H] complex


@dataclass(frozen=True)
class Diagonal(Cell):
    """A complex diagonal recurrence with a real readout, from the input and back to its size.

    h' = tanh(a) ⊙ h + x W_x          y = Re(h') W_y
    """

    input_size: int
    hidden_size: int

    @property
    def output_size(self):
        return self.input_size

    def init(self, key, *, dtype=jnp.float32):
        i, h = self.input_size, self.hidden_size
        complex_dtype = np.result_type(dtype, np.complex64)
        ka, kx, ky = jax.random.split(key, 3)
        return DiagonalParams(
            jax.random.normal(ka, (h,), complex_dtype),
            jax.random.normal(kx, (i, h), complex_dtype),
            jax.random.normal(ky, (h, i), dtype),
        )

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return DiagonalState(jnp.zeros((*batch_shape, self.hidden_size), np.result_type(dtype, np.complex64)))

    def project(self, params, x):
        return x.astype(params.w_x.dtype) @ params.w_x

    def step(self, params, state, drive):
        h = jnp.broadcast_to(jnp.tanh(params.a), drive.shape) * state.h + drive
        return DiagonalState(h), h

    def readout(self, params, output, drive):
        return output.real @ params.w_y
