"""What README and the documentation tell their reader to type is run here, on generated pictures."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from binsight.checkpoint import Heads
from binsight.counting import Calibration
from binsight.encoder import load_encoder
from tests import bins
from tests.conftest import ROOT
from tests.docs.pages import REDIS, Block, Reader, blocks_of, look_up, pages
from tests.fakes import paint
from tests.model_folders import make_binsight_folder
from tests.redis_server import HOW, redis_server
from tests.s3_server import lead_to, s3_bucket

BINS = {f"{n:05}": {f"ASIN{n}": 1 + n % 3, f"OTHER{n // 2}": 1} for n in range(60)}
COLOURS = {"ram": (200, 30, 60), "cpu": (30, 160, 90), "gpu": (60, 80, 210)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """What pages speak of: photos, bins with their records, and models that count, of random weights, prepared for this CPU."""
    folder = tmp_path_factory.mktemp("world")
    for label, (red, green, blue) in COLOURS.items():
        for place in range(3):
            paint(folder / "photos" / label / f"{place}.jpg", (red, green, blue + 20 * place), (64, 48))
    for name in ("photo.jpg", "query.jpg"):
        paint(folder / name, COLOURS["ram"], (64, 48))
    (folder / "stock.csv").write_text("path,id,quantity,shelf\nphoto.jpg,RAM-1,4,A1\nquery.jpg,RAM-2,1,B7\n")
    bins.write(folder / "bins", bins.bins(BINS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(shared_cache))
        for seed, name in enumerate(("models/bins-mobilenetv2", "my-model")):
            make_binsight_folder(folder / name, Heads(16, Calibration("softmax", 5), None), size=32, seed=seed)
            load_encoder(str(folder / name))
    return folder


@pytest.fixture
def reader(
    request: pytest.FixtureRequest, world: Path, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    """One in a folder that holds what the test's page speaks of, with a Redis and a bucket where it names them."""
    blocks = blocks_of(request.node.callspec.params["page"])
    typed = "\n".join(line for block in blocks if block.mark[0] != "not run" for line in block.lines)
    here = tmp_path / "here"
    shutil.copytree(world, here)
    if "--out my-model" in typed:
        shutil.rmtree(here / "my-model")
    monkeypatch.chdir(here)
    monkeypatch.setenv("BINSIGHT_CACHE", str(shared_cache))
    with ExitStack() as stack:
        redis = None
        if REDIS in typed:
            with suppress(pytest.skip.Exception):
                redis = f"127.0.0.1:{stack.enter_context(redis_server(tmp_path / 'redis')).port}"
        if "s3://" in typed:
            lead_to(stack.enter_context(s3_bucket(bins.bins(BINS))), monkeypatch)
        model = world / "models" / "bins-mobilenetv2"
        yield stack.enter_context(Reader(monkeypatch, model=model, cache=shared_cache, redis=redis))


def is_run(block: Block, *, gpu: bool = False) -> bool:
    return block.mark[0] != "not run" and (block.mark == ("needs", "gpu")) is gpu


@pytest.mark.parametrize("page", [page for page in pages() if any(map(is_run, blocks_of(page)))], ids=str)
def test_what_a_page_says_can_be_typed(page: Path, reader: Reader) -> None:
    for block in filter(is_run, blocks_of(page)):
        reader.follow(block)
    if reader.left_out:
        pytest.skip(f"all but {len(reader.left_out)} lines: {HOW}")


@pytest.mark.gpu
@pytest.mark.parametrize("page", [page for page in pages() if any(is_run(one, gpu=True) for one in blocks_of(page))], ids=str)
def test_what_a_page_says_of_a_gpu_can_be_typed(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        if is_run(block, gpu=True):
            reader.follow(block)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_what_is_not_run_names_commands_and_options_that_are_there(page: Path) -> None:
    for block in blocks_of(page):
        assert block.mark[0] in ("", "file", "meanwhile", "needs", "not run"), block.mark
        if block.mark[0] == "not run":
            assert block.mark[1], f"{page} does not say why a block is not run: {block.text}"
            if block.language in ("console", "sh"):
                for line in block.lines:
                    look_up(line)


def test_a_wrong_command_is_noticed() -> None:
    for line in ("binsight indx photos/", "binsight index photos/ --stor x", "make breakfast", "pip install '.[nothing]'"):
        with pytest.raises(AssertionError):
            look_up(line)


def test_git_ignores_what_the_tutorial_leaves_in_the_checkout() -> None:
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    left = set(re.findall(r"(?<![\w/.-])(?:photos/\w+/\d\.jpg|[a-z]+\.(?:jpg|csv|store))(?![\w/])", text))
    assert {"photos/ram/0.jpg", "query.jpg", "photo.jpg", "stock.csv", "parts.store", "stock.store", "mine.store"} <= left
    inside = [f"{name}/CURRENT" if name.endswith(".store") else name for name in left]
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs git, and a clone")
    found = subprocess.run(
        [git, "-C", ROOT, "check-ignore", "--no-index", *inside], capture_output=True, text=True, check=False
    )
    assert sorted(found.stdout.split()) == sorted(inside)


def links(page: Path, text: str) -> Iterator[str]:
    """Files that a page of the repository points at; the site's own links are checked by MkDocs."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", [Path("README.md"), Path("indexer/README.md")], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page, (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page.parent / target).exists(), target
