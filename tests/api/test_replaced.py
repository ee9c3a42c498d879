"""A local store that is replaced under its server: told by every answer and by /readyz, instead of a wrong answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from binsight.encoder import Encoder
from binsight.records import Item
from binsight.search import Searcher
from binsight.store import open_store
from tests.api.conftest import picture
from tests.api.servers import Process, web


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_a_server_whose_store_was_replaced_answers_503_with_the_reason(
    tmp_path: Path, encoder: Encoder, model: Path, shared_cache: Path, options: tuple[str, ...]
) -> None:
    folder, other = tmp_path / "parts.store", tmp_path / "other.store"
    for path in (folder, other):
        with open_store(path, create=encoder.info) as store:
            Searcher(encoder, store).add([Item(path.name)], [picture(1)])
    with Process("--store", folder, "--model", model, *options, cache=shared_cache) as server:

        def ask() -> httpx.Response:
            return web.post(f"{server.url}/v1/search", files={"image": picture(1)}, data={"k": "1"})

        assert ask().json()["matches"][0]["id"] == "parts.store"
        shutil.rmtree(folder)
        other.rename(folder)
        answers = [ask(), web.get(f"{server.url}/v1/items/other.store")]
        if not options:
            answers.append(web.put(f"{server.url}/v1/items/new", files={"image": picture(2)}))
        for answer in answers:
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:binsight:StoreDamaged")
            assert "was replaced" in answer.json()["detail"]
            assert "start its server again" in answer.json()["detail"]
        ready = web.get(f"{server.url}/readyz")
        assert ready.status_code == 503
        assert "was replaced" in ready.text
        server.terminate()
        assert server.end() == 0
    with open_store(folder, read_only=True) as store:
        assert [item.id for item in store.scan()] == ["other.store"]
        assert store.verify().is_sound
