"""The routes of the server."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from fllm_export import __version__
from fllm_export.errors import UsageError
from fllm_export.server import schema
from fllm_export.server.access import unauthorized
from fllm_export.server.batcher import Client
from fllm_export.server.failures import Refusal, bug, failure_json, refusal_of, too_large
from fllm_export.server.metrics import CONTENT_TYPE
from fllm_export.server.page import PAGE, PAGE_HEADERS
from fllm_export.server.request import shown
from fllm_export.server.service import Service
from fllm_export.strict_json import parse

SEARCH = "/v1/topk"
CLIENT = "fllm_export.client"
"""Key of the ASGI scope under which a server finds the :class:`Client` to tell of a lost connection."""

_LOG = logging.getLogger("fllm_export.server")
_JSON = "application/json"
_CLIENT_GONE = 499

Handler = Callable[[Request], Awaitable[Response]]
Reload = Callable[[Path | None], Awaitable[int]]
"""Opens what is at the path now, or at another path, and returns the generation that is served then."""


def create_app(service: Service, reload: Reload | None = None) -> FastAPI:
    """Return the ASGI application of a service, which its caller loads and closes.

    Args:
        service: what answers.
        reload: what ``/v1/reload`` calls; None is the service's own.
    """
    app = FastAPI(
        title="fllm-export",
        version=__version__,
        description="Item texts, token ids or item vectors in, the top-K users with probabilities out.",
        docs_url=None,
        redoc_url=None,
    )
    _add_search(app, service)
    _add_reload(app, service, reload or service.reload)
    _add_health(app, service)
    _add_page(app)
    app.add_exception_handler(HTTPException, _no_route)
    # Last, so that it is outermost: a search costs less than the routing around it.
    app.add_middleware(Searches, service=service)
    return app


class Searches:
    """Answers ``POST /v1/topk``, and leaves all other requests to the application inside.

    Args:
        app: the application inside.
        service: what answers.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != SEARCH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        response = await guarded(Request(scope, receive), self._work)
        self._service.metrics.count_request(response.status_code)
        await response(scope, receive, send)

    async def _work(self, request: Request) -> Response:
        client = request.scope[CLIENT] = Client()
        headers = _checked(self._service, request)
        body = await read_body(request, headers, self._service)
        return Response(await self._service.answer(body, client, headers), media_type=_JSON)


def _add_search(app: FastAPI, service: Service) -> None:
    @app.post(
        SEARCH,
        summary="The top users of items",
        response_model=schema.TopkAnswer,
        responses=schema.failures(400, 401, 408, 413, 415, 429, 500, 503),
        openapi_extra=schema.topk_body(service.options),
    )
    async def topk() -> Response:
        """Stand in the document; :class:`Searches` answers."""
        raise NotImplementedError


def _add_reload(app: FastAPI, service: Service, reload_service: Reload) -> None:
    async def work(request: Request) -> Response:
        headers = _checked(service, request)
        path = _reload_path(await read_body(request, headers, service))
        if path is not None and not service.access.other_paths:
            raise Refusal(
                403,
                "Forbidden",
                "the request names another path, which only a server with a token opens",
                fix="Start the server with a token, or publish at the path that it serves",
            )
        generation = await reload_service(path)
        return Response(schema.Generation(generation=generation).model_dump_json(), media_type=_JSON)

    @app.post(
        "/v1/reload",
        summary="Move to what is at the path now, or at another path",
        response_model=schema.Generation,
        responses=schema.failures(400, 401, 403, 408, 413, 415, 500, 503),
        openapi_extra=schema.request_body(schema.ReloadRequest, required=False),
    )
    async def reload(request: Request) -> Response:
        return await guarded(request, work)


def _add_health(app: FastAPI, service: Service) -> None:
    async def metrics_text(request: Request) -> Response:
        _checked(service, request)
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/healthz", summary="Whether the process answers", response_model=schema.Alive)
    async def healthz() -> Response:
        return Response('{"alive":true}', media_type=_JSON)

    @app.get(
        "/readyz",
        summary="Whether requests are answered",
        response_model=schema.Ready,
        responses={503: {"model": schema.Ready, "description": "Not yet, or not any more."}},
    )
    async def readyz() -> Response:
        ready = service.ready
        found = schema.Ready(ready=ready, generation=service.generation)
        return Response(found.model_dump_json(), 200 if ready else 503, media_type=_JSON)

    @app.get(
        "/metrics",
        summary="Counters and times for Prometheus",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE.split(";")[0]: {}}}, **schema.failures(401)},
    )
    async def metrics(request: Request) -> Response:
        return await guarded(request, metrics_text)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(PAGE, media_type="text/html", headers=PAGE_HEADERS)


async def guarded(request: Request, work: Handler) -> Response:
    """Do the work of a request; whatever goes wrong becomes an answer."""
    try:
        return await work(request)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None:
            _LOG.error("%s", "".join(traceback.format_exception(error)))
            refusal = bug()
        return _refused(refusal)


def _refused(refusal: Refusal) -> Response:
    return Response(failure_json(refusal), refusal.status, headers=refusal.headers, media_type=_JSON)


async def _no_route(request: Request, error: Any) -> Response:
    kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "Refused")
    found = f"there is no {request.method} {request.url.path[:200]}"
    return _refused(Refusal(error.status_code, kind, found, fix="See /openapi.json", headers=dict(error.headers or {})))


def _checked(service: Service, request: Request) -> dict[str, str]:
    """Return the headers of a request that may go on."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    authenticate = service.access.authenticate
    if authenticate is not None and not authenticate(headers):
        raise unauthorized()
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Unsupported", "the body is compressed", expected="no Content-Encoding")
    return headers


async def read_body(request: Request, headers: Mapping[str, str], service: Service) -> bytes:
    """Return the body of a request. How long it may take is for the server to limit.

    Raises:
        Refusal: it is too large.
    """
    limit = service.options.max_body_bytes
    announced = headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise too_large(limit)
    parts, length = [], 0
    async for part in request.stream():
        parts.append(part)
        length += len(part)
        if length > limit:
            raise too_large(limit)
    return b"".join(parts)


def _reload_path(body: bytes) -> Path | None:
    if not body:
        return None
    try:
        document = parse(body)
    except ValueError as error:
        raise UsageError(f"the body is not JSON ({error})", expected="nothing, or a JSON object") from error
    if not isinstance(document, dict) or not document.keys() <= {"path"}:
        raise UsageError("the body is not an object with the field path alone", expected='{"path": "..."}')
    path = document.get("path")
    if path is None:
        return None
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(f"path is {shown(path)}", expected="the path of a bundle or a user table on the server")
    return Path(path)
