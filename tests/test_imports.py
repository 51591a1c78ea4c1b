"""The directions of the imports, and the names in the façade."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import jaxrnn

ROOT = Path(__file__).parent.parent

# From the bottom up: what stands in a room imports from its own room and from rooms below. A folder is one room.
ROOMS = [
    {"jaxrnn.typing", "jaxrnn.checks", "jaxrnn.initializers", "jaxrnn.ops", "jaxrnn.jaxprs", "jaxrnn.places"},
    {"jaxrnn.native", "jaxrnn.mosaic"},
    {"jaxrnn.engine"},
    {"jaxrnn.cell", "jaxrnn.plane"},
    {"jaxrnn.cells"},
    {"jaxrnn.networks"},
    {
        "jaxrnn.batches",
        "jaxrnn.decoding",
        "jaxrnn.inspection",
        "jaxrnn.metrics",
        "jaxrnn.penalties",
        "jaxrnn.regularization",
        "jaxrnn.reinforce",
        "jaxrnn.sharding",
        "jaxrnn.sequences",
        "jaxrnn.states",
    },
    {"jaxrnn"},
    {
        "jaxrnn._flax",
        "jaxrnn.convert",
        "jaxrnn.linen",
        "jaxrnn.losses",
        "jaxrnn.nnx",
        "jaxrnn.plots",
        "jaxrnn.training",
    },
    {"bench"},
    {"examples"},
]
# Beside the core, which has JAX and NumPy alone, stand Flax modules, converters, Optax's losses, training and plots.
CORE = {"jax", "numpy", "ml_dtypes"}

MODULES = sorted(p for folder in ("jaxrnn", "examples", "bench") for p in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> set[str]:
    """Modules that the import statements name, those inside of functions too, but for what only types need."""
    names = set()
    types_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for node in types_only for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from jaxrnn import initializers` names a module, `from jaxrnn.cell import Cell` a thing in one.
            names.update(
                f"{node.module}.{a.name}" if is_module(f"{node.module}.{a.name}") else node.module for a in node.names
            )
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(name: str) -> int:
    """The number of a module's room: that of its folder, or its own."""
    parts = name.split(".")
    folder = ".".join(parts[:2]) if (ROOT / "/".join(parts[:2])).is_dir() else name
    key = folder if parts[0] == "jaxrnn" else parts[0]
    found = [i for i, names in enumerate(ROOMS) if key in names]
    assert found, f"{name} has no room: give it one in ROOMS"
    return found[0]


def wrong_arrows(name: str, source: str) -> list[str]:
    """The imports of a module that go up, and those it must not have."""
    wrong = []
    for other in imported(ast.parse(source)):
        top = other.split(".")[0]
        core = name.startswith("jaxrnn") and room(name) != room("jaxrnn.training")
        if top in ("jaxrnn", "examples", "bench", "tests"):
            if top == "tests" or room(other) > room(name) or (other == "jaxrnn" and room(name) < room("jaxrnn")):
                wrong.append(f"{name} imports {other}")
        elif other.startswith("jax.extend"):
            if name.startswith("jaxrnn") and name != "jaxrnn.jaxprs":
                wrong.append(f"{name} imports {other}")
        elif top == "llvmlite" and name.startswith("jaxrnn.native."):
            continue
        elif core and top not in CORE and top not in sys.stdlib_module_names:
            wrong.append(f"{name} imports {other}")
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path):
    assert not wrong_arrows(module_name(path), path.read_text())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("jaxrnn.engine.driver", "from jaxrnn.cell import Cell"),
        ("jaxrnn.ops", "from jaxrnn.engine.masks import at"),
        ("jaxrnn.cells.lstm", "from jaxrnn import networks"),
        ("jaxrnn.cells.lstm", "from jaxrnn.networks.stack import Stack"),
        ("jaxrnn.engine.hoist", "from jax.extend.core import Jaxpr"),
        ("jaxrnn.sequences", "def f():\n    import flax"),
        ("jaxrnn.sequences", "import jaxrnn"),
        ("jaxrnn.engine.driver", "import llvmlite"),
        ("jaxrnn.native.compile", "from jaxrnn.engine import driver"),
        ("jaxrnn.networks", "import optax"),
        ("jaxrnn.training", "from examples import sine"),
        ("bench.unroll", "import tests.registry"),
    ],
)
def test_other_arrows_are_seen(name, source):
    assert wrong_arrows(name, source)


def test_every_module_is_there():
    """No name in the table above is a leftover."""
    assert {n for n in set().union(*ROOMS) if not is_module(n) and not (ROOT / n).is_dir()} == set()


def layers(module: ModuleType) -> set[str]:
    things = ((name, getattr(module, name)) for name in module.__all__)
    return {name for name, thing in things if isinstance(thing, type) and issubclass(thing, jaxrnn.Layer)}


ELSEWHERE = {*jaxrnn.cells.__all__, *jaxrnn.networks.__all__} - {*jaxrnn.__all__}


def test_the_facade_is_whole():
    """It has every cell and some of the networks; what it does not list, it does not have."""
    assert len(set(jaxrnn.__all__)) == len(jaxrnn.__all__) <= 75
    assert all(hasattr(jaxrnn, name) for name in jaxrnn.__all__)
    assert layers(jaxrnn.cells) == {*jaxrnn.cells.__all__} & {*jaxrnn.__all__}
    assert layers(jaxrnn.networks) >= {*jaxrnn.networks.__all__} & {*jaxrnn.__all__}
    assert not ELSEWHERE & {*dir(jaxrnn)}


@pytest.mark.parametrize("files", ["*.md", "docs/**/*.*", "jaxrnn/**/*.py", "examples/**/*.*", "bench/**/*.*"])
def test_each_thing_is_named_by_its_place(files):
    """`jaxrnn.networks.Truncated`, not `jaxrnn.Truncated`: code that runs would tell, a text does not."""
    paths = [path for path in ROOT.glob(files) if path.suffix in (".md", ".py")]
    assert paths
    named = [(path.name, name) for path in paths for name in re.findall(r"\bjaxrnn\.(\w+)", path.read_text())]
    assert [(path, name) for path, name in named if name in ELSEWHERE] == []
