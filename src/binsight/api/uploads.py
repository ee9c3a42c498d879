"""Bodies of requests, read under limits: what is too large is refused while it comes, not after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from binsight.api.places import Places
from binsight.api.problems import HttpProblem, too_large
from binsight.errors import Overloaded

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
MOST_PARTS = 64  # of a form: the pictures of a batch, and a few fields
MOST_TEXT_BYTES = 8 * 2**20  # of all fields together that are no pictures, and of a JSON body of many items
FILE_FIELD = "image"
_LARGE_BYTES = 2**20  # a body of more gives its place back
_LEAST_BYTES, _STALLED_S = 2**16, 5.0  # when it brings less in that time


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture as it was sent. filename: as the sender calls it, if they do."""

    data: bytes
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body: the parts named `image` are pictures, whatever they say of themselves; all others are text."""

    fields: dict[str, str] = field(default_factory=dict)
    images: list[Upload] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bodies:
    """How large one body may be, and how many bytes of all requests are held at once."""

    most_bytes: int
    held: Places

    @asynccontextmanager
    async def read(self, request: Request, *, most_json: int = MOST_TEXT_BYTES) -> AsyncIterator[bytes | Form]:
        """The body of a request, JSON as bytes or a Form, for the time of the `with`.

        most_json: bytes of a JSON body.
        Raises HttpProblem: 413 too large or too many parts, 415 another type, 400 a broken form, 408 a large one that stalls,
        503 too much is held already.
        """
        coding = request.headers.get("content-encoding", "identity")
        if coding.strip().lower() not in ("", "identity"):
            detail = f"want a body as it is, got the content encoding {_shown(coding)}"
            raise HttpProblem(415, detail, headers={"Accept-Encoding": "identity"})
        kind, options = parse_options_header(request.headers.get("content-type"))
        counted = _Counted(self, request, most_json if kind == JSON_TYPE.encode() else self.most_bytes)
        try:
            if kind == JSON_TYPE.encode():
                parts: list[bytes] = []
                await counted.hand_on(parts.append)
                yield b"".join(parts)
            elif kind == FORM_TYPE.encode():
                with closing(_FormReader(options.get(b"boundary", b""))) as reader:
                    await counted.hand_on(reader.write)
                    form = reader.form()
                yield form
            else:
                raise HttpProblem(415, f"want {FORM_TYPE} or {JSON_TYPE}, got {_shown(request.headers.get('content-type'))}")
        finally:
            counted.give_back()


@final
class _Counted:
    """The chunks of a body, each counted before it is kept."""

    def __init__(self, bodies: Bodies, request: Request, most: int) -> None:
        self._request = request
        self._most = min(most, bodies.most_bytes)
        self._held = bodies.held
        self._came = 0

    async def hand_on(self, take: Callable[[bytes], object]) -> None:
        """Give each chunk to `take` as it comes."""
        declared = self._request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > self._most:
            raise self._too_large()
        clock, brought = asyncio.get_running_loop().time, 0
        try:
            async with asyncio.timeout(None) as patience:
                async for chunk in self._request.stream():
                    if self._came + len(chunk) > self._most:
                        raise self._too_large()
                    self._held.take(len(chunk))
                    self._came += len(chunk)
                    brought += len(chunk)
                    if self._came > _LARGE_BYTES and (patience.when() is None or brought >= _LEAST_BYTES):
                        patience.reschedule(clock() + _STALLED_S)
                        brought = 0
                    take(chunk)
        except TimeoutError as error:
            detail = (
                f"a body of more than {_LARGE_BYTES:,} bytes has to bring {_LEAST_BYTES:,} in {_STALLED_S:g} s; send it again"
            )
            raise HttpProblem(408, detail, name=Overloaded.__name__) from error

    def give_back(self) -> None:
        self._held.give_back(self._came)

    def _too_large(self) -> HttpProblem:
        return too_large(f"want a body of at most {self._most:,} bytes here; send less at once")


@final
class _FormReader:
    """Takes a multipart body as it comes. A part is named by its first header; the end must be there."""

    def __init__(self, boundary: bytes) -> None:
        if not boundary:
            raise HttpProblem(400, f"want a boundary in the content type: {FORM_TYPE}; boundary=…")
        self._parser = _parser(boundary, self)
        self._form = Form()
        self._parts = 0
        self._text_bytes = 0
        self._has_ended = False
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._name = ""
        self._filename: str | None = None
        self._data = bytearray()  # one block, which grows: thousands of small ones leave holes in memory

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise HttpProblem(400, f"a broken form: {error}") from error

    def form(self) -> Form:
        if not self._has_ended:
            raise HttpProblem(400, "a broken form: it ends before its last boundary")
        return self._form

    def close(self) -> None:
        """Let go of the parser. The two hold each other, and pictures would stay until Python looks for such rings."""
        del self._parser, self._form

    # ---- what the parser calls

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise too_large(f"want a form of at most {MOST_PARTS} parts")
        self._disposition, self._data = b"", bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, filename = options.get(b"name"), options.get(b"filename")
        if name is None:
            raise HttpProblem(400, 'a broken form: each part wants a header `Content-Disposition: form-data; name="…"`')
        self._name = name.decode(errors="replace")
        self._filename = None if filename is None else filename.decode(errors="replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != FILE_FIELD:
            self._text_bytes += end - start
            if self._text_bytes > MOST_TEXT_BYTES:
                raise too_large(f"want at most {MOST_TEXT_BYTES:,} bytes in fields that are no pictures")
        self._data += memoryview(data)[start:end]

    def on_part_end(self) -> None:
        data, self._data = self._data, bytearray()
        if self._name == FILE_FIELD:
            self._form.images.append(Upload(bytes(data), self._filename))
            return
        if self._name in self._form.fields:
            raise HttpProblem(422, f"want {_shown(self._name)} once, got it twice")
        try:
            self._form.fields[self._name] = data.decode()
        except UnicodeDecodeError as error:
            told = f"want UTF-8 text in {_shown(self._name)}: {error.reason}; a picture is a part named {FILE_FIELD}"
            raise HttpProblem(400, told) from error

    def on_end(self) -> None:
        self._has_ended = True


def _parser(boundary: bytes, reader: _FormReader) -> MultipartParser:
    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_headers_finished": reader.on_headers_finished,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_end": reader.on_end,
            },
        )
    except FormParserError as error:
        raise HttpProblem(400, f"a broken form: {error}") from error


def _shown(text: str | None) -> str:
    return ascii(text)[:100] if text else "none"
