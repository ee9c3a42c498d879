"""R14: a server that speaks TLS and wants keys, on a Redis that does as well and gives it no more than it needs."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

import binsight
from binsight.cli import run
from binsight.errors import AccessDenied, BadSettings, ServerUnreachable
from binsight.records import Item
from tests.api.conftest import picture
from tests.api.servers import Process, web
from tests.certificates import Certificates, make_certificates
from tests.redis_server import RedisServer, free_port, redis_server

NEEDED = (
    "+vadd +vrem +vsim +vemb +vgetattr +vcard +zadd +zrem +zcard +zrange +hset +hget +hdel +hmget +hlen +get +set +exists +del "
    "+incr +incrby +eval +waitaof +info +ping +client|setinfo +hello"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls") / "certificates")


@pytest.fixture(scope="module")
def guarded(
    model: Path, shared_cache: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RedisServer, int, Process]]:
    """A Redis with TLS and a user of least rights, the port of its TLS, and a server with TLS and keys on it."""
    port = free_port()
    options = ["--tls-port", port, "--tls-cert-file", certificates.cert, "--tls-key-file", certificates.key]
    options += ["--tls-ca-cert-file", certificates.ca, "--tls-auth-clients", "no", "--appendonly", "yes"]
    keys = ",".join(
        f"{name}:{scopes}:{hashlib.sha256(name.encode()).hexdigest()}{rate}"
        for name, scopes, rate in (("eye", "read", ""), ("hand", "read+write", ""), ("slow", "read", ":1"))
    )
    with redis_server(tmp_path_factory.mktemp("redis") / "r", *map(str, options)) as server:
        server.client().execute_command("ACL", "SETUSER", "job", "on", ">s3cret", "~binsight:*", *NEEDED.split())  # type: ignore[no-untyped-call]
        url = f"rediss://job:s3cret@127.0.0.1:{port}/0?index=guarded&ca={certificates.ca}"
        arguments = ("--store", url, "--model", model, "--tls-cert", certificates.cert, "--tls-key", certificates.key)
        with Process(*arguments, cache=shared_cache, ca=certificates.ca, api_keys=keys) as running:
            yield server, port, running


def test_the_client_speaks_tls_with_an_authority_of_its_own(
    guarded: tuple[RedisServer, int, Process], certificates: Certificates
) -> None:
    url = guarded[2].url
    assert url.startswith("https://")
    with binsight.Client(url, "hand", ca=certificates.ca) as client:
        client.add([Item("a", {"n": 1})], [picture(1)])
        assert client.by_image(picture(1)).matches[0].item == Item("a", {"n": 1})
        assert client.count(picture(1)).value >= 0
        assert client.inspect(picture(1)).labels is not None
        assert client.by_id("a", where="n > 0").matches == []
        assert client.get(["a", "b"]) == [Item("a", {"n": 1}), None]
        assert client.info().items == 1
        assert client.delete(["a"]) == 1
    for trusted in (None, certificates.other_ca):
        with (
            binsight.Client(url, "hand", ca=trusted) as stranger,
            pytest.raises(ServerUnreachable, match="a certificate that is not trusted"),
        ):
            stranger.info()
    with pytest.raises(BadSettings, match="a file of certificates"):
        binsight.Client(url, ca="nowhere.pem")
    with pytest.raises(httpx.TransportError):
        web.get(url.replace("https", "http"))


def test_keys_scopes_and_rates_are_kept(guarded: tuple[RedisServer, int, Process], certificates: Certificates) -> None:
    running = guarded[2]
    with binsight.Client(running.url, "eye", ca=certificates.ca) as eye:
        eye.info()
        with pytest.raises(AccessDenied, match="the key eye may not write"):
            eye.delete(["a"])
    for key in (None, "eyes", "EYE", "job", "s3cret"):
        with binsight.Client(running.url, key, ca=certificates.ca) as stranger, pytest.raises(AccessDenied, match="API key"):
            stranger.info()
    with httpx.Client(base_url=running.url, headers={"X-API-Key": "slow"}, verify=_trusting(certificates)) as http:
        first, second = http.get("/v1/info"), http.get("/v1/info")
    assert (first.status_code, second.status_code, second.headers["retry-after"]) == (200, 429, "1")
    assert running.logged(caller="slow")
    told = json.dumps(running.lines) + "".join(running.other)
    assert "s3cret" not in told
    assert hashlib.sha256(b"eye").hexdigest() not in told


def test_the_stores_user_can_do_no_more_than_the_server_needs(guarded: tuple[RedisServer, int, Process]) -> None:
    server, port, _ = guarded
    ours = redis.Redis(port=server.port, username="job", password="s3cret")  # noqa: S106
    for command in ("FLUSHALL", "CONFIG GET *", "KEYS *", "ACL LIST", "SHUTDOWN", "GET other", "SET other 1"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            ours.execute_command(*command.split())  # type: ignore[no-untyped-call]
    with pytest.raises(redis.exceptions.ConnectionError):
        redis.Redis(port=port, ssl=True).ping()  # of an authority that it does not know


def test_a_redis_with_another_certificate_is_not_spoken_to(
    guarded: tuple[RedisServer, int, Process], certificates: Certificates, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"rediss://job:s3cret@127.0.0.1:{guarded[1]}/0?index=guarded&retry_s=0&ca={certificates.other_ca}"
    assert run(["store", "info", url]) == 3
    said = capfd.readouterr().err
    assert "certificate" in said.lower()
    assert "s3cret" not in said


def test_certificates_that_cannot_be_read_are_told_before_anything_is_opened(
    certificates: Certificates, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "s.store")]
    for options, reason in (
        (["--tls-cert", str(tmp_path / "nowhere")], "No such file"),
        (["--tls-cert", str(certificates.cert)], "want a certificate and its key in PEM"),
        (["--tls-cert", str(certificates.ca), "--tls-key", str(certificates.key)], "want a certificate and its key"),
        (["--tls-key", str(certificates.key)], "--tls-key goes with --tls-cert"),
    ):
        assert run(["serve", *store, *options]) == 2
        assert reason in capfd.readouterr().err
    assert not (tmp_path / "s.store").exists()


def _trusting(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.ca))
