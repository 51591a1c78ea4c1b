"""Turns a kernel's text into a function that XLA can call, for the machine at hand.

Compiling takes a tenth of a second, so the object file is kept in the user's cache folder and loaded the next time.
`JAXRNN_CACHE_DIR` names another folder; where it is set and empty, nothing is kept.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxrnn.native import abi

__all__ = ["Machine", "compile_handler", "emit_object", "host", "machine", "obstacle", "on", "work"]

# What LLVM does with a kernel; loops and vectors are already as they should be.
_PIPELINE = {"speed_level": 2, "loop_vectorization": False, "slp_vectorization": False, "loop_unrolling": False}
# Bytes of kept object files, of 10 to 50 KB each.
_LIMIT = 64 * 2**20
_PREFIX = "jaxrnn_"


@dataclass(frozen=True)
class Machine:
    """A processor, as far as kernels depend on it.

    Args:
        triple: LLVM's name of architecture and system, such as "x86_64-unknown-linux-gnu".
        cpu: LLVM's name of the processor.
        features: of it, as LLVM writes them.
        vector_bits: of a vector in a kernel; LLVM splits vectors longer than the processor's.
        registers: for vectors.

    Example:
        >>> Machine("aarch64-linux-gnu", "neoverse-n1", "", vector_bits=128, registers=32).lanes("float64")
        2
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int

    def lanes(self, dtype: str) -> int:
        """Returns how many numbers of a dtype, "float32" or "float64", a vector holds."""
        return self.vector_bits // (64 if dtype == "float64" else 32)

    @property
    def is_arm(self) -> bool:
        """Whether this is a 64-bit ARM."""
        return self.triple.startswith(("aarch64", "arm64"))


@functools.cache
def _llvm() -> Any:
    """LLVM's Python binding, whose import takes a while, ready for this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def host() -> Machine | None:
    """Returns the machine that this runs on, None if kernels don't suit it: no 64-bit x86 with AVX2 and FMA, no ARM."""
    llvm = _llvm()
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # where LLVM cannot tell; the processor's name says what it has
        features = llvm.FeatureMap()
    found = llvm.get_process_triple(), llvm.get_host_cpu_name(), features.flatten()
    if found[0].startswith(("aarch64", "arm64")):
        return Machine(*found, vector_bits=128, registers=32)
    if not found[0].startswith("x86_64") or not (features.get("avx2") and features.get("fma")):
        return None
    if features.get("avx512f") and features.get("avx512vl"):
        return Machine(*found, vector_bits=512, registers=32)
    return Machine(*found, vector_bits=256, registers=16)


_override: list[Machine] = []


def machine() -> Machine:
    """Returns the machine that kernels are made for: this one, or the one of `on`.

    Raises:
        RuntimeError: kernels cannot run here, for the reason that `obstacle` gives.
    """
    if _override:
        return _override[-1]
    here = host() if not obstacle() else None
    if here is None:
        raise RuntimeError(f"native: {obstacle()}")
    return here


@contextmanager
def on(other: Machine) -> Iterator[None]:
    """Has kernels made for another machine, such as one with longer vectors."""
    _override.append(other)
    try:
        yield
    finally:
        _override.pop()


