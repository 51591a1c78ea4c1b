"""The pages of `jaxrnn/cells`: one skeleton for all, docstrings that say what things do, and the words of the field."""

import ast
import importlib
import inspect
import pkgutil
import pydoc
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import pytest

import jaxrnn
from bench.cells import cells
from tests import registry

ROOT = Path(jaxrnn.__file__).parent
PAGES = sorted(path for path in (ROOT / "cells").glob("*.py") if path.name != "__init__.py")
HOMES = {f"jaxrnn.cells.{path.stem}" for path in PAGES}
pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)

ORDER = ["__post_init__", "property", "init", "initial_state", "project", "step", "readout", "hook", "private"]
SAME_PLACE = {"coefficients": "step", "place": "step"}
SECTIONS = ["Args:", "Params:", "Raises:", "Example:", "Reference:"]


def kind(method: ast.FunctionDef) -> str:
    """The place of a method in `ORDER`."""
    if any(ast.unparse(d) == "property" for d in method.decorator_list):
        return "property"
    name = SAME_PLACE.get(method.name, method.name)
    if name in ORDER:
        return name
    return "private" if name.startswith("_") else "hook"


def methods(cls: ast.ClassDef) -> list[ast.FunctionDef]:
    return [node for node in cls.body if isinstance(node, ast.FunctionDef)]


def is_tuple(cls: ast.ClassDef) -> bool:
    return "NamedTuple" in map(ast.unparse, cls.bases)


def shape(tree: ast.Module) -> str:
    """One letter per statement: docstring, import, `__all__`, NamedTuple (t), base, cell, function."""
    letters = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            letters.append("i")
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            letters.append("a")
        elif isinstance(node, ast.ClassDef):
            abstract = any("P, S" in ast.unparse(base) for base in node.bases)
            letters.append("t" if is_tuple(node) else "b" if abstract else "c")
        else:
            letters.append("f")
    return "d" + "".join(letters[1:])


@pages
def test_one_skeleton(path):
    """Docstring, imports, `__all__`, parameters, state and cell, for each cell; functions and tables after the cells.

    Two exceptions: a base class of the page's cells, and a public function that is the default of a field.
    """
    tree = ast.parse(path.read_text())
    exported = ast.literal_eval(next(n.value for n in tree.body if isinstance(n, ast.Assign)))
    defaults = {
        field.value.id
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for field in cls.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Name)
    }
    early = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in exported and n.name in defaults]
    pattern = "di+a" + "f" * len(early) + r"b?(t*c)+[ft]*"
    assert re.fullmatch(pattern, shape(tree)), shape(tree)
    for before, cls in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(cls, ast.ClassDef) and not is_tuple(cls) and f"{cls.name}State" in exported:
            assert before.name == f"{cls.name}State"


@pages
def test_a_page_says_its_paper_in_one_line(path):
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert "\n" not in doc
    assert re.search(r"\(.*\b\d{4}\).*\.$", doc), doc


@pages
def test_methods_stand_in_one_order(path):
    for cls in ast.parse(path.read_text()).body:
        if isinstance(cls, ast.ClassDef):
            places = [ORDER.index(kind(method)) for method in methods(cls)]
            assert places == sorted(places), [method.name for method in methods(cls)]


@pages
def test_cells_are_generic_and_their_docstrings_whole(path):
    """`Cell[Params, State]`; equations, indented; Args, Params, Raises, Example, Reference, in this order."""
    for cls in ast.parse(path.read_text()).body:
        if not isinstance(cls, ast.ClassDef) or is_tuple(cls):
            continue
        assert any(isinstance(base, ast.Subscript) for base in cls.bases), cls.name
        if re.search(r"\[P, S\]$", ast.unparse(cls.bases[0])):
            continue
        doc = ast.get_docstring(cls)
        assert re.search(r"\n\n    \S.*=", doc), f"{cls.name}: no equations"
        found = [s for s in re.findall(r"^(\w+:)", doc, flags=re.MULTILINE) if s in SECTIONS]
        assert found == [s for s in SECTIONS if s != "Params:" or params_of(cls)], cls.name


def params_of(cls: ast.ClassDef) -> str:
    """The class of a cell's parameters, where it has one."""
    found = re.search(r"\[(\w+Params), ", ast.unparse(cls.bases[0]))
    return found[1] if found else ""


def said_of(params: ast.ClassDef, lines: list[str]) -> list[str]:
    """The parameters of a cell by the comments on their fields, as its docstring has them."""
    said = []
    for field in params.body[1:]:
        comment = re.sub(r"(\[.*?\])", r"`\1`", lines[field.end_lineno - 1].partition("# ")[2])
        said.append(f"{field.target.id}: {comment}{', or None' * ('None' in ast.unparse(field.annotation))}.")
    return said


