"""Strictness that users don't have: a silent broadcast, promotion or old-style key in the library fails here."""

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "jax")
# Most of the time of these tests is compilation, and what they compare does not hang on how well code is optimized.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)
# Nor on where in the source an operation stands, which is written into every program, ten frames deep.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest

# What meets Optax, Flax or mixed precision, whose own code promotes; everything else is the core.
RELAXED = (
    "test_nnx",
    "test_linen",
    "test_flax_options",
    "test_training",
    "test_char_lm",
    "test_examples",
    "test_parity",
)

jax.config.update("jax_legacy_prng_key", "error")
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
def x64() -> Iterator[None]:
    """float64 for one test."""
    with jax.enable_x64(True):
        yield