@functools.cache
def obstacle() -> str:
    """Returns why native loops cannot run on this machine and in this process, "" if they can."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is missing: pip install 'jaxrnn[cpu]'"
    if jax.default_backend() != "cpu":
        return f"JAX runs on {jax.default_backend()!r}, native loops on 'cpu'"
    if sys.maxsize < 2**32:
        return "this is a 32-bit process"
    if host() is None:
        return f"the processor {_llvm().get_host_cpu_name()!r} has neither AVX2 with FMA nor NEON"
    return abi.mismatch()


# Kernels

work: Counter[str] = Counter()  # how many kernels were "compiled", and how many "loaded" from the cache
_kernels: dict[str, Any] = {}  # the engine, which holds the code, of every registered kernel
_lock = threading.Lock()


def compile_handler(text: str) -> str:
    """Registers a kernel with XLA; the same text again costs nothing.

    Args:
        text: a module in LLVM IR with a function `handler`. It may call, without declaring them, `malloc` and `free`;
            `void @pause()`, in loops that wait; `void @yield()`, which lets another thread run; and
            `void @huge_pages(ptr, i64)`, which asks for large pages for so many bytes of memory that is new.

    Returns:
        The name of the target for `jax.ffi.ffi_call`, which depends on the text, the machine and the versions alone.
    """
    here = machine()
    name = _PREFIX + _digest(text, here)
    with _lock:
        if name not in _kernels:
            code = _kept(name)
            work["loaded" if code else "compiled"] += 1
            if code is None:
                code = emit_object(text, here)
                _keep(name, code)
            engine, address = _load(code, here)
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(address), platform="cpu")
            _kernels[name] = engine
    return name


def _digest(text: str, target: Machine) -> str:
    llvm = _llvm()
    parts = [text, _platform(target), target, _PIPELINE, llvm.llvm_version_info, _versions()]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


@functools.cache
def _versions() -> tuple[str, ...]:
    return tuple(importlib.metadata.version(package) for package in ("jaxrnn", "llvmlite"))


def emit_object(text: str, target: Machine) -> bytes:
    """Returns the object file of a module for a machine, which may be another than this."""
    llvm = _llvm()
    processor = _target_machine(target)
    module = llvm.parse_assembly(f"{text}\n{_platform(target)}")
    module.triple, module.data_layout = target.triple, str(processor.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options()
    for name, value in _PIPELINE.items():
        setattr(options, name, value)
    llvm_passes = llvm.create_pass_builder(processor, options)
    llvm_passes.getModulePassManager().run(module, llvm_passes)
    code: bytes = processor.emit_object(module)
    return code


def _target_machine(target: Machine) -> Any:
    found = _llvm().Target.from_triple(target.triple)
    return found.create_target_machine(cpu=target.cpu, features=target.features, opt=3, jit=True)


def _load(code: bytes, target: Machine) -> tuple[Any, int]:
    """The engine that holds the code, and the address of `handler`."""
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine(target))
    engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, engine.get_function_address("handler")


def _platform(target: Machine) -> str:
    """What kernels find on every machine, each in its own way."""
    pause = "llvm.aarch64.hint(i32 1)" if target.is_arm else "llvm.x86.sse2.pause()"
    yields = "SwitchToThread" if "windows" in target.triple else "sched_yield"
    return f"""
declare ptr @malloc(i64)
declare void @free(ptr)
declare i32 @{yields}()
define internal void @pause() alwaysinline nounwind {{
  call void @{pause}
  ret void
}}
define internal void @yield() nounwind {{
  call i32 @{yields}()
  ret void
}}
{_HUGE_PAGES if "linux" in target.triple else _NO_HUGE_PAGES}
attributes #0 = {{ "prefer-vector-width"="512" "min-legal-vector-width"="512" "no-trapping-math"="true" }}
"""


# Linux gives memory as pages of 4 KiB, each at the price of a fault, or of 2 MiB if asked for (MADV_HUGEPAGE is 14).
_HUGE_PAGES = """
declare i32 @madvise(ptr, i64, i32)
define internal void @huge_pages(ptr %start, i64 %bytes) nounwind {
  %much = icmp uge i64 %bytes, 4194304
  br i1 %much, label %ask, label %end
ask:
  %address = ptrtoint ptr %start to i64
  %first = and i64 %address, -2097152
  %stop = add i64 %address, %bytes
  %length = sub i64 %stop, %first
  %whole = add i64 %length, 2097151
  %pages = and i64 %whole, -2097152
  %from = inttoptr i64 %first to ptr
  call i32 @madvise(ptr %from, i64 %pages, i32 14)
  br label %end
end:
  ret void
}"""
_NO_HUGE_PAGES = """
define internal void @huge_pages(ptr %start, i64 %bytes) nounwind {
  ret void
}"""


# The cache


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


def _kept(name: str) -> bytes | None:
    """The object file of a kernel, None unless it is there and whole."""
    place = folder()
    if place is None:
        return None
    try:
        content = (place / f"{name}.o").read_bytes()
    except OSError:
        return None
    seal, code = content[:32], content[32:]
    if seal != _seal(name, code):
        return None
    with suppress(OSError):
        os.utime(place / f"{name}.o")  # the files that were not used for longest are dropped first
    return code


def _keep(name: str, code: bytes) -> None:
    """Keeps an object file if that is possible: written beside its place, then moved there, whole at any time."""
    place = folder()
    if place is None:
        return
    with suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=place, prefix=_PREFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_seal(name, code) + code)
            os.replace(beside, place / f"{name}.o")
        except BaseException:
            os.unlink(beside)
            raise
        _drop_old(place)


def _drop_old(place: Path) -> None:
    """Deletes what was not used for longest, until the folder is within its limit."""
    found = []
    for path in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another process may have deleted it
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= _LIMIT:
            return
        with suppress(OSError):
            path.unlink()
        total -= size
