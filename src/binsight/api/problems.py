"""Every error as a problem document (RFC 9457): a status, the name of a binsight error, and a reason in words."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import ValidationError
from starlette.responses import Response

from binsight.errors import (
    AccessDenied,
    BinsightError,
    CannotBeDone,
    ModelMismatch,
    Overloaded,
    StoreReadOnly,
    TooLarge,
    UnknownItem,
    WrongUse,
)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:binsight:"
RETRY_AFTER_S = 1
_MOST_CHARS = 2000  # of a reason


class HttpProblem(Exception):
    """An error that knows its status. name: of the class in `binsight.errors` that says the same, or "" for plain HTTP."""

    def __init__(self, status: int, detail: str, *, name: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.name = name
        self.headers = dict(headers or {})


def busy(detail: str) -> HttpProblem:
    """No place now: 503, and when to come again."""
    return _again_later(503, detail, Overloaded.__name__)


def too_large(detail: str) -> HttpProblem:
    return HttpProblem(413, detail, name=TooLarge.__name__)


def denied(status: int, detail: str) -> HttpProblem:
    """401 for who is not known, 403 for who may not."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return HttpProblem(status, detail, name=AccessDenied.__name__, headers=headers)


def invalid(error: ValidationError) -> HttpProblem:
    """What pydantic found: 400 for no JSON, 422 for JSON of another form. Shows at most 100 signs of the input."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return HttpProblem(400, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", name=WrongUse.__name__)
    place = ".".join(str(part) for part in first["loc"]) or "the body"
    if first["type"] == "extra_forbidden":
        told = place.encode("ascii", "backslashreplace").decode()[:100]
        return HttpProblem(422, f"{told}: there is no such field here; /docs lists those there are", name=WrongUse.__name__)
    shown = reprlib.repr(first["input"]).encode("ascii", "backslashreplace").decode()  # of millions of numbers, six
    return HttpProblem(422, f"{place}: {first['msg']}, got {shown[:100]}", name=WrongUse.__name__)


def problem_of(error: Exception) -> HttpProblem | None:
    """The problem that an error of ours, or of the world, is; None for a bug."""
    if isinstance(error, HttpProblem):
        return error
    if isinstance(error, ValidationError):
        return invalid(error)
    name = type(error).__name__
    if isinstance(error, UnknownItem):
        return HttpProblem(404, str(error), name=name)
    if isinstance(error, StoreReadOnly):
        return HttpProblem(403, "this server only reads; write to one that was started without --read-only", name=name)
    if isinstance(error, ModelMismatch):
        return HttpProblem(409, str(error), name=name)
    if isinstance(error, CannotBeDone):
        return _again_later(503, str(error), name)
    if isinstance(error, BinsightError):
        return HttpProblem(422, str(error), name=name)
    if isinstance(error, OSError):  # also ConnectionError and TimeoutError
        return _again_later(503, "the store or the model cannot be reached now", CannotBeDone.__name__)
    return None


def document_of(problem: HttpProblem) -> dict[str, str | int]:
    """The members of the document. `type` ends with the name of the error in `binsight.errors`."""
    return {
        "type": TYPE_PREFIX + problem.name if problem.name else "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail[:_MOST_CHARS],
    }


def response_of(problem: HttpProblem) -> Response:
    body = json.dumps(document_of(problem)).encode() + b"\n"
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def _again_later(status: int, detail: str, name: str) -> HttpProblem:
    return HttpProblem(status, detail, name=name, headers={"Retry-After": str(RETRY_AFTER_S)})
