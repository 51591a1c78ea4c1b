"""The files of a training run: a lock, lines of metrics, and checkpoints by Orbax.

    directory/fit.lock          held by the `fit` that writes here; holds its process id
    directory/metrics.jsonl     a JSON object a line
    directory/checkpoints/7     one folder a checkpoint, of two items: `state`, the arrays by name, and `about`, their
                                digests and the metric by which it was the best

Orbax commits a checkpoint as a whole, so a killed process leaves none that is half written.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxrnn.typing import Array, PyTree

__all__ = ["Run", "Which", "difference", "folder", "load", "named", "open_run"]

Which = int | Literal["newest", "best"]

KEPT = 3  # the last ones, and the best one


@dataclass
class Run:
    """An open directory."""

    directory: Path
    manager: ocp.CheckpointManager
    began: float
    best: tuple[int, dict[str, float]] | None  # the step of the best checkpoint, and its metric by name

    def write(self, step: int, line: dict[str, float]) -> None:
        """Appends a line of metrics."""
        values = {name: value if math.isfinite(value) else None for name, value in line.items()}
        if jax.process_index() == 0:
            with (self.directory / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
                metrics.write(
                    json.dumps({"step": step, "seconds": round(time.monotonic() - self.began, 3), **values}) + "\n"
                )

    def improves(self, name: str, value: float, mode: Literal["min", "max"]) -> bool:
        """Returns whether `value` is better than that of the best checkpoint, or the first of its name."""
        before = self.best[1].get(name) if self.best else None
        if not math.isfinite(value) or before is None:
            return math.isfinite(value)
        return value < before if mode == "min" else value > before

    def save(self, state: PyTree, step: int, best: dict[str, float] | None = None) -> None:
        """Writes a checkpoint unless this step has one; `best`: the metric by which it is the best so far."""
        if step == self.manager.latest_step():
            return
        arrays = _stored(state)
        about = {"digests": {name: _digest(array) for name, array in arrays.items()}, "best": best}
        self.manager.save(
            step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(arrays), about=ocp.args.JsonSave(about))
        )
        if best is not None:
            self.best = step, best
        for old in sorted(self.manager.all_steps())[:-KEPT]:
            if self.best is None or old != self.best[0]:
                self.manager.delete(old)

    def last(self) -> str:
        """Says where the last checkpoint is, and how to go on."""
        if self.manager.latest_step() is None:
            return f"No checkpoint was saved in {self.directory}"
        return (
            f"The last checkpoint in {self.directory} is {self.manager.latest_step()}; to go on, give fit the state "
            f"that restore({str(self.directory)!r}, state) gives"
        )


def folder(directory: Any) -> Path:
    """Returns the path of a run's directory; raises unless it is one."""
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"directory: got {type(directory).__name__}, needs a path")
    return Path(directory).absolute()