@pages
def test_a_docstring_says_the_parameters(path):
    """By name and shape, as the comments on the fields of `XParams`, which `help` of a cell does not show."""
    lines = path.read_text().splitlines()
    classes = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
    for cls in classes.values():
        if name := not is_tuple(cls) and params_of(cls):
            _, _, rest = ast.get_docstring(cls).partition("\nParams:\n")
            section = re.sub(r"\n {8,}", " ", rest.partition("\n\n")[0])
            assert textwrap.dedent(section).splitlines() == said_of(classes[name], lines), cls.name


CELLS = [*cells(32, 48).values(), *(entry.cell for entry in registry.CELLS)]
CELLS += [jaxrnn.Euler(3, 4), jaxrnn.Euler(3, 4, gated=True), jaxrnn.ModReLU(3, 4), jaxrnn.GRU(3, 4, "before", heads=2)]
CELLS = {cell: jax.eval_shape(cell.init, jax.random.key(0)) for cell in CELLS if type(cell).__module__ in HOMES}
CELLS = {cell: params for cell, params in CELLS.items() if type(params).__name__ in jaxrnn.cells.__all__}


def letters(cell: jaxrnn.Cell) -> dict[str, Any]:
    """What the letters in the shapes of a cell's parameters stand for."""
    *places, size = cell.input_size if isinstance(cell.input_size, tuple) else (cell.input_size,)
    inner = getattr(cell, "cell", cell)
    known = {"I": size, "C": size, "H": inner.hidden_size, "F": cell.hidden_size, "heads": 1}
    options = {"Q": "nonrecurrent_size", "S": "context_size", "d": "order", "Ĥ": "hyper_size", "E": "embedding_size"}
    options |= {"heads": "heads", "chunk": "chunk"}
    known |= {letter: getattr(cell, name) or 0 for letter, name in options.items() if hasattr(cell, name)}
    match cell:
        case jaxrnn.Projected() | jaxrnn.Multiplicative():
            known["R"] = cell.initial_state().h.shape[-1]
        case jaxrnn.GRU():
            known["k"] = 3 if cell.reset == "after" else 2
        case jaxrnn.Euler():
            known["n"] = 2 if cell.gated else 1
        case jaxrnn.Highway():
            known["n"] = 2 if cell.coupled else 3
        case jaxrnn.VanillaLSTM():
            known["k"] = sum(cell.own_gates)
        case jaxrnn.MuFuRu():
            known["J"] = len(cell.operations)
        case jaxrnn.GatedLinearAttention():
            known["L"] = cell.rank
        case jaxrnn.BatchNormLSTM():
            known["S"] = cell.steps
        case jaxrnn.ConvLSTM() | jaxrnn.ConvGRU():
            kernel = cell.kernel_size
            known["*kernel"] = kernel if isinstance(kernel, tuple) else (kernel,) * len(places)
            known["*space"] = cell.output_size[:-1]
    return known


def shapes(text: str, known: dict[str, Any]) -> list[tuple[int, ...]]:
    """The shapes in a text, such as `[H, (k + 1)H]`, in numbers."""

    def number(formula: str) -> int:
        product = re.sub(
            r"(?<=[^\W_]|\)) ?(?=[^\W\d]|\()", "*", re.sub("heads|chunk", lambda w: f"({known[w[0]]})", formula)
        )
        return int(eval(product, {"__builtins__": {}}, known))

    def shape(axes: str) -> tuple[int, ...]:
        return tuple(n for axis in axes.split(", ") for n in (known[axis] if axis[0] == "*" else (number(axis),)))

    return [shape(axes) for axes in re.findall(r"\[(.*?)\]", text)]


def test_shapes_are_read():
    known = {"H": 4, "k": 3, "heads": 2, "*kernel": (5, 6)}
    text = "`[H, (k + 1)H]`; with several heads `[heads, H / heads, 4H / heads]`, `[*kernel, 2 heads]`"
    assert shapes(text, known) == [(4, 16), (2, 2, 8), (5, 6, 4)]


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_the_parameters_have_the_shapes_that_are_said(cell):
    params = CELLS[cell]
    section = inspect.getdoc(type(cell)).partition("\nParams:\n")[2].partition("\n\n")[0]
    said = dict(re.findall(r"^    (\w+): ((?:.|\n {8,})*)", section, flags=re.MULTILINE))
    assert tuple(said) == params._fields
    for name, text in said.items():
        if name not in ("cell", "inner"):  # those of another cell, where they are said
            found = {leaf.shape for leaf in jax.tree.leaves(getattr(params, name))}
            assert found <= set(shapes(text, letters(cell))), name
            assert found or text.endswith(", or None."), name


def test_every_kind_of_parameters_is_looked_at():
    there = {name for name in jaxrnn.cells.__all__ if name.endswith("Params")}
    assert {type(params).__name__ for params in CELLS.values()} == there


