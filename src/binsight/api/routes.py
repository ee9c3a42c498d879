"""The routes: each admits its caller, reads its body under limits, lets the service work, and tells what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from time import perf_counter
from typing import cast, final

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from binsight.api import openapi, reading, wire
from binsight.api.batching import Told
from binsight.api.keys import Scope
from binsight.api.places import Places
from binsight.api.problems import busy
from binsight.api.server import NOTE, Server
from binsight.api.service import Service
from binsight.api.uploads import FORM_TYPE, JSON_TYPE, Form, Upload
from binsight.documents import answer_json, count_json, info_json
from binsight.errors import BadImage, BadItem, BadSettings, UnknownItem
from binsight.fields import absent_fields
from binsight.filters import Filter
from binsight.records import Answer, Item, Match, Metadata
from binsight.search import above
from binsight.vectors import Vectors

routes = APIRouter()
_MOST_LOOKED_AT = 1_000  # items, for the fields that there are: some milliseconds


@routes.post(
    "/v1/search",
    response_model=None,
    responses=openapi.answers(wire.SearchAnswer, 404, 409, upload=True),
    openapi_extra=openapi.body(wire.ByVector, wire.ById, form=openapi.form(openapi.CHOICE)),
)
async def search(request: Request) -> Response:
    """The items most like a picture, a vector or an item of the store, nearest first."""
    server, service = _admitted(request, "read")
    _expect_place(request, service)
    async with server.bodies.read(request, most_json=reading.most_json(service.store.dim)) as body:
        if isinstance(body, Form):
            return await _found(request, server, service, body)
        query = reading.query_of(body)
        if isinstance(query, wire.ByVector):
            service.expect_fingerprint(query.fingerprint)
        k = reading.checked_most(query.k, server.settings.api_max_k)

        def answered() -> bytes:
            started = perf_counter()
            searcher = service.searcher
            if isinstance(query, wire.ByVector):
                row = reading.unit_row(query.vector, service.store.dim)[0]
                answer = searcher.by_vector(row, k=k, where=query.where, min_score=query.min_score)
            else:
                answer = searcher.by_id(query.id, k=k, where=query.where, min_score=query.min_score)
            took_ms = {"search": 1000 * (perf_counter() - started)}
            _note_absent_fields(request, service, answer.matches, query.where)
            return _json(answer_json(answer, took_ms))

        return HeldAnswer(await service.read(answered, with_filter=query.where is not None), server.answers)


@routes.post(
    "/v1/count",
    response_model=None,
    responses=openapi.answers(wire.PictureCount, upload=True),
    openapi_extra=openapi.body(form=openapi.form({})),
)
async def count(request: Request) -> Response:
    """How many items a picture shows, how sure that is, and an interval."""
    server, service = _admitted(request, "read")
    if service.encoder.heads.count is None:
        raise BadSettings(f"the model of this server, {service.encoder.info.model}, does not count")
    _expect_place(request, service)
    async with server.bodies.read(request) as body:
        form = reading.form_of(body)
        reading.fields_of(wire.NoFields, form)
        image = reading.one_image(form)
        with service.pictures.taking():
            told = await _told_of_one(service, image, {})
    assert told.count is not None
    return _answer(_json({"path": image.filename} | count_json(told.count)))


@routes.post(
    "/v1/inspect",
    response_model=None,
    responses=openapi.answers(wire.InspectAnswer, upload=True),
    openapi_extra=openapi.body(form=openapi.form(openapi.CHOICE)),
)
async def inspect(request: Request) -> Response:
    """A picture's count, labels and matches, from one pass of the model."""
    server, service = _admitted(request, "read")
    _expect_place(request, service)
    async with server.bodies.read(request) as body:
        return await _found(request, server, service, reading.form_of(body), with_labels=True)


@routes.put(
    "/v1/items/{item_id:path}",
    response_model=None,
    responses=openapi.answers(wire.UpsertedAnswer, 404, 409, upload=True),
    openapi_extra=openapi.body(
        wire.VectorItem,
        form=openapi.form({"metadata": {"type": "string", "contentMediaType": JSON_TYPE, "example": '{"label": "ram"}'}}),
    ),
)
async def put_item(item_id: str, request: Request) -> Response:
    """Add an item with its picture or its vector, or replace it. Answered means durable, as the store promises."""
    server, service = _admitted(request, "write")
    _expect_place(request, service)
    item_id = reading.item_id(request)
    async with server.bodies.read(request, most_json=reading.most_json(service.store.dim)) as body:
        if isinstance(body, Form):
            item = Item(item_id, reading.metadata_field(body))
            return await _put_pictures(service, [item], [reading.one_image(body)])
        sent = wire.VectorItem.model_validate(reading.document(body))
        service.expect_fingerprint(sent.fingerprint)
        return await _put_vectors(service, [Item(item_id, reading.metadata_of(sent.metadata))], [sent.vector])


