"""What `docker compose up` starts, started without Docker: the same commands, with the same arguments and rights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml

from binsight.checkpoint import Heads
from binsight.client import Client
from binsight.encoder import load_encoder
from binsight.errors import AccessDenied
from binsight.records import Item
from tests.api.servers import NO_TLS, Process, web
from tests.app.processes import started
from tests.conftest import ROOT
from tests.fakes import paint
from tests.model_folders import make_binsight_folder
from tests.redis_server import RedisServer

SECRETS = {
    "REDIS_PASSWORD": "pass1",
    "BINSIGHT_API_KEYS": f"clerk:read+write:{hashlib.sha256(b'key1').hexdigest()}",
    "BINSIGHT_API_KEY": "key1",
    "BINSIGHT_APP_PASSWORD": "word1",
}


def composed(part: Any) -> Any:
    """A part of the file with its variables filled in, as compose does."""
    if isinstance(part, dict):
        return {name: composed(value) for name, value in part.items()}
    if isinstance(part, list):
        return [composed(value) for value in part]
    filled = r"\$\{(\w+):(\?|-)([^}]*)\}"  # ${NAME:?what to do without} or ${NAME:-its default}
    return (
        re.sub(filled, lambda found: SECRETS[found[1]] if found[2] == "?" else found[3], part)
        if isinstance(part, str)
        else part
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = composed(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))["services"]
    return found


@pytest.fixture(scope="module")
def server(services: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    program, *options = services["redis"]["command"]
    assert program == "redis-server"
    one = RedisServer(tmp_path_factory.mktemp("redis"), tuple(options))
    one.start()
    yield one
    one.end()


def test_only_the_user_of_least_rights_gets_in(server: RedisServer) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        server.client().ping()
    ours = redis.Redis(port=server.port, username="binsight", password=SECRETS["REDIS_PASSWORD"])
    assert ours.ping()
    for command in (("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("SHUTDOWN",), ("GET", "other")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            ours.execute_command(*command)  # type: ignore[no-untyped-call]


def test_its_rights_are_those_that_the_documentation_names(services: dict[str, Any]) -> None:
    line = next(one for one in (ROOT / "docs/security.md").read_text(encoding="utf-8").splitlines() if "SETUSER" in one)
    given = [word for word in services["redis"]["command"] if word.startswith(("+", "~")) and word not in ("+@all", "~*")]
    assert sorted(given) == sorted(word for word in line.split() if word.startswith(("+", "~")))


def test_the_api_answers_from_that_redis_with_that_user_and_keeps_what_it_took(
    services: dict[str, Any], server: RedisServer, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, *arguments = services["api"]["command"]
    assert verb == "serve"
    model = tmp_path / "small"
    make_binsight_folder(model, Heads(16, None, None), size=32)
    monkeypatch.setenv("BINSIGHT_CACHE", str(shared_cache))
    load_encoder(str(model))  # what the server would begin with, sooner than in a new process
    assert (ROOT / arguments[arguments.index("--model") + 1] / "config.json").is_file()
    there = {"redis:6379": f"127.0.0.1:{server.port}", "0.0.0.0": "127.0.0.1", "models/bins-mobilenetv2": str(model)}  # noqa: S104
    for name, here in there.items():
        arguments = [argument.replace(name, here) for argument in arguments]
    keys = services["api"]["environment"]["BINSIGHT_API_KEYS"]
    photo = paint(tmp_path / "a.png", (200, 30, 30), (64, 64))
    with Process(*arguments, cache=shared_cache, api_keys=keys) as process:
        with pytest.raises(AccessDenied), Client(process.url) as stranger:
            stranger.info()
        with Client(process.url, "key1") as client:
            client.add([Item("a", {"shelf": 3})], [photo])
            server.end()
            server.start()
            (match,) = client.by_image(photo, where="shelf = 3").matches
            assert (match.item.id, round(match.score, 3)) == ("a", 1.0)
            assert client.info().detail["durability"] == "aof"
        assert web.get(f"{process.url}/healthz").status_code == 200
        check_app(services["app"], process.url, shared_cache)


def check_app(service: dict[str, Any], api: str, cache: Path) -> None:
    """The app, started as compose does, asks that API with its key, and its visitors for the password."""
    verb, *arguments = service["command"]
    assert verb == "app"
    here = [argument.replace("http://api:8000", api).replace("0.0.0.0", "127.0.0.1") for argument in arguments]  # noqa: S104
    with (
        started(*here, cache=cache, told=service["environment"]) as (_, url, _),
        httpx.Client(base_url=url, timeout=60, verify=NO_TLS) as visitor,
    ):
        assert visitor.get("/config").status_code == 401
        assert visitor.post("/login", data={"username": "me", "password": "word1"}).status_code == 200
        assert visitor.get("/config").status_code == 200


def test_the_image_holds_what_it_is_built_from() -> None:
    """Every file that the Dockerfile copies is there, and let through by .dockerignore."""
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")}
    assert set(names) == let_through
    for name in names:
        assert (ROOT / name).exists()


def test_the_how_to_sets_every_secret_that_compose_wants() -> None:
    wanted = re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    page = (ROOT / "docs/how-to/api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^export (\w+)=", page.partition("## With Docker")[2], re.MULTILINE)) == set(wanted) == set(SECRETS)
