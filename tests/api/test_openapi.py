"""The OpenAPI document says what the server does: schemathesis asks it what the document allows, and what it does not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode, checks

from tests.api.servers import Process


@pytest.fixture(scope="module")
def keyed(model: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    store = tmp_path_factory.mktemp("keyed") / "s.store"
    keys = f"all:read+write:{hashlib.sha256(b's3cret').hexdigest()}"
    with Process("--store", store, "--model", model, cache=shared_cache, api_keys=keys) as running:
        yield running


# A random text is no picture, and no vector of the store's dimension: what a schema allows may be refused, with a reason.
LEFT_OUT = [checks.positive_data_acceptance]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_documented(keyed: Process, mode: GenerationMode) -> None:
    """Statuses, content types, headers and bodies; what the document forbids is refused, and so is who has no key."""
    schema = schemathesis.openapi.from_url(f"{keyed.url}/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # an error has none, and fails the test as it should
        if mode is GenerationMode.NEGATIVE and not operation.body and not operation.path_parameters:
            continue  # nothing of it can be wrong

        @seed(1)
        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers_as_documented(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(headers={"Authorization": "Bearer s3cret"}, excluded_checks=LEFT_OUT, timeout=30)

        answers_as_documented()
    assert asked > 50


def test_every_route_has_its_words_and_examples(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/search", "/v1/count", "/v1/inspect", "/v1/items/{item_id}", "/v1/items:batch", "/v1/info",
        "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told["description"], (method, path)
            assert "200" in told["responses"], (method, path)
            content = told.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                assert content["application/json"]["examples"], (method, path)
    assert schemas["Problem"]["examples"]
    assert schemas["SearchAnswer"]["examples"]


def test_the_documentation_page_needs_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for words in ("POST /v1/search", "PUT /v1/items/{item_id}", "POST /v1/items:batch", "&quot;vector&quot;", "RFC 9457"):
        assert words in page.text, words
    for words in (
        "<code>Retry-After</code>",
        "unless it was told otherwise. Default: 10.",
        "from -1 to 1",
        "pass this filter. Example:",
    ):
        assert words in page.text, words
    assert "`" not in page.text
    assert "<script" not in page.text
    assert "//" not in page.text
