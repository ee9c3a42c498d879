"""The FastAPI application, put together from its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route

from binsight import __version__
from binsight.api.docs_page import SECURITY, page
from binsight.api.envelope import REQUEST_ID, Envelope
from binsight.api.openapi import describe
from binsight.api.problems import HttpProblem, problem_of, response_of
from binsight.api.routes import routes
from binsight.api.server import Server
from binsight.errors import BinsightError


def create_app(
    server: Server, *, announce: Callable[[], None] | None = None, on_failure: Callable[[], None] | None = None
) -> FastAPI:
    """The application of one server, which it loads when it starts. announce: called once that is done; on_failure: when it
    cannot be done."""

    async def load() -> None:
        try:
            await server.load(announce)
            await server.follow()
        except Exception:  # noqa: BLE001, kept in server.failure for who started it
            if on_failure is not None:
                on_failure()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(load())
        yield
        server.is_ending = True
        if server.service is not None:
            loading.cancel()  # it only follows the alias now
        with suppress(asyncio.CancelledError):
            await loading
        await server.close()

    app = FastAPI(
        title="binsight", version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    app.state.server = server
    app.include_router(routes)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    for kind in (HttpProblem, BinsightError, ValidationError, OSError):
        app.add_exception_handler(kind, _tell)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(RequestValidationError, _tell_http)
    origins = [origin.strip() for origin in server.settings.api_cors.split(",") if origin.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=[REQUEST_ID]
        )
    settings = server.settings
    app.add_middleware(
        Envelope, metrics=server.metrics, deadline_s=settings.api_deadline_s, linger_bytes=settings.api_max_upload_bytes
    )
    return app


def _described(app: FastAPI) -> dict[str, Any]:  # JSON
    if not app.openapi_schema:
        app.openapi_schema = describe(app, wants_key=app.state.server.access.wants_key)
    return app.openapi_schema


async def _docs(request: Request) -> Response:
    return HTMLResponse(page(_described(request.app)), headers=SECURITY)


async def _tell(_: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem is None:
        raise error
    return response_of(problem)


async def _tell_http(request: Request, error: Exception) -> Response:
    """Errors that Starlette finds: no such route, another method, a connection that broke."""
    if not isinstance(error, HTTPException):
        return response_of(HttpProblem(422, "the request is of another form than this route takes"))
    if error.status_code == 404:
        return response_of(HttpProblem(404, "there is no such route; /docs lists them"))
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods_at(request)))
        detail = f"{ascii(request.method)[1:-1][:20]} is not for this route; it takes {allowed}"
        return response_of(HttpProblem(405, detail, headers={"Allow": allowed}))
    return response_of(HttpProblem(error.status_code, str(error.detail), headers=error.headers))


def _methods_at(request: Request) -> set[str]:
    matching = [route for route in routes.routes if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE]
    return {method for route in matching for method in route.methods or ()}
