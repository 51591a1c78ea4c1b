"""The README's table of cells is true: what it says of parameters, state and products is counted in the cells."""

import inspect
import math
import re
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

import jaxrnn
from bench.cells import cells, parameters, products_a_step

SECTION = (Path(__file__).parent.parent / "README.md").read_text().split("## Cells and networks\n")[1].split("\n## ")[0]
CELLS = cells(32, 48)


class Row(NamedTuple):
    state: str
    formula: str
    products: str


def rows(section: str) -> dict[str, Row]:
    """The rows of the first table by their first code span; `Function` has no formula."""
    table = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {re.match("`(.*?)`", cell)[1]: Row(*rest) for cell, _, *rest in lines if "`Function(" not in cell}


ROWS = rows(SECTION)


def letters(name: str, cell: jaxrnn.Cell) -> dict[str, int]:
    """What the letters of a row stand for: sizes of the cell, and options that the row writes as a letter."""
    *places, inputs = cell.input_size if isinstance(cell.input_size, tuple) else (cell.input_size,)
    found = {"I": inputs, "H": cell.hidden_size, "S": math.prod(places)}
    if hasattr(cell, "kernel_size"):
        found["k"] = cell.kernel_size ** len(places)
    if hasattr(cell, "operations"):
        found["J"] = len(cell.operations)
    return found | {letter: getattr(cell, option) for option, letter in re.findall(r"(\w+)=(\w)\b", name)}


def value(formula: str, known: dict[str, int]) -> float:
    """`4H²/n` as Python has it: `4*H**2/n`."""
    formula = re.sub(r"(?<=[\w)])(?=[^\W\d]|\()", "*", formula.replace("²", "**2"))
    return eval(formula, {"__builtins__": {}}, known)


def promised(name: str, row: Row, cell: jaxrnn.Cell) -> float:
    known, formula = letters(name, cell), row.formula
    if formula[0] in "+-":
        formula = f"{ROWS[name.split('(')[0]].formula} {formula}"
    return value(formula, known)


def test_formulas_are_read():
    known = {"I": 3, "H": 5, "n": 2, "Ĥ": 7}
    assert value("4H(I + H + 1) + 3H", known) == 195
    assert value("- H²/n + H(H - 1)/2", known) == -2.5
    assert value("(4H + 2n)(I + 1) + 4Ĥ² + 2n - 1", known) == 295
    assert letters("Projected(LSTM, projection_size=R)", jaxrnn.cells.Projected(jaxrnn.LSTM(3, 5), 2))["R"] == 2


def test_every_cell_has_its_row():
    """Of the table and of `bench.cells`; and the section names whatever is a cell."""
    assert set(ROWS) == set(CELLS)
    public = {name: getattr(jaxrnn, name) for name in jaxrnn.__all__}
    kinds = {name: kind for name, kind in public.items() if inspect.isclass(kind) and issubclass(kind, jaxrnn.Cell)}
    concrete = [name for name, kind in kinds.items() if not inspect.isabstract(kind)]
    assert [name for name in concrete if not re.search(rf"\b{name}\b", SECTION)] == []


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_true(name):
    row, cell = ROWS[name], CELLS[name]
    assert promised(name, row, cell) == parameters(cell)
    assert value(row.products, letters(name, cell)) == products_a_step(cell)
    state = jax.eval_shape(cell.initial_state)
    assert re.search("`(.*?)`", row.state)[1].split(", ") == [f for f in state._fields if getattr(state, f) is not None]
