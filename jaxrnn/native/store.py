"""Keeps object files of kernels in the user's cache folder.

The folder is `$XDG_CACHE_HOME/jaxrnn`, else `~/.cache/jaxrnn`. `JAXRNN_CACHE_DIR` names another; where it is set and
empty, nothing is kept. Whatever is wrong with the folder or with a file in it, a kernel is then compiled anew.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["folder", "read", "write"]

# Bytes of all files together; one has 10 to 50 KB.
LIMIT = 64 * 2**20
_SUFFIX = ".kernel"


def folder() -> Path | None:
    """Returns the folder of kept object files, None if there is none to use."""
    if (chosen := os.environ.get("JAXRNN_CACHE_DIR")) is not None:
        return Path(chosen) if chosen else None
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "jaxrnn"
    try:
        return Path.home() / ".cache" / "jaxrnn"
    except RuntimeError:  # a user without a home
        return None


def _seal(name: str, code: bytes) -> bytes:
    """What tells a whole file of this name from a damaged one: LLVM does not check what it loads."""
    return hashlib.sha256(name.encode() + code).digest()


def read(name: str) -> bytes | None:
    """Returns the object file of a kernel, None unless it is there and whole."""
    place = folder()
    if place is None:
        return None
    try:
        content = (place / f"{name}{_SUFFIX}").read_bytes()
    except OSError:
        return None
    seal, code = content[:32], content[32:]
    if seal != _seal(name, code):
        return None
    with suppress(OSError):
        os.utime(place / f"{name}{_SUFFIX}")  # the files that were not used for longest are dropped first
    return code


def write(name: str, code: bytes) -> None:
    """Keeps an object file if possible: it is written beside its place, then moved there, whole at any time."""
    place = folder()
    if place is None:
        return
    with suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=place, suffix=_SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_seal(name, code) + code)
            os.replace(beside, place / f"{name}{_SUFFIX}")
        except BaseException:
            os.unlink(beside)
            raise
        _drop_old(place)


def _drop_old(place: Path) -> None:
    """Deletes what was not used for longest, until the folder is within its limit."""
    found = []
    for path in place.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process may have deleted it
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= LIMIT:
            return
        with suppress(OSError):
            path.unlink()
        total -= size
