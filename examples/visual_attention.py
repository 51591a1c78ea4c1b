"""Recurrent visual attention: a network finds a digit among clutter by a few glimpses, and says which one it is.

    python -m examples.visual_attention
    python -m examples.visual_attention --policy random     # the same network, which looks anywhere

    location ~ Normal(W_l h + b_l, std)                     where to look
    h'       = GRU(seen(glimpse(image, location)), h)       patches of the image around it, the wider the coarser
    logits   = W_c h' + b_c                                 after every glimpse; the last one's count

No gradient reaches a location through the patches: REINFORCE teaches where to look, by a reward less what was to be
expected of it (Mnih et al. 2014). scikit-learn's digits, 8 by 8 pixels each, stand at a random place in a larger field
with pieces of other digits. It prints the share of digits held out that is right, and draws the glimpses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, reinforce, training

SIDE = 8  # pixels of a digit
PIECE = 3  # pixels of a piece of clutter
HELD_OUT = 360  # digits
UNSEEN = 2048  # fields with digits held out
PASSING = ("samples",)  # settings of a call, not of the run


@dataclass(frozen=True)
class Settings:
    """A network that chooses where to look."""

    field: int = 16
    """Pixels of the side of a field."""
    clutter: int = 2
    """Pieces of other digits in it."""
    glimpses: int = 4
    """How often to look."""
    size: int = 8
    """Pixels of the side of a patch."""
    patches: int = 2
    """Patches of a glimpse, each twice as wide as the one before and as many pixels."""
    std: float = 0.15
    """Of the draw of a location while training; the field reaches from -1 to 1."""
    samples: int = 10
    """Answers to each unseen field, every one by other draws of the locations; their probabilities are averaged."""
    policy: Literal["learned", "random"] = "learned"
    """Where to look."""
    hidden: common.Hidden = 96
    batch: int = 32
    """Fields in a batch."""
    steps: common.Steps = 12000
    learning_rate: common.WarmRate = 3e-3
    seed: common.Seed = 0
    directory: common.Directory = Path("runs/visual_attention")
    quick: bool = False
    """A smaller field without clutter, for a minute; sets --field, --clutter, --glimpses and --steps where they are not
    given."""
    resume: common.Resume = False


# The fields.


class Fields(NamedTuple):
    """A batch of fields."""

    images: np.ndarray  # [B, field, field, 1] in 0..1
    labels: np.ndarray  # [B]


def digits() -> tuple[Fields, Fields]:
    """scikit-learn's digits, those to train on and those held out."""
    found = load_digits()
    images, labels = (found.images[..., None] / 16).astype(np.float32), found.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    return tuple(Fields(images[part], labels[part]) for part in (order[HELD_OUT:], order[:HELD_OUT]))


