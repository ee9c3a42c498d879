"""The verbs of `Searcher` over HTTP, for a server that `binsight serve` runs."""

from __future__ import annotations

import io
import json
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from os import PathLike, environ, fspath
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, final
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from binsight import errors
from binsight.documents import answer_from, count_from, info_from
from binsight.errors import BadImage, BadSettings, BadVectors, BinsightError, MissingExtra, ServerUnreachable, UnknownItem
from binsight.filters import Filter
from binsight.images import ImageLike, read_file
from binsight.records import Answer, Count, Item, StoreInfo
from binsight.store.base import checked_ids

try:
    import httpx
except ImportError as error:
    raise MissingExtra("httpx", extra="api") from error

T = TypeVar("T")
Part: TypeAlias = tuple[str, tuple[str, bytes, str]]  # field; file name, content, type

_MOST_AT_ONCE = 32  # pictures of one request, as the server takes them
_MOST_BYTES_AT_ONCE = 16 * 2**20
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 10.0
_REFUSED = (429, 503)  # nothing was done
_OF_STATUS = {
    401: "AccessDenied",
    403: "AccessDenied",
    413: "TooLarge",
    429: "Overloaded",
    504: "Overloaded",
}


@final
class Client:
    """A searcher whose model and store are a server's. Safe to use from several threads; close it, or use it in a `with`.

    url: where the server listens, for example "http://127.0.0.1:8000". key: an API key, where the server wants one. ca: a file
    of certificates to trust (PEM), for an https server that no public authority vouches for. timeout_s: for one try. retries:
    further tries after a server that had no place (503, 429) or a connection that broke. Each waits for what `Retry-After`
    says, else twice as long as the one before. That is safe: reads change nothing, and a write carried out twice leaves what it
    left once. A time-out is not tried again: the server may still be at it.
    Raises what `Searcher` raises, and AccessDenied, TooLarge, Overloaded, ServerUnreachable.

    >>> # Client("http://127.0.0.1:8000").by_image("photo.jpg", k=5).matches
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        ca: str | PathLike[str] | None = None,
        timeout_s: float = 60.0,
        retries: int = 5,
    ) -> None:
        try:
            parts = urlsplit(url)
            is_http = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
        except ValueError:
            is_http = False
        if not is_http:
            raise BadSettings(f"want the URL of a server, such as http://127.0.0.1:8000, got {url!r}")
        if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
            raise BadSettings("want an API key of printable ASCII signs, without spaces around it")
        if not timeout_s > 0 or retries < 0:
            raise BadSettings(f"want timeout_s above 0 and retries of at least 0, got {timeout_s!r} and {retries!r}")
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        self.url = url.rstrip("/")
        self._retries = retries
        self._spread = random.Random()  # noqa: S311, so that clients refused together do not come again together
        self._http = httpx.Client(headers=headers, timeout=timeout_s, verify=_trusted(parts.scheme, ca))

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    # ---- asking

    def by_image(
        self, image: ImageLike, *, k: int = 10, where: Filter | str | None = None, min_score: float | None = None
    ) -> Answer:
        """The k most similar items, nearest first; with a model that counts, the picture's count too."""
        return self._answer("/v1/search", files=[_part(image)], data=_choice(k, where, min_score))

    def by_vector(
        self,
        vector: Sequence[float] | NDArray[Any],
        *,
        k: int = 10,
        where: Filter | str | None = None,
        min_score: float | None = None,
        fingerprint: str | None = None,
    ) -> Answer:
        """The k most similar items to a vector of any length but zero: (dim,).

        fingerprint: of the model that made it, so that a server which has changed its model refuses it (ModelMismatch).
        """
        told = {"vector": _numbers(vector), "fingerprint": fingerprint} if fingerprint else {"vector": _numbers(vector)}
        return self._answer("/v1/search", json=told | _choice(k, where, min_score))

    def by_id(self, item_id: str, *, k: int = 10, where: Filter | str | None = None, min_score: float | None = None) -> Answer:
        """The k items most similar to one of the store, which is left out. Raises UnknownItem."""
        return self._answer("/v1/search", json={"id": item_id, **_choice(k, where, min_score)})

    def inspect(
        self, image: ImageLike, *, k: int = 10, where: Filter | str | None = None, min_score: float | None = None
    ) -> Answer:
        """Count, labels and matches of a picture, from one pass of the model."""
        return self._answer("/v1/inspect", files=[_part(image)], data=_choice(k, where, min_score))

    def count(self, image: ImageLike) -> Count:
        """How many items a picture shows. Raises BadSettings where the server's model does not count."""
        return _read(count_from, self._call("POST", "/v1/count", files=[_part(image)]))

    def get(self, ids: Sequence[str]) -> list[Item | None]:
        """The item of each id, None where the store holds none."""
        return [self._get(one) for one in checked_ids(ids)]

    def info(self) -> StoreInfo:
        """Which model filled the store, and how many items it holds."""
        return _read(info_from, self._call("GET", "/v1/info"))

    # ---- changing

    def add(self, items: Sequence[Item], images: Sequence[ImageLike], *, batch_size: int = _MOST_AT_ONCE) -> None:
        """Send pictures with their items, some at a time. One that is wrong refuses its request: what was sent before stays.

        batch_size: pictures of one request; of more than 32, or 16 MiB, several are made. The key `_source` is the server's.
        """
        if batch_size < 1:
            raise BadSettings(f"want a batch_size of at least 1, got {batch_size}")
        if len(items) != len(images):
            raise BadSettings(f"want one image for each item, got {len(images)} images for {len(items)} items")
        for chunk, parts in _batches(items, images, min(batch_size, _MOST_AT_ONCE)):
            told = json.dumps([{"id": item.id, "metadata": item.metadata} for item in chunk])
            self._call("POST", "/v1/items:batch", files=parts, data={"items": told})

    def delete(self, ids: Sequence[str]) -> int:
        """Take items out; how many there were. Unknown ids are passed over."""
        return sum(self._delete(one) for one in dict.fromkeys(checked_ids(ids)))

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---- how

    def _answer(self, path: str, **body: Any) -> Answer:  # what httpx takes
        return _read(answer_from, self._call("POST", path, **body))

    def _get(self, item_id: str) -> Item | None:
        try:
            return _read(lambda told: Item(told["id"], told["metadata"]), self._call("GET", _path_of(item_id)))
        except UnknownItem:
            return None

    def _delete(self, item_id: str) -> int:
        try:
            return _read(lambda told: int(told["deleted"]), self._call("DELETE", _path_of(item_id)))
        except UnknownItem:
            return 0

    def _call(self, method: str, path: str, **body: Any) -> Any:  # what httpx takes; JSON
        """The document that a request is answered with."""
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = self._http.request(method, self.url + path, **body)
            except httpx.TimeoutException as error:
                raise ServerUnreachable(f"{self.url} did not answer in time; its queue is long, or the network slow") from error
            except httpx.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise ServerUnreachable(f"{self.url} has a certificate that is not trusted: {error}; see ca=") from error
                if is_last:
                    raise ServerUnreachable(
                        f"{self.url} cannot be reached: {error}; is `binsight serve` running there?"
                    ) from error
                self._wait(attempt)
                continue
            if response.status_code not in _REFUSED or is_last:
                return _document_of(response)
            self._wait(attempt, response.headers.get("retry-after", ""))
        raise AssertionError("the last try returns or raises")

    def _wait(self, attempt: int, retry_after: str = "") -> None:
        wait_s = _FIRST_WAIT_S * 2**attempt
        told_s = _seconds(retry_after)
        wait_s = max(wait_s, told_s) if told_s is not None else wait_s
        time.sleep(min(wait_s, _LONGEST_WAIT_S) * self._spread.uniform(1.0, 1.25))


