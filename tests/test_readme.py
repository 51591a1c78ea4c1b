"""What README and `docs/` say is true: tables are counted in the cells; commands, links, files and names exist."""

import ast
import importlib
import inspect
import math
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

import jaxrnn
from bench.cells import cells, parameters, products_a_step

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README} | {f"docs/{name}": text for name, text in DOCS.items()}
MAKEFILE = (ROOT / "Makefile").read_text()
CELLS = cells(32, 48)


def table(text: str, header: str) -> list[list[str]]:
    """The cells of each row of the table whose header line begins so."""
    found = re.search(rf"^\| {re.escape(header)} .*\n\|[-|]*\n((?:^\|.*\n)+)", text, flags=re.MULTILINE)
    return [line.strip("| ").split(" | ") for line in found[1].splitlines()]


def header(text: str, beginning: str) -> list[str]:
    """The names of the columns of that table."""
    return re.search(rf"^\| ({re.escape(beginning)} .*)\|$", text, flags=re.MULTILINE)[1].strip().split(" | ")


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


# The table of cells


class Row(NamedTuple):
    state: str
    formula: str
    products: str


def rows(text: str) -> dict[str, Row]:
    """The rows of the table of cells by their first code span; `Function` has no formula."""
    lines = table(text, "cell")
    return {re.match("`(.*?)`", cell)[1]: Row(*rest) for cell, _, *rest in lines if "`Function(" not in cell}


ROWS = rows(DOCS["cells.md"])


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
    assert letters("Projected(LSTM, projection_size=R)", jaxrnn.Projected(jaxrnn.LSTM(3, 5), 2))["R"] == 2


def test_every_cell_has_its_row():
    """Of the table and of `bench.cells`; and the two pages name every cell and every network."""
    assert set(ROWS) == set(CELLS)
    public = {name: getattr(module, name) for module in (jaxrnn, jaxrnn.networks) for name in module.__all__}
    kinds = {name: kind for name, kind in public.items() if inspect.isclass(kind) and issubclass(kind, jaxrnn.Layer)}
    concrete = [name for name, kind in kinds.items() if not inspect.isabstract(kind)]
    pages = DOCS["cells.md"] + DOCS["networks.md"]
    assert [name for name in concrete if not re.search(rf"\b{name}\b", pages)] == []


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_true(name):
    row, cell = ROWS[name], CELLS[name]
    assert promised(name, row, cell) == parameters(cell)
    assert value(row.products, letters(name, cell)) == products_a_step(cell)
    state = jax.eval_shape(cell.initial_state)
    assert re.search("`(.*?)`", row.state)[1].split(", ") == [f for f in state._fields if getattr(state, f) is not None]


# Names


TOPICS = sorted(p.stem for p in (ROOT / "jaxrnn").iterdir() if p.suffix == ".py" or p.is_dir())
# `cell` alone is an example's cell, `nnx` alone is Flax's.
SHORT = set(TOPICS) - {"cell", "nnx", "linen"}
NAME = re.compile(rf"(?<![\w.])(?:jaxrnn\.({'|'.join(TOPICS)})|({'|'.join(SHORT)}))\.(?!py\b)(\w+)")


def unknown_names(text: str) -> list[str]:
    """Names of the kind `sequences.pad` that the library does not have."""
    spans = re.findall(r"`([^`\n]+)`", prose(text))
    found = {(long or short, name) for span in spans for long, short, name in NAME.findall(span)}
    return [f"{m}.{n}" for m, n in sorted(found) if not hasattr(importlib.import_module(f"jaxrnn.{m}"), n)]


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page):
    assert unknown_names(PAGES[page]) == []


def test_other_names_are_seen():
    assert unknown_names("`sequences.pad`, `jaxrnn.cells.LSTMParams` and `engine/masks.py`") == []
    assert unknown_names("`sequences.pads`, `jaxrnn.cells.LSTM2(x)`") == ["cells.LSTM2", "sequences.pads"]


def test_classes_of_the_tables_exist():
    """In the column of networks, and in what stands here for what one knew elsewhere."""
    spans = [row[0] for row in table(DOCS["networks.md"], "network")]
    for section in DOCS["coming-from.md"].split("\n## ")[1:]:
        spans += [row[1] for row in table(section, "you knew")]
    named = {n for cell in spans for span in re.findall("`(.*?)`", cell) for n in re.findall(r"^[A-Z]\w*", span)}
    assert {"Stack", "Attention", "GRU", "RecurrentDropout"} <= named
    assert [name for name in named if not hasattr(jaxrnn, name)] == []


# Commands, files, links


def targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))


