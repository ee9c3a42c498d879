"""Whatever is sent, the answer is a reason and a status below 500."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from binsight.api import wire
from tests.api.conftest import picture
from tests.api.servers import Process

UNIT = [1.0] + [0.0] * 15


def refused(response: httpx.Response, status: int, reason: str) -> None:
    """A problem document with this status, and a reason with these words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail"}
    assert document["status"] == status
    assert reason in document["detail"], document["detail"]
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 422, "id: Field required"),
        ([], 422, "valid dictionary"),
        ("x", 422, "valid dictionary"),
        ({"vector": UNIT, "id": "a"}, 422, "id: there is no such field here; /docs lists"),
        ({"vector": UNIT[:-1]}, 422, "want vectors of 16 numbers, got 15"),
        ({"vector": []}, 422, "at least 1 item"),
        ({"vector": [0.0] * 16}, 422, "has no direction"),
        ({"vector": ["1"] * 16}, 422, "valid number"),
        ({"vector": [True] * 16}, 422, "valid number"),
        ({"vector": [None] * 16}, 422, "valid number"),
        ({"vector": "abc"}, 422, "valid list"),
        ({"vector": [UNIT]}, 422, "valid number"),
        ({"vector": UNIT, "k": 0}, 422, "greater than or equal to 1"),
        ({"vector": UNIT, "k": -3}, 422, "greater than or equal to 1"),
        ({"vector": UNIT, "k": 51}, 422, "want k from 1 to 50, got 51"),
        ({"vector": UNIT, "k": 10**30}, 422, "k: "),
        ({"vector": UNIT, "k": 2.5}, 422, "valid integer"),
        ({"vector": UNIT, "k": "2"}, 422, "valid integer"),
        ({"vector": UNIT, "where": "quantity >"}, 422, "quantity >"),
        ({"vector": UNIT, "where": 7}, 422, "valid string"),
        ({"vector": UNIT, "where": "x" * 20_000}, 422, "16384"),
        ({"vector": UNIT, "min_score": 1.5}, 422, "less than or equal to 1"),
        ({"vector": UNIT, "min_score": "high"}, 422, "valid number"),
        ({"vector": UNIT, "colour": "red"}, 422, "colour: there is no such field here; /docs lists"),
        ({"id": "nobody"}, 404, "no item has the id 'nobody'"),
        ({"id": ""}, 422, "at least 1 character"),
        ({"id": 7}, 422, "valid string"),
        ({"id": "a\nb"}, 422, "control characters"),
        ({"id": "ä" * 300}, 422, "512 bytes"),
    ],
)
def test_search_refuses_json_with_a_reason(http: httpx.Client, body: Any, status: int, reason: str) -> None:
    refused(http.post("/v1/search", json=body), status, reason)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/items:batch", "/v1/items/x"])
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not JSON"),
        (b'{"vector": [1', 400, "not JSON"),
        (b"\xff\xfe{}", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"id": "\\ud800"}', 400, "not JSON"),
        (b'{"vector": [NaN' + b", 0" * 15 + b"]}", 422, ""),
        (b'{"vector": [Infinity' + b", 0" * 15 + b"]}", 422, ""),
        (b'{"vector": [1e999' + b", 0" * 15 + b"]}", 422, ""),
        (b'{"vector": [1' + b"0" * 400 + b", 0" * 15 + b"]}", 422, ""),
    ],
)
def test_broken_json_and_numbers_that_are_none(http: httpx.Client, path: str, body: bytes, status: int, reason: str) -> None:
    method = "PUT" if path == "/v1/items/x" else "POST"
    response = http.request(method, path, content=body, headers={"content-type": "application/json"})
    refused(response, status, reason)


