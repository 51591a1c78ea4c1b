"""Draws are independent of each other: over a network of identities, where every mask shows in the output.

All masks have as many values. Two that were drawn by one key would be the same, and half of the units would be kept
where a quarter should be.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import networks
from tests.registry import rare, unrolled

N = 4000  # units
KEY = jax.random.key(3)


class Pair(NamedTuple):
    a: jax.Array
    b: jax.Array


@dataclass(frozen=True)
class Identity(jaxrnn.Cell):
    """y = w ⊙ x with ones for w; the state counts its steps twice."""

    input_size: int = N
    hidden_size: int = N

    def init(self, key, *, dtype=jnp.float32):
        return {"w": jnp.ones(N, dtype)}

    def initial_state(self, batch_shape=(), dtype=jnp.float32):
        return Pair(jnp.zeros((*batch_shape, N), dtype), jnp.zeros((*batch_shape, N), dtype))

    def project(self, params, x):
        return x * jnp.broadcast_to(params["w"], x.shape)

    def step(self, params, state, drive):
        return Pair(state.a + 1, state.b + 1), drive


CELL = Identity()


def dropped(net):
    return jaxrnn.Dropout(net, 0.5)


def weight_dropped(net):
    return jaxrnn.WeightDrop(net, 0.5, names=("w",))


def kept(flags, expected):
    """Whether the share of flagged units is the expected one, within five standard deviations."""
    assert abs(np.mean(flags) - expected) < 5 * (expected * (1 - expected) / N) ** 0.5


NETWORKS = {
    "dropout in dropout": (dropped(dropped(CELL)), 2),
    "dropout in weight drop": (weight_dropped(dropped(CELL)), 2),
    "weight drop in dropout": (dropped(weight_dropped(CELL)), 2),
    "weight drop in weight drop": (weight_dropped(weight_dropped(CELL)), 2),
    "layers with dropout between": (jaxrnn.Stack((dropped(CELL), dropped(CELL), dropped(CELL)), dropout=0.5), 5),
}
NETWORKS |= {f"{name}, stepped": (networks.Stepped(net), masks) for name, (net, masks) in NETWORKS.items()}
NETWORKS["both directions"] = (jaxrnn.Bidirectional(dropped(CELL), merge=lambda there, back: there * back), 2)


@pytest.mark.parametrize(
    ("net", "masks"), [*rare(*list(NETWORKS.values())[:-3]), *list(NETWORKS.values())[-3:]], ids=NETWORKS
)
def test_masks_of_a_network_are_independent(net, masks):
    _, ys = unrolled(net, net.init(KEY), jnp.ones((1, 1, N)), key=KEY)
    kept(np.asarray(ys) != 0, 0.5**masks)


def test_masks_of_a_step_are_independent():
    """Of two leaves of a state, and of two wrappers."""
    one = jaxrnn.Zoneout(CELL, 0.5)
    two = jaxrnn.Zoneout(one, 0.5)
    for net, moved in ((one, 0.5), (two, 0.25)):
        state, _ = unrolled(net, net.init(KEY), jnp.ones((1, 1, N)), key=KEY)
        a, b = np.asarray(state.a[0]), np.asarray(state.b[0])
        kept(a == 1, moved)
        kept((a == 1) & (b == 1), moved**2)


@pytest.mark.parametrize(
    "net", [jaxrnn.Zoneout(CELL, 0.5, share=("batch",)), jaxrnn.Dropout(CELL, 0.5, share=("batch",))]
)
def test_rows_of_any_batch_share_a_mask(net):
    """Over several batch axes; two steps have two masks."""
    state, ys = unrolled(net, net.init(KEY), jnp.ones((2, 2, 3, N)), key=KEY)
    ys, a = np.asarray(ys), np.asarray(state.a)
    assert (ys == ys[:, :1, :1]).all()
    assert (a == a[:1, :1]).all()
    if isinstance(net, jaxrnn.Dropout):
        kept((ys[0, 0, 0] != 0) & (ys[1, 0, 0] != 0), 0.25)
    else:
        kept(a[0, 0] == 2, 0.25)
