"""How long does an update of recurrent PPO take, the pattern of most JAX users?

    python -m bench.rl
    python -m bench.rl --sizes 1024,32,128 --repeats 3

A jitted update of whole rollouts: a dense layer, a GRU with resets where episodes end, two heads, PPO's clipped loss,
its gradient and a step of Adam. "flax linen" is Flax's GRU under `nn.scan` with a `where` for the resets, "jaxrnn" the
same parameters in `jaxrnn.linen.RNN`, "torch" PyTorch's GRU with the episodes split and padded to the longest one, as
fused kernels without resets need it.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen

import jaxrnn.linen
from bench.records import Output, Record, progress, report
from bench.rivals import OURS
from bench.timing import interleaved
from jaxrnn import convert

OBSERVATION, ACTIONS = 32, 8  # sizes
CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT, MAX_NORM, LEARNING_RATE = 0.2, 0.5, 0.01, 0.5, 3e-4


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Measure updates of recurrent PPO."""

    sizes: tuple[str, ...] = ("256,16,64", "256,128,128", "1024,32,256", "1024,128,64", "4096,16,128")
    """Sizes B,T,H: environments, steps of a rollout, hidden."""
    ends: float = 0.02
    """Share of the steps at which a new episode begins."""
    repeats: int = 5
    """Turns of each program; the median counts."""


class Rollout(NamedTuple):
    """What a policy did."""

    observations: jax.Array  # [T, B, OBSERVATION]
    resets: jax.Array  # [T, B] bool
    actions: jax.Array  # [T, B]
    log_probabilities: jax.Array  # [T, B]
    advantages: jax.Array  # [T, B]
    returns: jax.Array  # [T, B]


def rollout(time: int, batch: int, ends: float) -> Rollout:
    keys = iter(jax.random.split(jax.random.key(1), 6))
    shape = time, batch
    return Rollout(
        observations=jax.random.normal(next(keys), (*shape, OBSERVATION)),
        resets=jax.random.bernoulli(next(keys), ends, shape),
        actions=jax.random.randint(next(keys), shape, 0, ACTIONS),
        log_probabilities=-2.0 + 0.1 * jax.random.normal(next(keys), shape),
        advantages=jax.random.normal(next(keys), shape),
        returns=jax.random.normal(next(keys), shape),
    )


class ScannedGRU(linen.Module):
    """Flax's GRU, reset by hand."""

    hidden: int

    @functools.partial(linen.scan, variable_broadcast="params", split_rngs={"params": False})
    @linen.compact
    def __call__(self, carry, inputs):
        x, reset = inputs
        carry = jnp.where(reset[:, None], 0.0, carry)
        return linen.GRUCell(self.hidden, name="cell")(carry, x)


class Agent(linen.Module):
    """Logits and values of each step."""

    hidden: int
    ours: bool

    @linen.compact
    def __call__(self, carry, observations, resets):
        xs = linen.relu(linen.Dense(self.hidden, name="embed")(observations))
        if self.ours:
            cell = jaxrnn.linen.from_flax(linen.GRUCell(self.hidden), input_size=self.hidden)
            rnn = jaxrnn.linen.RNN(cell, time_major=True, name="rnn")
            _, ys = rnn(xs, initial_carry=carry, resets=resets)
        else:
            _, ys = ScannedGRU(self.hidden, name="rnn")(carry, (xs, resets))
        return linen.Dense(ACTIONS, name="policy")(ys), linen.Dense(1, name="value")(ys)[..., 0]


def ppo(logits, values, data: Rollout):
    """PPO's loss (Schulman et al. 2017, equation 9)."""
    log_p = jax.nn.log_softmax(logits)
    ratio = jnp.exp(jnp.take_along_axis(log_p, data.actions[..., None], -1)[..., 0] - data.log_probabilities)
    gain = jnp.minimum(ratio * data.advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * data.advantages)
    entropy = -(jnp.exp(log_p) * log_p).sum(-1)
    return jnp.mean(-gain + VALUE_WEIGHT * (values - data.returns) ** 2 - ENTROPY_WEIGHT * entropy)


class Start(NamedTuple):
    """What all programs begin with."""

    params: Any
    carry: jax.Array  # [B, H]
    data: Rollout


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def start(batch: int, time: int, hidden: int, ends: float) -> Start:
    data, carry = rollout(time, batch, ends), jax.random.normal(jax.random.key(2), (batch, hidden))
    small = jax.tree.map(lambda a: a[:, :1], data)
    params = Agent(hidden, ours=False).init(jax.random.key(0), carry[:1], small.observations, small.resets)
    return Start(params, carry, data)


