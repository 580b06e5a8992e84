"""Who may ask, and for what: a layer around the whole application.

* A request must name this host: a page elsewhere that points its own name at this machine (DNS rebinding) does not.
* Where there is a token, a request must show it: in a cookie, or as ``Authorization: Bearer``. ``?token=`` sets the
  cookie once, and the address is then shown without it.
* What other sites' pages ask for is refused, reading and writing alike; only following a link to the page is allowed.
* What is sent is bounded in size.
* Every answer has a Content-Security-Policy under which nothing comes from elsewhere and no script stands in a page.
"""

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsi_pipeline.viewer.problems import RequestError, error_response

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions:
    """What the layer needs to know."""

    host: str = "127.0.0.1"
    """Address that the server listens on."""
    token: str | None = None
    """What a request must show; None for nothing."""
    max_body_bytes: int = 8 << 20
    """Bound on the body of a request."""
    csp: str = CSP
    """Content-Security-Policy of every answer."""

    @property
    def cookie(self) -> str:
        """Name of the cookie; of another token it is another, as cookies do not tell ports apart."""
        return f"wsi-pipeline-{sha256((self.token or '').encode()).hexdigest()[:8]}"


class TooLargeError(RequestError, HTTPException):  # type: ignore[misc]  # `headers` of the first is the narrower
    """A body that is too large. Of what goes wrong while it is read, FastAPI passes on only Starlette's own kind."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, "request", f"has more than {limit:,} bytes", "Send less.")
        self.status_code, self.detail = self.status, self.why


class SecurityMiddleware:
    """The layer, as ASGI."""

    def __init__(self, app: ASGIApp, options: SecurityOptions) -> None:
        self._app, self._options = app, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS | {"Content-Security-Policy": self._options.csp})
                # Without a word of its own, nothing is kept by a cache.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            answer = check(scope, self._options)
        except RequestError as problem:
            answer = error_response(problem.status, problem.where, problem.why, problem.hint, problem.headers)
        app: ASGIApp = answer or self._app
        await app(scope, _bounded(receive, self._options.max_body_bytes), send_safely)


def check(scope: Scope, options: SecurityOptions) -> Response | None:
    """Let a request pass, or answer it here.

    Raises:
        RequestError: where it is refused.
    """
    headers = Headers(scope=scope)
    host = _host(headers, options)
    _check_origin(scope, headers, host)
    _check_length(headers, options.max_body_bytes)
    return None if options.token is None else _check_token(scope, headers, options, options.token)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(headers: Headers, options: SecurityOptions) -> str:
    given = headers.getlist("host")
    try:
        # A port that is none is refused too.
        parts = urlsplit(f"//{given[0]}") if len(given) == 1 else None
        name = (parts.hostname or "") if parts else ""
        plain = parts is not None and parts.netloc == given[0] and "@" not in given[0]
        _ = parts.port if parts else None
    except ValueError:
        plain, name = False, ""
    if not plain or not _is_ours(name.rstrip("."), options.host):
        why = "the request names another host"
        raise RequestError(421, "Host", why, "Open the address that the program printed.")
    return given[0].lower()


def _is_ours(name: str, host: str) -> bool:
    if name in {"localhost", host.lower().strip("[]")}:
        return True
    if is_loopback(host):
        return is_loopback(name) and name != ""
    try:
        # An address in numbers cannot be pointed here by anybody's name server.
        ipaddress.ip_address(name)
    except ValueError:
        return name == socket.gethostname().lower()
    return True


def _check_origin(scope: Scope, headers: Headers, host: str) -> None:
    """Refuse what a page of another origin asks for. Programs send neither of the two headers."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    reading = scope["method"] in _READING
    link = reading and headers.get("sec-fetch-mode") == "navigate" and not scope["path"].startswith("/api")
    foreign = site not in {None, "same-origin", "none"} and not link
    if origin is not None and urlsplit(origin).netloc.lower() != host:
        foreign = True
    if foreign:
        raise RequestError(403, "Origin", "the request comes from a page of another site", "Use the viewer's own page.")


def _check_length(headers: Headers, limit: int) -> None:
    given = headers.get("content-length")
    if given is not None and (not given.isdecimal() or int(given[:20]) > limit):
        raise TooLargeError(limit)


def _check_token(scope: Scope, headers: Headers, options: SecurityOptions, token: str) -> Response | None:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    shown = [value for name, value in query if name == "token"]
    if shown and scope["method"] in _READING:
        if not _same(shown[0], token):
            raise _unknown()
        return _welcome(scope["path"], [pair for pair in query if pair[0] != "token"], options, token)
    kind, _, bearer = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and _same(bearer.strip(), token):
        return None
    if _same(_cookie(headers, options.cookie), token):
        return None
    raise _unknown()


def _welcome(path: str, query: list[tuple[str, str]], options: SecurityOptions, token: str) -> Response:
    """Set the cookie and go on to the same address without the token."""
    # Only the page itself: any other path could be made to look like another site's address.
    target = "/" if not path.startswith("/api/") else path
    answer = RedirectResponse(f"{target}?{urlencode(query)}" if query else target, 303)
    answer.set_cookie(options.cookie, token, httponly=True, samesite="strict", path="/")
    return answer


def _cookie(headers: Headers, name: str) -> str:
    # http.cookies drops all cookies where one of another program on this machine is odd.
    return cookie_parser(headers.get("cookie", "")).get(name, "")


def _same(given: str, token: str) -> bool:
    """In a time that tells nothing of the token."""
    return hmac.compare_digest(sha256(given.encode()).digest(), sha256(token.encode()).digest())


def _unknown() -> RequestError:
    hint = "Open the address that the program printed, with its token."
    return RequestError(401, "token", "is missing or wrong", hint, {"WWW-Authenticate": "Bearer"})


def _bounded(receive: Receive, limit: int) -> Receive:
    """The same, refused once more bytes have come than are allowed, whatever the request said before."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise TooLargeError(limit)
        return message

    return bounded
