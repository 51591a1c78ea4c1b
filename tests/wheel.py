"""Uses the built wheel as a stranger does: `python -m tests.wheel dist`, a part of `make dist`.

In an empty folder outside of the checkout, the wheel is installed into an environment of its own and imported, and
README's doctests run. Then mypy and pyright check a user's program against it, which is right, and the same with one
wrong line, which each must find.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent

USE = """
import pathlib, sys
import jaxrnn
folder = pathlib.Path(jaxrnn.__file__).parent
assert folder.is_relative_to(sys.prefix), f"{folder} is not the installed package"
assert (folder / "py.typed").exists()
loaded = {"flax", "optax", "orbax", "llvmlite", "matplotlib"} & set(sys.modules)
assert not loaded, f"import jaxrnn loads {loaded}"
print(f"jaxrnn {jaxrnn.__version__} of the wheel, Python {sys.version.split()[0]}")
"""

RIGHT = """
import jax
import jax.numpy as jnp

import jaxrnn
import jaxrnn.nnx
from jaxrnn.cells import LSTMParams, LSTMState


def run(cell: jaxrnn.LSTM, params: LSTMParams, xs: jax.Array) -> tuple[LSTMState, jax.Array]:
    state, ys = jaxrnn.unroll(cell, params, xs, lengths=jnp.array([5, 3]))
    return state, ys


cell = jaxrnn.LSTM(input_size=3, hidden_size=4)
state, ys = run(cell, cell.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
h: jax.Array = state.h
state, y = cell(cell.init(jax.random.key(0)), state, jnp.ones((2, 3)))

net = jaxrnn.Dropout(jaxrnn.Zoneout(cell, 0.1), 0.5)
state, ys = run(cell, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
state, ys = jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)), state)
c: jax.Array = state.c
learned: jax.Array = jaxrnn.LearnedState(cell).initial_state((2,)).c
"""
WRONG = "jaxrnn.unroll(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))[0].m\n"


def check(*command: str, folder: Path) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=folder, check=True)


def must_fail(*command: str, folder: Path, line: int) -> None:
    """A type checker that says what is wrong in this line, and in no other."""
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    lines = {int(found.split(":")[1]) for found in out.splitlines() if " error: " in found or " - error" in found}
    assert lines == {line}, f"{command[0]}: needs an error in line {line} and no other, got\n{out}"
    print(f"{Path(command[0]).name} finds the wrong line")


def main(dist: Path) -> None:
    (wheel,) = dist.resolve().glob("*.whl")
    # Nothing of the checkout or of this environment is seen there.
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True, symlinks=os.name != "nt")
        python = str(folder / "env" / "bin" / "python")
        check(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel), folder=folder)
        check(python, "-c", USE, folder=folder)

        (folder / "README.md").write_text((ROOT / "README.md").read_text())
        options = ("-o", "ELLIPSIS", "-o", "NORMALIZE_WHITESPACE")
        check(python, "-m", "doctest", *options, "README.md", folder=folder)

        tools = Path(sys.executable).parent
        mypy = (str(tools / "mypy"), "--strict", "--no-incremental", "--python-executable", python)
        pyright = (str(tools / "pyright"), "--pythonpath", python)
        (folder / "right.py").write_text(RIGHT)
        (folder / "wrong.py").write_text(RIGHT + WRONG)
        for checker in (mypy, pyright):
            check(*checker, "right.py", folder=folder)
            must_fail(*checker, "wrong.py", folder=folder, line=len((RIGHT + WRONG).splitlines()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
