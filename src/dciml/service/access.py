"""Who may ask: the `Host` header, the origin of changes, the optional token; and headers of answers."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dciml.service.errors import problem
from dciml.service.settings import ServiceSettings

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Adds the headers to every response, errors too; plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        is_page = path == "/" or path.startswith("/static/")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_page else FILE_POLICY)
                headers.setdefault("Cache-Control", "no-cache" if is_page else "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


COOKIE = "dciml_session"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/", "/healthz")
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")


class AccessControl:
    """Refuses what must not reach the app; plain ASGI, before everything that reads a body.

    - Bound to this machine only, the server answers to local names alone: a page elsewhere whose name was made to
      point here (DNS rebinding) carries its own name in `Host`.
    - A change whose `Origin` is another site is refused: a form there could be sent without asking anybody.
    - With a token, all but the empty page, its static files and the health check wants it, as
      `Authorization: Bearer TOKEN`, or as the cookie that `/?token=TOKEN` sets.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self.app = app
        self._token = None if settings.token is None else settings.token.encode()
        self._origins = frozenset(settings.cors_origins)
        names = {*LOCAL_NAMES, settings.host, *settings.allow_hosts}
        self._hosts = {name.lower() for name in names} if settings.is_local or settings.allow_hosts else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and host_name(headers.get("host", "")) not in self._hosts:
            return problem(421, "This server does not answer to the host name of the request.")
        if scope["method"] not in SAFE_METHODS and not self._same_origin(headers):
            return problem(403, "Pages of other sites may not change anything here.")
        return None if self._token is None else self._token_refusal(scope, headers, self._token)

    def _same_origin(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        return origin in self._origins or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()

    def _token_refusal(self, scope: Scope, headers: Headers, token: bytes) -> Response | None:
        path = scope["path"]
        if path == "/" and b"token=" in scope["query_string"]:
            return _log_in(scope, token)
        if path in OPEN_PATHS or path.startswith("/static/") or scope["method"] == "OPTIONS":
            return None
        # Headers come as latin-1, which gives back the bytes that were sent.
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip().encode("latin-1"), token):
            return None
        session = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if _same(session.encode(errors="replace"), session_of(token)):
            return None
        detail = (
            "This server wants its token: send it as `Authorization: Bearer TOKEN`, or open /?token=TOKEN."
        )
        return problem(401, detail, {"WWW-Authenticate": "Bearer"})


def host_name(host: str) -> str:
    """The name in a `Host` header, without the port.

    >>> host_name("LocalHost:8765"), host_name("[::1]:80"), host_name("")
    ('localhost', '[::1]', '')
    """
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    return name.lower()


def session_of(token: bytes) -> bytes:
    """What the cookie holds: made from the token, which cannot be told from it."""
    return hmac.new(token, b"dciml session", hashlib.sha256).hexdigest().encode()


def _log_in(scope: Scope, token: bytes) -> Response:
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    given = dict(pairs).get("token", "")
    if not _same(given.encode(), token):
        return problem(401, "The token is wrong.", {"WWW-Authenticate": "Bearer"})
    rest = urlencode([(name, value) for name, value in pairs if name != "token"])
    response = RedirectResponse(f"/?{rest}" if rest else "/", 303)
    secure = scope.get("scheme") == "https"
    response.set_cookie(
        COOKIE, session_of(token).decode(), httponly=True, samesite="strict", secure=secure, path="/"
    )
    return response


def _same(given: bytes, wanted: bytes) -> bool:
    return hmac.compare_digest(given, wanted)
