"""Pages that the build makes of the code: one for each cell, one for each module, and those of the repository.

`write` puts them into docs/catalog, docs/api and docs/project, which git ignores. What a cell's page says comes from
its docstring, from the tables in docs/cells.md and bench/README.md, and from running it on a toy input.
"""

import inspect
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import docstrings
import toys

MODULES = {
    "jaxrnn": ("The core", ["unroll", "Newton", "Layer", "Cell", "LinearCell"]),
    "jaxrnn.networks": ("Networks and wrappers", None),
    "jaxrnn.sequences": ("Sequences", None),
    "jaxrnn.states": ("States", None),
    "jaxrnn.batches": ("Batches", None),
    "jaxrnn.training": ("Training", None),
    "jaxrnn.losses": ("Losses", None),
    "jaxrnn.penalties": ("Penalties", None),
    "jaxrnn.regularization": ("Regularization", None),
    "jaxrnn.metrics": ("Metrics", None),
    "jaxrnn.decoding": ("Decoding", None),
    "jaxrnn.inspection": ("Inspection", None),
    "jaxrnn.plots": ("Plots", None),
    "jaxrnn.reinforce": ("Reinforcement learning", None),
    "jaxrnn.sharding": ("Many devices", None),
    "jaxrnn.nnx": ("Flax nnx", None),
    "jaxrnn.linen": ("Flax linen", None),
    "jaxrnn.convert": ("Converters", None),
    "jaxrnn.convert.onnx": ("Layers and activations of ONNX", None),
    "jaxrnn.initializers": ("Initializers", None),
    "jaxrnn.ops": ("Operations", None),
}
"""The pages of the API: title, and the names; None: all public ones."""

INSIDE = {
    "jaxrnn.engine": "How the engine runs a cell",
    "jaxrnn.native": "How the native loops are made",
    "jaxrnn.mosaic": "How the kernels of a TPU are made",
}
"""Pages of what the modules of a folder say about themselves, for those who read the code."""

REPOSITORY = {
    "README.md": "readme",
    "examples/README.md": "examples",
    "bench/README.md": "benchmarks",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
}
"""Files outside of docs/ that are pages of docs/project, where they exist."""

FOLDERS = ("catalog", "api", "project")


def root() -> Path:
    return Path(__file__).parent.parent


# Cells.


class Kind(NamedTuple):
    """A public kind of cell."""

    name: str
    cls: type
    module: Any

    @property
    def paper(self) -> str:
        """What its module says in one line; of several cells in a module, what the class says, with its source."""
        if sum(kind.module is self.module for kind in kinds()) == 1:
            return inspect.getdoc(self.module) or ""
        line = (inspect.getdoc(self.cls) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".")
        source = next(cost.paper for cost in costs() if cost.kind == self.name).partition(";")[0]
        return f"{line} ({source.replace(' (', ', ').replace(')', '')})."


def kinds() -> list[Kind]:
    """The concrete cells of `jaxrnn.cells`, in the order of the table in docs/cells.md."""
    import jaxrnn

    found = [
        Kind(name, cls, inspect.getmodule(cls)) for name, cls in vars(jaxrnn.cells).items() if inspect.isclass(cls)
    ]
    cells = [k for k in found if issubclass(k.cls, jaxrnn.Layer) and not inspect.isabstract(k.cls)]
    order = list(dict.fromkeys(row.kind for row in costs()))
    return sorted(cells, key=lambda kind: order.index(kind.name) if kind.name in order else len(order))


