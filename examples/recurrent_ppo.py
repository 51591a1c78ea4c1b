"""PPO with a GRU: tasks whose answer lies some steps back, and any environment of gymnax.

    python -m examples.recurrent_ppo                                    # a T-maze
    python -m examples.recurrent_ppo --task repeat-previous --length 4
    python -m examples.recurrent_ppo --task CartPole-v1                 # with gymnax: pip install -e '.[rl]'

    t-maze             a sign at the entrance says on which side of the junction, `length` steps on, the goal is
                                                                        (Bakker 2002)
    repeat-previous    say which of four cards was shown `length` steps ago (Morad et al. 2023)

The agent acts step by step. It learns from what it stored by `unroll`, with a reset where an episode begins: the same
network, the same values. An update, from the first step in all environments to the last gradient, is one jitted call
for all seeds side by side. The picture shows each seed's return over the environment steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, training
from jaxrnn.reinforce import categorical_log_prob

EPOCHS, MINIBATCHES = 4, 4  # each rollout is learned from so many times, in so many parts
DISCOUNT, TRACE = 0.99, 0.95  # of rewards, and the λ of advantages
CLIP = 0.2  # how far an action's probability may move in one update, as a ratio
ENTROPY = 0.01  # its weight, which keeps the agent trying
KINDS, QUESTIONS = 4, 48  # of cards, and how many are asked for in an episode
GUESS = {"t-maze": 0.0, "repeat-previous": 2 / KINDS - 1}  # the return of who remembers nothing; the best one is 1


@dataclass(frozen=True)
class Settings:
    """An agent with a memory, trained by PPO."""

    task: str = "t-maze"
    """"t-maze", "repeat-previous", or the name of an environment of gymnax with discrete actions."""
    length: int = 20
    """Steps over which the agent has to remember; of the two tasks of this script."""
    hidden: common.Hidden = 64
    seeds: int = 8
    """Agents that are trained side by side."""
    environments: int = 16
    """Environments of each agent, a multiple of four: a rollout is learned from in four parts."""
    rollout: int = 64
    """Steps in each environment between two updates."""
    updates: int = 80
    """Rollouts to learn from."""
    learning_rate: float = 2e-3
    """Adam's at the beginning; it falls to nothing."""
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/recurrent_ppo")
    quick: bool = False
    """A short corridor for some seconds; sets --length, --seeds and --updates where they are not given."""
    resume: common.Resume = False


# The tasks: functions of one environment; `vmap` makes many of them.


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
    made, params = gymnax.make(name)
    if not hasattr(made.action_space(params), "n"):
        raise ValueError(f"task: got {name!r}, whose actions are continuous, needs discrete ones")

    def reset(key: jax.Array) -> Any:
        observation, state = made.reset_env(key, params)
        return state, jnp.ravel(observation).astype(jnp.float32)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        observation, state, reward, terminated, _ = made.step_env(key, state, action, params)
        done = terminated | made.is_truncated(state, params)
        return state, jnp.ravel(observation).astype(jnp.float32), jnp.float32(reward), done

    size = int(np.prod(made.observation_space(params).shape))
    return Environment(reset, step, size, int(made.action_space(params).n))


def make(settings: Settings) -> Environment:
    """The task that the settings name."""
    own = {"t-maze": t_maze, "repeat-previous": repeat_previous}
    return own[settings.task](settings.length) if settings.task in own else from_gymnax(settings.task)


# The agent, and what it goes through.