@routes.get(
    "/v1/items/{item_id:path}",
    response_model=None,
    responses=openapi.answers(wire.ItemAnswer, 404, 422),
    openapi_extra=openapi.KEYED,
)
async def get_item(item_id: str, request: Request) -> Response:
    """The record of an item. Signs that a path cannot hold are percent-encoded; slashes may stand as they are."""
    _, service = _admitted(request, "read")
    item_id = reading.item_id(request)

    def got() -> bytes:
        (item,) = service.store.get([item_id])
        if item is None:
            raise UnknownItem(f"no item has the id {item_id!r}")
        return _json({"id": item.id, "metadata": item.metadata})

    return _answer(await service.read(got))


@routes.delete(
    "/v1/items/{item_id:path}",
    response_model=None,
    responses=openapi.answers(wire.DeletedAnswer, 404, 422),
    openapi_extra=openapi.KEYED,
)
async def delete_item(item_id: str, request: Request) -> Response:
    """Take an item out."""
    _, service = _admitted(request, "write")
    item_id = reading.item_id(request)
    if not await service.write(lambda: service.store.delete([item_id])):
        raise UnknownItem(f"no item has the id {item_id!r}")
    return _answer(_json({"deleted": 1}))


@routes.post(
    "/v1/items:batch",
    response_model=None,
    responses=openapi.answers(wire.UpsertedAnswer, 409, upload=True),
    openapi_extra=openapi.body(
        wire.VectorBatch,
        form=openapi.form(
            {
                "items": {
                    "type": "string",
                    "contentMediaType": JSON_TYPE,
                    "description": "A list of {id, metadata}, one for each part named image, in their order.",
                    "example": '[{"id": "RAM-1", "metadata": {"label": "ram"}}]',
                }
            },
            images=wire.MOST_IMAGES,
        ),
    ),
)
async def put_batch(request: Request) -> Response:
    """Add or replace several items: with vectors (JSON) or with pictures (a form). One that is wrong refuses them all.

    Of a shared store that refused a batch (503), a part may have been written: sent again, it ends as if it had been sent once.
    """
    server, service = _admitted(request, "write")
    _expect_place(request, service)
    async with server.bodies.read(request) as body:
        if isinstance(body, bytes):
            async with server.turns.taking(len(body)):
                batch = wire.VectorBatch.model_validate(reading.document(body))
            service.expect_fingerprint(batch.fingerprint)
            items = [Item(one.id, reading.metadata_of(one.metadata)) for one in batch.items]
            return await _put_vectors(service, items, [one.vector for one in batch.items])
        unknown = body.fields.keys() - {"items"}
        if unknown or "items" not in body.fields:
            raise BadItem("want a form with parts named image and one field named items, a JSON list of {id, metadata}")
        async with server.turns.taking(len(body.fields["items"])):
            records = wire.Records.model_validate({"items": reading.document(body.fields["items"])}).items
        if len(records) != len(body.images):
            raise BadItem(f"want one image for each item, got {len(body.images)} images for {len(records)} items")
        items = [Item(one.id, reading.metadata_of(one.metadata)) for one in records]
        return await _put_pictures(service, items, body.images)


@routes.get(
    "/v1/info",
    response_model=None,
    responses=openapi.answers(wire.InfoAnswer),
    openapi_extra=openapi.KEYED,
)
async def info(request: Request) -> Response:
    """How many items the store holds, which model filled it, and how it is kept."""
    _, service = _admitted(request, "read")
    return _answer(_json(info_json(await service.read(lambda: service.store.info))))


@routes.head("/healthz", include_in_schema=False)
@routes.get("/healthz", response_model=wire.StatusAnswer)
async def healthz() -> Response:
    """The process is alive."""
    return _answer(_json({"status": "alive"}))


@routes.head("/readyz", include_in_schema=False)
@routes.get("/readyz", response_model=None, responses={200: {"model": wire.StatusAnswer}, **openapi.problems(503)})
async def readyz(request: Request) -> Response:
    """The model is warm, the store within reach, and both belong together."""
    why = await _server(request).why_not_ready()
    if why:
        raise busy(f"not ready: {why}")
    return _answer(_json({"status": "ready"}))


