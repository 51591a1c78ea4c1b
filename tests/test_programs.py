"""The programs of `docs/programs.md` reach what the page says and are as long as it says; those of examples/ end."""

import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

from examples import __main__ as listing

PAGE = (Path(__file__).parent.parent / "docs/programs.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| \[\d", line)]
MOST = {0: 25, 4: 37, 7: 22}  # lines of the same in PyTorch: a classifier, a character model, music
QUICK = 2


def reached(program: str, capsys: pytest.CaptureFixture[str]) -> float:
    """Runs a program: the number that its last line ends with."""
    exec(compile(program, "<docs/programs.md>", "exec"), {"__name__": "__main__"})
    return float(capsys.readouterr().out.split()[-1])


def holds(value: float, bound: str) -> bool:
    """Whether a value is "at least" or "at most" so much."""
    side, limit = re.fullmatch(r"at (least|most) ([\d.]+)", bound).groups()
    return value >= float(limit) if side == "least" else value <= float(limit)


def test_their_lines_are_counted():
    assert len(PROGRAMS) == len(ROWS) == 10
    for number, (program, row) in enumerate(zip(PROGRAMS, ROWS, strict=True)):
        lines = [line for line in program.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert int(row[2]) == len(lines), f"program {number + 1}"
        assert len(lines) <= MOST.get(number, 45)
        assert max(map(len, lines)) <= 120
        guess = float(re.match(r"[\d.]+", row[4])[0])
        assert not holds(guess, row[3]), "a bound that a guess keeps shows nothing"


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=() if n == QUICK else pytest.mark.exhaustive) for n in range(len(PROGRAMS))]
)
def test_they_learn(number, capsys):
    assert holds(reached(PROGRAMS[number], capsys), ROWS[number][3])


def test_a_program_that_does_not_learn_is_seen(capsys):
    program = textwrap.dedent("""
        print("begins")
        print(f"error: {0.25:.2f}")
    """)
    assert reached(program, capsys) == 0.25
    assert holds(0.25, "at most 0.25")
    assert not holds(0.25, "at most 0.2")
    assert not holds(float("nan"), "at least 0.0")


# The examples, in their quick forms but for a few steps: to the end, with pictures and samples.

FEW = ["--steps", "4"]
FEWER = {"recurrent_ppo": ["--updates", "2"], "nce_lm": ["--seconds", "0.5"]}
DATA = {"time_series": "statsmodels", "classify_series": "aeon", "music": "music21"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted(listing.MINUTES.keys() - {"demo", "sine", "char_lm", "sorting"}))
def test_quick_forms_run_to_the_end(name, tmp_path):
    """`demo` runs the other three as a whole."""
    if name in DATA and importlib.util.find_spec(DATA[name]) is None:
        pytest.skip(f"its data come with {DATA[name]}")
    program = importlib.import_module(f"examples.{name}")
    program.main(["--quick", *FEWER.get(name, FEW), "--directory", str(tmp_path)])
    assert list(tmp_path.iterdir())
    assert list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("name", sorted(listing.MINUTES.keys() - {"demo", "variants", "nce_lm"}))
def test_those_that_save_say_how_to_go_on(name):
    """The other three keep nothing to go on from."""
    source = Path(listing.__file__).with_name(f"{name}.py").read_text()
    said = source.rpartition("common.run(main, ")[2]
    resumes = "resume: common.Resume" in source or "resume: bool" in source
    assert ("--resume with the same directory" if resumes else "anew, with another directory") in said