def _trusted(scheme: str, ca: str | PathLike[str] | None) -> ssl.SSLContext:
    """Whose certificates are believed. By http none comes: nobody's are, as reading the usual ones takes longer than a call."""
    file = fspath(ca) if ca is not None else environ.get("SSL_CERT_FILE")
    try:
        if ca is not None:
            return ssl.create_default_context(cafile=file)
        return httpx.create_ssl_context() if scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except OSError as error:  # ssl.SSLError is one
        told_by = "ca" if ca is not None else "SSL_CERT_FILE"
        raise BadSettings(f"want a file of certificates in PEM as {told_by}, got {file}: {error}") from error


def _document_of(response: httpx.Response) -> Any:  # JSON
    """What a good answer holds. Raises the error that a problem document names, else the one that fits its status."""
    try:
        document = response.json()
    except ValueError as error:
        what = response.headers.get("content-type", "no content type")
        raise ServerUnreachable(f"want JSON, got {response.status_code} with {what}; is this a binsight server?") from error
    if response.is_success:
        return document
    told = document if isinstance(document, Mapping) else {}
    name = str(told.get("type", "")).rpartition(":")[2]
    kind = getattr(errors, name if name in _NAMES else _OF_STATUS.get(response.status_code, ""), None)
    if kind is None and response.status_code == 404:
        raise ServerUnreachable(f"want a binsight server at this URL, but {response.url} is no route of one")
    if kind is None:
        kind = errors.WrongUse if 400 <= response.status_code < 500 else errors.CannotBeDone
    raise kind(str(told.get("detail") or f"the server answered {response.status_code}"))