@routes.get(
    "/metrics",
    response_model=None,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **openapi.problems(401, 403, 429)},
    openapi_extra=openapi.KEYED,
)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    server = _server(request)
    server.access.check(request.headers, "read")
    return Response(server.metrics.text(), media_type=server.metrics.media_type)


async def _found(request: Request, server: Server, service: Service, form: Form, *, with_labels: bool = False) -> Response:
    """The answer to a search with a picture."""
    choice, image = reading.fields_of(wire.ImageChoice, form), reading.one_image(form)
    k = reading.checked_most(choice.k, server.settings.api_max_k)
    took_ms: dict[str, float] = {}
    with service.pictures.taking():
        told = await _told_of_one(service, image, took_ms)

        def answered() -> bytes:
            started = perf_counter()
            (matches,) = service.store.query(told.vector, k=k, where=choice.where)
            took_ms["search"] = 1000 * (perf_counter() - started)
            _note_absent_fields(request, service, matches, choice.where)
            document = answer_json(Answer(above(matches, choice.min_score), told.count), took_ms)
            return _json(document | {"labels": told.labels} if with_labels else document)

        found = await service.read(answered, of_picture=True, with_filter=choice.where is not None)
        return HeldAnswer(found, server.answers)


def _note_absent_fields(request: Request, service: Service, matches: Sequence[Match], where: str | None) -> None:
    """Where nothing was found: which fields of the filter no item has. The form of an answer is fixed, so the log says it."""
    if not matches and where is not None:
        absent = absent_fields(service.store, Filter(where), most=_MOST_LOOKED_AT)
        if absent:
            request.scope[NOTE] = absent


async def _told_of_one(service: Service, image: Upload, took_ms: dict[str, float]) -> Told:
    """What the model says of a request's only picture; adds to took_ms. Raises BadImage."""
    try:
        return await service.told(image.data, took_ms)
    except BadImage as error:
        raise _refused("the image", image, error) from error


def _refused(name: str, image: Upload, error: BadImage) -> BadImage:
    """The same with the picture's name, and what helps where curl was given a file's name and no `@`."""
    hint = "; curl sends a file with -F image=@FILE" if image.filename is None else ""
    return BadImage(f"{name}: {error}{hint}")


async def _put_pictures(service: Service, items: list[Item], images: Sequence[Upload]) -> Response:
    with service.pictures.taking(len(images)):
        answers = await asyncio.gather(*(service.told(image.data, {}) for image in images), return_exceptions=True)
        told: list[Told] = []
        for number, answer in enumerate(answers):
            if isinstance(answer, BadImage):
                name = f"image {number} ({items[number].id})" if len(images) > 1 else "the image"
                raise _refused(name, images[number], answer) from answer
            if isinstance(answer, BaseException):
                raise answer
            told.append(answer)
        rows = _stacked(told)
        await service.write(lambda: service.store.upsert(items, rows), of_picture=True)
    return _upserted(items)


async def _put_vectors(service: Service, items: list[Item], vectors: list[list[float]]) -> Response:
    await service.write(lambda: service.store.upsert(items, reading.unit_rows(vectors, service.store.dim)))
    return _upserted(items)


def _upserted(items: list[Item]) -> Response:
    return _answer(_json({"upserted": len({item.id for item in items})}))


def _stacked(told: list[Told]) -> Vectors:
    return np.concatenate([one.vector for one in told])  # (n, dim)


def _server(request: Request) -> Server:
    return cast(Server, request.app.state.server)


def _admitted(request: Request, scope: Scope) -> tuple[Server, Service]:
    server = _server(request)
    return server, server.admit(request, scope)


def _expect_place(request: Request, service: Service) -> None:
    """Refuse a picture that would find no place before its bytes are read."""
    if request.headers.get("content-type", "").startswith(FORM_TYPE):
        service.pictures.expect()


def _json(document: Metadata) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"  # for who reads it in a terminal


@final
class HeldAnswer(Response):
    """JSON that may be large, and counts as held until the client has read it. Raises HttpProblem 503 where too much is."""

    def __init__(self, body: bytes, places: Places) -> None:
        self._places = places
        self._count = min(len(body), places.most)
        places.take(self._count)
        super().__init__(body, media_type=JSON_TYPE)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.give_back(self._count)


def _answer(body: bytes) -> Response:
    return Response(body, media_type=JSON_TYPE)