def flax_update(ours: bool, begin: Start) -> Callable[[], jax.Array]:
    """A program that takes an update further at every call and gives its loss."""
    params, carry, data = begin
    agent = Agent(carry.shape[-1], ours)
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(LEARNING_RATE))

    @jax.jit
    def update(params, moments, carry, data):
        def loss_fn(params):
            return ppo(*agent.apply(params, carry, data.observations, data.resets), data)

        loss, slopes = jax.value_and_grad(loss_fn)(params)
        changes, moments = optimizer.update(slopes, moments)
        return optax.apply_updates(params, changes), moments, loss

    learned = [params, optimizer.init(params)]

    def program():
        *learned[:], loss = update(*learned, carry, data)
        return loss

    return program


def episodes(resets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(gather, scatter, rows)` of rollouts `[T, B]` cut into episodes.

    `gather` `[longest, episodes]` are the places in `[T · B]` that a padded batch takes, `scatter` `[T · B]` the places
    there that each step comes from, `rows` `[episodes]` the row whose carry an episode starts with, -1 for zeros.
    """
    time, batch = resets.shape
    begins = resets.copy()
    begins[0] = True
    row, begin = np.nonzero(begins.T)
    end = np.append(begin[1:], time)
    end[np.append(row[1:] != row[:-1], True)] = time
    t = np.arange((end - begin).max())[:, None]
    inside = t < end - begin
    gather = np.where(inside, (begin + t) * batch + row, 0)
    scatter = np.empty(time * batch, np.int64)
    scatter[gather[inside]] = np.flatnonzero(inside)
    return gather, scatter, np.where((begin == 0) & ~resets[0][row], row, -1)


def torch_update(begin: Start) -> Callable[[], Any]:
    """The same in PyTorch, on padded episodes."""
    import torch

    params, carry, data = begin
    named = jax.tree.map(lambda a: torch.tensor(np.array(a)), params["params"])
    gru = convert.to_torch(*convert.from_flax(params["params"]["rnn"]["cell"]))
    layers = {name: torch.nn.Linear(*named[name]["kernel"].shape) for name in ("embed", "policy", "value")}
    for name, layer in layers.items():
        layer.weight.data, layer.bias.data = named[name]["kernel"].T.contiguous(), named[name]["bias"]
    # Of PyTorch's two biases of the gates r and z one stays, as Flax has one: Adam would move their sum twice as far.
    once = torch.arange(3 * gru.hidden_size) >= 2 * gru.hidden_size
    gru.bias_hh_l0.register_hook(lambda slope: slope * once)
    weights = [*gru.parameters(), *(w for layer in layers.values() for w in layer.parameters())]
    adam = torch.optim.Adam(weights, LEARNING_RATE)
    resets = np.array(data.resets)
    tensors = Rollout(*(torch.tensor(np.array(a)) for a in data))
    carries = torch.cat([torch.tensor(np.array(carry)), torch.zeros(1, carry.shape[-1])])

    def program():
        gather, scatter, rows = (torch.from_numpy(a) for a in episodes(resets))
        xs = torch.relu(layers["embed"](tensors.observations)).flatten(0, 1)
        ys = gru(xs[gather], carries[rows][None])[0].flatten(0, 1)[scatter].unflatten(0, resets.shape)
        log_p = torch.log_softmax(layers["policy"](ys), -1)
        ratio = torch.exp(log_p.gather(-1, tensors.actions[..., None].long())[..., 0] - tensors.log_probabilities)
        gain = torch.minimum(ratio * tensors.advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * tensors.advantages)
        entropy = -(log_p.exp() * log_p).sum(-1)
        errors = (layers["value"](ys)[..., 0] - tensors.returns) ** 2
        loss = (-gain + VALUE_WEIGHT * errors - ENTROPY_WEIGHT * entropy).mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, MAX_NORM)
        adam.step()
        return loss.detach()

    return program


def programs(begin: Start) -> dict[str, Callable[[], Any]]:
    made = {"jaxrnn": flax_update(True, begin), "flax linen": flax_update(False, begin)}
    if importlib.util.find_spec("torch") is not None:
        made["torch"] = torch_update(begin)
    return made


def records(settings: Settings) -> Iterator[Record]:
    for text in progress(settings.sizes, "bench.rl"):
        batch, time, hidden = map(int, text.split(","))
        _, seconds = interleaved(programs(start(batch, time, hidden, settings.ends)), settings.repeats)
        for name, spent in seconds.items():
            yield Record("an update of recurrent PPO", "B, T, H", text, name, 1e3 * spent, "ms", name in OURS)


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
