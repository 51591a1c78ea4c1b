"""The programs of `docs/programs.md`: they run, reach what the page says, and are as long as it says."""

import re
import textwrap
from pathlib import Path

import pytest

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
