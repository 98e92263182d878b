"""Who may ask for what: one middleware in front of every route and method, websockets included.

First the Host: only this machine's own names, and those that a setting allows, so that a page elsewhere
can't reach the app under a name of its own. Then the token, from the query (``?token=``), the header
(``Authorization: Bearer ...``), the websocket subprotocol (``lo-token.<token>``) or the cookie, whose
name carries the port since browsers share cookies between ports. Where a cookie is the authority, the
Origin must be the app's own; a request that brings its own token may come from anywhere.

A route says which kind of token it takes; one that says nothing takes only the notebook's.
"""

from __future__ import annotations

import heapq
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from lo_kernel.query.naming import NOTEBOOK, Naming
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from lo_kernel.workspace import Workspace

__all__ = ["ACCESS", "EMBED", "Access", "Security", "naming_of", "offered_protocols", "takes"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

EMBED: Final = "embed"
"""The kind of a ticket for a page inside a notebook: good for what ``read`` is, names as in a notebook."""

SUBPROTOCOL = "lo-token."
_TICKET_SECONDS = 12 * 3600
_LOCAL = ("localhost", "127.0.0.1", "::1")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-site",
}


@dataclass(frozen=True, slots=True)
class Access:
    """How a request was let in: the kind of its token, and whether a cookie brought it."""

    kind: str
    by_cookie: bool = False

    @property
    def everything(self) -> bool:
        """Whether it may do all that the notebook may."""
        return self.kind == "notebook"

    @property
    def naming(self) -> Naming:
        """Which names it may see: a teacher's browser the roster's; not so a notebook, and what it shows."""
        if self.kind == EMBED or (self.everything and not self.by_cookie):
            return NOTEBOOK
        return True


ACCESS: Final = web.RequestKey("lo_access", Access) if hasattr(web, "RequestKey") else "lo_access"
_TAKES = "__lo_takes__"
_NEEDS = "__lo_needs__"
_A_TOKEN = (
    "a token is needed: as ?token=..., as 'Authorization: Bearer ...', or as the websocket subprotocol "
    f"'{SUBPROTOCOL}...'. In a notebook, the link on the card of lo carries one"
)


def takes(*kinds: str, needs: str = _A_TOKEN) -> Callable[[Handler], Handler]:
    """Say which kinds of token a handler takes, besides the notebook's; ``"anyone"`` asks for none.

    ``needs`` is what somebody hears who came without one: what is needed, and where it is found.
    """

    def mark(handler: Handler) -> Handler:
        setattr(handler, _TAKES, frozenset((*kinds, EMBED) if "read" in kinds else kinds))
        setattr(handler, _NEEDS, needs)
        return handler

    return mark


