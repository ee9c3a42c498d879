"""A store here and a running server give the screens the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from binsight.app.backend import Backend
from binsight.app.run import Source, open_backend
from binsight.app.surveys import Surveys
from binsight.cli import run
from binsight.errors import BadSettings, UnknownItem
from binsight.settings import Settings
from tests.api.servers import Process
from tests.fakes import paint

MODEL = "binsight:colour-layout"
COLOURS = {"red": (200, 30, 30), "dark": (120, 20, 20), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backends")
    rows = ["path,id,quantity"]
    for quantity, (name, colour) in enumerate(COLOURS.items()):
        paint(folder / f"{name}.png", colour, (64, 48))
        rows.append(f"{name}.png,{name},{quantity}")
    (folder / "stock.csv").write_text("\n".join(rows) + "\n")
    assert run(["index", str(folder / "stock.csv"), "--store", str(folder / "parts.store"), "--model", MODEL]) == 0
    return folder / "parts.store"


@pytest.fixture(scope="module", params=["store", "server"])
def backend(request: pytest.FixtureRequest, store: Path, shared_cache: Path) -> Iterator[Backend]:
    if request.param == "store":
        found = open_backend(Source(store=str(store)), Settings.read())
        yield found
        found.close()
        return
    with Process("--store", store, "--model", MODEL, "--read-only", cache=shared_cache) as server:
        found = open_backend(Source(api=server.url), Settings.read())
        yield found
        found.close()


def test_it_answers_with_items_and_records(backend: Backend, store: Path) -> None:
    photo = (store.parent / "red.png").read_bytes()
    first, second = backend.find(photo, k=2, where=None).matches
    assert (first.item.id, round(first.score, 3), second.item.id) == ("red", 1.0, "dark")
    assert backend.like("red", k=1, where=None).matches[0].item.id == "dark"
    item = backend.item("green")
    assert item is not None
    assert item.metadata["quantity"] == 2
    assert backend.item("pink") is None
    with pytest.raises(UnknownItem):
        backend.like("pink", k=1, where=None)


def test_a_model_that_does_not_count_says_so(backend: Backend, store: Path) -> None:
    with pytest.raises(BadSettings, match="count"):
        backend.count((store.parent / "red.png").read_bytes())


def test_it_knows_the_fields_and_some_items(backend: Backend) -> None:
    survey = Surveys(backend).current()
    assert (survey.total, survey.looked_at) == (4, 4)
    assert [(one.name, one.kind) for one in survey.fields] == [("path", "text"), ("quantity", "number")]
    assert {item.id for item in survey.sample} == set(COLOURS) == {item.id for item in survey.newest}
    assert backend.info().items == 4
    assert backend.check().is_sound


def test_a_survey_is_kept_for_a_while(store: Path) -> None:
    found = open_backend(Source(store=str(store)), Settings.read())
    surveys = Surveys(found)
    assert surveys.current() is surveys.current()
    assert surveys.fresh() is surveys.current()
    always = Surveys(found, fresh_s=0)
    assert always.current() is not always.current()
    found.close()


def test_names_show_no_password_and_no_folders(store: Path) -> None:
    found = open_backend(Source(store=str(store)), Settings.read())
    assert found.name == "the store parts.store"
    found.close()