class Agent(nnx.Module):
    """What it sees, a GRU, logits of the actions and the value of where it is."""

    def __init__(self, environment: Environment, hidden: int, rngs: nnx.Rngs) -> None:
        orthogonal = nnx.initializers.orthogonal
        self.embed = nnx.Linear(environment.observation_size, hidden, kernel_init=orthogonal(2**0.5), rngs=rngs)
        self.rnn = jaxrnn.nnx.RNN(jaxrnn.GRU(hidden, hidden), time_major=True, rngs=rngs)
        self.actor = nnx.Linear(hidden, environment.actions, kernel_init=orthogonal(0.01), rngs=rngs)
        self.critic = nnx.Linear(hidden, 1, kernel_init=orthogonal(1.0), rngs=rngs)

    def __call__(self, carry: Any, observations: jax.Array, resets: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        """Stored sequences: `[T, B, O]` and `[T, B]` to logits `[T, B, A]` and values `[T, B]`."""
        carry, ys = self.rnn(nnx.relu(self.embed(observations)), initial_carry=carry, resets=resets)
        return carry, self.actor(ys), self.critic(ys)[..., 0]

    def step(self, carry: Any, observation: jax.Array, reset: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        """One step: `[B, O]` and `[B]` to logits `[B, A]` and values `[B]`."""
        carry = jax.tree.map(lambda leaf: jnp.where(reset[:, None], 0, leaf), carry)
        carry, y = self.rnn.step(carry, nnx.relu(self.embed(observation)))
        return carry, self.actor(y), self.critic(y)[..., 0]


class World(NamedTuple):
    """Where an agent and its environments are between two steps."""

    state: Any  # of the environments
    observation: jax.Array  # [B, O]
    reset: jax.Array  # [B] bool, whether an episode begins
    carry: Any  # the agent's
    total: jax.Array  # [B], rewards of the episode up to now
    recent: jax.Array  # [], mean return of the episodes that ended in the last rollout in which any did


class Seen(NamedTuple):
    """A rollout."""

    observation: jax.Array  # [T, B, O]
    reset: jax.Array  # [T, B] bool
    action: jax.Array  # [T, B]
    log_prob: jax.Array  # [T, B]
    value: jax.Array  # [T, B]
    reward: jax.Array  # [T, B]
    done: jax.Array  # [T, B] bool
    total: jax.Array  # [T, B], with this reward


def begin(agent: Agent, environment: Environment, key: jax.Array, count: int) -> World:
    """Environments at their beginning."""
    state, observation = jax.vmap(environment.reset)(jax.random.split(key, count))
    carry = agent.rnn.initialize_carry((count, agent.embed.out_features))
    return World(state, observation, jnp.ones(count, bool), carry, jnp.zeros(count), jnp.zeros(()))


def roll_out(agent: Agent, environment: Environment, world: World, key: jax.Array, steps: int) -> tuple[World, Seen]:
    """Acts in all environments; where an episode ends the next one begins."""

    def go_on(key: jax.Array, state: Any, action: jax.Array) -> Any:
        k_step, k_reset = jax.random.split(key)
        state, observation, reward, done = environment.step(k_step, state, action)
        fresh = environment.reset(k_reset)
        state, observation = jax.tree.map(partial(jnp.where, done), fresh, (state, observation))
        return state, observation, reward, done

    def step(world: World, key: jax.Array) -> tuple[World, Seen]:
        k_action, k_world = jax.random.split(key)
        carry, logits, value = agent.step(world.carry, world.observation, world.reset)
        action = jax.random.categorical(k_action, logits)
        keys = jax.random.split(k_world, len(action))
        state, observation, reward, done = jax.vmap(go_on)(keys, world.state, action)
        total = world.total + reward
        seen = Seen(
            world.observation, world.reset, action, categorical_log_prob(logits, action), value, reward, done, total
        )
        return World(state, observation, done, carry, jnp.where(done, 0.0, total), world.recent), seen

    world, seen = jax.lax.scan(step, world, jax.random.split(key, steps))
    mean = jnp.mean(seen.total, where=seen.done)
    return world._replace(recent=jnp.where(jnp.any(seen.done), mean, world.recent)), seen


# How it learns.


def advantages(seen: Seen, last: jax.Array) -> jax.Array:
    """The generalized advantage estimate (Schulman et al. 2016), `[T, B]`; `last` `[B]`: values after it."""

    def back(ahead: Any, step: Any) -> Any:
        advantage, value_ahead = ahead
        reward, done, value = step
        error = reward + DISCOUNT * jnp.where(done, 0.0, value_ahead) - value
        advantage = error + DISCOUNT * TRACE * jnp.where(done, 0.0, advantage)
        return (advantage, value), advantage

    steps = (seen.reward, seen.done, seen.value)
    return jax.lax.scan(back, (jnp.zeros_like(last), last), steps, reverse=True)[1]


def objective(agent: Agent, carry: Any, seen: Seen, advantage: jax.Array) -> jax.Array:
    """The clipped objective (Schulman et al. 2017), over whole stored sequences from the stored carry on."""
    _, logits, values = agent(carry, seen.observation, seen.reset)
    ratio = jnp.exp(categorical_log_prob(logits, seen.action) - seen.log_prob)
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    near = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    policy = -jnp.mean(jnp.minimum(ratio * scaled, near * scaled))
    value = 0.5 * jnp.mean((values - (seen.value + advantage)) ** 2)
    entropy = -jnp.mean(jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), axis=-1))
    return policy + 0.5 * value - ENTROPY * entropy


def update(
    settings: Settings,
    environment: Environment,
    optimizer: optax.GradientTransformation,
    agent: Agent,
    opt_state: Any,
    world: World,
    key: jax.Array,
) -> tuple[Agent, Any, World]:
    """One agent's rollout, and all that it learns from it."""
    k_world, k_rows = jax.random.split(key)
    carry = world.carry
    world, seen = roll_out(agent, environment, world, k_world, settings.rollout)
    last = agent.step(world.carry, world.observation, world.reset)[2]
    advantage = advantages(seen, last)

    def minibatch(learner: Any, rows: jax.Array) -> Any:
        agent, opt_state = learner
        first = jax.tree.map(lambda leaf: leaf[rows], carry)
        stored, gain = jax.tree.map(lambda leaf: leaf[:, rows], (seen, advantage))
        grads = jax.grad(objective)(agent, first, stored, gain)
        updates, opt_state = optimizer.update(grads, opt_state, agent)
        return (optax.apply_updates(agent, updates), opt_state), None

    orders = jax.vmap(partial(jax.random.permutation, x=settings.environments))(jax.random.split(k_rows, EPOCHS))
    (agent, opt_state), _ = jax.lax.scan(minibatch, (agent, opt_state), orders.reshape(EPOCHS * MINIBATCHES, -1))
    return agent, opt_state, world