def public(module):
    """The public classes and functions that a module defines, and their public methods and properties."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            # A property may stand for a field of a base class, which the base class's docstring describes.
            fields = {field for base in thing.__mro__ for field in vars(base).get("__annotations__", {})}
            for attribute, value in vars(thing).items():
                value = getattr(value, "__func__", value)
                defined = inspect.isfunction(value) and value.__module__ == module.__name__
                if (
                    not attribute.startswith("_")
                    and attribute not in fields
                    and (defined or isinstance(value, property))
                ):
                    yield f"{name}.{attribute}", getattr(thing, attribute)


MODULES = [info.name for info in pkgutil.walk_packages([str(ROOT)], "jaxrnn.")]


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name):
    """Of its own or an inherited one."""
    missing = [
        path for path, thing in public(importlib.import_module(name)) if not (inspect.getdoc(thing) or "").strip()
    ]
    assert not missing


INSIDE = ("jaxrnn.engine", "jaxrnn.native", "jaxrnn.mosaic")


@pytest.fixture(scope="module")
def functions():
    """All that users call, by module and name."""
    modules = [importlib.import_module(name) for name in MODULES if "._" not in name and not name.startswith(INSIDE)]
    found = {(m.__name__, path): thing for m in modules for path, thing in public(m) if inspect.isroutine(thing)}
    assert len(found) > 400
    return found


def says_what_it_does(doc):
    """Begins with a verb: "Returns …", not "Return …", "The …" or "Norms of …"."""
    return re.match(r"[A-Z][a-z]+s\b(?! of\b)", doc) is not None


def test_functions_say_what_they_do(functions):
    assert [path for path, thing in functions.items() if not says_what_it_does(inspect.getdoc(thing))] == []


@pytest.mark.parametrize("doc", ["Return it.", "The norms.", "`a`, b.", "Norms of columns.", "Whether it is."])
def test_other_first_lines_are_seen(doc):
    assert not says_what_it_does(doc)


def keys_in_place(function):
    """A `key` that is required stands first, as in `jax.random`; one that may be left out is a keyword."""
    parameters = inspect.signature(function).parameters
    first, key = next((name for name in parameters if name != "self"), None), parameters.get("key")
    return key is None or (first == "key" if key.default is key.empty else key.kind is key.KEYWORD_ONLY)


def test_keys_stand_where_everyone_looks(functions):
    assert [path for path, thing in functions.items() if not keys_in_place(thing)] == []
    assert sum("key" in inspect.signature(thing).parameters for thing in functions.values()) > 40


@pytest.mark.parametrize("function", [lambda predict, key: 0, lambda key=None: 0, lambda xs, *, key: 0])
def test_other_keys_are_seen(function):
    assert not keys_in_place(function)


# Words of the left column in the language of the project, and those that stand for them.
INSTEAD = {
    r"of no (effect|account)": "is ignored",
    r"(?<![.\w])[Ww]alk(s|ed|ing)?\b(?!\()": "run or unroll",
    r"[Tt]hat of the (cell|inner cell)": "inherit the docstring",
    r"a row a gate": "one row per gate",
    r"\b(normalise|initialise|optimise|discretis|colour|behaviour|neighbour|centre)": "American spelling",
}


PROSE = [
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/*.py",
        "jaxrnn/**/*.py",
        "examples/**/*",
        "bench/*.[pm]*",
        "tests/**/*.py",
    )
    for path in sorted(ROOT.parent.glob(pattern))
    if path.suffix in (".md", ".py") and path.name != "test_pages.py"
]


def test_words_of_the_field():
    found = [
        (path.name, match.group(), INSTEAD[word])
        for path in PROSE
        for word in INSTEAD
        for match in re.finditer(word, path.read_text())
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        '"""D."""\nimport a\n__all__ = ["X"]\ndef f(): ...\nclass X(Cell[A, B]): ...',
        '"""D."""\nimport a\n__all__ = ["X"]\nclass X(Cell[A, B]): ...\nimport b',
        '"""D."""\n__all__ = ["X"]\nimport a\nclass X(Cell[A, B]): ...',
    ],
)
def test_another_skeleton_is_seen(tmp_path, source):
    page = tmp_path / "page.py"
    page.write_text(source)
    with pytest.raises(AssertionError, match="d"):
        test_one_skeleton(page)


@pytest.mark.parametrize("layer", [jaxrnn.LSTM, jaxrnn.Stack, jaxrnn.Zoneout], ids=lambda layer: layer.__name__)
def test_help_fits_two_screens(layer):
    """It leaves out the engine's methods, and the documentation of functions that are defaults."""
    text = pydoc.plain(pydoc.render_doc(layer))
    # Python 3.13 gives each argument of a long signature a line of its own.
    assert len(text.splitlines()) <= (110 if sys.version_info < (3, 13) else 145)
    assert "initial_state" in text
    assert "tanh(x" not in text