class Security:
    """The tokens of a workspace, and the middleware that asks for them."""

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        self.settings = settings
        self.workspace = workspace
        self.tokens: dict[str, str] = {}
        self.host, self.port = settings.host, settings.port
        self.found_hosts: set[str] = set()  # names by which a proxy in front of the app was found
        self._tickets: dict[str, tuple[str, float]] = {}  # ticket: (kind, when it ends)
        self._ends: list[tuple[float, str]] = []  # a heap: when a ticket ends, and which

    def bind(self, host: str, port: int) -> None:
        """Say where the app answers."""
        self.host, self.port = host, port

    # -- tokens --------------------------------------------------------------------------------

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"lo_kernel_{self.port}"

    def ticket(self, kind: str = "read", seconds: float = _TICKET_SECONDS) -> str:
        """A new token that ends by itself, for links that are shown in notebooks."""
        now = time.monotonic()
        while self._ends and self._ends[0][0] <= now:
            self._tickets.pop(heapq.heappop(self._ends)[1], None)
        name = "t-" + secrets.token_urlsafe(18)
        self._tickets[name] = (kind, now + seconds)
        heapq.heappush(self._ends, (now + seconds, name))
        return name

    def kind_of(self, token: str) -> str | None:
        """The kind of a token; ``None`` where it is nobody's."""
        given = token.encode(errors="surrogatepass")  # a header may hold bytes that are no text
        found = None
        for kind, known in self.tokens.items():
            if known and hmac.compare_digest(known.encode(), given):
                found = kind
        held = self._tickets.get(token)
        if found is None and held is not None and held[1] > time.monotonic():
            found = held[0]
        return found

    def _access(self, request: web.Request) -> Access | None:
        for token in _tokens_of(request):
            kind = self.kind_of(token)
            if kind is not None:
                return Access(kind)
        cookie = request.cookies.get(self.cookie)
        if cookie and (kind := self.kind_of(cookie)) is not None:
            return Access(kind, by_cookie=True)
        return None

    # -- hosts and origins ---------------------------------------------------------------------

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which the app may be asked."""
        named = (name.strip().lower() for name in self.settings.allowed_hosts.split(","))
        public = urlsplit(self.settings.public_url).hostname or ""
        own = () if self.host in ("0.0.0.0", "::") else (self.host,)
        return frozenset({*_LOCAL, *own, *named, *self.found_hosts, public} - {""})

    def _host_is_ours(self, request: web.Request) -> bool:
        return _host_name(request.headers.get("Host", "")) in self.hosts

    def _origin_is_ours(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        if origin is None:  # a browser sends one with each request that could do harm
            return request.method in ("GET", "HEAD") and not _is_websocket(request)
        return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()

    # -- the middleware ------------------------------------------------------------------------

    def middleware(self) -> Middleware:
        """What aiohttp is given."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            try:
                response = await handler(request)
            except web.HTTPException as raised:
                _add_headers(raised)
                raise
            _add_headers(response)
            self._remember(request, response)
            return response

        return guard

    def _refusal(self, request: web.Request) -> web.Response | None:
        if not self._host_is_ours(request):
            return _refuse(
                403,
                f"this app answers to {', '.join(sorted(self.hosts))}; the request asked for "
                f"{_host_name(request.headers.get('Host', ''))[:100]!r}. "
                "Set LO_KERNEL_ALLOWED_HOSTS to allow it",
            )
        handler = request.match_info.handler
        wanted: frozenset[str] = getattr(handler, _TAKES, frozenset())
        needs: str = getattr(handler, _NEEDS, _A_TOKEN)
        access = self._access(request)
        if access is None:
            if "anyone" in wanted:
                return None
            came = any(_tokens_of(request)) or self.cookie in request.cookies
            return _refuse(401, needs + (". The one that came is unknown here, or has ended" if came else ""))
        if access.by_cookie and not self._origin_is_ours(request):
            return _refuse(403, "a cookie counts only for requests of the app's own pages")
        if not access.everything and access.kind not in wanted and "anyone" not in wanted:
            other = "" if needs is _A_TOKEN else f": {needs}"
            return _refuse(403, f"a token of the kind {access.kind!r} is not good for this{other}")
        request[ACCESS] = access
        return None

    def _remember(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give a browser that came with a token in the address a cookie, for the links it follows."""
        token = request.query.get("token")
        if token is None or response.prepared or request.method != "GET" or ACCESS not in request:
            return
        access = request[ACCESS]
        if access.by_cookie or access.kind in ("ingest", EMBED):  # a frame's own would become the browser's
            return
        response.set_cookie(self.cookie, token, httponly=True, samesite="Strict", path="/")


def _tokens_of(request: web.Request) -> Iterable[str]:
    query = request.query.get("token")
    if query:
        yield query
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and value:
        yield value.strip()
    for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        name = protocol.strip()
        if name.startswith(SUBPROTOCOL):
            yield name[len(SUBPROTOCOL) :]


def naming_of(request: web.Request) -> Naming:
    """Which names of learners the answer to a request may hold."""
    return request[ACCESS].naming if ACCESS in request else False


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _refuse(status: int, message: str) -> web.Response:
    response = web.json_response({"error": message}, status=status)
    _add_headers(response)
    return response


def _add_headers(response: web.StreamResponse) -> None:
    if not response.prepared:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)


def offered_protocols(request: web.Request) -> tuple[str, ...]:
    """The subprotocols to accept for a websocket: the one that carried the token, where one did."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    return tuple(name.strip() for name in offered if name.strip().startswith(SUBPROTOCOL))
