"""Who may call, what they may do, and how often."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from binsight.api.keys import check_host, parse_keys
from binsight.errors import BadSettings
from binsight.listening import is_loopback
from binsight.store.exact import ExactStore
from tests.api.servers import in_process
from tests.fakes import mean_colour_encoder

UNIT = {"vector": [1.0, 0.0, 0.0]}


def entry(name: str, scopes: str, secret: str, rate: str = "") -> str:
    return f"{name}:{scopes}:{hashlib.sha256(secret.encode()).hexdigest()}" + (f":{rate}" if rate else "")


KEYS = parse_keys(
    ", ".join([entry("eye", "read", "r-secret"), entry("hand", "write", "w-secret"), entry("both", "read+write", "b", "2")])
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_each_key_may_do_what_its_scopes_say_and_nothing_without() -> None:
    encoder = mean_colour_encoder()

    async def act(client: httpx.AsyncClient) -> dict[str, tuple[int, ...]]:
        async def tried(headers: dict[str, str]) -> tuple[int, ...]:
            return (
                (await client.put("/v1/items/a", json=UNIT, headers=headers)).status_code,
                (await client.post("/v1/items:batch", json={"items": [{"id": "b", **UNIT}]}, headers=headers)).status_code,
                (await client.delete("/v1/items/b", headers=headers)).status_code,
                (await client.get("/v1/items/a", headers=headers)).status_code,
                (await client.post("/v1/search", json=UNIT, headers=headers)).status_code,
                (await client.get("/v1/info", headers=headers)).status_code,
                (await client.get("/metrics", headers=headers)).status_code,
                (await client.get("/healthz", headers=headers)).status_code,
                (await client.get("/readyz", headers=headers)).status_code,
            )

        return {
            "write": await tried(bearer("w-secret")),
            "read": await tried(bearer("r-secret")),
            "header": await tried({"X-API-Key": "r-secret"}),
            "none": await tried({}),
            "wrong": await tried(bearer("r-secret-not")),
            "the hash itself": await tried(bearer(KEYS[0].digest)),
            "basic": await tried({"Authorization": "Basic r-secret"}),
        }

    found = in_process(encoder, ExactStore(encoder.info), act, keys=KEYS)
    assert found["write"] == (200, 200, 200, 403, 403, 403, 403, 200, 200)
    assert found["read"] == found["header"] == (403, 403, 403, 200, 200, 200, 200, 200, 200)
    for nobody in ("none", "wrong", "the hash itself", "basic"):
        assert found[nobody] == (401,) * 7 + (200, 200), nobody


def test_refusals_say_what_to_do() -> None:
    encoder = mean_colour_encoder()

    async def act(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        return await client.get("/v1/info"), await client.put("/v1/items/a", json=UNIT, headers=bearer("r-secret"))

    unknown, forbidden = in_process(encoder, ExactStore(encoder.info), act, keys=KEYS)
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in unknown.json()["detail"]
    assert forbidden.json()["detail"] == "the key eye may not write; ask for one with the scope write"
    assert forbidden.json()["type"] == "urn:binsight:AccessDenied"


def test_a_rate_is_kept_and_told() -> None:
    encoder = mean_colour_encoder()

    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get("/v1/info", headers=bearer("b")) for _ in range(4)]

    found = in_process(encoder, ExactStore(encoder.info), act, keys=KEYS)
    assert [response.status_code for response in found] == [200, 200, 429, 429]
    assert found[2].headers["retry-after"] == "1"
    assert "may make 2 requests a second" in found[2].json()["detail"]


def test_without_keys_only_this_machine_may_call_and_no_web_page_of_another() -> None:
    encoder = mean_colour_encoder()

    async def act(client: httpx.AsyncClient) -> list[int]:
        headers: list[dict[str, str]] = [
            {}, {"Host": "localhost:8000"}, {"Origin": "http://localhost:3000"}, {"Host": "parts.example"},
            {"Origin": "https://evil.example"}, {"Origin": "null"},
        ]  # fmt: skip
        return [(await client.get("/v1/info", headers=one)).status_code for one in headers]

    assert in_process(encoder, ExactStore(encoder.info), act) == [200, 200, 200, 403, 403, 403]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("secret", "entry 1 is of another form"),
        ("a:read:abc", "entry 1"),
        ("a:admin:" + 64 * "a", "entry 1"),
        ("a:read:" + 64 * "a" + ", b:read:" + 64 * "A", "entry 2"),
        ("a:read:" + 64 * "a" + ":0", "more than 0 requests a second"),
        ("a:read:" + 64 * "a" + ",a:read:" + 64 * "b", "same name"),
        ("a:read:" + 64 * "a" + ",b:read:" + 64 * "a", "same digest"),
    ],
)
def test_keys_of_another_form_are_named_by_number_and_not_shown(text: str, reason: str) -> None:
    with pytest.raises(BadSettings, match=reason) as caught:
        parse_keys(text)
    assert "secret" not in str(caught.value)


def test_a_server_without_keys_listens_on_this_machine_only() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.9.1"):
        check_host(host, (), allow_anonymous=False)
    for host in ("0.0.0.0", "::", "10.0.0.7", "parts.example", ""):  # noqa: S104, which is what must be refused
        with pytest.raises(BadSettings, match="--allow-anonymous"):
            check_host(host, (), allow_anonymous=False)
        check_host(host, (), allow_anonymous=True)
        check_host(host, KEYS, allow_anonymous=False)
    assert not is_loopback("127.0.0.1.evil.example")


def test_a_key_may_hold_any_signs() -> None:
    encoder = mean_colour_encoder()
    keys = parse_keys(entry("odd", "read", "schlüssel"))

    async def act(client: httpx.AsyncClient) -> int:
        return (await client.get("/v1/info", headers={b"authorization": "Bearer schlüssel".encode()})).status_code

    assert in_process(encoder, ExactStore(encoder.info), act, keys=keys) == 200
