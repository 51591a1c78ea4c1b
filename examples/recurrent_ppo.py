"""PPO with a GRU: tasks whose answer lies some steps back, and any environment of gymnax.

    python -m examples.recurrent_ppo                                    # a T-maze
    python -m examples.recurrent_ppo --task repeat-previous --length 4 --updates 400
    python -m examples.recurrent_ppo --task CartPole-v1                 # with gymnax: pip install -e '.[rl]'

    t-maze             a sign at the entrance says on which side of the junction, `length` steps on, the goal is
                                                                        (Bakker 2002)
    repeat-previous    say which of four cards was shown `length` steps ago (Morad et al. 2023)

The agent acts step by step. It learns from what it stored by `unroll`, with a reset where an episode begins: the same
network, the same values. An update, from the first step in all environments to the last gradient, is one jitted call
for all seeds side by side. The picture shows each seed's return over the environment steps.
"""

from collections.abc import Sequence
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
from examples import common, environments
from examples.environments import Environment
from jaxrnn import batches, training
from jaxrnn.reinforce import categorical_log_prob

EPOCHS, MINIBATCHES = 4, 4  # each rollout is learned from so many times, in so many parts
DISCOUNT, GAE_LAMBDA = 0.99, 0.95  # of rewards, and of advantages
CLIP = 0.2  # how far an action's probability may move in one update, as a ratio
ENTROPY = 0.01  # its weight, which keeps the agent trying


@dataclass(frozen=True)
class Settings:
    """An agent with a memory, trained by PPO."""

    task: str = "t-maze"
    """Either t-maze, repeat-previous, or the name of an environment of gymnax with discrete actions."""
    length: int = 20
    """Steps over which the agent has to remember; for t-maze and repeat-previous."""
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


# The agent, and its rollouts.


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
        carry, y = self.rnn.step(carry, nnx.relu(self.embed(observation)), reset=reset)
        return carry, self.actor(y), self.critic(y)[..., 0]


class RunnerState(NamedTuple):
    """Where an agent and its environments are between two steps."""

    env_state: Any  # of the environments
    observation: jax.Array  # [B, O]
    reset: jax.Array  # [B] bool, whether an episode begins
    carry: Any  # the agent's
    episode_return: jax.Array  # [B], rewards of the episode so far
    discounted_return: jax.Array  # [B], the same, each step's reward discounted once more at every later one
    mean_return: jax.Array  # [], of the episodes that ended in the last rollout in which any did
    mean_square: jax.Array  # [], of the discounted returns at all steps so far
    rollouts: jax.Array  # [], how many there were


class Rollout(NamedTuple):
    """What an agent saw and did."""

    observation: jax.Array  # [T, B, O]
    reset: jax.Array  # [T, B] bool
    action: jax.Array  # [T, B]
    log_prob: jax.Array  # [T, B]
    value: jax.Array  # [T, B]
    reward: jax.Array  # [T, B]
    done: jax.Array  # [T, B] bool
    episode_return: jax.Array  # [T, B], with this reward
    discounted_return: jax.Array  # [T, B], with this reward


def begin(agent: Agent, environment: Environment, key: jax.Array, count: int) -> RunnerState:
    """Environments at their beginning."""
    env_state, observation = jax.vmap(environment.reset)(jax.random.split(key, count))
    carry = agent.rnn.initialize_carry((count, agent.embed.out_features))
    zero, zeros = jnp.zeros(()), jnp.zeros(count)
    return RunnerState(env_state, observation, jnp.ones(count, bool), carry, zeros, zeros, zero, zero, zero)


