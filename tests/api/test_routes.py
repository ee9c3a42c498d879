"""Each route says what the library says of the same picture, vector or id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from binsight.cli import run
from binsight.encoder import Encoder
from binsight.store import open_store
from tests.api.conftest import picture
from tests.api.servers import Process


def put(http: httpx.Client, item_id: str, seed: int, **metadata: Any) -> None:
    response = http.put(
        f"/v1/items/{quote(item_id, safe='')}",
        files={"image": ("a.png", picture(seed))},
        data={"metadata": json.dumps(metadata)},
    )
    assert (response.status_code, response.json()) == (200, {"upserted": 1})


def test_a_picture_that_was_put_is_found_again_with_its_record_and_its_count(http: httpx.Client, encoder: Encoder) -> None:
    put(http, "found/1", 1, set="found", quantity=4)
    put(http, "found/2", 2, set="found", quantity=7)
    put(http, "lost/1", 1, set="other")
    told = encoder.encode([picture(1), picture(2)])
    assert told.counts is not None
    response = http.post(
        "/v1/search", files={"image": picture(1)}, data={"k": "5", "where": 'set = "found"', "min_score": "-1"}
    )
    assert response.status_code == 200
    answer = response.json()
    assert [match["id"] for match in answer["matches"]] == ["found/1", "found/2"]
    assert answer["matches"][0]["metadata"] == {"set": "found", "quantity": 4}
    assert answer["matches"][0]["score"] == pytest.approx(1, abs=2e-3)
    assert answer["matches"][1]["score"] == pytest.approx(float(told.vectors[0] @ told.vectors[1]), abs=2e-3)
    assert answer["count"]["value"] == told.counts[0].value
    assert answer["count"]["probabilities"] == pytest.approx(told.counts[0].probabilities, abs=2e-3)
    assert set(answer) == {"count", "matches", "took_ms"}
    assert set(answer["took_ms"]) == {"decode", "model", "search"}
    none = http.post("/v1/search", files={"image": picture(1)}, data={"where": 'set = "found"', "min_score": "0.9999999"})
    assert len(none.json()["matches"]) <= 1


def test_a_field_that_no_item_has_is_told_in_the_requests_log_line(http: httpx.Client, process: Process) -> None:
    put(http, "absent/1", 1, set="absent")
    put(http, "absent/2", 2, set="absent")
    asked: dict[str, dict[str, Any]] = {
        "by-picture": {"files": {"image": picture(1)}, "data": {"where": "sett = 'absent'"}},
        "by-id": {"json": {"id": "absent/1", "where": "sett = 'absent'"}},
        "all-there": {"json": {"id": "absent/1", "where": "set = 'nothing'"}},
        "found": {"json": {"id": "absent/1", "where": "not sett = 'absent'"}},
    }
    for name, body in asked.items():
        http.post("/v1/search", headers={"X-Request-ID": name}, **body).raise_for_status()
    for name in ("by-picture", "by-id"):
        assert process.logged(request_id=name)["note"].startswith("no item has a field 'sett'; there ")
    for name in ("all-there", "found"):
        assert "note" not in process.logged(request_id=name)


def test_search_says_what_the_command_says(
    http: httpx.Client, process: Process, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(http, "same/1", 3, set="same")
    put(http, "same/2", 4, set="same")
    path = tmp_path / "q.png"
    path.write_bytes(picture(3))
    store = http.get("/v1/info").json()["path"]
    command = ["search", str(path), "--store", store, "--model", str(model), "--where", 'set = "same"', "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BINSIGHT_CACHE", str(process_cache(process)))
        assert run(command) == 0
    said = json.loads(capfd.readouterr().out)
    answer = http.post("/v1/search", files={"image": picture(3)}, data={"where": 'set = "same"'}).json()
    assert answer["matches"] == said["matches"]
    assert answer["count"] == said["count"]
    assert set(answer) == set(said) - {"query"}


def process_cache(process: Process) -> str:
    environ = Path(f"/proc/{process.process.pid}/environ").read_bytes().split(b"\0")
    return next(one.partition(b"=")[2].decode() for one in environ if one.startswith(b"BINSIGHT_CACHE="))


def test_search_by_vector_takes_any_length_and_by_id_leaves_the_item_out(http: httpx.Client) -> None:
    rows = np.eye(16)[:3]
    rows[1, 0] = 1.0  # 45 degrees from row 0
    for number, row in enumerate(rows):
        body = {"vector": (5 * row).tolist(), "metadata": {"set": "axes", "number": number}}
        assert http.put(f"/v1/items/axes/{number}", json=body).json() == {"upserted": 1}
    answer = http.post("/v1/search", json={"vector": (0.1 * rows[0]).tolist(), "where": 'set = "axes"'}).json()
    assert [(one["id"], one["score"]) for one in answer["matches"]] == [
        ("axes/0", pytest.approx(1, abs=1e-6)),
        ("axes/1", pytest.approx(2**-0.5, abs=1e-6)),
        ("axes/2", pytest.approx(0, abs=1e-6)),
    ]
    assert answer["count"] is None
    by_id = http.post("/v1/search", json={"id": "axes/0", "where": 'set = "axes"', "min_score": 0.5}).json()
    assert [one["id"] for one in by_id["matches"]] == ["axes/1"]


def test_count_is_a_row_of_the_command(http: httpx.Client, encoder: Encoder) -> None:
    counts = encoder.encode([picture(5)]).counts
    assert counts is not None
    row = http.post("/v1/count", files={"image": ("bin.png", picture(5))}).json()
    assert list(row) == ["path", "value", "expected", "probabilities", "more", "low", "high"]
    assert (row["path"], row["value"], row["low"], row["high"]) == ("bin.png", counts[0].value, counts[0].low, counts[0].high)
    assert row["expected"] == pytest.approx(counts[0].expected, abs=5e-3)
    assert sum(row["probabilities"]) + row["more"] == pytest.approx(1, abs=1e-5)


def test_inspect_tells_count_labels_and_matches_together(http: httpx.Client, encoder: Encoder) -> None:
    put(http, "inspected", 6, set="inspected")
    told = encoder.encode([picture(6)])
    assert told.counts is not None
    assert told.labels is not None
    answer = http.post("/v1/inspect", files={"image": picture(6)}, data={"where": 'set = "inspected"'}).json()
    assert answer["count"]["value"] == told.counts[0].value
    assert [name for name, _ in answer["labels"]] == [name for name, _ in told.labels[0]]
    assert [match["id"] for match in answer["matches"]] == ["inspected"]


@pytest.mark.parametrize(
    "item_id",
    ["plain", "a/b/c.jpg", "/absolute", "trailing/", "//", "a b", "ä/ß/漢字/🔩", "100%", "%2F", "?q=1&r", "#x", "..", "../up",
     "a/./b/../c", ".", "+", "a;b", 'quote"s', "back\\slash", "x" * 512, "items:batch", "\u2028", "e\u0301"],
)  # fmt: skip
def test_an_id_of_any_signs_is_put_got_and_deleted(http: httpx.Client, item_id: str) -> None:
    path = "/v1/items/" + quote(item_id, safe="").replace(".", "%2E")
    record = {"id": item_id, "metadata": {"its": item_id}}
    assert http.put(path, json={"vector": [1.0] + [0.0] * 15, "metadata": record["metadata"]}).status_code == 200
    assert http.get(path).json() == record
    assert http.delete(path).json() == {"deleted": 1}
    gone = http.get(path)
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:binsight:UnknownItem")
    assert http.delete(path).status_code == 404


def test_slashes_of_an_id_may_stand_as_they_are(http: httpx.Client) -> None:
    put(http, "deep/down/1.jpg", 7)
    assert http.get("/v1/items/deep/down/1.jpg").json()["id"] == "deep/down/1.jpg"


def test_a_batch_of_vectors_is_written_and_the_last_of_equal_ids_wins(http: httpx.Client) -> None:
    axis = np.eye(16).tolist()
    items = [
        {"id": "batch/1", "vector": axis[3], "metadata": {"n": 1}},
        {"id": "batch/2", "vector": axis[4]},
        {"id": "batch/1", "vector": axis[5], "metadata": {"n": 2}},
    ]
    assert http.post("/v1/items:batch", json={"items": items}).json() == {"upserted": 2}
    assert http.get("/v1/items/batch/1").json()["metadata"] == {"n": 2}
    assert http.get("/v1/items/batch/2").json()["metadata"] == {}


def test_a_batch_of_pictures_is_written_whole_or_not_at_all(http: httpx.Client, encoder: Encoder) -> None:
    ids = [f"pictures/{n}" for n in range(3)]
    records = [{"id": one, "metadata": {"n": n}} for n, one in enumerate(ids)]
    good = [("image", (f"{n}.png", picture(20 + n))) for n in range(3)]
    bad = [*good[:2], ("image", ("2.png", good[2][1][1][:60]))]
    refused = http.post("/v1/items:batch", files=bad, data={"items": json.dumps(records)})
    assert refused.status_code == 422
    assert "image 2 (pictures/2)" in refused.json()["detail"]
    assert http.get("/v1/items/pictures/0").status_code == 404
    assert http.post("/v1/items:batch", files=good, data={"items": json.dumps(records)}).json() == {"upserted": 3}
    with open_store(http.get("/v1/info").json()["path"], read_only=True) as store:
        kept = store.vectors_of(ids)
    wanted = encoder.encode([part[1][1] for part in good]).vectors
    assert (kept * wanted).sum(axis=1) == pytest.approx([1, 1, 1], abs=2e-3)


def test_info_is_what_the_command_tells(http: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    told = http.get("/v1/info").json()
    assert run(["store", "info", told["path"], "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == told


def test_health_readiness_and_metrics(http: httpx.Client) -> None:
    put(http, "measured", 8)
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready"}
    for path in ("/healthz", "/readyz"):
        assert (http.head(path).status_code, http.head(path).content) == (200, b"")
    text = http.get("/metrics").text
    assert 'binsight_requests_total{method="PUT",route="/v1/items/{item_id:path}",status="200"}' in text
    for stage in ("decode", "model", "write"):
        assert f'binsight_stage_seconds_count{{stage="{stage}"}}' in text
    assert 'binsight_queue_depth{queue="pictures"} 0.0' in text
    assert "measured" not in text


@pytest.mark.parametrize("path", ["/v1/info", "/healthz", "/v1/items/nobody", "/nowhere"])
def test_answers_end_with_their_line(http: httpx.Client, path: str) -> None:
    assert http.get(path).content.endswith(b"}\n")


def test_request_ids_are_kept_when_sane_and_stand_in_the_log(http: httpx.Client, process: Process) -> None:
    kept = http.get("/v1/items/nobody", headers={"X-Request-ID": "order-66.a"})
    assert kept.headers["x-request-id"] == "order-66.a"
    line = process.logged(request_id="order-66.a")
    assert (line["event"], line["status"], line["route"]) == ("request", 404, "/v1/items/{item_id:path}")
    made = http.get("/healthz", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"]
    assert len(made) == 32


def test_no_origin_may_call_by_default(http: httpx.Client) -> None:
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in http.options("/v1/search", headers=asked).headers
    assert "access-control-allow-origin" not in http.get("/healthz", headers=asked).headers
