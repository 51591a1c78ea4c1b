"""Learn sine waves, then continue them: two LSTM layers fed, at last, with nothing but their own predictions.

    python -m examples.sine
    python -m examples.sine --optimizer adam

The protocol of PyTorch's example time_sequence_prediction: 100 waves sin((t + shift) / 20) of 1000 points, 3 of them to
test on; two LSTM layers of 51 units and a linear one predict each next point, in float64; full-batch L-BFGS in 15 steps
of 20 iterations. After every step the test waves are continued for 1000 points, each prediction the next input.

Seed 0 keeps step 11, which continues the training waves best: train MSE 3.8e-6, test 6.1e-6, free-running 6.8e-4; all
15 steps take 385 seconds on two busy CPU cores. Seed 2 keeps step 13: 4.1e-6, 6.8e-6, 5.7e-4. The free-running error
jumps from step to step: after step 15 it is 1.6e-1 and 6.7e-1. PyTorch's example, after its 15 steps: 4.9e-6, 8.5e-6,
4.1e-3. Adam is far behind: with --quick, 1.4e-3, 7.2e-4, 6.8e-1, where L-BFGS reaches 7.7e-6, 1.7e-5, 1.6e-3.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import jaxrnn
from examples import common

PERIOD = 20  # times 2π: points in a wave
TEST = 3  # waves to test on, the first ones


@dataclass(frozen=True)
class Settings:
    """Two LSTM layers that predict sine waves and continue them on their own."""

    waves: int = 100
    """Waves; the first three are held out."""
    length: int = 1000
    """Points of each."""
    future: int = 1000
    """Points to continue the held-out waves by."""
    hidden: int = 51
    """Units of each layer."""
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """L-BFGS with a line search, or Adam with a cosine schedule."""
    steps: int = 15
    """Times to train for some iterations, then to look."""
    iterations: int = 20
    """Updates in a step; one of L-BFGS takes one evaluation of the gradient, seldom more, one of Adam takes one."""
    memory: int = 100
    """Updates that L-BFGS remembers (PyTorch's default)."""
    learning_rate: float = 1e-2
    """Adam's, at the start."""
    seed: int = 0
    """Of the initialization; the waves are always the same."""
    directory: Path = Path("runs/sine")
    """Where the picture goes."""
    quick: bool = False
    """Fewer and shorter waves for half a minute; sets --waves, --length, --future and --steps where not given."""


class Params(NamedTuple):
    """Parameters of the network."""

    cells: Any
    w: jax.Array  # [H, 1]
    b: jax.Array  # [1]


def make_waves(waves: int, points: int) -> np.ndarray:
    """`sin((t + shift) / PERIOD)` with random whole shifts, time first: `[points, waves, 1]`."""
    shifts = np.random.RandomState(2).randint(-4 * PERIOD, 4 * PERIOD, waves)
    return np.sin((np.arange(points)[:, None, None] + shifts[:, None]) / PERIOD)


def init(net: jaxrnn.Stack, key: jax.Array) -> Params:
    """Every parameter uniform within ±1/√H, as in PyTorch's layers."""
    uniform = jaxrnn.initializers.uniform(net.output_size**-0.5)
    k_cells, k_w, k_b = jax.random.split(key, 3)
    return Params(
        cells=net.init(
            k_cells,
            dtype=jnp.float64,
            input_init=uniform,
            recurrent_init=uniform,
            bias_init=uniform,
            forget_bias=0.0,
        ),
        w=uniform(k_w, (net.output_size, 1), jnp.float64),
        b=uniform(k_b, (1,), jnp.float64),
    )


def predict(net: jaxrnn.Stack, params: Params, xs: jax.Array) -> tuple[Any, jax.Array]:
    """The next point after each of `xs` `[T, B, 1]`, and the state after the last."""
    state, ys = jaxrnn.unroll(net, params.cells, xs)
    return state, jaxrnn.ops.affine(ys, params.w, params.b)


def dream(net: jaxrnn.Stack, params: Params, state: Any, y: jax.Array, steps: int) -> jax.Array:
    """`steps` points after the prediction `y` `[B, 1]`, each the input of the next: `[steps, B, 1]`."""

    def step(carry: tuple[Any, jax.Array], _: None) -> tuple[tuple[Any, jax.Array], jax.Array]:
        state, y = carry
        state, h = net(params.cells, state, y)
        y = jaxrnn.ops.affine(h, params.w, params.b)
        return (state, y), y

    return jax.lax.scan(step, (state, y), length=steps)[1]


def mse(ys: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((ys - targets) ** 2)


def make_step(
    settings: Settings, loss: Callable[[Params], jax.Array]
) -> tuple[Callable[[Params], Any], Callable[[Params, Any], tuple[Params, Any, jax.Array]]]:
    """`init` and `step` of the optimizer: the second makes all iterations of a step and counts its evaluations."""
    if settings.optimizer == "adam":
        schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps * settings.iterations)
        optimizer = optax.with_extra_args_support(optax.adam(schedule))
    else:
        optimizer = optax.lbfgs(memory_size=settings.memory)

    def value_and_grad(params: Params, state: Any) -> tuple[jax.Array, Params]:
        if settings.optimizer == "adam":
            return jax.value_and_grad(loss)(params)
        # The line search has already been where it ended.
        return optax.value_and_grad_from_state(loss)(params, state=state)

    def iteration(_: int, carry: tuple[Params, Any, jax.Array]) -> tuple[Params, Any, jax.Array]:
        params, state, evaluations = carry
        value, grad = value_and_grad(params, state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        search = optax.tree_utils.tree_get(state, "info")
        evaluations += 1 if search is None else search.num_linesearch_steps
        return optax.apply_updates(params, updates), state, evaluations

    def step(params: Params, state: Any) -> tuple[Params, Any, jax.Array]:
        return jax.lax.fori_loop(0, settings.iterations, iteration, (params, state, jnp.zeros((), int)))

    return optimizer.init, jax.jit(step)


def picture(true: np.ndarray, predicted: np.ndarray, continued: np.ndarray, path: Path) -> Path:
    """The true waves `[T + F, B, 1]`, their predictions `[T - 1, B, 1]` and their continuations `[F, B, 1]`."""
    points, start = len(true), len(predicted) + 1
    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(TEST, 1, sharex=True, sharey=True)
    for b, axes in enumerate(rows):
        axes.axvspan(start, points, color="0.96", zorder=0)
        axes.plot(np.arange(points), true[:, b, 0], color="0.75", lw=5, label="true wave")
        axes.plot(np.arange(1, start), predicted[:, b, 0], color="#1f6fb4", lw=1.6, label="predicted, given the wave")
        axes.plot(
            np.arange(start, points), continued[:, b, 0], "--", color="#c8102e", lw=1.6, label="continued, given itself"
        )
        axes.set(ylim=(-1.3, 1.3), yticks=(-1, 0, 1), ylabel=f"test wave {b + 1}", xlim=(0, points))
        axes.spines[["top", "right"]].set_visible(False)
    rows[-1].set_xlabel("time step")
    figure.legend(*rows[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=130)
    return path


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check_between(
        settings,
        waves=(TEST + 1, common.MOST),
        length=(4, common.MOST),
        future=(1, common.MOST),
        hidden=(1, 1 << 14),
        steps=(1, common.FOREVER),
        iterations=(1, common.FOREVER),
        memory=(1, 1000),
        seed=(0, common.SEEDS),
    )
    common.check_positive(settings, "learning_rate")


class Look(NamedTuple):
    """What the network does after a step: mean squared errors, and what the picture shows."""

    train: jax.Array
    train_run: jax.Array  # second halves of the training waves, continued from the first
    test: jax.Array
    test_run: jax.Array  # what comes after the test waves
    predicted: jax.Array  # [T - 1, 3, 1]
    continued: jax.Array  # [F, 3, 1]


def run(settings: Settings) -> dict[str, float]:
    """Train, look after each step, keep the best, draw it."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    net = jaxrnn.Stack((jaxrnn.LSTM(1, settings.hidden), jaxrnn.LSTM(settings.hidden, settings.hidden)))
    true = make_waves(settings.waves, settings.length + settings.future)
    given, coming = jnp.asarray(true[: settings.length]), jnp.asarray(true[settings.length :, :TEST])
    train, test = given[:, TEST:], given[:, :TEST]
    first, second = jnp.split(train, [settings.length // 2])

    def loss(params: Params) -> jax.Array:
        return mse(predict(net, params, train[:-1])[1], train[1:])

    @jax.jit
    def look(params: Params) -> Look:
        # As in PyTorch's example, not the last given point but its prediction is the first input of a continuation.
        state, ys = predict(net, params, first[:-1])
        train_run = mse(dream(net, params, state, ys[-1], len(second)), second)
        state, ys = predict(net, params, test[:-1])
        continued = dream(net, params, state, ys[-1], settings.future)
        return Look(loss(params), train_run, mse(ys, test[1:]), mse(continued, coming), ys, continued)

    params = init(net, jax.random.key(settings.seed))
    init_optimizer, step = make_step(settings, loss)
    # The cast strips weak types, which would make the second step compile again.
    state = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), init_optimizer(params))
    begin, evaluations = time.monotonic(), int(settings.optimizer == "lbfgs")  # one before the first line search
    looks: list[Look] = []
    print("                                    mean squared error: one point ahead          free-running")
    print("step  iterations  evaluations  seconds       train       test       train       test")
    for number in range(1, settings.steps + 1):
        params, state, more = step(params, state)
        evaluations += int(more)
        looks.append(jax.device_get(look(params)))
        seen = looks[-1]
        print(
            f"{number:4d}  {number * settings.iterations:10d}  {evaluations:11d}  {time.monotonic() - begin:7.1f}  "
            f"{seen.train:10.2e} {seen.test:10.2e}  {seen.train_run:10.2e} {seen.test_run:10.2e}",
            flush=True,
        )
    best = int(np.argmin([np.nan_to_num(seen.train_run, nan=np.inf) for seen in looks]))
    kept = looks[best]
    if not np.isfinite(kept.train_run):
        raise ValueError(f"learning_rate: got {settings.learning_rate}, needs a smaller one: no error was finite")
    print(
        f"best at continuing the training waves: step {best + 1}, train MSE {kept.train:.2e}, "
        f"test MSE {kept.test:.2e}, free-run MSE {kept.test_run:.2e}"
    )
    path = picture(true[:, :TEST], kept.predicted, kept.continued, settings.directory / "predictions.png")
    print(f"picture: {path}")
    return {"train": float(kept.train), "test": float(kept.test), "free-run": float(kept.test_run)}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test, continue and draw; returns the kept mean squared errors. `arguments` None: the command line's."""
    quick = {"waves": 23, "length": 500, "future": 500, "steps": 8}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    check(settings)
    with jax.enable_x64(True):
        return run(settings)


if __name__ == "__main__":
    common.run(main, "stopped")