def train(settings: Settings, environment: Environment) -> training.TrainState:
    """Trains all seeds side by side."""
    decay = optax.linear_schedule(settings.learning_rate, 0.0, settings.updates * EPOCHS * MINIBATCHES)
    one = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(decay, eps=1e-5))
    each = optax.GradientTransformation(jax.vmap(one.init), jax.vmap(one.update))
    k_agents, k_worlds, k_train = jax.random.split(jax.random.key(settings.seed), 3)
    agents = jax.vmap(lambda key: Agent(environment, settings.hidden, nnx.Rngs(key)))(
        jax.random.split(k_agents, settings.seeds)
    )
    worlds = jax.vmap(lambda agent, key: begin(agent, environment, key, settings.environments))(
        agents, jax.random.split(k_worlds, settings.seeds)
    )
    state = training.init_state(agents, each, k_train, worlds)
    state = common.begun(settings, state)

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: training.TrainState, number: int) -> tuple[training.TrainState, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(state.key, number), settings.seeds)
        learn = jax.vmap(partial(update, settings, environment, one))
        agents, opt_state, worlds = learn(state.params, state.opt_state, state.carry, keys)
        metrics = {f"return_{n}": worlds.recent[n] for n in range(settings.seeds)}
        state = state._replace(step=state.step + 1, params=agents, opt_state=opt_state, carry=worlds)
        return state, {"loss": -jnp.median(worlds.recent), **metrics}  # the loss is what the progress shows

    return training.fit(
        state,
        train_step,
        common.keeping(settings, batches.numbered(lambda number: number)),
        steps=settings.updates,
        directory=settings.directory,
        log_every=max(1, settings.updates // 25),
        items_per_batch=settings.seeds * settings.environments * settings.rollout,
        unit="environment steps",
    )


# What it reached.


def read(settings: Settings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Environment steps `[N]` of each seed, seconds `[N]` and returns `[N, seeds]` of a run."""
    lines = common.metrics(settings.directory)
    returns = [[line[f"return_{n}"] for n in range(settings.seeds)] for line in lines]
    steps = np.array([line["step"] for line in lines]) * settings.environments * settings.rollout
    return steps, np.array([line["seconds"] for line in lines]), np.array(returns)


def picture(settings: Settings) -> None:
    """Each seed's return over the environment steps."""
    steps, _, returns = read(settings)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, returns, color="#1f6fb4", alpha=0.35, lw=1)
    axes.plot(steps, np.median(returns, 1), color="#1f6fb4", lw=2.5, label=f"median of {settings.seeds} seeds")
    title = settings.task
    if settings.task in GUESS:
        title += f", {settings.length} steps to remember over"
        axes.axhline(1, color="0.5", ls="--", label="all right")
        axes.axhline(GUESS[settings.task], color="0.5", ls=":", label="remembers nothing")
    axes.set(xlabel="environment steps of each seed", ylabel="return of an episode", xlim=(0, None), title=title)
    common.plain(axes)
    common.save(figure, settings.directory / "returns.png")


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(
        settings,
        length=(1, common.MOST),
        seeds=(1, 1000),
        environments=(1, common.MOST),
        rollout=(1, common.MOST),
        updates=(1, common.FOREVER),
    )
    if settings.environments % MINIBATCHES:
        raise ValueError(f"environments: got {settings.environments}, needs a multiple of {MINIBATCHES}")


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train and draw; returns the median return and its range. `arguments` None: the command line's."""
    quick = {"length": 6, "seeds": 4, "updates": 40}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    check(settings)
    train(settings, make(settings))
    steps, seconds, returns = read(settings)
    results = {"median": float(np.median(returns[-1])), "least": returns[-1].min(), "most": returns[-1].max()}
    print(
        f"return: {results['median']:.2f}, the median of {settings.seeds} seeds after {steps[-1]} environment steps "
        f"each; {results['least']:.2f} to {results['most']:.2f}"
    )
    if len(steps) > 1:
        pace = settings.seeds * (steps[-1] - steps[0]) / (seconds[-1] - seconds[0])
        print(f"environment steps a second, learning included: {pace:,.0f}")
    picture(settings)
    return results


if __name__ == "__main__":
    common.run(main, "; here: --resume with the same directory")
