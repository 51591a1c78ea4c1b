"""The documentation site, without building it: pages, pictures, and the scripts that make them."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

import jaxrnn

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))

import catalog  # noqa: E402
import docstrings  # noqa: E402
import pictures  # noqa: E402
import redraw  # noqa: E402


def entries() -> list[str]:
    """What the table of contents lists."""
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return [re.sub(r".*<(.*)>", r"\1", line) for line in lines]


def test_the_table_of_contents_is_whole():
    """Every page is in it, and every entry is a page or one that the build makes."""
    written = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.glob("*.md")}
    written |= {f"notebooks/{path.stem}" for path in (DOCS / "notebooks").glob("*.md")}
    made = {"catalog/index", "api/index", "project/*", *(f"project/{name}" for name in catalog.REPOSITORY.values())}
    assert written - {"index"} <= set(entries())
    assert set(entries()) <= written | made


def test_every_public_cell_has_its_page():
    public = {
        name for name in jaxrnn.__all__ if inspect.getmodule(getattr(jaxrnn, name)).__name__.startswith("jaxrnn.cells.")
    }
    kinds = {kind.name: kind for kind in catalog.kinds()}
    assert public == kinds.keys()
    page = catalog.cell_page(kinds["LSTM"], "jaxrnn.LSTM")
    assert ".. autoclass:: jaxrnn.LSTM" in page
    assert "4H(I + H + 1)" in page
    assert "``[I, 4H]``, blocks i, f, g, o" in page
    assert all(kind.paper for kind in kinds.values())


def test_every_row_of_costs_belongs_to_a_cell_and_most_were_measured():
    names = {kind.name for kind in catalog.kinds()}
    costs = catalog.costs()
    assert {cost.kind for cost in costs} <= names
    assert len([cost for cost in costs if cost.forward]) >= 50


def test_cells_stand_in_the_row_of_their_time():
    """In `docs/choosing.md`, by what `bench/README.md` measured."""
    rows = catalog.rows((DOCS / "choosing.md").read_text(), "µs a step")
    measured = catalog.rows((ROOT / "bench/README.md").read_text(), "cell | parameters | state | products")
    times, least, seen = {row[0].strip("`"): float(row[6]) for row in measured}, 0.0, 0
    for bound, cells in rows:
        most = float(re.sub(r"\D", "", bound) or "inf")
        found = [times[cell] for cell in re.findall("`(.*?)`", cells) if cell in times]
        assert all(least < time <= most for time in found), bound
        least, seen = most, seen + len(found)
    assert seen >= 20


def test_measurements_of_tasks_are_those_of_the_examples():
    """In `docs/choosing.md`, by what examples/README.md says."""
    reached = set(re.findall(r"\d+(?:\.\d+)?", (ROOT / "examples/README.md").read_text()))
    found = catalog.rows((DOCS / "choosing.md").read_text(), "task | cells, best first")
    for task, cells, _ in found:
        figures = re.findall(r"` (\d+(?:\.\d+)?)", cells)
        assert len(figures) >= 3, task
        assert set(figures) <= reached, task


def test_every_module_has_its_page():
    """Those that are imported by name; the cells are in the catalog."""
    inside = {"cell", "plane", "cells", "checks", "typing", "jaxprs", "places", "engine", "native", "mosaic"}
    modules = {p.stem for p in (ROOT / "jaxrnn").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    public = {name for name in modules - inside if not name.startswith("_")}
    assert {f"jaxrnn.{name}" for name in public} <= catalog.MODULES.keys()
    for name, (_, names) in catalog.MODULES.items():
        module = importlib.import_module(name)
        assert all(hasattr(module, one) for one in names or module.__all__)


@pytest.mark.parametrize(
    ("page", "link", "leads_to"),
    [
        ("docs/cells.md", "[a](../README.md#install)", "[a](project/readme.md#install)"),
        ("docs/cells.md", "[a](flax.md), [b](https://jax.dev)", "[a](flax.md), [b](https://jax.dev)"),
        ("docs/cells.md", "| `LSTM(heads=n)`; `GRU` | b |", "| [`LSTM(heads=n)`](catalog/LSTM.rst); `GRU` | b |"),
        (
            "docs/choosing.md",
            "`LSTM`\n| `Stack`, `networks.Orthogonal(GRU)` |",
            "`LSTM`\n| `Stack`, [`networks.Orthogonal(GRU)`](catalog/GRU.rst) |",
        ),
        ("README.md", "[a](docs/flax.md#nnx)", "[a](../flax.md#nnx)"),
        ("README.md", "[a](LICENSE), [b](#install)", "a, [b](#install)"),
        ("examples/README.md", "![a](../docs/memory.png)", "![a](../memory.png)"),
        ("README.md", "```\n[a](docs/flax.md)\n```", "```\n[a](docs/flax.md)\n```"),
    ],
)
def test_links_out_of_the_folder_lead_to_pages(page, link, leads_to):
    assert catalog.relinked(link, page) == leads_to


def test_docstrings_become_what_autodoc_reads():
    doc = "Does *it*, a * b.\n\n    h' = x W\n\n"
    doc += "Of `h` and `[*batch]`, `W`s.\n\nArgs:\n    x: a `y`.\n    z: M.\n\n"
    doc += "Params:\n    w: `[I]`.\n\na    one\nb    two"
    assert docstrings.converted(doc.splitlines()) == [
        "Does *it*, a \\* b.",
        "",
        "::",
        "",
        "        h' = x W",
        "",
        "Of ``h`` and ``[*batch]``, ``W``\\ s.",
        "",
        "Args:",
        "    x: a ``y``.",
        "    z: M\\.",
        "",
        "::",
        "",
        "    a    one",
        "    b    two",
        "",
    ]


def test_pictures_are_those_of_their_script():
    """Those of `docs/sequences.md`: drawn again, they are the same."""
    page = (DOCS / "sequences.md").read_text()
    assert set(re.findall(r"\(pictures/(\w+)\.svg\)", page)) == pictures.PICTURES.keys()
    assert {path.stem: path.read_text() for path in (DOCS / "pictures").glob("*.svg")} == pictures.made()


def test_every_picture_of_an_example_has_its_command():
    """In `docs/redraw.py`: programs that are there, options that they have, pictures that they write."""
    assert redraw.PICTURES.keys() == {path.stem for path in DOCS.glob("*.png")}
    for name, picture in redraw.PICTURES.items():
        for _, module, *options in redraw.commands(name):
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            fields = {f"--{field.replace('_', '-')}" for field in re.findall(r"^    (\w+): ", source, re.MULTILINE)}
            assert {option for option in options if option.startswith("--")} <= fields, name
        assert f'"{picture.made}"' in source, name


def test_every_picture_is_shown_and_every_one_that_is_shown_is_there():
    """Of the files of the repository; of the site, `docs/check.py` asks the same."""
    pages = [*DOCS.glob("*.md"), *DOCS.glob("notebooks/*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]
    shown = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"!\[[^\]]*\]\((?!\w+:)([^)\s]+)\)", page.read_text())
    }
    there = {*DOCS.glob("*.png"), *DOCS.glob("pictures/*.svg"), ROOT / "bench/speed.png"}
    assert shown == there


LANGUAGES = {"", "python", "{code-cell}", "{toctree}"}


def blocks(page: Path) -> list[tuple[str, list[str]]]:
    """The language and the lines of each block."""
    found = re.findall(r"^```(\S*)[^\n]*\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [(language, text.splitlines()) for language, text in found]


def test_every_block_of_python_runs():
    """As a doctest of README.md and docs/, which pytest collects, or in a notebook, which the site's build executes.

    The blocks of a page may all be whole programs, without prompts, that a test of the page's name runs.
    """
    doctests, notebooks = [ROOT / "README.md", *DOCS.glob("*.md")], list(DOCS.glob("notebooks/*.md"))
    for page in {*doctests, *notebooks, *ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md")}:
        python = [lines for language, lines in blocks(page) if language == "python"]
        prompted = any(lines[0].startswith(">>> ") for lines in python)
        programs = not prompted and (ROOT / f"tests/test_{page.stem}.py").exists()
        for language, lines in blocks(page):
            place = f"{page.relative_to(ROOT)}: {lines[:1]}"
            assert language in LANGUAGES, place
            if language == "python":
                assert page in doctests, place
                assert programs or lines[0].startswith(">>> "), place
                assert not any("+SKIP" in line for line in lines), place
            elif language == "{code-cell}":
                assert page in notebooks, place
            else:
                assert not any(re.match(r">>> |import |from \S+ import ", line) for line in lines), place
    with_cells = [page for page in notebooks if any(language == "{code-cell}" for language, _ in blocks(page))]
    assert with_cells == notebooks
    settings = (DOCS / "conf.py").read_text()
    assert 'nb_execution_mode = "cache"' in settings
    assert "nb_execution_raise_on_error = True" in settings


def test_signatures_of_cells_are_python_s():
    """With types and defaults as the source writes them."""
    for cls in (jaxrnn.LSTM, jaxrnn.MinGRU):
        text, _ = docstrings.process_signature(None, "class", cls.__name__, cls, None, None, None)
        made = ast.parse(f"def made{text}: ...").body[0].args
        parameters = inspect.signature(cls).parameters.values()
        assert [one.arg for one in made.args] == [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        assert [one.arg for one in made.kwonlyargs] == [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
