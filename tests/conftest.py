"""What all tests share: which may be skipped, and where the real data lies."""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.redis_server import RedisServer, redis_server

ROOT = Path(__file__).resolve().parent.parent
for _name in [one for one in os.environ if one.startswith(("BINSIGHT_API_", "BINSIGHT_APP_"))]:
    del os.environ[_name]  # keys and limits of who runs the tests, which servers would take for theirs


def real_folder(variable: str, name: str) -> Path | None:
    """The folder an environment variable names, by default ../shared/NAME; None where it is not there."""
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / name)
    return folder if folder.is_dir() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    data, weights = real_folder("BINSIGHT_DATA", "data"), real_folder("BINSIGHT_WEIGHTS", "weights")
    no_data = pytest.mark.skip(reason="needs real photos and weights: set BINSIGHT_DATA and BINSIGHT_WEIGHTS to their folders")
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    no_torture = pytest.mark.skip(reason="the long form: run `make torture`")
    asked_for_torture = "torture" in (config.option.markexpr or "")
    for item in items:
        if item.get_closest_marker("real_data") and not (data and weights):
            item.add_marker(no_data)
        if item.get_closest_marker("gpu") and not any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg")):
            item.add_marker(no_gpu)
        if item.get_closest_marker("torture") and not asked_for_torture:
            item.add_marker(no_torture)


def pytest_collection_finish() -> None:
    """What was loaded to collect the tests stays to the end: Python's collector, which takes 0.4 s for it, looks no more."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What was set aside is taken back, or at the end Triton's bindings tell of what nobody freed."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI nothing is skipped in silence: only tests for a GPU, for real data, or the long forms may be."""
    report = yield
    may_skip = any(item.get_closest_marker(name) for name in ("gpu", "real_data", "torture"))
    if os.environ.get("CI") == "true" and report.skipped and not may_skip and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def logs_end_with_their_test() -> Iterator[None]:
    """A command that a test ran in its own process leaves no log behind that writes to a stream closed since."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = real_folder("BINSIGHT_DATA", "data")
    assert folder is not None  # `real_data` tests are skipped without it
    return folder


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    folder = real_folder("BINSIGHT_WEIGHTS", "weights")
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for exported models that lasts for the test run, of all its processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "binsight-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def redis_8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis 8 that keeps every write on disk; tests empty it before they use it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["folder", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL with %s for a name, of folders and of a Redis."""
    if request.param == "folder":
        return str(tmp_path / "%s")
    server: RedisServer = request.getfixturevalue("redis_8")
    server.client().flushall()
    return server.url("%s")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that takes no file above 64 KiB: a small disk of its own, or where none may be mounted, a limit."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if mount and umount and not subprocess.run([mount, *options], check=False, capture_output=True).returncode:
        yield disk
        subprocess.run([umount, "-l", str(disk)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