def roll_out(
    agent: Agent, environment: Environment, runner: RunnerState, key: jax.Array, steps: int
) -> tuple[RunnerState, Rollout]:
    """Acts in all environments; where an episode ends the next one begins.

    Rewards are divided by the root mean square of the discounted returns so far: with returns of some hundreds the
    loss of the values would drown the policy's, as they share the network and one clip of the gradient.
    """

    def step_or_reset(key: jax.Array, state: Any, action: jax.Array) -> Any:
        k_step, k_reset = jax.random.split(key)
        state, observation, reward, done = environment.step(k_step, state, action)
        fresh = environment.reset(k_reset)
        state, observation = jax.tree.map(partial(jnp.where, done), fresh, (state, observation))
        return state, observation, reward, done

    def step(runner: RunnerState, key: jax.Array) -> tuple[RunnerState, Rollout]:
        k_action, k_env = jax.random.split(key)
        env_state, observation, reset, carry, *_ = runner
        carry, logits, value = agent.step(carry, observation, reset)
        action = jax.random.categorical(k_action, logits)
        log_prob = categorical_log_prob(logits, action)
        keys = jax.random.split(k_env, len(action))
        env_state, ahead, reward, done = jax.vmap(step_or_reset)(keys, env_state, action)
        returns = runner.episode_return + reward, DISCOUNT * runner.discounted_return + reward
        taken = Rollout(observation, reset, action, log_prob, value, reward, done, *returns)
        episode_return, discounted_return = (jnp.where(done, 0.0, of) for of in returns)
        return runner._replace(
            env_state=env_state,
            observation=ahead,
            reset=done,
            carry=carry,
            episode_return=episode_return,
            discounted_return=discounted_return,
        ), taken

    runner, rollout = jax.lax.scan(step, runner, jax.random.split(key, steps))
    mean_return = jnp.mean(rollout.episode_return, where=rollout.done)
    rollouts = runner.rollouts + 1
    mean_square = runner.mean_square + (jnp.mean(rollout.discounted_return**2) - runner.mean_square) / rollouts
    runner = runner._replace(
        mean_return=jnp.where(jnp.any(rollout.done), mean_return, runner.mean_return),
        mean_square=mean_square,
        rollouts=rollouts,
    )
    return runner, rollout._replace(reward=rollout.reward / (jnp.sqrt(mean_square) + 1e-8))


# How it learns.


def advantages(rollout: Rollout, last_value: jax.Array) -> jax.Array:
    """The generalized advantage estimate (Schulman et al. 2016), `[T, B]`; `last_value` `[B]`: of what comes after."""

    def back(ahead: Any, step: Any) -> Any:
        advantage, value_ahead = ahead
        reward, done, value = step
        error = reward + DISCOUNT * jnp.where(done, 0.0, value_ahead) - value
        advantage = error + DISCOUNT * GAE_LAMBDA * jnp.where(done, 0.0, advantage)
        return (advantage, value), advantage

    steps = (rollout.reward, rollout.done, rollout.value)
    return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), steps, reverse=True)[1]


def loss_fn(agent: Agent, carry: Any, rollout: Rollout, advantage: jax.Array) -> jax.Array:
    """The clipped loss (Schulman et al. 2017) over whole stored sequences, from the stored carry on."""
    _, logits, values = agent(carry, rollout.observation, rollout.reset)
    ratio = jnp.exp(categorical_log_prob(logits, rollout.action) - rollout.log_prob)
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    policy_loss = -jnp.mean(jnp.minimum(ratio * scaled, clipped * scaled))
    value_loss = 0.5 * jnp.mean((values - (rollout.value + advantage)) ** 2)
    entropy = -jnp.mean(jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), axis=-1))
    return policy_loss + 0.5 * value_loss - ENTROPY * entropy