@pytest.mark.parametrize("path", ["/v1/search", "/v1/count", "/v1/inspect", "/v1/items:batch", "/v1/items/x"])
def test_another_content_type_is_told_the_right_ones(http: httpx.Client, path: str) -> None:
    method = "PUT" if path == "/v1/items/x" else "POST"
    for kind in ("text/plain", "image/png", "application/x-www-form-urlencoded", "nonsense"):
        refused(http.request(method, path, content=picture(1), headers={"content-type": kind}), 415, "want multipart/form-data")
    refused(http.request(method, path, content=b""), 415, "got none")
    if path in ("/v1/count", "/v1/inspect"):
        refused(http.post(path, json={"vector": UNIT}), 415, "want multipart/form-data")


@pytest.mark.parametrize("path", ["/v1/search", "/v1/count", "/v1/inspect", "/v1/items:batch", "/v1/items/x"])
@pytest.mark.parametrize(
    ("content_type", "body", "status", "reason"),
    [
        ("multipart/form-data", b"", 400, "want a boundary"),
        ("multipart/form-data; boundary=" + "b" * 500, b"", 400, "broken form"),
        ("multipart/form-data; boundary=b", b"", 400, "ends before its last boundary"),
        ("multipart/form-data; boundary=b", b"nonsense", 400, "broken form"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", 400, "Content-Disposition"),
        ("multipart/form-data; boundary=b",
         b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nhalf a pic', 400, "ends before its last boundary"),
        ("multipart/form-data; boundary=b",
         b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--b--\r\n', 400, "want UTF-8 text in 'k'"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422, "want "),
    ],
)  # fmt: skip
def test_broken_forms(http: httpx.Client, path: str, content_type: str, body: bytes, status: int, reason: str) -> None:
    method = "PUT" if path == "/v1/items/x" else "POST"
    refused(http.request(method, path, content=body, headers={"content-type": content_type}), status, reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"k": "many"}, "valid integer"), ({"k": "0"}, "greater than or equal to 1"), ({"k": "51"}, "want k from 1 to 50"),
        ({"k": "9" * 5000}, "k: "), ({"min_score": "nan"}, "min_score: "), ({"where": "a ="}, "a ="),
        ({"colour": "red"}, "there is no field 'colour' here; the fields are image, k, where, min_score"),
    ],
)  # fmt: skip
def test_search_and_inspect_refuse_fields_with_a_reason(http: httpx.Client, fields: dict[str, str], reason: str) -> None:
    for path in ("/v1/search", "/v1/inspect"):
        refused(http.post(path, files={"image": picture(1)}, data=fields), 422, reason)


def test_a_form_holds_one_picture_and_each_field_once(http: httpx.Client) -> None:
    two = [("image", picture(1)), ("image", picture(2))]
    for path in ("/v1/search", "/v1/count", "/v1/inspect"):
        refused(http.post(path, files=two), 422, "want one part named image, got 2")
    twice: list[tuple[str, tuple[None, bytes | str]]] = [("image", (None, picture(1))), ("k", (None, "1")), ("k", (None, "2"))]
    refused(http.post("/v1/search", files=twice), 422, "want 'k' once")


def test_a_picture_in_another_field_is_told_where_it_belongs(http: httpx.Client) -> None:
    for path in ("search", "count", "inspect"):
        response = http.post(f"/v1/{path}", files={"file": picture(1)})
        refused(response, 400, "want UTF-8 text in 'file': invalid start byte; a picture is a part named image")


def test_a_name_in_place_of_a_file_is_told_how_curl_sends_one(http: httpx.Client) -> None:
    named: dict[str, tuple[None, str]] = {"image": (None, "photo.jpg")}  # curl -F image=photo.jpg
    for method, path in (("POST", "search"), ("POST", "count"), ("PUT", "items/bad")):
        refused(http.request(method, f"/v1/{path}", files=named), 422, "; curl sends a file with -F image=@FILE")
    sent = http.post("/v1/count", files={"image": ("photo.jpg", b"no picture at all")})
    assert "curl" not in sent.json()["detail"]


