"""From bodies of requests to checked arguments of the library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.requests import Request

from binsight.api.problems import HttpProblem, too_large
from binsight.api.uploads import FILE_FIELD, JSON_TYPE, Form, Upload
from binsight.api.wire import ById, ByVector
from binsight.errors import BadItem, BadSettings, BadVectors, WrongUse
from binsight.records import Metadata
from binsight.store.base import SOURCE_KEY, checked_id
from binsight.vectors import Vectors, normalise

M = TypeVar("M", bound=BaseModel)
MOST_OPENED = 100_000  # brackets and braces of one JSON body: a millisecond for each 5,000
MOST_VALUES = 400_000  # commas: 256 vectors of 1,536 numbers; ten milliseconds
_PIECE = 2**16  # signs that are looked at before it is too much already
MOST_RECORD_BYTES = 2**19  # of one item's metadata as JSON, 64 KB however they are escaped; of a query's words
_NUMBER_BYTES = 40  # of one number of a vector, with what stands around it
_ITEMS = b"/v1/items/"


def document(text: bytes | str) -> Any:  # any JSON
    """Raises HttpProblem: 400 for what is no JSON, 413 for so much in it that reading it would hold up others."""
    opened = values = 0
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        counted = piece if isinstance(piece, bytes) else piece.encode(errors="replace")
        opened += counted.count(b"{") + counted.count(b"[")
        values += counted.count(b",")
        for count, most, what in ((opened, MOST_OPENED, "lists and objects"), (values, MOST_VALUES, "values")):
            if count > most:
                raise too_large(f"want at most {most:,} {what} in a body; send fewer items at once")
    try:
        return from_json(text)
    except ValueError as error:
        raise HttpProblem(400, f"the body is not JSON: {error}", name=WrongUse.__name__) from error


def most_json(dim: int) -> int:
    """How many bytes a JSON body with one vector of this dimension may have, and with one item's record or a query's words.

    >>> most_json(512)
    544768
    """
    return MOST_RECORD_BYTES + _NUMBER_BYTES * dim


def query_of(body: bytes) -> ByVector | ById:
    """The JSON form of a search: with a `vector`, or else with an `id`."""
    told = document(body)
    return ByVector.model_validate(told) if isinstance(told, dict) and "vector" in told else ById.model_validate(told)


def fields_of(model: type[M], form: Form) -> M:
    """The text fields of a form. Raises HttpProblem 422 for one that the model does not have."""
    _expect_fields(form, model.model_fields)
    return model.model_validate(form.fields)


def _expect_fields(form: Form, known: Iterable[str]) -> None:
    unknown = form.fields.keys() - set(known)
    if unknown:
        told = ascii(min(unknown))[:100]
        names = ", ".join([FILE_FIELD, *known])
        raise HttpProblem(422, f"there is no field {told} here; the fields are {names}", name=WrongUse.__name__)


def one_image(form: Form) -> Upload:
    """The picture of a form that holds one."""
    if len(form.images) != 1:
        raise HttpProblem(422, f"want one part named image, got {len(form.images)}", name=WrongUse.__name__)
    return form.images[0]


def form_of(body: bytes | Form) -> Form:
    """Raises HttpProblem 415 for JSON, where only a picture will do."""
    if isinstance(body, bytes):
        raise HttpProblem(415, f"want multipart/form-data with a part named image, got {JSON_TYPE}", name=WrongUse.__name__)
    return body


def unit_row(vector: list[float], dim: int) -> Vectors:
    """(1, dim) of a vector of any length but zero. Raises BadVectors."""
    return unit_rows([vector], dim)


def unit_rows(vectors: list[list[float]], dim: int) -> Vectors:
    """(n, dim) of vectors of any length but zero. Raises BadVectors, naming the first of another dimension."""
    for number, vector in enumerate(vectors):
        if len(vector) != dim:
            raise BadVectors(f"want vectors of {dim} numbers, got {len(vector)} at row {number}")
    rows: NDArray[np.float64] = np.array(vectors, np.float64)
    return normalise(rows)


def metadata_of(metadata: Metadata) -> Metadata:
    """The same, once it holds nothing that is not the sender's to say."""
    if SOURCE_KEY in metadata:
        raise BadItem(f"the key {SOURCE_KEY} tells where `binsight index` found a picture; leave it out")
    return metadata


def metadata_field(form: Form) -> Metadata:
    """The metadata of a form, JSON in its field `metadata`; empty where there is none. Other fields are refused."""
    _expect_fields(form, ["metadata"])
    text = form.fields.get("metadata", "{}")
    if len(text) > MOST_RECORD_BYTES:
        raise too_large(f"want metadata of at most {MOST_RECORD_BYTES:,} signs, got {len(text):,}")
    told = document(text)
    if not isinstance(told, dict):
        raise BadItem(f"want metadata that is a JSON object, got {type(told).__name__}")
    return metadata_of(told)


def item_id(request: Request) -> str:
    """The id in a path, whatever signs it is made of: each as UTF-8, percent-encoded where need be. Raises BadItem."""
    raw: bytes = request.scope.get("raw_path") or b""
    if not raw.startswith(_ITEMS):
        return checked_id(request.path_params["item_id"])
    try:
        return checked_id(unquote_to_bytes(raw.removeprefix(_ITEMS)).decode())
    except UnicodeDecodeError as error:
        raise BadItem("want an id that is UTF-8, percent-encoded") from error


def checked_most(k: int, most: int) -> int:
    """k, once the server takes that many. Raises BadSettings."""
    if k > most:
        raise BadSettings(f"want k from 1 to {most}, got {k}; ask for fewer, or with a filter")
    return k