def draw(settings: Settings, source: Fields, seed: Sequence[int], count: int) -> Fields:
    """Fields with a digit each, over pieces of others."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, settings.field, settings.field, 1), np.float32)

    def put(patches: np.ndarray) -> None:
        side = patches.shape[1]
        tops = rng.integers(0, settings.field - side + 1, (2, count))
        rows, columns = (top[:, None] + np.arange(side) for top in tops)
        place = np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
        images[place] = np.maximum(images[place], patches)

    for _ in range(settings.clutter):
        others = source.images[rng.integers(len(source.labels), size=count)]
        top, left = rng.integers(0, SIDE - PIECE + 1, 2)
        put(others[:, top : top + PIECE, left : left + PIECE])
    which = rng.integers(len(source.labels), size=count)
    put(source.images[which])
    return Fields(images, source.labels[which])


# The model.


class Looks(NamedTuple):
    """What a network did with B fields, in T glimpses."""

    locations: jax.Array  # [T, B, 2], (y, x)
    means: jax.Array  # [T, B, 2], of the draws
    baselines: jax.Array  # [T, B], the reward expected before each look
    logits: jax.Array  # [T, B, 10]


class Observer(nnx.Module):
    """A glimpse network, a GRU, and what sees its state: the next location, the classes, the reward to expect."""

    def __init__(self, settings: Settings, rngs: nnx.Rngs) -> None:
        h, pixels = settings.hidden, settings.patches * settings.size**2
        self.what = nnx.Sequential(nnx.Linear(pixels, h, rngs=rngs), nnx.relu, nnx.Linear(h, h, rngs=rngs))
        self.where = nnx.Sequential(nnx.Linear(2, h, rngs=rngs), nnx.relu, nnx.Linear(h, h, rngs=rngs))
        self.rnn = jaxrnn.nnx.RNN(jaxrnn.GRU(h, h), time_major=True, rngs=rngs)
        self.locator = nnx.Linear(h, 2, rngs=rngs)
        self.baseline = nnx.Linear(h, 1, rngs=rngs)
        self.head = nnx.Linear(h, 10, rngs=rngs)
        self.settings = settings

    def __call__(self, images: jax.Array, key: jax.Array, std: float = 0.0) -> Looks:
        """Looks at images `[B, field, field, 1]`; with `std`, it tries other places than it would choose."""
        settings = self.settings

        def look(location: jax.Array) -> jax.Array:
            patches = reinforce.glimpse(images, location, settings.size, settings.patches)
            where = jnp.clip(location, -1, 1)  # as `glimpse` takes it
            return nnx.relu(self.what(patches.reshape(len(images), -1)) + self.where(where))

        def act(key: jax.Array, y: jax.Array) -> jax.Array:
            if settings.policy == "random":
                return jax.random.uniform(key, (len(images), 2), minval=-1)
            return self.mean(y) + std * jax.random.normal(key, (len(images), 2))

        cell, params = self.rnn.pure()
        state = cell.initial_state((len(images),))
        seen = reinforce.recurrent_attention(key, cell, params, look, act, settings.glimpses, state)
        before = jnp.concatenate([jnp.zeros_like(seen.ys[:1]), seen.ys[:-1]])
        baselines = self.baseline(jax.lax.stop_gradient(before))[..., 0]
        return Looks(seen.actions, self.mean(before), baselines, self.head(seen.ys))

    def mean(self, y: jax.Array) -> jax.Array:
        """Where to look after the output y."""
        return jnp.tanh(self.locator(y))


def accuracy(fields: Fields, scores: jax.Array) -> float:
    """The share of fields whose class has the highest of `scores` `[B, 10]`."""
    return float(np.mean(np.argmax(scores, axis=-1) == fields.labels))


# What it reached.


def corners(settings: Settings, locations: jax.Array) -> np.ndarray:
    """The rows and columns in which the finest patches begin, as `glimpse` takes them; outside of the field as well."""
    outside = (settings.size - 1) // 2
    free = settings.field + 2 * outside - settings.size
    return np.floor(np.clip((np.asarray(locations) + 1) / 2, 0, 1) * free) - outside


def picture(settings: Settings, fields: Fields, looks: Looks, path: Path) -> None:
    """The first ten fields, over each the finest patches of its glimpses."""
    figure = Figure(figsize=(13, 5.8), layout="constrained")
    predicted, places = np.argmax(looks.logits[-1], axis=-1), corners(settings, looks.locations)
    for n, axes in enumerate(figure.subplots(2, 5).flat):
        axes.imshow(fields.images[n, ..., 0], cmap="gray_r", vmin=0, vmax=1.5)
        for t, (top, left) in enumerate(places[:, n]):
            color = matplotlib.colormaps["plasma"](0.85 * t / max(1, settings.glimpses - 1))
            axes.add_patch(
                Rectangle((left - 0.5, top - 0.5), settings.size, settings.size, fill=False, ec=color, lw=1.6)
            )
            axes.text(left, top + 0.2, str(t + 1), color=color, fontsize=11, va="top", weight="bold")
        axes.set(xlim=(-4, settings.field + 3), ylim=(settings.field + 3, -4), xticks=[], yticks=[])
        mark = "" if predicted[n] == fields.labels[n] else ", wrong"
        axes.set_title(f"says {predicted[n]}{mark}", color="red" if mark else "black")
    figure.suptitle(f"where it looks, one after the other; the digit is one of {HELD_OUT} held out")
    common.save(figure, path)


def check(settings: Settings) -> None:
    """Errors for what no later line would name."""
    common.check(
        settings,
        "std",
        field=(SIDE, 1 << 10),
        clutter=(0, 1000),
        glimpses=(1, 1000),
        size=(1, settings.field),
        patches=(1, 8),
        samples=(1, 1000),
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test and draw; returns the share right. `arguments` None: the command line's."""
    quick = {"field": 12, "clutter": 0, "glimpses": 2, "steps": 1500}
    must_match = partial(common.resumed, passing=PASSING)
    settings = common.parse(Settings, arguments, lambda settings: quick, must_match, __doc__)
    check(settings)
    train, held_out = digits()
    unseen = draw(settings, held_out, (settings.seed, 1), UNSEEN)
    optimizer = common.adam(settings)
    state = training.init_state(jax.random.key(settings.seed), Observer(settings, nnx.Rngs(settings.seed)), optimizer)
    state = common.resume_or_begin(settings, state)

    def loss_fn(model: Observer, carry: tuple[()], fields: Fields, key: jax.Array) -> Any:
        looks = model(fields.images, key, settings.std)
        log_p = reinforce.categorical_log_prob(looks.logits, jnp.broadcast_to(fields.labels, looks.baselines.shape))
        loss = -jnp.mean(log_p)
        if settings.policy == "learned":
            # Each look by itself is rewarded by the probability of the right class after it: a less noisy measure of it
            # than whether the last answer is right.
            reward = jnp.exp(log_p)
            log_look = jnp.sum(reinforce.normal_log_prob(looks.means, settings.std, looks.locations), axis=-1)
            # This gradient grows as 1 / std and would drown that of the classes.
            loss += settings.std**2 * reinforce.surrogate(log_look, reward, looks.baselines)
            loss += reinforce.baseline_loss(looks.baselines, reward)
        return loss, (carry, {"accuracy": jnp.mean(jnp.argmax(looks.logits[-1], axis=-1) == fields.labels)})

    observe, key = nnx.jit(Observer.__call__), jax.random.key(settings.seed)

    def test(model: Observer) -> Looks:
        return observe(model, unseen.images, key)

    state = training.fit(
        state,
        training.make_train_step(loss_fn, optimizer),
        common.storing_settings(
            settings,
            batches.numbered(lambda number: draw(settings, train, (settings.seed, 0, number), settings.batch)),
            PASSING,
        ),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda model: {"accuracy": accuracy(unseen, test(model).logits[-1])},
        eval_every=max(1, settings.steps // 10),
        log_every=max(50, settings.steps // 40),
        items_per_batch=settings.batch,
        unit="fields",
    )
    looks = test(state.params)
    draws = [observe(state.params, unseen.images, k, settings.std) for k in jax.random.split(key, settings.samples)]
    mean = sum(jax.nn.softmax(drawn.logits[-1]) for drawn in draws)
    results = {"accuracy": accuracy(unseen, mean), "without draws": accuracy(unseen, looks.logits[-1])}
    one = "one answer" if settings.policy == "random" else "one answer, without draws"
    print(
        f"right, of {UNSEEN} fields with one of {HELD_OUT} digits held out: {results['accuracy']:.1%}, by the mean of "
        f"{settings.samples} answers; {results['without draws']:.1%} by {one}"
    )
    picture(settings, unseen, looks, settings.directory / "glimpses.png")
    return results


if __name__ == "__main__":
    common.run(main, "here: --resume with the same directory")
