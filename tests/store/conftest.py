"""What several of the store's reliability tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, redis_server
from tests.store.workers import compiled_shim


@pytest.fixture(scope="session")
def redis_8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis 8 that keeps every write on disk; tests empty it before they use it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes chosen writes fail."""
    library = compiled_shim(tmp_path_factory.mktemp("shim"))
    if library is None:
        pytest.skip("no C compiler for the shim that makes writes fail")
    return library