class Cost(NamedTuple):
    """A row of the table in docs/cells.md, with the times of bench/README.md."""

    kind: str  # the class
    cell: str
    paper: str
    state: str
    parameters: str
    products: str
    forward: str  # µs a step, empty where it was not measured
    training: str


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of each row of the Markdown table whose header begins so."""
    found = re.search(rf"^\| {re.escape(header)} .*\n\|[-|]*\n((?:^\|.*\n)+)", text, flags=re.MULTILINE)
    assert found, header
    return [line.strip("| ").split(" | ") for line in found[1].splitlines()]


def kind_of(cell: str) -> str:
    """The class that a row is about: of a parametrization, the cell in it."""
    names = [name for name in re.findall(r"\w+", cell) if name not in ("networks", "Orthogonal", "Antisymmetric")]
    return names[0] if names else ""


def costs() -> list[Cost]:
    measured = {
        row[0].strip("`"): row[4:7:2]
        for row in rows((root() / "bench/README.md").read_text(), "cell | parameters | state | products")
    }
    found = []
    for cell, paper, state, parameters, products in rows((root() / "docs/cells.md").read_text(), "cell"):
        name = re.match("`(.*?)`", cell)[1]
        found.append(Cost(kind_of(name), cell, paper, state, parameters, products, *measured.get(name, ["", ""])))
    return found


def table(header: list[str], lines: list[list[str]]) -> str:
    """A list-table, with the markup of docstrings in its cells."""
    body = "".join(
        "".join(f"   {'* -' if n == 0 else '  -'} {docstrings.words(cell)}\n" for n, cell in enumerate(line))
        for line in [header, *lines]
    )
    return f".. list-table::\n   :header-rows: 1\n\n{body}\n"


def heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n\n"


def parameters(kind: Kind) -> str:
    """The table of a cell's parameters: shapes in letters from the source, and of the toy cell."""
    import jax

    cell = toys.toy(kind.cls)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    if not hasattr(params, "_fields") or not params:
        return ""
    comments = {name: comment for name, _, _, comment in docstrings.fields_of(type(params))}
    lines = []
    for field in params._fields:
        value = getattr(params, field)
        shapes = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(value)) or "none"
        lines.append([f"`{field}`", docstrings.shaped(comments.get(field, "")), f"`{shapes}`"])
    return (
        heading("Parameters and state", "-")
        + docstrings.words(f"`{type(params).__name__}`, and beside it the shapes in `{toys.constructed(cell)}`:")
        + "\n\n"
        + table(["parameter", "shape", "here"], lines)
    )


def state(kind: Kind) -> str:
    """What the state holds."""
    import jax

    cell = toys.toy(kind.cls)
    start = jax.eval_shape(cell.initial_state)
    if not hasattr(start, "_fields"):
        return ""
    comments = {name: comment for name, _, _, comment in docstrings.fields_of(type(start))}
    items = [
        f"- ``{field}``" + (f": {docstrings.words(docstrings.shaped(comments[field]))}" if comments.get(field) else "")
        for field in start._fields
    ]
    return docstrings.words(f"The state is a `{type(start).__name__}`:") + "\n\n" + "\n".join(items) + "\n\n"


def cell_page(kind: Kind, public: str) -> str:
    """The page of a cell."""
    members = [m for m in ("init", "initial_state", "project", "step", "readout") if m in vars(kind.cls)]
    own = [cost for cost in costs() if cost.kind == kind.name]
    timed = any(cost.forward for cost in own)
    header = ["cell", "parameters", "products a step", *(["forward, µs", "training, µs"] if timed else [])]
    lines = [
        [cost.cell, cost.parameters, cost.products, *([cost.forward or "–", cost.training or "–"] if timed else [])]
        for cost in own
    ]
    cost = heading("Cost", "-") + table(header, lines) if own else ""
    if timed:
        cost += (
            "Times are those of one step of 32 rows with I, H = 64, 128 on the faster path, by\n"
            "``python -m bench.cells``; :doc:`benchmarks </project/benchmarks>` says on which machine.\n"
            ":doc:`/cells` says what the letters stand for.\n\n"
        )
    seen = "Input, outputs and gates" if toys.letters(kind.cls) else "Input and outputs"
    what = f"{seen} of ``{toys.constructed(toys.toy(kind.cls))}`` with fresh parameters."
    return (
        heading(kind.name)
        + docstrings.words(kind.paper)
        + f"\n\n.. figure:: {kind.name}.svg\n   :alt: outputs of {kind.name} on a toy input\n\n   {what}\n\n"
        + f".. autoclass:: {public}\n"
        + (f"   :members: {', '.join(members)}\n" if members else "")
        + "\n"
        + parameters(kind)
        + state(kind)
        + cost
        + heading("Source", "-")
        + f".. literalinclude:: {os.path.relpath(kind.module.__file__, root() / 'docs/catalog')}\n"
        + "   :language: python\n"
    )