def test_a_picture_that_cannot_be_read_is_the_image_and_one_of_several_has_its_number_and_id(http: httpx.Client) -> None:
    for method, path in (("POST", "search"), ("POST", "count"), ("POST", "inspect"), ("PUT", "items/bad")):
        response = http.request(method, f"/v1/{path}", files={"image": b"no picture at all"})
        refused(response, 422, "")
        assert response.json()["detail"].startswith("the image: "), response.text
    two = [("image", picture(1)), ("image", b"no picture at all")]
    records = {"items": json.dumps([{"id": "a"}, {"id": "b"}])}
    refused(http.post("/v1/items:batch", files=two, data=records), 422, "image 1 (b): ")


def test_unknown_fields_of_other_forms_are_named_with_the_known_ones(http: httpx.Client) -> None:
    form: dict[str, Any] = {"files": {"image": picture(1)}, "data": {"zoom": "2", "k": "1"}}
    refused(http.post("/v1/count", **form), 422, "there is no field 'k' here; the fields are image")
    refused(http.put("/v1/items/bad", **form), 422, "there is no field 'k' here; the fields are image, metadata")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"vector": UNIT, "metadata": []}, "valid dictionary"),
        ({"vector": UNIT, "metadata": {"_source": {"root": "/", "uri": "etc/passwd"}}}, "_source"),
        ({"vector": UNIT, "metadata": {"x": "y" * 70_000}}, "at most 65536 bytes"),
        ({"metadata": {}}, "vector: Field required"),
        ({"vector": UNIT, "id": "x"}, "id: there is no such field here"),
    ],
)
def test_put_refuses_with_a_reason(http: httpx.Client, body: Any, reason: str) -> None:
    refused(http.put("/v1/items/bad", json=body), 422, reason)
    assert http.get("/v1/items/bad").status_code == 404


@pytest.mark.parametrize(
    ("metadata", "status", "reason"),
    [
        ("{", 400, "not JSON"), ("[]", 422, "JSON object, got list"), ('{"x": NaN}', 422, "JSON"),
        ('{"x": ' + "[" * 150 + "]" * 150 + "}", 422, "nested"), ('{"_source": {}}', 422, "_source"),
    ],
)  # fmt: skip
def test_put_refuses_metadata_of_a_form(http: httpx.Client, metadata: str, status: int, reason: str) -> None:
    refused(http.put("/v1/items/bad", files={"image": picture(1)}, data={"metadata": metadata}), status, reason)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "1 to 512 bytes"),
        ("%00", "control"),
        ("%ff", "UTF-8"),
        ("a%0Ab", ""),
        ("x" * 513, "512 bytes"),
        ("%ed%a0%80", "UTF-8"),
    ],
)
def test_ids_that_no_store_takes(http: httpx.Client, path: str, reason: str) -> None:
    for method in ("GET", "DELETE", "PUT"):
        body = {"json": {"vector": UNIT}} if method == "PUT" else {}
        response = http.request(method, f"/v1/items/{path}", **body)  # type: ignore[arg-type]  # of httpx' many arguments
        assert response.status_code in (404, 422)
        refused(response, response.status_code, reason)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (None, "items"), ([], "at least 1 item"), ([{"id": "a", "vector": UNIT}] * 257, "at most 256 items"),
        ([{"id": "a", "vector": UNIT}, {"id": "b", "vector": UNIT[1:]}], "got 15 at row 1"),
        ([{"id": "a", "vector": UNIT}, {"id": "b\t", "vector": UNIT}], "control"),
        ([{"vector": UNIT}], "items.0.id: Field required"), ([7], "items.0"),
    ],
)  # fmt: skip
def test_batches_refuse_with_a_reason_and_write_nothing(http: httpx.Client, items: Any, reason: str) -> None:
    before = http.get("/v1/info").json()["items"]
    refused(http.post("/v1/items:batch", json={"items": items}), 422, reason)
    records = json.dumps([{"id": "a"}, {"id": "b"}])
    refused(http.post("/v1/items:batch", files=[("image", picture(1))], data={"items": records}), 422, "1 images for 2 items")
    refused(http.post("/v1/items:batch", files=[("image", picture(1))]), 422, "one field named items")
    assert http.get("/v1/info").json()["items"] == before


