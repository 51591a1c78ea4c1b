"""The pages of `jaxrnn/cells`: one skeleton for all, docstrings that say what things do, and the words of the field."""

import ast
import importlib
import inspect
import pkgutil
import pydoc
import re
from pathlib import Path

import pytest

import jaxrnn

ROOT = Path(jaxrnn.__file__).parent
PAGES = sorted(path for path in (ROOT / "cells").glob("*.py") if path.name != "__init__.py")
pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)

ORDER = ["__post_init__", "property", "init", "initial_state", "project", "step", "readout", "hook", "private"]
SAME_PLACE = {"coefficients": "step", "place": "step"}
SECTIONS = ["Args:", "Raises:", "Example:", "Reference:"]


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
    """`Cell[Params, State]`; equations, indented; Args, Raises, Example, Reference, in this order."""
    for cls in ast.parse(path.read_text()).body:
        if not isinstance(cls, ast.ClassDef) or is_tuple(cls):
            continue
        assert any(isinstance(base, ast.Subscript) for base in cls.bases), cls.name
        if re.search(r"\[P, S\]$", ast.unparse(cls.bases[0])):
            continue
        doc = ast.get_docstring(cls)
        assert re.search(r"\n\n    \S.*=", doc), f"{cls.name}: no equations"
        found = [s for s in re.findall(r"^(\w+:)", doc, flags=re.MULTILINE) if s in SECTIONS]
        assert found == SECTIONS, cls.name


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
    assert len(text.splitlines()) <= 110
    assert "initial_state" in text
    assert "tanh(x" not in text
