"""Strictness that users don't have: a silent broadcast, promotion or old-style key in the library fails here."""

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "jax")
# Where in the source an operation stands is written into every program, ten frames deep; no test depends on it.
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
    "test_convert",
)

jax.config.update("jax_legacy_prng_key", "error")
# Most of the time of these tests is compilation, and what they compare does not depend on how well code is optimized.
# `test_default_flags.py` runs what users run.
UNOPTIMIZED = "jax_disable_most_optimizations"
jax.config.update(UNOPTIMIZED, True)
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
def optimized() -> Iterator[None]:
    """Programs compiled as on a user's machine, in a test that makes its own."""
    jax.config.update(UNOPTIMIZED, False)
    yield
    jax.config.update(UNOPTIMIZED, True)


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test."""
    with jax.enable_x64(True):
        yield