def cell_pages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pages of cells, an index, and the types that belong to them; pictures that are not there are drawn."""
    import jaxrnn

    index, types = [], heading("Types of parameters and states")
    types += (
        "Named tuples, so pytrees: of parameters that ``init`` makes, and of states that ``initial_state`` makes.\n\n"
    )
    for kind in kinds():
        public = f"jaxrnn.{kind.name}" if kind.name in jaxrnn.__all__ else f"jaxrnn.cells.{kind.name}"
        yield folder / f"{kind.name}.rst", cell_page(kind, public)
        picture = folder / f"{kind.name}.svg"
        # Drawn again only if the cell or the script changed.
        newest = max(os.path.getmtime(file) for file in (kind.module.__file__, toys.__file__))
        if not picture.exists() or picture.stat().st_mtime < newest:
            toys.draw(kind.cls, picture)
        index.append([f":doc:`{kind.name}`", docstrings.words(kind.paper)])
    named = {kind.name for kind in kinds()}
    for name in jaxrnn.cells.__all__:
        if name in named:
            continue
        thing = getattr(jaxrnn.cells, name)
        if callable(thing):
            types += f".. auto{'class' if inspect.isclass(thing) else 'function'}:: jaxrnn.cells.{name}\n\n"
        else:  # documented where it is defined
            home = next(k.module.__name__ for k in kinds() if name in k.module.__all__)
            types += f".. autodata:: {home}.{name}\n   :no-value:\n\n"
    yield folder / "types.rst", types
    body = "".join(f"   * - {link}\n     - {paper}\n" for link, paper in index)
    yield (
        folder / "index.rst",
        heading("The catalog")
        + "Every kind of cell, with its equations, parameters, cost, and a picture of what it does with a toy input.\n"
        + ":doc:`/cells` compares them in one table; :doc:`/choosing` says which to try first.\n\n"
        + f".. list-table::\n   :header-rows: 1\n\n   * - cell\n     - what it is\n{body}\n"
        + ".. toctree::\n   :hidden:\n\n"
        + "".join(f"   {kind.name}\n" for kind in kinds())
        + "   types\n",
    )


# Modules.


def module_page(name: str, title: str, names: list[str] | None) -> str:
    """The page of a topic module: what it says, a table of its names, each one's docstring."""
    import importlib

    module = importlib.import_module(name)
    names = list(module.__all__) if names is None else names
    page = (
        heading(title)
        + f"``import {name}``\n\n.. automodule:: {name}\n   :no-members:\n\n.. currentmodule:: {name}\n\n"
    )
    page += ".. autosummary::\n\n" + "".join(f"   {one}\n" for one in names) + "\n"
    for one in names:
        thing = getattr(module, one)
        kind = "class" if inspect.isclass(thing) else "function" if callable(thing) else "data"
        kind = "exception" if kind == "class" and issubclass(thing, Exception) else kind
        page += f".. auto{kind}:: {one}\n" + (members_of(thing) if kind == "class" else "") + "\n"
    return page


def members_of(cls: type) -> str:
    """Which methods a class shows: of a network, those that are not the protocol's, which its base class describes."""
    import jaxrnn

    wrappers = (jaxrnn.networks.Wrapper, jaxrnn.networks.StepWrapper, jaxrnn.networks.Parametrized)
    protocol = (jaxrnn.Layer, jaxrnn.Cell, jaxrnn.LinearCell, *wrappers)
    if cls in protocol or not issubclass(cls, jaxrnn.Layer):
        return "   :members:\n"
    shown = [m for m in vars(cls) if m == "init" or not (m[0] == "_" or any(hasattr(base, m) for base in protocol))]
    methods = [m for m in shown if inspect.isroutine(vars(cls)[m])]
    return f"   :members: {', '.join(methods)}\n" if methods else ""