_NAMES = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, BinsightError) and kind is not MissingExtra  # which is made otherwise
}


def _read(reader: Callable[[Any], T], document: Any) -> T:  # JSON
    try:
        return reader(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ServerUnreachable(f"the answer is not as this version expects it: {error!r}; is the server's another?") from error


def _choice(k: int, where: Filter | str | None, min_score: float | None) -> dict[str, Any]:  # JSON
    text = where.text if isinstance(where, Filter) else where
    given = {"k": k, "where": text, "min_score": min_score}
    return {name: value for name, value in given.items() if value is not None}


def _numbers(vector: Sequence[float] | NDArray[Any]) -> list[float]:
    try:
        row = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadVectors(f"want numbers, got something else: {error}") from error
    if row.ndim != 1 or not np.isfinite(row).all():
        raise BadVectors(f"want one vector of finite numbers (dim,), got shape {row.shape}")
    numbers: list[float] = row.tolist()
    return numbers


def _part(image: ImageLike) -> Part:
    """A picture as a part of a form: a file as it is, pixels as PNG, which loses nothing."""
    name = fspath(image).rpartition("/")[2] if isinstance(image, str | PathLike) else "image"
    return "image", (name, _bytes_of(image), "application/octet-stream")


def _bytes_of(image: ImageLike) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | PathLike):
        return read_file(image)[0]
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadImage(f"want a uint8 array (h, w, 3), got {image.dtype} {image.shape}")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise BadImage(f"want a path, bytes, a Pillow image or a uint8 array (h, w, 3), got {type(image).__name__}")
    out = io.BytesIO()
    (image if image.mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16") else image.convert("RGB")).save(out, "PNG")
    return out.getvalue()


def _batches(items: Sequence[Item], images: Sequence[ImageLike], most: int) -> Iterator[tuple[list[Item], list[Part]]]:
    """Items and their pictures, at most so many together, and as many as one request may hold."""
    chunk: list[Item] = []
    parts: list[Part] = []
    held = 0
    for item, image in zip(items, images, strict=True):
        part = _part(image)
        size = len(part[1][1])
        if chunk and (len(chunk) == most or held + size > _MOST_BYTES_AT_ONCE):
            yield chunk, parts
            chunk, parts, held = [], [], 0
        chunk.append(item)
        parts.append(part)
        held += size
    if chunk:
        yield chunk, parts


def _path_of(item_id: str) -> str:
    """The path of an item; dots too are encoded, since `..` in a path means another one."""
    return "/v1/items/" + quote(item_id, safe="").replace(".", "%2E")


def _seconds(retry_after: str) -> float | None:
    """How long a server asks to wait, in seconds or until a date; None for neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
