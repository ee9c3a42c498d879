"""A server that was given an alias answers from whichever store it names, without a restart, and with a right answer always."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from binsight.api.metrics import Metrics
from binsight.api.run import open_service
from binsight.checkpoint import Heads
from binsight.cli import run
from binsight.client import Client
from binsight.encoder import Encoder, load_encoder
from binsight.errors import ModelMismatch, NotAStore
from binsight.records import Item
from binsight.search import Searcher
from binsight.settings import Settings
from binsight.store import open_alias, open_store
from binsight.wiring import Models
from tests.api.conftest import picture
from tests.api.servers import NO_TLS, Process, web
from tests.model_folders import make_binsight_folder
from tests.redis_server import RedisServer, wait_until

N = 40


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Iterator[tuple[Encoder, Encoder]]:
    """Two models whose vectors have different lengths."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(shared_cache))
        made = []
        for seed, dim in ((1, 16), (2, 24)):
            folder = tmp_path_factory.mktemp("models") / f"model-{dim}"
            make_binsight_folder(folder, Heads(dim, None, None), size=32, seed=seed)
            made.append(load_encoder(str(folder)))
        yield made[0], made[1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for seed in range(N):
        (tmp_path / "photos" / f"{seed}.png").write_bytes(picture(seed))
    return tmp_path / "photos"


def answers(encoder: Encoder, url: str, seeds: range) -> dict[int, list[tuple[str, float]]]:
    with open_store(url, read_only=True) as store:
        searcher = Searcher(encoder, store)
        found = {seed: searcher.by_image(picture(seed), k=3).matches for seed in seeds}
    return {seed: [(match.item.id, round(match.score, 3)) for match in matches] for seed, matches in found.items()}


class Load:
    """Threads that ask for pictures one after the other, and keep every answer."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self.found: list[tuple[float, int, int, list[tuple[str, float]]]] = []
        self._ended = threading.Event()
        self._url = url
        self._threads = [threading.Thread(target=self._ask, args=(first,)) for first in range(threads)]

    def _ask(self, seed: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60, verify=NO_TLS) as http:
            while not self._ended.is_set():
                seed = (seed + 7) % N
                answer = http.post("/v1/search", files={"image": picture(seed)}, data={"k": "3"})
                matches = answer.json().get("matches", [])
                told = [(match["id"], round(match["score"], 3)) for match in matches]
                self.found.append((time.monotonic(), seed, answer.status_code, told))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def near(told: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> bool:
    return [one for one, _ in told] == [one for one, _ in wanted] and all(
        abs(a - b) < 0.01 for (_, a), (_, b) in zip(told, wanted, strict=True)
    )


def test_it_follows_there_and_back_under_load_and_every_answer_is_right(
    place: str, photos: Path, encoders: tuple[Encoder, Encoder], shared_cache: Path
) -> None:
    first, second = (encoder.info.model for encoder in encoders)
    live = place % "live"
    assert run(["index", str(photos), "--store", place % "one", "--model", first]) == 0
    assert run(["store", "alias", live, "one"]) == 0
    with Process("--store", live, "--model", first, "--model", second, "--read-only", cache=shared_cache) as process:
        with Load(process.url) as load:
            wait_until(lambda: len(load.found) > 30)
            assert run(["store", "reembed", live, "--model", second, "--into", "two"]) == 0
            process.logged(event="moved", fingerprint=encoders[1].info.fingerprint)
            there = time.monotonic()
            wait_until(lambda: load.found[-1][0] > there + 0.3)
            between = time.monotonic()
            assert run(["store", "alias", live, "one"]) == 0
            wait_until(lambda: sum(line["event"] == "moved" for line in process.lines) == 2)
            back = time.monotonic()
            wait_until(lambda: load.found[-1][0] > back + 0.3)
        assert web.get(f"{process.url}/readyz").status_code == 200
    former, latter = answers(encoders[0], place % "one", range(N)), answers(encoders[1], place % "two", range(N))
    assert any(former[seed] != latter[seed] for seed in range(N))
    assert {status for _, _, status, _ in load.found} == {200}
    for when, seed, _, told in load.found:
        is_former, is_latter = near(told, former[seed]), near(told, latter[seed])
        assert is_former or is_latter, (seed, told, former[seed], latter[seed])
        if there + 0.2 < when < between:
            assert is_latter
        if when > back + 0.2:
            assert is_former


def test_every_model_that_was_given_is_compiled_before_its_store_is_named(
    tmp_path: Path, photos: Path, encoders: tuple[Encoder, Encoder]
) -> None:
    store, settings = str(tmp_path / "one"), Settings.read()
    models = Models([encoder.info.model for encoder in encoders], settings)
    assert run(["index", str(photos), "--store", store, "--model", models.names[0]]) == 0
    models.of(encoders[0].info)

    def load_s() -> list[float]:
        """After the service was opened once more."""
        open_service(models, settings, True, Metrics(), "http://127.0.0.1:8000", store).close()
        return [encoder.load_s for encoder in models.loaded()]

    loaded = [encoder.load_s for encoder in models.loaded()]
    warm = load_s()
    assert len(warm) == 2
    assert all(after > before for before, after in zip(loaded, warm, strict=True))
    assert load_s() == warm  # nor does it wait for models that are warm


def test_what_is_written_through_the_server_while_its_store_is_replaced_is_there_or_named(
    photos: Path,
    encoders: tuple[Encoder, Encoder],
    shared_cache: Path,
    redis_8: RedisServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of an upload no file is left to be read again, so what came before the last reading is named as refused."""
    redis_8.client().flushall()
    first, second = (encoder.info.model for encoder in encoders)
    live = redis_8.url("live")
    assert run(["index", str(photos), "--store", redis_8.url("one"), "--model", first]) == 0
    assert run(["store", "alias", live, "one"]) == 0
    acknowledged: list[str] = []
    with Process("--store", live, "--model", first, "--model", second, cache=shared_cache) as process:
        ended = threading.Event()

        def write() -> None:
            with Client(process.url, retries=20) as client:
                while not ended.is_set():
                    one = f"upload-{len(acknowledged)}"
                    client.add([Item(one, {"n": len(acknowledged)})], [picture(len(acknowledged))])
                    acknowledged.append(one)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_until(lambda: len(acknowledged) > 5)
            capfd.readouterr()
            assert run(["store", "reembed", live, "--model", second, "--into", "two", "--without-refused", "--json"]) == 1
            refused = {one["path"] for one in json.loads(capfd.readouterr().out)["refused"]}
            before = len(acknowledged)
            wait_until(lambda: len(acknowledged) > before + 5)
        finally:
            ended.set()
            writer.join()
    with open_store(redis_8.url("two"), read_only=True) as store:
        held = {item.id: item.metadata for item in store.scan()}
        uploads = {one: {"n": n} for n, one in enumerate(acknowledged) if one not in refused}
        assert len(uploads) > 5
        assert {one: metadata for one, metadata in held.items() if one.startswith("upload")} == uploads
        expected = encoders[1].encode([picture(metadata["n"]) for metadata in uploads.values()]).vectors
        assert abs(store.vectors_of(list(uploads)) - expected).max() < 0.01


def test_a_store_that_cannot_be_opened_is_told_and_the_former_answers_on(
    photos: Path, tmp_path: Path, encoders: tuple[Encoder, Encoder], shared_cache: Path
) -> None:
    first, second = (encoder.info.model for encoder in encoders)
    for name, model in (("one", first), ("two", second)):
        assert run(["index", str(photos), "--store", str(tmp_path / name), "--model", model]) == 0
    live = str(tmp_path / "live")
    assert run(["store", "alias", live, "one"]) == 0
    with Process("--store", live, "--model", first, "--read-only", cache=shared_cache) as process:
        assert run(["store", "alias", live, "two"]) == 0

        def told() -> str:
            answer = web.get(f"{process.url}/readyz")
            return str(answer.json().get("detail", "")) if answer.status_code == 503 else ""

        wait_until(lambda: "cannot be opened" in told())
        assert encoders[1].info.fingerprint in told()
        with Client(process.url) as client:
            assert client.by_image(picture(3), k=1).matches[0].item.id == "3.png"
            assert client.info().fingerprint == encoders[0].info.fingerprint
        assert run(["store", "alias", live, "one"]) == 0
        wait_until(lambda: web.get(f"{process.url}/readyz").status_code == 200)


def test_an_alias_that_cannot_be_read_is_told_and_ends_nothing(
    photos: Path, tmp_path: Path, encoders: tuple[Encoder, Encoder], shared_cache: Path
) -> None:
    model, live = encoders[0].info.model, tmp_path / "live"
    assert run(["index", str(photos), "--store", str(tmp_path / "one"), "--model", model]) == 0
    assert run(["store", "alias", str(live), "one"]) == 0
    sound = live.read_bytes()
    with Process("--store", live, "--model", model, "--read-only", cache=shared_cache) as process:
        live.write_bytes(b"")
        wait_until(lambda: web.get(f"{process.url}/readyz").status_code == 503)
        with Client(process.url) as client:
            assert client.by_image(picture(3), k=1).matches[0].item.id == "3.png"
        live.write_bytes(sound)
        wait_until(lambda: web.get(f"{process.url}/readyz").status_code == 200)


def test_where_an_alias_is_deleted_no_store_is_made_and_the_former_one_answers(
    place: str, photos: Path, encoders: tuple[Encoder, Encoder], shared_cache: Path, request: pytest.FixtureRequest
) -> None:
    model, live = encoders[0].info.model, place % "live"
    assert run(["index", str(photos), "--store", place % "one", "--model", model]) == 0
    assert run(["store", "alias", live, "one"]) == 0
    with Process("--store", live, "--model", model, cache=shared_cache) as process:
        if live.startswith("redis"):
            request.getfixturevalue("redis_8").client().delete("binsight:{live}:alias")
        else:
            Path(live).unlink()
        wait_until(lambda: web.get(f"{process.url}/readyz").status_code == 503)
        assert "names no store any more" in web.get(f"{process.url}/readyz").json()["detail"]
        with Client(process.url) as client:
            assert client.by_image(picture(3), k=1).matches[0].item.id == "3.png"
        with pytest.raises(NotAStore):
            open_store(live)
        with open_alias(live) as alias:
            alias.point_at("one")
        wait_until(lambda: web.get(f"{process.url}/readyz").status_code == 200)


def test_vectors_of_another_model_are_refused_where_they_say_so(process: Process, encoder: Encoder, http: httpx.Client) -> None:
    vector = [1.0] * encoder.info.dim
    right, wrong = encoder.info.fingerprint, "a" * 64
    http.put("/v1/items/fp-1", json={"vector": vector, "fingerprint": right}).raise_for_status()
    for answer in (
        http.put("/v1/items/fp-2", json={"vector": vector, "fingerprint": wrong}),
        http.post("/v1/search", json={"vector": vector, "fingerprint": wrong}),
        http.post("/v1/items:batch", json={"items": [{"id": "fp-3", "vector": vector}], "fingerprint": wrong}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:binsight:ModelMismatch")
    with Client(process.url) as client:
        assert client.get(["fp-2", "fp-3"]) == [None, None]
        assert client.by_vector(vector, fingerprint=right, k=1).matches
        with pytest.raises(ModelMismatch, match=right):
            client.by_vector(vector, fingerprint=wrong)
        assert client.delete(["fp-1"]) == 1
