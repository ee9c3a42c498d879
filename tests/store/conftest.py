"""What several of the store's reliability tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.workers import compiled_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes chosen writes fail."""
    library = compiled_shim(tmp_path_factory.mktemp("shim"))
    if library is None:
        pytest.skip("no C compiler for the shim that makes writes fail")
    return library
