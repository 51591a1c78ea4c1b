"""The directions of the imports, and the names in the façade."""

import ast
import sys
from pathlib import Path

import pytest

import jaxrnn

ROOT = Path(__file__).parent.parent

# From the bottom up: a module imports from layers below its own only. What is not named here has no layer and fails.
LAYERS = [
    {"jaxrnn.typing", "jaxrnn.initializers", "jaxrnn.checks"},
    {"jaxrnn.rows", "jaxrnn.jaxprs"},
    {"jaxrnn.hoist", "jaxrnn.linearize"},
    {"jaxrnn.recurrence"},
    {"jaxrnn.chunks"},
    {"jaxrnn.cell"},
    {"jaxrnn.linear"},
    # The files in `cells`: a file for itself, or a cell made of others.
    {"jaxrnn.cells.*"},
    {"jaxrnn.cells.multiplicative", "jaxrnn.cells.nested"},
    {"jaxrnn.cells"},
    {"jaxrnn.unroll"},
    {"jaxrnn.wrapper"},
    {
        "jaxrnn.regularization",
        "jaxrnn.penalties",
        "jaxrnn.states",
        "jaxrnn.metrics",
        "jaxrnn.reinforce",
    },
    {"jaxrnn.gradients"},
    {"jaxrnn.networks", "jaxrnn.parametrizations", "jaxrnn.batch_norm"},
    {"jaxrnn.sequences", "jaxrnn.attention", "jaxrnn.inspection"},
    {"jaxrnn.grid"},
    {"jaxrnn"},
    {"jaxrnn._flax", "jaxrnn.losses", "jaxrnn.plots"},
    {"jaxrnn.nnx", "jaxrnn.linen", "jaxrnn.training"},
    {"examples", "bench"},
]
# Inside of the bottom layer.
WITHIN = {("jaxrnn.initializers", "jaxrnn.typing"), ("jaxrnn.checks", "jaxrnn.typing")}
# The Flax wrappers and the training are beside the core: the core has JAX and NumPy alone.
CORE = {"jax", "numpy", "ml_dtypes"}
ABOVE = {"jaxrnn._flax", "jaxrnn.losses", "jaxrnn.plots", "jaxrnn.nnx", "jaxrnn.linen", "jaxrnn.training"}

MODULES = sorted(p for folder in ("jaxrnn", "examples", "bench") for p in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> set[str]:
    """Modules that the import statements name, those inside of functions too."""
    names = set()
    for node in ast.walk(tree):
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


def layer(name: str) -> int:
    top = name.split(".")[0]
    key = name if top == "jaxrnn" else top
    if key.startswith("jaxrnn.cells.") and not any(key in names for names in LAYERS):
        key = "jaxrnn.cells.*"
    found = [i for i, names in enumerate(LAYERS) if key in names]
    assert found, f"{name} has no layer: give it one in LAYERS"
    return found[0]


def wrong_arrows(name: str, source: str) -> list[str]:
    """The imports of a module that go up or sideways, and those the core must not have."""
    wrong = []
    for other in imported(ast.parse(source)):
        top = other.split(".")[0]
        if top in ("jaxrnn", "examples", "bench", "tests"):
            same_folder = layer(name) == len(LAYERS) - 1 and top == name.split(".")[0]
            if top == "tests" or not (layer(other) < layer(name) or (name, other) in WITHIN or same_folder):
                wrong.append(f"{name} imports {other}")
        elif name.startswith("jaxrnn") and name not in ABOVE and top not in CORE and top not in sys.stdlib_module_names:
            wrong.append(f"{name} imports {other}")
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path):
    assert not wrong_arrows(module_name(path), path.read_text())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("jaxrnn.cell", "from jaxrnn.unroll import unroll"),
        ("jaxrnn.cells.lstm", "from jaxrnn.cells.gru import GRU"),
        ("jaxrnn.cells.lstm", "import jaxrnn.cells"),
        ("jaxrnn.cells.lstm", "from jaxrnn import networks")("jaxrnn.unroll", "def f():\n    import flax"),
        ("jaxrnn.unroll", "import jaxrnn"),
        ("jaxrnn.networks", "import optax"),
        ("jaxrnn.training", "from examples import sine"),
        ("bench.unroll", "import tests.registry"),
    ],
)
def test_other_arrows_are_seen(name, source):
    assert wrong_arrows(name, source)


def test_every_module_is_there():
    """No name in the table above is a leftover."""
    named = set().union(*LAYERS)
    assert {n for n in named if "*" not in n and not is_module(n) and not (ROOT / n).is_dir()} == set()


def test_the_facade_is_whole():
    assert len(set(jaxrnn.__all__)) == len(jaxrnn.__all__)
    assert all(hasattr(jaxrnn, name) for name in jaxrnn.__all__)
    for module in (jaxrnn.cell, jaxrnn.cells, jaxrnn.networks, jaxrnn.linear, jaxrnn.grid):
        assert set(module.__all__) <= set(jaxrnn.__all__)
