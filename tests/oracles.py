"""Other libraries as oracles: optional on a user's machine, required in CI."""

import importlib
import os
from types import ModuleType

import pytest


def oracle(name: str) -> ModuleType:
    """Returns the module `name`; without it the test is skipped, or fails where the environment sets CI."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the oracle {name}: {error}")
        pytest.skip(f"the oracle {name} isn't installed")
