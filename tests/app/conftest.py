"""A store of painted pictures with a model whose answers one can compute, screens over it, and a browser to look at them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from binsight.ingest import ingest, list_sources
from binsight.store import open_store
from tests.api.servers import web
from tests.conftest import ROOT
from tests.count_fakes import STEP, counting_encoder
from tests.fakes import paint

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# id: (colour of its picture, record); the fake model counts red / 40 items
STOCK: dict[str, tuple[tuple[int, int, int], str]] = {
    "RAM-1": ((200, 30, 30), "ram,4,A1,fresh"),
    "RAM-2": ((160, 60, 40), "ram,1,B2,fresh"),
    "FAN-1": ((30, 200, 30), "fan,7,A1,old"),
    "DISK-1": ((30, 30, 200), "disk,2,C3,old"),
    "<b>BOLD</b>": (
        (120, 120, 30),
        "<script>document.title='hacked'</script>,3,C3,${document.title='hacked'} {{value}} ![x](http://elsewhere.example/x.png)",
    ),
}


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `parts.store` and the pictures that it was filled from."""
    folder = tmp_path_factory.mktemp("stock")
    rows = ["path,id,label,quantity,shelf,note"]
    for number, (name, (colour, told)) in enumerate(STOCK.items()):
        paint(folder / f"photos/{number}.png", colour, (96, 72))
        rows.append(f"{number}.png,{name},{told}")
    (folder / "photos/stock.csv").write_text("\n".join(rows) + "\n")
    encoder = counting_encoder()
    with open_store(folder / "parts.store", create=encoder.info) as store:
        ingest(list_sources([str(folder / "photos/stock.csv")]), encoder, store)
    return folder


@contextmanager
def shown(store: Path, password: str = "", *, delay_s: float = 0.0) -> Iterator[str]:
    """The URL of screens over a store, for the time of the `with`; nothing may be written to stderr meanwhile.

    delay_s: how long the model takes for a photo.
    """
    command = [sys.executable, "-m", "tests.app.shown_store", str(store), password, str(delay_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        wait_for(url)
        yield url
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert errors == ""


def wait_for(url: str, within_s: float = 60) -> None:
    """Until the page is there."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            web.get(url, timeout=10)
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, url
            time.sleep(0.05)


@pytest.fixture(scope="session")
def url(stock: Path) -> Iterator[str]:
    with shown(stock / "parts.store") as found:
        yield found


def chromium() -> str:
    """The browser's program; the test is skipped where there is none."""
    found = next((path for name in CHROMIUMS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium fonts-dejavu-core")
    return found


def bin_photo(path: Path, items: int) -> Path:
    """A picture that the fake model takes for so many items."""
    return paint(path, (items * STEP, 30, 10), (96, 72))
