"""`make` says in one line what a machine lacks."""

import os
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")

OLD = 'case "$1" in -c) echo old;; *) echo "Python 3.9.2";; esac'
BARE = 'case "$*" in *ensurepip*) exit 1;; -c*) echo yes;; *) echo "Python 3.12.1";; esac'


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def make(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """What `make` prints on a machine with the programs of `folder` and few others, where it has to fail."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("cat", "env", "grep", "touch"):
        (programs / name).symlink_to(str(shutil.which(name)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PIP_", "CI", "TORCH", "PYTHON", "VENV"))}
    run = subprocess.run(
        [str(MAKE), "--no-print-directory", "demo", f"VENV={folder / 'venv'}", *arguments],
        cwd=ROOT,
        env=kept | {"PATH": str(programs)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    return [line for line in run.stdout.splitlines() if not line.startswith(("installing", "make: ***"))]


def test_an_old_python(tmp_path):
    script(tmp_path / "bin/python3", OLD)
    (line,) = make(tmp_path)
    assert "needs Python 3.11 or newer, got Python 3.9.2: install one, or name it" in line


@pytest.mark.parametrize("arguments", [[], ["PYTHON=python3.99"]])
def test_no_python(tmp_path, arguments):
    (line,) = make(tmp_path, *arguments)
    name = arguments[0].removeprefix("PYTHON=") if arguments else "python3"
    assert f"needs Python 3.11 or newer, got no {name}: install one, or name it" in line


def test_a_python_without_venv(tmp_path):
    script(tmp_path / "bin/python3", BARE)
    assert make(tmp_path) == ["python3 comes without venv: install it (Debian, Ubuntu: apt install python3-venv)"]


@pytest.mark.skipif(util.find_spec("pip") is None, reason="needs pip")
def test_no_network(tmp_path):
    """The real pip, an index at which nobody answers, and a folder to install into that isn't the one in use."""
    script(tmp_path / "venv/bin/python", f'exec {sys.executable} "$@"')
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_TARGET": str(tmp_path)}
    assert make(tmp_path, **nowhere) == [f"no network: pip reaches no package index, see {tmp_path}/venv/pip.log"]
    assert "Retrying" in (tmp_path / "venv/pip.log").read_text()


def test_what_else_pip_says_is_shown(tmp_path):
    script(tmp_path / "venv/bin/python", "echo 'ERROR: no space left on device' >&2; exit 1")
    assert make(tmp_path) == ["ERROR: no space left on device"]
