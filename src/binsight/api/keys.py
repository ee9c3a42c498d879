"""Who may call: API keys by their hashes, what each may do, and how often."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Literal, TypeAlias, final

from binsight.api.problems import HttpProblem, denied
from binsight.errors import BadSettings, Overloaded
from binsight.listening import is_loopback

Scope: TypeAlias = Literal["read", "write"]
_KEY = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]{1,64}):(?P<scopes>read|write|read\+write):(?P<digest>[0-9a-f]{64})(:(?P<rate>[0-9]+(\.[0-9]+)?))?"
)
_FORM = "NAME:SCOPES:SHA256[:PER_SECOND], SCOPES read, write or read+write, SHA256 the hex digest of the key"
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is known by its hash only. per_second: requests it may make in the long run, None for any number."""

    name: str
    scopes: frozenset[str]
    digest: str
    per_second: float | None = None


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of BINSIGHT_API_KEYS. Raises BadSettings, which shows no key: it may be a secret in the wrong place.

    >>> parse_keys("robot:read:" + 64 * "a" + ":20")[0].per_second
    20.0
    """
    keys = []
    for number, part in enumerate(one.strip() for one in text.split(",") if one.strip()):
        found = _KEY.fullmatch(part)
        if found is None:
            raise BadSettings(f"BINSIGHT_API_KEYS: want {_FORM}; entry {number + 1} is of another form")
        rate = None if found["rate"] is None else float(found["rate"])
        if rate is not None and not 0 < rate < math.inf:
            raise BadSettings(f"BINSIGHT_API_KEYS: want more than 0 requests a second for {found['name']}, got {rate:g}")
        keys.append(ApiKey(found["name"], frozenset(found["scopes"].split("+")), found["digest"], rate))
    for what in ("name", "digest"):
        if len({getattr(key, what) for key in keys}) < len(keys):
            raise BadSettings(f"BINSIGHT_API_KEYS: two keys have the same {what}; give each its own")
    return tuple(keys)


def check_host(host: str, keys: tuple[ApiKey, ...], *, allow_anonymous: bool) -> None:
    """Raise BadSettings where a server without keys would listen beyond this machine."""
    if not keys and not allow_anonymous and not is_loopback(host):
        raise BadSettings(
            f"without API keys the server listens on 127.0.0.1 only, not on {host}; "
            "set BINSIGHT_API_KEYS, or pass --allow-anonymous where everybody who reaches it may read and write"
        )


@final
class Access:
    """Decides about each request; keeps what each key has left of its rate. Used from one thread, the event loop's."""

    def __init__(self, keys: tuple[ApiKey, ...] = (), *, allow_anonymous: bool = False) -> None:
        self._keys = keys
        self._allow_anonymous = allow_anonymous
        self._left = {key.name: (_burst(key), monotonic()) for key in keys}

    @property
    def wants_key(self) -> bool:
        return bool(self._keys)

    def check(self, headers: Mapping[str, str], scope: Scope) -> str:
        """The name of who calls. Raises HttpProblem: 401 unknown, 403 not allowed, 429 too often."""
        if not self._keys:
            return self._anonymous(headers)
        key = self._key_of(headers)
        if scope not in key.scopes:
            raise denied(403, f"the key {key.name} may not {scope}; ask for one with the scope {scope}")
        self._take(key)
        return key.name

    def _anonymous(self, headers: Mapping[str, str]) -> str:
        """Where nobody needs a key, a web page that the user happens to read must not act for them either."""
        if not self._allow_anonymous:
            if not is_loopback(headers.get("host", "")):
                raise denied(403, "without API keys this server answers only calls to 127.0.0.1 or localhost")
            origin = headers.get("origin", "")
            if origin and not is_loopback(origin.partition("://")[2]):
                raise denied(403, "without API keys this server takes no calls from web pages of other hosts")
        return ANONYMOUS

    def _key_of(self, headers: Mapping[str, str]) -> ApiKey:
        kind, _, token = headers.get("authorization", "").partition(" ")
        secret = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if not secret:
            raise denied(401, "this server wants an API key; send it as `Authorization: Bearer KEY`")
        digest = hashlib.sha256(secret.encode("latin-1")).hexdigest()
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]  # all, so that time tells nothing
        if not found:
            raise denied(401, "the API key is not known to this server")
        return found[0]

    def _take(self, key: ApiKey) -> None:
        """One request off what the key has left, which grows back evenly. Raises HttpProblem 429."""
        if key.per_second is None:
            return
        left, at = self._left[key.name]
        now = monotonic()
        left = min(_burst(key), left + (now - at) * key.per_second)
        if left < 1:
            self._left[key.name] = left, now
            wait_s = max(1, math.ceil((1 - left) / key.per_second))
            detail = f"the key {key.name} may make {key.per_second:g} requests a second; wait {wait_s} s"
            raise HttpProblem(429, detail, name=Overloaded.__name__, headers={"Retry-After": str(wait_s)})
        self._left[key.name] = left - 1, now


def _burst(key: ApiKey) -> float:
    return max(1.0, key.per_second or 0.0)
