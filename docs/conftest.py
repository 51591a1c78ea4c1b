"""The doctests of this folder are those of its pages, not of its scripts or of what the build makes."""

from pathlib import Path

import pytest

collect_ignore_glob = ["*.py", "_build", "api", "catalog", "project"]


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Most pages take seconds."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != "start.md":
            item.add_marker("exhaustive")
