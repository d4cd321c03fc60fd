"""The routes of the server."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib.resources import files
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..errors import InputError
from ..faces.found_masks import MaskNote
from ..version import __version__
from .form import Form, read_form
from .metrics import MEDIA_TYPE
from .refusal import Refusal
from .service import Service

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]
Work = Callable[[Form], Coroutine[Any, Any, Response]]

logger = logging.getLogger(__name__)

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in ("page.js", "painter.js", "service.js")},
    **{f"/examples/{name}.jpg": (f"examples/{name}.jpg", "image/jpeg") for name in ("1", "2", "3", "4")},
    **{f"/examples/{name}.png": (f"examples/{name}.png", "image/png") for name in ("1", "2", "3")},
}
# The page loads nothing from elsewhere and runs no script but its own, whatever a picture or a message holds.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_app(service: Service) -> Starlette:
    """Return the application that answers for ``service``, which it does not close."""

    def posted(path: str, work: Work) -> Route:
        async def answer(request: Request) -> Response:
            return await _answer(service, request, work)

        return Route(path, answer, methods=["POST"])

    async def inpaint(form: Form) -> Response:
        data, media_type, note = await service.complete(form)
        return Response(data, media_type=media_type, headers=_private(note))

    async def mask(form: Form) -> Response:
        data, note = await service.mask(form)
        return Response(data, media_type="image/png", headers=_private(note))

    async def stages(form: Form) -> Response:
        return JSONResponse(await service.stages(form), headers=_private())

    async def health(_: Request) -> Response:
        inpainter, limits = service.inpainter, service.limits
        lost = service.device_lost
        return JSONResponse(
            {
                "status": "device lost" if lost else "ok",
                "version": __version__,
                "device": inpainter.chain.device,
                "bundle": inpainter.bundle_digest,
                "image_size": inpainter.image_size,
                "finds_occlusions": service.finds_occlusions,
                "in_flight": service.in_flight,
                "limits": {"in_flight": limits.in_flight, "upload": limits.upload, "batch": limits.batch},
            },
            503 if lost else 200,
        )

    async def metrics(_: Request) -> Response:
        text = service.metrics.text(service.in_flight, service.limits.in_flight)
        return Response(text, headers={"Content-Type": MEDIA_TYPE})

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = "there is no such page; see / for the page, or POST a form to /inpaint"
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            sentence = f"this page does not take {request.method[:20]}; use {allowed}"
        service.metrics.request("other", error.status_code, 0.0)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    routes = [
        *(Route(path, _static(*entry)) for path, entry in PAGE.items()),
        Route("/health", health),
        Route("/metrics", metrics),
        posted("/inpaint", inpaint),
        posted("/mask", mask),
        posted("/stages", stages),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: unknown})


def _private(note: MaskNote | None = None) -> dict[str, str]:
    """Return the headers of an answer to one client; of a hole that was found they tell what is known."""
    found = {} if note is None else {"Showface-Mask": json.dumps(note.to_json())}
    return {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **found}


def _static(name: str, media_type: str) -> Handler:
    content = files(__package__).joinpath("page", *name.split("/")).read_bytes()  # once: no path comes from a client

    async def send(_: Request) -> Response:
        return Response(content, headers={**HEADERS, "Content-Type": media_type})

    return send


async def _answer(service: Service, request: Request, work: Work) -> Response:
    """Admit a request, read its form, do the work on it unless the client goes, and say what went wrong."""
    started, path = time.monotonic(), request.url.path
    try:
        with service.admitted():
            form = await read_form(request.headers, request.stream(), service.limits.upload)
            response = await _unless_gone(request, work(form))
    except ClientDisconnect:
        service.metrics.abandoned()
        return Response(status_code=499)  # nobody reads it
    except Refusal as refusal:
        response = JSONResponse({"error": refusal.sentence}, refusal.status, refusal.headers)
    except InputError as error:
        response = JSONResponse({"error": str(error)}, 400)
    except Exception:
        logger.exception("a request to %s failed", path)
        response = JSONResponse({"error": "the server failed on this request; its own log tells why"}, 500)
    service.metrics.request(path, response.status_code, time.monotonic() - started)
    return response


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it when the client closes the connection.

    Raises:
        ClientDisconnect: it did.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