def update(
    settings: Settings,
    environment: Environment,
    optimizer: optax.GradientTransformation,
    agent: Agent,
    opt_state: Any,
    runner: RunnerState,
    key: jax.Array,
) -> tuple[Agent, Any, RunnerState]:
    """One agent's rollout, and all that it learns from it."""
    k_rollout, k_rows = jax.random.split(key)
    carry = runner.carry  # the state that the rollout begins in is stored with it
    runner, rollout = roll_out(agent, environment, runner, k_rollout, settings.rollout)
    _, _, last_value = agent.step(runner.carry, runner.observation, runner.reset)
    advantage = advantages(rollout, last_value)

    def minibatch(learner: Any, rows: jax.Array) -> Any:
        """A step on some of the environments: their sequences stay whole."""
        agent, opt_state = learner
        carry_of_rows = jax.tree.map(lambda leaf: leaf[rows], carry)
        rollout_of_rows, advantage_of_rows = jax.tree.map(lambda leaf: leaf[:, rows], (rollout, advantage))
        grads = jax.grad(loss_fn)(agent, carry_of_rows, rollout_of_rows, advantage_of_rows)
        updates, opt_state = optimizer.update(grads, opt_state, agent)
        return (optax.apply_updates(agent, updates), opt_state), None

    orders = jax.vmap(partial(jax.random.permutation, x=settings.environments))(jax.random.split(k_rows, EPOCHS))
    (agent, opt_state), _ = jax.lax.scan(minibatch, (agent, opt_state), orders.reshape(EPOCHS * MINIBATCHES, -1))
    return agent, opt_state, runner


def train(settings: Settings, environment: Environment) -> training.TrainState:
    """Trains all seeds side by side."""
    decay = optax.linear_schedule(settings.learning_rate, 0.0, settings.updates * EPOCHS * MINIBATCHES)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(decay, eps=1e-5))
    for_each = optax.GradientTransformation(jax.vmap(optimizer.init), jax.vmap(optimizer.update))
    k_agents, k_runners, k_train = jax.random.split(jax.random.key(settings.seed), 3)
    agents = jax.vmap(lambda key: Agent(environment, settings.hidden, nnx.Rngs(key)))(
        jax.random.split(k_agents, settings.seeds)
    )
    runners = jax.vmap(lambda agent, key: begin(agent, environment, key, settings.environments))(
        agents, jax.random.split(k_runners, settings.seeds)
    )
    state = training.init_state(k_train, agents, for_each, runners)
    state = common.resume_or_begin(settings, state)

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: training.TrainState, number: int) -> tuple[training.TrainState, dict[str, jax.Array]]:
        keys = jax.random.split(jax.random.fold_in(state.key, number), settings.seeds)
        learn = jax.vmap(partial(update, settings, environment, optimizer))
        agents, opt_state, runners = learn(state.params, state.opt_state, state.carry, keys)
        metrics = {f"return_{n}": runners.mean_return[n] for n in range(settings.seeds)}
        state = state._replace(step=state.step + 1, params=agents, opt_state=opt_state, carry=runners)
        return state, {"loss": -jnp.median(runners.mean_return), **metrics}  # the loss is what the progress shows

    return training.fit(
        state,
        train_step,
        common.storing_settings(settings, batches.numbered(lambda number: number)),
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
    if settings.task in environments.GUESS:
        title += f", {settings.length} steps to remember over"
        axes.axhline(1, color="0.5", ls="--", label="all right")
        axes.axhline(environments.GUESS[settings.task], color="0.5", ls=":", label="remembers nothing")
    axes.set(xlabel="environment steps of each seed", ylabel="return of an episode", xlim=(0, None), title=title)
    common.style(axes)
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
    """Train and draw; returns the median return of the seeds and its range. `arguments` None: the command line's."""
    quick = {"length": 6, "seeds": 4, "updates": 40}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    check(settings)
    train(settings, environments.make(settings.task, settings.length))
    steps, seconds, returns = read(settings)
    last = returns[-max(1, len(returns) // 5) :].mean(0)  # of each seed; few episodes end in a single rollout
    results = {"median": float(np.median(last)), "least": float(last.min()), "most": float(last.max())}
    print(
        f"return: {results['median']:.2f}, the median of {settings.seeds} seeds over the last fifth of {steps[-1]} "
        f"environment steps each; {results['least']:.2f} to {results['most']:.2f}"
    )
    if len(steps) > 1:
        pace = settings.seeds * (steps[-1] - steps[0]) / (seconds[-1] - seconds[0])
        print(f"environment steps a second, learning included: {pace:,.0f}")
    picture(settings)
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
