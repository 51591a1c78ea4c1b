"""Learn sine waves, then continue them: two LSTM layers fed, at last, with nothing but their own predictions.

    python -m examples.sine
    python -m examples.sine --optimizer adam

The protocol of PyTorch's example time_sequence_prediction: 100 waves sin((t + shift) / 20) of 1000 points, 3 of them to
test on; two LSTM layers of 51 units and a linear one predict each next point, in float64; 300 steps of full-batch
L-BFGS. After every 20 the test waves are continued for 1000 points, each prediction the next input.

The error one point ahead falls steadily. The free-running one jumps by orders of magnitude from look to look, because a
thousand steps add up the smallest error of the period. So the parameters kept are those that continue the second halves
of the training waves best; the test waves have no say. `errors.png` shows all errors over the steps.

What it reaches: examples/README.md.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from matplotlib.figure import Figure

import jaxrnn
import jaxrnn.linen
from examples import common
from jaxrnn import training

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
    hidden: common.Hidden = 51
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    """L-BFGS with a line search, or Adam with a cosine schedule."""
    steps: int = 300
    """Updates; one of L-BFGS takes one evaluation of the gradient, seldom more, one of Adam takes one."""
    eval_every: int = 20
    """Updates after which the errors are looked at, and the best parameters so far kept."""
    memory: int = 100
    """Updates that L-BFGS remembers (PyTorch's default)."""
    learning_rate: float = 1e-2
    """Adam's, at the start."""
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/sine")
    quick: bool = False
    """Fewer and shorter waves for half a minute; sets --waves, --length, --future and --steps where not given."""
    resume: common.Resume = False


def make_waves(waves: int, points: int) -> np.ndarray:
    """`sin((t + shift) / PERIOD)` with random whole shifts, time first: `[points, waves, 1]`."""
    shifts = np.random.RandomState(2).randint(-4 * PERIOD, 4 * PERIOD, waves)
    return np.sin((np.arange(points)[:, None, None] + shifts[:, None]) / PERIOD)


class Predictor(linen.Module):
    """Two LSTM layers and a linear one; every parameter uniform within ±1/√H, as in PyTorch's layers."""

    hidden: int

    def setup(self) -> None:
        uniform = jaxrnn.initializers.uniform(self.hidden**-0.5)
        of_cells = {"input_init": uniform, "recurrent_init": uniform, "bias_init": uniform, "forget_bias": 0.0}
        net = jaxrnn.Stack((jaxrnn.LSTM(1, self.hidden), jaxrnn.LSTM(self.hidden, self.hidden)))
        self.rnn = jaxrnn.linen.RNN(net, param_dtype=jnp.float64, initializers=of_cells, time_major=True)
        self.head = linen.Dense(1, param_dtype=jnp.float64, kernel_init=uniform, bias_init=uniform)

    def __call__(self, xs: jax.Array) -> tuple[Any, jax.Array]:
        """The state after the points `[T, B, 1]`, and the next point after each of them."""
        carry, ys = self.rnn(xs)
        return carry, self.head(ys)

    def step(self, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """The same for one point."""
        carry, y = self.rnn.step(carry, x)
        return carry, self.head(y)


def free_run(model: Predictor, params: Any, carry: Any, y: jax.Array, steps: int) -> jax.Array:
    """`steps` points after the prediction `y` `[B, 1]`, each the input of the next: `[steps, B, 1]`."""

    def step(before: tuple[Any, jax.Array], _: None) -> tuple[tuple[Any, jax.Array], jax.Array]:
        carry, y = model.apply({"params": params}, *before, method="step")
        return (carry, y), y

    return jax.lax.scan(step, (carry, y), length=steps)[1]


def mse(ys: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((ys - targets) ** 2)


def make_step(
    settings: Settings, loss: Callable[[Any], jax.Array]
) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimizer and its train step; the carry counts evaluations of the gradient."""
    if settings.optimizer == "adam":
        optimizer = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.steps))

        def loss_fn(params: Any, evaluations: jax.Array, batch: int, key: jax.Array) -> Any:
            return loss(params), (evaluations + 1, {"evaluations": evaluations + 1})

        return optimizer, training.make_train_step(loss_fn, optimizer)
    optimizer = optax.lbfgs(memory_size=settings.memory)

    def train_step(state: training.TrainState, batch: int) -> tuple[training.TrainState, dict[str, jax.Array]]:
        # The line search has already been where it ended: its value and gradient are not computed again.
        value, grad = optax.value_and_grad_from_state(loss)(state.params, state=state.opt_state)
        updates, opt_state = optimizer.update(
            grad, state.opt_state, state.params, value=value, grad=grad, value_fn=loss
        )
        evaluations = state.carry + optax.tree_utils.tree_get(opt_state, "info").num_linesearch_steps
        params = optax.apply_updates(state.params, updates)
        new = state._replace(step=state.step + 1, params=params, opt_state=opt_state, carry=evaluations)
        # The cast strips weak types, which would make the second step compile again.
        new = jax.tree.map(lambda n, o: n.astype(o.dtype), new, state)
        return new, {"loss": value, "evaluations": evaluations}

    return optimizer, jax.jit(train_step, donate_argnums=0)


def draw(true: np.ndarray, predicted: np.ndarray, continued: np.ndarray, path: Path) -> None:
    """The true waves `[T + F, B, 1]`, their predictions `[T - 1, B, 1]` and their continuations `[F, B, 1]`."""
    points, start = len(true), len(predicted) + 1
    figure = Figure(figsize=(12, 6), layout="constrained")
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
    common.save(figure, path)


def draw_errors(lines: Sequence[dict[str, Any]], kept: dict[str, Any], path: Path) -> None:
    """The four errors over the steps, and which step is kept."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, label, style in (
        ("train", "train, one point ahead", {"color": "#1f6fb4", "ls": "-"}),
        ("test", "test, one point ahead", {"color": "#1f6fb4", "ls": ":"}),
        ("train_run", "train, free-running: decides", {"color": "#c8102e", "ls": "-"}),
        ("test_run", "test, free-running", {"color": "#c8102e", "ls": ":"}),
    ):
        values = [np.nan if line[f"eval_{name}"] is None else line[f"eval_{name}"] for line in lines]
        axes.plot([line["step"] for line in lines], values, marker=".", label=label, **style)
    axes.axvline(kept["step"], color="0.6", zorder=0, label=f"kept: step {kept['step']}")
    axes.set(xlabel="step", ylabel="mean squared error", yscale="log", xlim=(0, None))
    common.style(axes)
    common.save(figure, path)


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(
        settings,
        waves=(TEST + 1, common.MOST),
        length=(4, common.MOST),
        future=(1, common.MOST),
        eval_every=(1, common.FOREVER),
        memory=(1, 1000),
    )


def run(settings: Settings) -> dict[str, float]:
    """Train, look now and then, keep the best, draw it."""
    model = Predictor(settings.hidden)
    true = make_waves(settings.waves, settings.length + settings.future)
    given, coming = jnp.asarray(true[: settings.length]), jnp.asarray(true[settings.length :, :TEST])
    train, test = given[:, TEST:], given[:, :TEST]
    first, second = jnp.split(train, [settings.length // 2])

    def predict(params: Any, xs: jax.Array) -> tuple[Any, jax.Array]:
        return model.apply({"params": params}, xs)

    def loss(params: Any) -> jax.Array:
        return mse(predict(params, train[:-1])[1], train[1:])

    @jax.jit
    def evaluate(params: Any) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        # As in PyTorch's example, not the last given point but its prediction is the first input of a continuation.
        carry, ys = predict(params, first[:-1])
        train_run = mse(free_run(model, params, carry, ys[-1], len(second)), second)
        carry, ys = predict(params, test[:-1])
        continued = free_run(model, params, carry, ys[-1], settings.future)
        errors = {"train": loss(params), "test": mse(ys, test[1:]), "train_run": train_run}
        return errors | {"test_run": mse(continued, coming)}, ys, continued

    params = model.init(jax.random.key(settings.seed), train[:1])["params"]
    optimizer, train_step = make_step(settings, loss)
    evaluations = jnp.asarray(int(settings.optimizer == "lbfgs"))  # one before the first line search
    state = training.init_state(jax.random.key(settings.seed), params, optimizer, evaluations)
    state = common.resume_or_begin(settings, state)
    training.fit(
        state,
        train_step,
        common.storing_settings(settings, itertools.count),  # every batch is all waves
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda params: {name: float(error) for name, error in evaluate(params)[0].items()},
        eval_every=settings.eval_every,
        log_every=settings.eval_every,
        checkpoint_every=settings.eval_every,
        best="eval_train_run",
        unit="steps",
    )
    lines = common.metrics(settings.directory)
    finite = [line for line in lines if line["eval_train_run"] is not None]
    if not finite:
        raise ValueError(f"learning_rate: got {settings.learning_rate}, needs a smaller one: no error was finite")
    kept = min(finite, key=lambda line: line["eval_train_run"])
    _, predicted, continued = evaluate(training.restore_params(settings.directory, params, step="best"))
    print(
        f"kept: step {kept['step']}, which continues the training waves best; a choice by the test waves would flatter "
        f"the result\ntrain MSE {kept['eval_train']:.2e}, test MSE {kept['eval_test']:.2e}, "
        f"free-run MSE {kept['eval_test_run']:.2e}"
    )
    draw(true[:, :TEST], predicted, continued, settings.directory / "predictions.png")
    draw_errors(lines, kept, settings.directory / "errors.png")
    return {"train": kept["eval_train"], "test": kept["eval_test"], "free-run": kept["eval_test_run"]}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test, continue and draw; returns the kept mean squared errors. `arguments` None: the command line's."""
    quick = {"waves": 23, "length": 500, "future": 500, "steps": 160}
    settings = common.parse(Settings, arguments, lambda settings: quick, description=__doc__)
    check(settings)
    with jax.enable_x64(True):
        return run(settings)


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