def inside_page(name: str, title: str) -> str:
    """What a folder and its modules say about themselves."""
    import importlib
    import pkgutil

    package = importlib.import_module(name)
    modules = [importlib.import_module(f"{name}.{info.name}") for info in pkgutil.iter_modules(package.__path__)]
    page = heading(title) + said(package)
    for module in modules:
        page += heading(f"``{module.__name__.rpartition('.')[2]}.py``", "-") + said(module)
    return page


def said(module: Any) -> str:
    """The docstring of a module as reStructuredText."""
    return "\n".join(docstrings.converted((inspect.getdoc(module) or "").splitlines())) + "\n\n"


def module_pages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pages of modules and their index."""
    for name, (title, names) in MODULES.items():
        yield folder / f"{name}.rst", module_page(name, title, names)
    for name, title in INSIDE.items():
        yield folder / f"{name}.rst", inside_page(name, title)
    listed = "".join(f"   {name}\n" for name in [*MODULES, *INSIDE])
    yield (
        folder / "index.rst",
        heading("The API")
        + "Every public name, module by module. The cells are in :doc:`the catalog </catalog/index>`.\n\n"
        + f".. toctree::\n   :maxdepth: 1\n\n{listed}",
    )


# Pages of the repository.


def relinked(text: str, page: str) -> str:
    """The Markdown of the file `page` with links to files outside of docs/ leading to their pages on the site."""
    here = posixpath.dirname(page)
    at = f"docs/project/{REPOSITORY[page]}.md" if page in REPOSITORY else page

    def one(found: re.Match[str]) -> str:
        label, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(here, target)) if target else page
        path = f"docs/project/{REPOSITORY[path]}.md" if path in REPOSITORY else path
        if not path.startswith("docs/"):
            return label  # a file of the repository that is no page
        relative = posixpath.relpath(path, posixpath.dirname(at)) if target else ""
        return f"[{label}]({relative}{anchor or ''})"

    blocks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    linked = [
        block if n % 2 else re.sub(r"(?<!!)\[([^\]]*)\]\((?!\w+:)([^)#\s]*)(#[^)]*)?\)", one, block)
        for n, block in enumerate(blocks)
    ]
    images = re.sub(
        r"!\[([^\]]*)\]\((?!\w+:)([^)\s]*)\)",
        lambda found: f"![{found[1]}]({posixpath.relpath(posixpath.join(here, found[2]), posixpath.dirname(at))})",
        "".join(linked),
    )
    most = {"docs/cells.md": 1, "docs/choosing.md": 0}
    if page not in most:
        return images
    return re.sub(r"^\|.*", lambda row: linked_cells(row[0], most[page]), images, flags=re.MULTILINE)


def linked_cells(row: str, most: int) -> str:
    """A row of a table whose cells by name lead to their pages; the first `most`, or all of them if that is 0."""
    names = {kind.name for kind in kinds()}

    def one(found: re.Match[str]) -> str:
        kind = kind_of(found[1])
        return f"[{found[1]}](catalog/{kind}.rst)" if kind in names else found[0]

    return re.sub(r"(`[^`]+`)", one, row, count=most)


def repository_pages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pages of the files of the repository that are there."""
    for source, name in REPOSITORY.items():
        if (root() / source).exists():
            yield folder / f"{name}.md", relinked((root() / source).read_text(), source)


def write() -> None:
    """Makes all pages; one that says so already is not touched, so not built again, and one of an earlier code goes."""
    docs, kept = root() / "docs", set()
    for folder, pages in zip(FOLDERS, (cell_pages, module_pages, repository_pages), strict=True):
        for path, text in pages(docs / folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept.add(path)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
    for folder in FOLDERS:
        for path in (docs / folder).iterdir():
            if path.with_suffix(".rst") not in kept and path not in kept:
                path.unlink()


if __name__ == "__main__":
    write()
