"""Strictness that users don't have: a silent broadcast, promotion or old-style key in the library fails here."""

import os
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "jax")

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
