"""One small model that counts and names classes, one server process that most tests ask, and pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from binsight.checkpoint import Heads
from binsight.counting import Calibration
from binsight.encoder import Encoder, load_encoder
from tests.api.servers import NO_TLS, Process
from tests.model_folders import make_binsight_folder

HEADS = Heads(16, Calibration("softmax", 5, 2.0, 0.9, 0.8), ("board", "disk", "fan"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A model folder whose export lies in the cache."""
    folder = tmp_path_factory.mktemp("model") / "small"
    make_binsight_folder(folder, HEADS, size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(shared_cache))
        load_encoder(str(folder))
    return folder


@pytest.fixture(scope="session")
def encoder(model: Path, shared_cache: Path) -> Encoder:
    """The same model as the server has, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(shared_cache))
        return load_encoder(str(model))


@pytest.fixture(scope="session")
def process(model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that writes into a store of its own; tests use ids of their own in it."""
    store = tmp_path_factory.mktemp("served") / "parts.store"
    with Process(
        "--store", store, "--model", model, cache=shared_cache, api_max_upload_bytes=4 * 2**20, api_max_k=50
    ) as running:
        yield running


@pytest.fixture
def http(process: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=process.url, timeout=60, verify=NO_TLS) as client:
        yield client


def picture(seed: int, kind: str = "PNG") -> bytes:
    """Something soft in colour, another one for each seed."""
    soft = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(soft).resize((80, 64), Image.Resampling.BICUBIC).save(out, kind)
    return out.getvalue()