@contextlib.contextmanager
def open_run(directory: Path, step: int) -> Iterator[Run]:
    """Opens the files of a run that stands at `step`, for one process to write to."""
    directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory), _manager(directory / "checkpoints") as manager:
        if manager.latest_step() not in (None, step):
            raise ValueError(
                f"directory: {directory} holds checkpoints up to step {manager.latest_step()}, the state stands at "
                f"step {step}; give fit the state from restore(directory, state), or another directory"
            )
        path = directory / "metrics.jsonl"
        kept = _lines_up_to(path, step)
        if jax.process_index() == 0:
            partial = path.with_suffix(".jsonl.partial")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            partial.replace(path)
        seconds = json.loads(kept[-1])["seconds"] if kept else 0.0
        yield Run(directory, manager, time.monotonic() - seconds, _best(manager))


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """The right to write to `directory`, which ends with the process, however it ends.

    Where the system has no such locks (Windows, some network file systems), every process has it.
    """
    if sys.platform == "win32" or jax.process_index() > 0:
        yield
        return
    import fcntl

    with (directory / "fit.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ValueError(
                f"directory: got {directory}, where another fit writes (process {owner}); needs its end, or another "
                "directory"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _lines_up_to(path: Path, step: int) -> list[str]:
    """The lines of metrics up to `step`; one that was cut off while it was written is none."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            read = json.loads(line)
            if not isinstance(read, dict) or not all(isinstance(read.get(n), int | float) for n in ("step", "seconds")):
                raise ValueError(
                    f"directory: got {path}, which fit did not write (it holds {line[:60]!r}), needs another directory"
                )
            if read["step"] <= step:
                kept.append(line)
    return kept


# Checkpoints.


def _manager(checkpoints: Path, *, write: bool = True) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        create=write, cleanup_tmp_directories=write, enable_async_checkpointing=False
    )
    handlers = {"state": ocp.PyTreeCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(checkpoints, options=options, item_handlers=handlers)


def _about(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    return manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]


def _best(manager: ocp.CheckpointManager) -> tuple[int, dict[str, float]] | None:
    """The best checkpoint: the newest one that was the best so far when it was saved."""
    for step in sorted(manager.all_steps(), reverse=True):
        with contextlib.suppress(Exception):  # a damaged one is none
            if best := _about(manager, step)["best"]:
                return step, best
    return None


def _digest(array: Array) -> str:
    """Of an array's values; empty if this process does not hold them all."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        if not array.is_fully_replicated:
            return ""
        array = array.addressable_data(0)
    return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()


def load(
    directory: str | os.PathLike[str], like: PyTree, which: Which, *, at: str = "", skip: tuple[str, ...] = ()
) -> PyTree:
    """Reads the arrays of `like` from a checkpoint.

    Args:
        directory: the one of the run.
        like: gives structure, shapes, dtypes and devices.
        which: the checkpoint.
        at: what the names of the arrays of `like` begin with in the checkpoint.
        skip: beginnings of the names that are left out; their arrays are copies of those of `like`.
    """
    checkpoints = folder(directory) / "checkpoints"
    if not checkpoints.is_dir():
        raise _absent(directory)
    with _manager(checkpoints, write=False) as manager:
        step = _choose(manager, directory, which)
        needed = {at + name: leaf for name, leaf in _stored(like).items() if not name.startswith(skip)}
        arrays = _read(manager, step, needed, lambda name: name.startswith(at) and not name.startswith(skip))

    def one(path: Any, leaf: Array) -> Array:
        if (array := arrays.get(at + jax.tree_util.keystr(path))) is None:
            return jnp.copy(leaf)  # `fit` donates the state, and `like` stays usable
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else jnp.asarray(array)

    return jax.tree_util.tree_map_with_path(one, like)


def _absent(directory: str | os.PathLike[str]) -> FileNotFoundError:
    needs = "needs one that fit wrote to, the folder in which checkpoints/ is"
    return FileNotFoundError(f"directory: got {directory}, which has no checkpoints, {needs}")


def _choose(manager: ocp.CheckpointManager, directory: str | os.PathLike[str], which: Which) -> int:
    steps = sorted(manager.all_steps())
    if not steps:
        raise _absent(directory)
    if which == "newest":
        return steps[-1]
    if which == "best":
        best = _best(manager)
        if best is None:
            raise ValueError(f"step: got 'best', {directory} holds no best checkpoint, needs fit(..., best=...)")
        return best[0]
    if which not in steps:
        raise ValueError(f"step: got {which!r}, needs 'newest', 'best' or one of {steps}, which {directory} holds")
    return which


def _read(
    manager: ocp.CheckpointManager, step: int, needed: dict[str, Any], concerns: Callable[[str], bool]
) -> dict[str, Array]:
    """The arrays needed, as they were saved; `concerns`: of which names there must be no others."""
    path = Path(manager.directory) / str(step)
    try:
        digests = _about(manager, step)["digests"]
        stored = manager.item_metadata(step)["state"].tree
        if stored.keys() != digests.keys():
            raise ValueError("the names of its arrays have changed")
    except Exception as error:
        raise _damaged(manager, step, error) from error
    if text := difference({name: stored[name] for name in stored if concerns(name)}, needed):
        raise ValueError(f"like: the checkpoint {path} is of another model, {text}{_way_on(text)}")
    # Arrays of NumPy have no sharding.
    abstract = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
        for name, x in needed.items()
    }
    try:
        return _verified(manager, step, abstract, digests)
    except Exception as error:
        raise _damaged(manager, step, error) from error


def _verified(
    manager: ocp.CheckpointManager, step: int, abstract: dict[str, Any], digests: dict[str, str]
) -> dict[str, Array]:
    where = ocp.checkpoint_utils.construct_restore_args(abstract)
    asked = ocp.args.PyTreeRestore(abstract, where, partial_restore=True)
    arrays = manager.restore(step, args=ocp.args.Composite(state=asked))["state"]
    for name, array in arrays.items():
        found = _digest(array)
        if found and digests[name] and digests[name] != found:
            raise ValueError(f"the values of {name} have changed")
    return arrays


def _damaged(manager: ocp.CheckpointManager, step: int, error: Exception) -> ValueError:
    """Says so, and which is the newest intact checkpoint."""

    def intact(step: int) -> bool:
        with contextlib.suppress(Exception):
            stored, digests = manager.item_metadata(step)["state"].tree, _about(manager, step)["digests"]
            abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in stored.items()}
            _verified(manager, step, abstract, digests)
            return stored.keys() == digests.keys()
        return False

    path, others = Path(manager.directory), sorted((n for n in manager.all_steps() if n != step), reverse=True)
    found = next(filter(intact, others), None)
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    advice = (
        f"{path / str(found)} is intact: move the damaged one away to go on from there"
        if found is not None
        else "no other there is intact"
    )
    return ValueError(f"directory: the checkpoint {path / str(step)} is damaged ({reason}); {advice}")


def _way_on(text: str) -> str:
    """What else there is to do about a difference."""
    if not text.startswith(".carry"):
        return ""
    return "; for another batch size, restore(..., new_carry=True) takes the carry of like"


# Arrays of a pytree by name.


def named(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _stored(state: PyTree) -> dict[str, Array]:
    """What a checkpoint holds: typed keys as integers, and no arrays without elements, which Orbax refuses."""
    arrays = {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named(state).items()}
    return {name: leaf for name, leaf in arrays.items() if leaf.size}


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def difference(got: dict[str, Any], needed: dict[str, Any]) -> str:
    """Names the first entry by which two dicts of arrays differ in shape or dtype, in words; empty if none."""

    def spec(leaf: Any) -> str:
        return "nothing" if leaf is None else f"the shape {tuple(leaf.shape)} of {leaf.dtype}"

    for name in [*needed, *got]:
        if spec(got.get(name)) != spec(needed.get(name)):
            return f"{name}: got {spec(got.get(name))}, needs {spec(needed.get(name))}"
    return ""