def test_unknown_routes_and_methods(http: httpx.Client) -> None:
    refused(http.get("/v2/search"), 404, "no such route")
    refused(http.get("/"), 404, "no such route")
    wrong = http.get("/v1/search")
    refused(wrong, 405, "it takes POST")
    assert wrong.headers["allow"] == "POST"
    wrong = http.patch("/v1/items/a")
    refused(wrong, 405, "")
    assert wrong.headers["allow"] == "DELETE, GET, PUT"


def test_bytes_that_are_no_http_do_not_disturb(http: httpx.Client, process: Process) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(process.url).port or 0), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert b" 400 " in raw.recv(1000)
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/search", "/v1/items:batch", "/v1/count"])
def test_compressed_bodies_are_told_so(http: httpx.Client, path: str) -> None:
    for kind in ("application/json", "multipart/form-data; boundary=b"):
        response = http.post(path, content=gzip.compress(b"{}"), headers={"content-type": kind, "content-encoding": "gzip"})
        refused(response, 415, "want a body as it is, got the content encoding 'gzip'")


def test_json_of_very_many_lists_and_objects_is_refused_before_it_is_read(http: httpx.Client) -> None:
    for path in ("/v1/search", "/v1/items:batch"):
        body = b"[" + b"{}," * 100_000 + b"{}]"
        response = http.post(path, content=body, headers={"content-type": "application/json"})
        refused(response, 413, "want at most 100,000 lists and objects in a body; send fewer")


def test_a_long_list_in_the_wrong_place_is_not_written_out(http: httpx.Client, process: Process) -> None:
    body = b'{"items": [{"id": "a", "vector": [' + b"1," * 390_000 + b"1]}]}"
    headers = {"content-type": "application/json", "x-request-id": "long-list"}
    refused(http.post("/v1/items:batch", content=body, headers=headers), 422, "vector: List should have at most")
    assert process.logged(request_id="long-list")["took_ms"] < 1000  # written out, it took several seconds


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (wire.ById, {"id": "a"} | dict.fromkeys(map(str, range(1000)))),
        (wire.VectorBatch, {"items": [{"id": "a", "vector": [1.0]} | dict.fromkeys(map(str, range(1000)))] * 200}),
        (wire.ByVector, {"vector": [""] * 1000}),
        (wire.VectorBatch, {"items": [0] * 200}),
        (wire.Records, {"items": [0] * 30}),
    ],
)
def test_of_many_mistakes_one_is_told(model: type[BaseModel], told: dict[str, Any]) -> None:
    """An error for each of 400,000 unknown fields held up the server for 4 s, and took 400 MB."""
    with pytest.raises(ValidationError) as error:
        model.model_validate(told)
    assert error.value.error_count() == 1


def test_more_values_than_a_batch_has_are_refused_before_they_are_read(http: httpx.Client) -> None:
    body = b'{"items": [{"id": "a", "vector": [' + b"1," * 400_001 + b"1]}]}"
    response = http.post("/v1/items:batch", content=body, headers={"content-type": "application/json"})
    refused(response, 413, "want at most 400,000 values in a body; send fewer items at once")


def test_a_body_of_two_lengths_is_refused_and_what_follows_it_is_no_request(process: Process) -> None:
    """What a proxy believes to be the rest of a body must not become the next caller's request (RFC 9112, section 6.3)."""
    both = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    both += b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    both += b"DELETE /v1/items/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(process.url).port or 0), timeout=10) as raw:
        raw.sendall(both)
        told = b""
        while part := raw.recv(4096):
            told += part
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.count(b"HTTP/1.1") == 1
    assert b"either Content-Length or Transfer-Encoding" in told
