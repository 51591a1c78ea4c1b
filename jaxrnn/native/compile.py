"""Turns a kernel's text into a function that XLA can call, for the machine at hand.

Compiling takes a tenth of a second and more, so the object file is kept (`store`) and loaded the next time.
"""

import functools
import hashlib
import importlib.metadata
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import jax

from jaxrnn.native import abi, store

__all__ = [
    "Machine",
    "compile_handler",
    "counts",
    "emit_object",
    "host",
    "load",
    "machine",
    "object_file",
    "obstacle",
    "on",
    "target_name",
]

# Of LLVM's simplification, function by function. Kernels are no faster at level 2 or with passes over whole modules,
# which take up to twice as long; their loops and vectors are already as they should be.
_SPEED_LEVEL = 1
# Counted up with every change of `emit_object`: object files that are kept were made by the same code.
_RECIPE = 1
# The first LLVM that reads kernels as they are written.
_OLDEST_LLVM = 20


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
    if (backend := jax.default_backend()) != "cpu":
        return f"JAX runs on {backend!r}, native loops on 'cpu'"
    try:
        llvm = _llvm()
    except (ImportError, OSError) as error:
        return f"llvmlite does not load ({error}): pip install 'jaxrnn[cpu]'"
    if llvm.llvm_version_info[0] < _OLDEST_LLVM:
        return f"llvmlite: got LLVM {llvm.llvm_version_info[0]}, needs {_OLDEST_LLVM}: pip install -U 'jaxrnn[cpu]'"
    here = host()
    if here is None:
        return f"the processor {llvm.get_host_cpu_name()!r} has neither AVX2 with FMA nor NEON"
    if found := abi.mismatch() or _missing_function(here):
        # Nothing that a user has left out: this process is not as kernels know it.
        warnings.warn(f"runs are scans, not native loops: {found}", stacklevel=2)
    return found


def _missing_function(here: Machine) -> str:
    """What kernels may call and this process does not have: LLVM would load a call of nothing without a word."""
    _engine(here)  # opens the symbols of the process
    for name in [*_MEMORY, *(name + width for name in _MATHEMATICS for width in ("", "f")), *_system(here)]:
        if _llvm().address_of_symbol(name) is None:
            return f"the C library of this process has no {name!r}"
    return ""


# Kernels

counts: Counter[str] = Counter()  # how many kernels were "compiled", and how many "loaded" from the cache
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
    name = target_name(text, here)
    with _lock:
        if name not in _kernels:
            engine = load(object_file(name, text, here), here)
            capsule = jax.ffi.pycapsule(engine.get_function_address("handler"))
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
            _kernels[name] = engine
    return name


def object_file(name: str, text: str, target: Machine) -> bytes:
    """Returns the object file of a kernel, the kept one if there is one."""
    code = store.read(name)
    counts["loaded" if code else "compiled"] += 1
    if code is None:
        code = emit_object(text, target)
        store.write(name, code)
    return code


def target_name(text: str, target: Machine) -> str:
    """Returns the name of a kernel: two of the same name have the same code."""
    parts = [text, _platform(target), target, _RECIPE, _SPEED_LEVEL, _llvm().llvm_version_info, _versions()]
    return "jaxrnn_" + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


@functools.cache
def _versions() -> list[str]:
    found = []
    for package in ("jaxrnn", "llvmlite"):
        with suppress(importlib.metadata.PackageNotFoundError):  # a source tree on the path
            found.append(importlib.metadata.version(package))
    return found


def emit_object(text: str, target: Machine) -> bytes:
    """Returns the object file of a module for a machine, which may be another than this."""
    llvm = _llvm()
    processor = _target_machine(target)
    module = llvm.parse_assembly(f"{text}\n{_platform(target)}")
    module.triple, module.data_layout = target.triple, str(processor.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(_SPEED_LEVEL)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    passes = llvm.create_pass_builder(processor, options)
    inline = llvm.create_new_module_pass_manager()
    inline.add_always_inliner_pass()
    inline.add_global_dead_code_eliminate_pass()
    inline.run(module, passes)
    simplify = passes.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            simplify.run(function, passes)
    code: bytes = processor.emit_object(module)
    return code


def _target_machine(target: Machine) -> Any:
    found = _llvm().Target.from_triple(target.triple)
    return found.create_target_machine(cpu=target.cpu, features=target.features, opt=3, jit=True)


def load(code: bytes, target: Machine) -> Any:
    """Returns the engine that holds the code of an object file for as long as it lives."""
    engine = _engine(target)
    engine.add_object_file(_llvm().object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _engine(target: Machine) -> Any:
    return _llvm().create_mcjit_compiler(_llvm().parse_assembly(""), _target_machine(target))


def _platform(target: Machine) -> str:
    """What kernels find on every machine, each in its own way."""
    pause = "llvm.aarch64.hint(i32 1)" if target.is_arm else "llvm.x86.sse2.pause()"
    yields, *advises = _system(target)
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
{_HUGE_PAGES if advises else _NO_HUGE_PAGES}
attributes #0 = {{ "prefer-vector-width"="512" "min-legal-vector-width"="512" "no-trapping-math"="true" }}
"""


def _system(target: Machine) -> list[str]:
    """The functions of the operating system that kernels call: to let another thread run, to ask for large pages."""
    if "linux" in target.triple:
        return ["sched_yield", "madvise"]
    return ["SwitchToThread"] if "windows" in target.triple else ["sched_yield"]


# Functions of the C library: those LLVM writes for copies, and those for what vectors have no code of their own.
_MEMORY = ("malloc", "free", "memcpy", "memmove", "memset")
_MATHEMATICS = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "atan2", "pow", "fmod")

# Linux gives memory as pages of 4 KiB, each at the price of a fault, or of 2 MiB if asked for (MADV_HUGEPAGE is 14).
_HUGE_PAGES = """
declare i32 @madvise(ptr, i64, i32)
define internal void @huge_pages(ptr %start, i64 %bytes) nounwind {
  %much = icmp uge i64 %bytes, 262144
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
