"""Environments for `recurrent_ppo`: two tasks that need a memory, and those of gymnax.

Each is a pair of pure functions of a single environment; `vmap` makes many of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KINDS, QUESTIONS = 4, 48  # of cards, and how many are asked for in an episode
GUESS = {"t-maze": 0.0, "repeat-previous": 2 / KINDS - 1}  # the return of who remembers nothing; the best one is 1


class Environment(NamedTuple):
    """A task, in the manner of gymnax."""

    reset: Callable[[jax.Array], Any]  # key -> (state, observation [O])
    step: Callable[[jax.Array, Any, jax.Array], Any]  # key, state, action -> (state, observation, reward, done)
    observation_size: int
    actions: int


def t_maze(length: int) -> Environment:
    """Actions: forward, up, down. Turning to the goal is worth 1, to the other side -1, and standing still -0.1."""

    def see(position: jax.Array, side: jax.Array) -> jax.Array:
        entrance = position == 0
        return jnp.stack([entrance & (side == 0), entrance & (side == 1), position == length]).astype(jnp.float32)

    def reset(key: jax.Array) -> Any:
        position, side = jnp.int32(0), jax.random.randint(key, (), 0, 2)
        return (position, side), see(position, side)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        position, side = state
        forward, turns = (position < length) & (action == 0), (position == length) & (action > 0)
        reward = jnp.where(turns, jnp.where(action - 1 == side, 1.0, -1.0), jnp.where(forward, 0.0, -0.1))
        position = position + forward
        return (position, side), see(position, side), reward, turns

    return Environment(reset, step, 3, 3)


def repeat_previous(length: int) -> Environment:
    """Actions: the kinds of cards. All right answers of an episode together are worth 1, all wrong ones -1."""

    def see(cards: jax.Array) -> jax.Array:
        return jax.nn.one_hot(cards[0], KINDS)

    def reset(key: jax.Array) -> Any:
        cards = jax.random.randint(key, (length + 1,), 0, KINDS)  # the newest first
        return (cards, jnp.int32(0)), see(cards)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        cards, time = state
        reward = jnp.where(time < length, 0.0, jnp.where(action == cards[-1], 1.0, -1.0) / QUESTIONS)
        cards = jnp.concatenate([jax.random.randint(key, (1,), 0, KINDS), cards[:-1]])
        return (cards, time + 1), see(cards), reward, time + 1 == length + QUESTIONS

    return Environment(reset, step, KINDS, KINDS)


def from_gymnax(name: str) -> Environment:
    """An environment of gymnax; its end by the time limit counts as an end."""
    try:
        import gymnax
    except ImportError:
        raise ValueError(
            f"task: got {name!r}, needs {' or '.join(GUESS)}, or gymnax to be installed: pip install -e '.[rl]'"
        ) from None
    if name not in gymnax.registered_envs:
        raise ValueError(f"task: got {name!r}, needs {', '.join([*GUESS, *gymnax.registered_envs])}")
    environment, params = gymnax.make(name)
    if not hasattr(environment.action_space(params), "n"):
        raise ValueError(f"task: got {name!r}, whose actions are continuous, needs discrete ones")

    def reset(key: jax.Array) -> Any:
        observation, state = environment.reset_env(key, params)
        return state, jnp.ravel(observation).astype(jnp.float32)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        observation, state, reward, terminated, _ = environment.step_env(key, state, action, params)
        done = terminated | environment.is_truncated(state, params)
        return state, jnp.ravel(observation).astype(jnp.float32), jnp.float32(reward), done

    size = int(np.prod(environment.observation_space(params).shape))
    return Environment(reset, step, size, int(environment.action_space(params).n))


def make(name: str, length: int) -> Environment:
    """The environment of a name; `length`: steps to remember over, in the tasks of this module."""
    own = {"t-maze": t_maze, "repeat-previous": repeat_previous}
    return own[name](length) if name in own else from_gymnax(name)
