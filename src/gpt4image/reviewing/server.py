"""The local server of the page: who may ask, and what is answered.

Another page in the same browser, another program of another user and a name that resolves to 127.0.0.1 are kept out: by
a token, which the page turns into a cookie, by the Host and by the Origin. Images are asked for by digest, so no path
leads anywhere.
"""

import functools
import hmac
import html
import io
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gpt4image.base.errors import ConfigError, DecodeError, Gpt4ImageError
from gpt4image.base.files import parse_json
from gpt4image.base.visible import in_one_line
from gpt4image.reviewing.session import MOST_SHOWN, Session

HOSTS = ("127.0.0.1", "localhost", "[::1]")
SIDES = (320, 1024)  # pixels of a picture in the grid, and of a large one
MOST_BYTES = 1_000_000  # of a request
MOST_CACHED = 512  # pictures
PAGE = Path(__file__).parent / "page"
FILES = {"page.js": "text/javascript", "page.css": "text/css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Answers only requests of the page itself; everything else gets 403 and a line that says why."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":  # web sockets and the like: none are spoken
            return
        request = Request(scope)
        if fault := self._fault(request):
            response = PlainTextResponse(f"{fault}\n", 403, HEADERS)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _fault(self, request: Request) -> str:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        name, colon, port = host.rpartition(":")
        if (name if colon and port.isascii() and port.isdecimal() else host) not in HOSTS:
            return "This server answers to 127.0.0.1 and localhost only."
        if origin not in ((f"http://{host}",) if request.method == "POST" else (f"http://{host}", None)):
            return "This request comes from another page."
        token = request.cookies.get(cookie_name(host), "")
        if request.url.path == "/" and "token" in request.query_params:
            token = request.query_params["token"]
        elif request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "This request comes from another page."
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return "The token is missing or old: open the address that gpt4image review has printed."
        return ""


def make_app(sessions: Mapping[str, Session], token: str, finish: Callable[[], None], mode: str = "") -> Starlette:
    """Return the application of the sessions, one for each mode of the page, the first of which knows all images.

    A request needs the ``token``. ``finish`` is called at the end. The page begins with ``mode``; the first without it.
    """
    shown = functools.lru_cache(MOST_CACHED)(functools.partial(_shown, next(iter(sessions.values()))))
    kinds = json.dumps({name: session.file.kind for name, session in sessions.items()})
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    for name, value in {"mode": mode or next(iter(sessions)), "kinds": kinds, "sitting": secrets.token_hex(8)}.items():
        text = text.replace(f"{{{{{name}}}}}", html.escape(value))

    def session_of(request: Request) -> tuple[str, Session]:
        asked = request.query_params.get("mode", next(iter(sessions)))
        if asked not in sessions:
            raise ConfigError(f"mode is one of {', '.join(sessions)}.")
        return asked, sessions[asked]

    def page(request: Request) -> Response:
        response = Response(text, media_type="text/html", headers=HEADERS)
        response.set_cookie(cookie_name(request.headers["host"]), token, httponly=True, samesite="strict", path="/")
        return response

    def image(request: Request) -> Response:
        try:
            content = shown(request.path_params["digest"], SIDES[request.query_params.get("large") == "1"])
        except (DecodeError, OSError) as error:
            return JSONResponse({"error": f"This picture cannot be shown: {in_one_line(str(error))}"}, 422, HEADERS)
        # A digest is always the same picture.
        headers = HEADERS | {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(content, media_type="image/webp", headers=headers)

    def cards(request: Request) -> Response:
        (asked, session), count = session_of(request), _number(request, "count", MOST_SHOWN)
        return _json({"cards": [asdict(card) for card in session.cards(asked, count)]})

    def news(request: Request) -> Response:
        return _json(session_of(request)[1].news(_number(request, "since", 10**15, "0")))

    async def mark(request: Request) -> Response:
        (_, session), body = session_of(request), await _body(request)
        return await run_in_threadpool(_marked, session, body)

    async def end(request: Request) -> Response:
        await _body(request)
        finish()
        return _json({})

    routes = [
        Route("/", page),
        *(Route(f"/{name}", _file) for name in FILES),
        Route("/favicon.ico", _no_icon),
        Route("/image/{digest:str}", image),
        Route("/cards", cards),
        Route("/news", news),
        Route("/marks", mark, methods=["POST"]),
        Route("/finish", end, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={Gpt4ImageError: _refused, OSError: _refused})
    app.add_middleware(Guard, token=token)
    return app


def cookie_name(host: str) -> str:
    """Return the name of the cookie of a server: cookies do not know ports."""
    return f"gpt4image-review-{host.rpartition(':')[2]}"


def _file(request: Request) -> Response:
    name = request.url.path[1:]
    return Response((PAGE / name).read_bytes(), media_type=FILES[name], headers=HEADERS)


def _no_icon(_request: Request) -> Response:  # without it, browsers report an error
    return Response(status_code=204, headers=HEADERS)


def _shown(session: Session, digest: str, side: int) -> bytes:
    """Return an image encoded anew: what the browser gets is a picture, whatever the file is."""
    picture = session.picture(digest, side)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def _marked(session: Session, body: bytes) -> Response:
    """Save label and note by digest, as a request has them; names of classes come as the page shows them, escaped."""
    try:
        wanted: dict[str, dict[str, Any]] = parse_json(body)
        pairs = {digest: (mark["label"], mark["note"]) for digest, mark in wanted.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        pairs = {}
    if not pairs or not all(isinstance(note, str) for _, note in pairs.values()):
        raise ConfigError('give {DIGEST: {"label": NAME, "note": "checked"}}.')
    names = {in_one_line(name): name for name in session.classes}
    meant = {digest: (_texts(label, lambda one: names.get(one, one)), note) for digest, (label, note) in pairs.items()}
    before = {digest: {"label": label, "note": note} for digest, (label, note) in session.mark(meant).items()}
    return _json({"before": before, "cards": {digest: asdict(session.card(digest)) for digest in pairs}})


def _number(request: Request, name: str, most: int, default: str = "") -> int:
    value = request.query_params.get(name, default)
    if not (value.isascii() and value.isdecimal() and len(value) < 16 and int(value) <= most):
        raise ConfigError(f"{name} is a number up to {most}.")
    return int(value)


async def _body(request: Request) -> bytes:
    """Return the body of a request. Raises ConfigError where it is too large, before it is all read."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise ConfigError(f"a request has at most {MOST_BYTES:,} bytes.")
    return body


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with each of its texts changed."""
    if isinstance(value, dict):
        return {key: _texts(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


def _json(value: Any) -> Response:
    """Return what the page shows: invisible characters and those that turn the reading direction are escaped."""
    return JSONResponse(_texts(value, in_one_line), headers=HEADERS)


def _refused(_request: Request, error: Exception) -> Response:
    reason, status = str(error), 400
    if isinstance(error, OSError):
        reason, status = f"Not saved: {error.strerror or error}. Mend that, then click again.", 507
    return JSONResponse({"error": reason}, status, HEADERS)
