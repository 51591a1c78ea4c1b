"""Strictness that users don't have: a silent broadcast, promotion or old-style key in the library fails here."""

import functools
import gc
import os
import signal
from collections.abc import Iterator
from importlib.metadata import version

os.environ.setdefault("KERAS_BACKEND", "jax")
# Native kernels are compiled anew: nothing that an earlier run kept is tested, and nothing is left behind.
os.environ.setdefault("JAXRNN_CACHE_DIR", "")
# Where in the source an operation stands is written into every program, ten frames deep; no test depends on it.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest
from jax._src.interpreters import mlir

from jaxrnn.engine import driver

# What meets Optax, Flax or mixed precision, whose own code promotes; everything else is the core.
RELAXED = (
    "test_nnx",
    "test_linen",
    "test_flax_options",
    "test_training",
    "test_averaging",
    "test_char_lm",
    "test_examples",
    "test_examples_series",
    "test_examples_text",
    "test_examples_variants",
    "test_examples_words",
    "test_programs",
    "test_convert",
)

# A suite that runs in the background of a shell ignores Ctrl-C, and so would the training that is to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_legacy_prng_key", "error")
# Most of the time of these tests is compilation, and what they compare does not depend on how well code is optimized.
# `test_default_flags.py` runs what users run.
UNOPTIMIZED = "jax_disable_most_optimizations"
jax.config.update(UNOPTIMIZED, True)
# By its older emitters, in one LLVM module, XLA compiles a program in a quarter of the time. Versions after jaxlib 0.10
# don't have them, and an unknown flag aborts.
QUICK, USUAL = {}, {}
if version("jaxlib").startswith("0.10."):
    QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
    USUAL = {"xla_cpu_use_fusion_emitters": True, "xla_cpu_parallel_codegen_split_count": 32}
    # The context that a program is lowered in takes a third of the time of that, and memory that stays: one serves all.
    mlir.make_ir_context = functools.cache(mlir.make_ir_context)
QUICK_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
if QUICK:
    os.environ["XLA_FLAGS"] = f"{QUICK_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
# Traces are many small objects that the caches keep: looking through them for garbage took 8 % of the time.
gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """No implicit rank or dtype promotion in the tests of the core."""
    if request.path.stem in RELAXED:
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def optimized() -> Iterator[dict[str, bool | int]]:
    """Programs compiled as on a user's machine, in a test that makes its own: gives the options of their compiler."""
    jax.config.update(UNOPTIMIZED, False)
    yield USUAL
    jax.config.update(UNOPTIMIZED, True)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without LLVM: every run is a scan, and none is known already."""
    monkeypatch.setattr("jaxrnn.native.obstacle", lambda: "no LLVM")
    monkeypatch.setattr("jaxrnn.engine.driver._known_run", driver._run)
    monkeypatch.setattr("jaxrnn.engine.driver._inlined_run", driver._run)


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test."""
    with jax.enable_x64(True):
        yield