def commands(page: str) -> list[str]:
    """The lines of a page's blocks that are not Python, and the commands in its text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if language != "python" for line in block.splitlines()]
    lines += re.findall(r"`((?:python|make) .*?)`", prose(page))
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def unknown(command: str, makefile: str) -> list[str]:
    """What a command names and the repository does not have: make targets, modules run by `python -m`, files."""
    missing = []
    if found := re.match(r"make ((?:[a-z-]+ ?)+)", command):
        missing += sorted(set(found[1].split()) - targets(makefile))
    if (found := re.search(r"python3? -m ((?:examples|bench|jaxrnn)[\w.]*)", command)) and not is_module(found[1]):
        missing.append(found[1])
    if (found := re.search(r"python3? (\S+\.py)", command)) and not (ROOT / found[1]).exists():
        missing.append(found[1])
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    assert [c for c in commands(PAGES[page]) if unknown(c, MAKEFILE)] == []


def test_the_readme_s_commands():
    assert {"make demo", "make test"} <= set(commands(README))
    assert "python -m bench.unroll" in commands(README)
    assert unknown("make coffee", MAKEFILE)
    assert unknown("python -m bench.nothing", MAKEFILE)
    assert unknown("python examples/nothing.py", MAKEFILE)


def test_every_target_is_phony_and_described():
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split())
    assert targets(MAKEFILE) == phony
    described = set(re.findall(r"^# make ([a-z-]+)", MAKEFILE, flags=re.MULTILINE))
    assert described >= phony - {"clean"}


def anchors(page: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str, text: str) -> list[str]:
    found = []
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", prose(text)):
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            found.append(f"{target}#{anchor}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert broken_links(page, PAGES[page]) == []


def test_broken_links_are_seen():
    assert broken_links("docs/cells.md", "[a](../README.md#install) [b](https://jax.dev) [c](networks.md)") == []
    assert len(broken_links("docs/cells.md", "[a](README.md) [b](../README.md#nowhere)")) == 2


def test_every_page_is_linked():
    """By the README, or by the first page of the site."""
    linked = {name for name in DOCS if f"(docs/{name})" in README or f"({name})" in DOCS["index.md"]}
    assert set(DOCS) - linked == {"index.md"}


def file_named(name: str) -> Path | None:
    """The file that a page means: from the repository, from the package, or from its engine."""
    found = (folder / name for folder in (ROOT, ROOT / "jaxrnn", ROOT / "jaxrnn/engine"))
    return next((path for path in found if path.exists()), None)


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page):
    named = re.findall(r"(?<![\w/])\w[\w/]*\.py\b", PAGES[page])
    assert [name for name in named if file_named(name) is None] == []


def modules(cell: str) -> list[Path]:
    """The modules that a row of `how-it-works.md` names: files, and all of a folder."""
    paths = [file_named(name) for name in re.findall(r"`([\w/.]+)`", cell)]
    return [module for path in paths for module in (path.rglob("*.py") if path.is_dir() else [path])]


def imported(tree: ast.AST) -> set[Path]:
    """The files that import statements name, but for those that only type checkers see."""
    names = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else imported(node)
    return {name if isinstance(name, Path) else ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}


@pytest.mark.parametrize(("header", "folder"), [("room", "jaxrnn"), ("file", "jaxrnn/engine")])
def test_the_map_of_the_code_is_whole_and_in_order(header, folder):
    """Every module has its place in the table, and imports only from its own row or from rows above."""
    floors = [modules(row[0]) for row in table(DOCS["how-it-works.md"], header)]
    floor = {path: i for i, paths in enumerate(floors) for path in paths}
    assert floor.keys() | {ROOT / folder / "__init__.py"} == set((ROOT / folder).rglob("*.py"))
    for path, own in floor.items():
        above = {file.name for file in imported(ast.parse(path.read_text())) if floor.get(file, 0) > own}
        assert not above, f"{path.name} imports {above}"


# Versions and figures


def test_the_supported_versions_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"\w+", line)[0]: line for line in project["dependencies"]}
    page = DOCS["install.md"]
    lines = table(page, "Python")
    assert lines[0][0] == re.search(r"[\d.]+", project["requires-python"])[0]
    jax_floor, flax_floor = (re.search(r">=([\d.]+)", needed[name])[1] for name in ("jax", "flax"))
    assert all(re.match(rf"{re.escape(jax_floor)}\b", versions) for _, versions, _ in lines)
    assert all(versions == f"{flax_floor} or newer" for *_, versions in lines)
    assert [v for v in re.findall(r"!=([\d.]+)", needed["jax"]) if f"except {v} " not in page] == []


def test_the_figures_are_those_of_the_benchmarks():
    measured = (ROOT / "bench" / "README.md").read_text()
    columns, those = header(README, "B, T, I, H"), header(measured, "B, T, I, H")
    chosen = [[row[those.index(column)] for column in columns] for row in table(measured, "B, T, I, H")]
    shown = table(README, "B, T, I, H")
    assert len(shown) >= 5
    assert [row for row in shown if row not in chosen] == []
    others = [row for row in chosen if min(map(float, row[2:])) < float(row[1])]
    assert not others or any(row in shown for row in others), "no row of those where another library is faster"
    version = re.search("jaxrnn ([^,]+), jax ([^,]+),", measured)
    assert f"measured with jaxrnn {version[1]} and JAX {version[2]}" in README
