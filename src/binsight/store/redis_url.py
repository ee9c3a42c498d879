"""Where a shared store is: a URL such as `redis://user:secret@host:6379/0?index=parts`, read and checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from binsight.errors import BadSettings

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
Durability = Literal["aof", "none"]
Quantization = Literal["none", "int8"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATH = re.compile(r"(/[0-9]{0,4})?")
_KNOWN = ("index", "durability", "quantization", "partitions", "timeout_s", "retry_s", "ca")
_SHAPE = ("quantization", "partitions")  # of a store that is made


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """server: what redis-py is given, without our parameters; it may hold a password, so `shown` is what people see. place: of
    the server, without user and password.

    index: the store's name. durability: aof waits until a write is on the server's disk, none does not, empty takes what the
    server offers. quantization and partitions: of a store that is made; 0 partitions: a number for the kind of server.
    timeout_s: for one answer. retry_s: how long a server that is gone is waited for. ca: file of certificates to trust.
    """

    server: str = field(repr=False)
    place: str
    is_cluster: bool
    index: str
    durability: Durability | Literal[""] = ""
    quantization: Quantization | Literal[""] = ""
    partitions: int = 0
    timeout_s: float = 10.0
    retry_s: float = 1.5
    ca: str = ""
    alias: str = ""  # by which the index was found

    @property
    def shown(self) -> str:
        return f"{self.place}?index={self.index}"


def with_index(url: str, index: str, *, keep_shape: bool = True) -> str:
    """The URL of another index on the same server. keep_shape: with the parameters of a store that is made.

    >>> with_index("redis://:secret@host/0?index=parts&durability=none", "bins")
    'redis://:secret@host/0?index=bins&durability=none'
    """
    parts = urlsplit(url)
    given = [
        (name, index if name == "index" else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if keep_shape or name not in _SHAPE
    ]
    return urlunsplit(parts._replace(query=urlencode(given)))


def parse(url: str) -> RedisUrl:
    """The URL's parts. Raises BadSettings, without showing a password, for one that names no store."""
    try:
        parts = urlsplit(url)
        port = parts.port
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # its text may show the password
        raise BadSettings(
            "want redis://USER:PASSWORD@HOST:PORT/0?index=NAME, got a URL that cannot be read; write / # ? @ in a "
            "password as %2F %23 %3F %40"
        ) from None
    if not _PATH.fullmatch(parts.path) or parts.fragment:
        raise BadSettings(
            "want the number of a database after the port, as in redis://HOST:6379/0?index=NAME, got another path"
        )
    if len(given) > len({name for name, _ in given}):
        raise BadSettings("want each parameter of a store's URL once")
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise BadSettings(f"want redis://HOST:PORT/0?index=NAME, got {parts.scheme}://{parts.hostname or ''}")
    values = dict(given)
    if unknown := [name for name, _ in given if name not in _KNOWN]:
        raise BadSettings(f"{unknown[0]!r} is no parameter of a store's URL; there are {', '.join(_KNOWN)}")
    if not _NAME.fullmatch(name := values.get("index", "")):
        got = "a URL" if "://" in name else repr(name or "none")  # a URL may hold a password
        raise BadSettings(
            f"want &index=NAME of letters, digits, '.', '_' and '-' in the URL, got {got}; "
            "for example redis://localhost:6379/0?index=parts"
        )
    is_cluster = parts.scheme.endswith("+cluster")
    if values.get("ca") and not parts.scheme.startswith("rediss"):
        raise BadSettings("&ca= names the certificates that TLS trusts; give it with rediss://")
    if is_cluster and parts.path.strip("/") not in ("", "0"):
        raise BadSettings(f"a cluster has only database 0, got {parts.path.strip('/')!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = f"{host}:{port or 6379}{parts.path}"
    return RedisUrl(
        server=urlunsplit((parts.scheme.removesuffix("+cluster"), parts.netloc, parts.path or "/0", "", "")),
        place=f"{parts.scheme}://{where}",
        is_cluster=is_cluster,
        index=values["index"],
        durability=cast(Durability, _one_of(values, "durability", ("aof", "none"))),
        quantization=cast(Quantization, _one_of(values, "quantization", ("none", "int8"))),
        partitions=int(_number(values, "partitions", "0", least=0, most=1024, whole=True)),
        timeout_s=_number(values, "timeout_s", "10", least=0.05, most=3600),
        retry_s=_number(values, "retry_s", "1.5", least=0, most=86_400),
        ca=values.get("ca", ""),
    )


def _one_of(values: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = values.get(name, "")
    if name in values and value not in allowed:
        raise BadSettings(f"want &{name}={'|'.join(allowed)} in the URL, got {value!r}")
    return value


def _number(values: dict[str, str], name: str, default: str, *, least: float, most: float, whole: bool = False) -> float:
    text = values.get(name, default)
    try:
        value = float(int(text) if whole else text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BadSettings(f"want &{name}= from {least:g} to {most:g} in the URL, got {text!r}")
    return value
