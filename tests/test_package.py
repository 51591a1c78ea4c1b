"""What is published: the files of the packages, their metadata, and what the files around them say of them."""

import re
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from hatchling import build

import jaxrnn

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {path.stem: path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[zipfile.ZipFile, tarfile.TarFile]:
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        wheel, source = build.build_wheel(str(folder)), build.build_sdist(str(folder))
    return zipfile.ZipFile(folder / wheel), tarfile.open(folder / source)


def files(folder: str) -> set[str]:
    """The Python files there, and the marker of types."""
    return {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*") if p.suffix == ".py" or p.name == "py.typed"}


def test_the_wheel_is_the_library_alone(packages):
    """No tests, no data, no benchmarks."""
    wheel, _ = packages
    info = f"jaxrnn-{jaxrnn.__version__}.dist-info"
    described = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    assert set(wheel.namelist()) == files("jaxrnn") | described
    assert "jaxrnn/py.typed" in wheel.namelist()


def test_the_source_has_what_builds_and_tests_it(packages):
    _, source = packages
    names = {member.name.split("/", 1)[1] for member in source if member.isfile()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"} <= names
    assert names >= files("jaxrnn") | files("tests") | files("examples") | files("bench")
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"jaxrnn", "tests", "examples", "bench", "docs"}


def test_the_metadata(packages):
    wheel, _ = packages
    metadata: Message = Parser().parsestr(wheel.read(f"jaxrnn-{jaxrnn.__version__}.dist-info/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("jaxrnn", jaxrnn.__version__)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("MIT", ">=3.11")
    assert metadata["Description-Content-Type"] == "text/markdown"
    extras = {"cpu", "cuda", "tpu", "onnx", "safetensors", "convert", "equinox", "keras", "torch"}
    assert set(metadata.get_all("Provides-Extra")) >= extras | {"examples", "bench", "test"}
    plain = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line)[0] for line in plain} == {"jax", "flax", "optax", "orbax-checkpoint", "rich"}


def test_one_version_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(.*?)\]", changelog, flags=re.MULTILINE)[0] == jaxrnn.__version__
    assert f"\nversion: {jaxrnn.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_name_what_there_is(name):
    workflow = yaml.safe_load(WORKFLOWS[name])
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = [step["run"].split() for step in steps if "run" in step]
    made = {command[1] for command in commands if command[0] == "make"}
    assert made, "a workflow that makes nothing"
    assert made <= targets | {".venv/.installed-test", "docs"}


def test_the_oldest_versions_are_those_of_the_package():
    floors = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["cpu"]
    needed = {re.match(r"[\w-]+", line)[0]: re.search(r">=([\d.]+)", line)[1] for line in floors}
    needed["jaxlib"] = needed["jax"]
    pinned = dict(re.findall(r"([\w-]+)==([\d.]+)", WORKFLOWS["ci"]))
    assert {name: version.removesuffix(".0") for name, version in pinned.items()} == {
        name: version for name, version in needed.items() if name != "rich"
    }
