"""Events: who sent them, and the form in which a reducer gets them.

On the wire an event is one JSON object (the *body*). What the server knows besides (who sent it, as
authenticated, from where, which fields the connection locked) is the *sender*; it is the same for many
bodies, and kept apart from them. Both formats are those of the deployed Learning Observer.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import msgspec

from lo_kernel.errors import EventError

__all__ = ["ANY_CONTEXT", "Arrival", "Event", "Identity", "Sender", "guest", "identify", "safe_user_id"]

JSON = dict[str, Any]
Event = dict[str, Any]

ANY_CONTEXT = "org.mitros.writing_analytics"
"""Context of a reducer that names none (the deployed system's main source)."""

_encode = msgspec.json.Encoder().encode


def safe_user_id(providence: str, user_id: str) -> str:
    """A user id as it is used for storage: where it came from, then the id, URL-quoted.

    >>> safe_user_id("tc", "testcase-u0")
    'tc-testcase-u0'
    >>> safe_user_id("mch", "hi-a b/c")
    'mch-hi-a+b%2Fc'
    """
    return f"{providence}-{quote_plus(user_id, safe='@')}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent an event, as far as the server knows."""

    user_id: str
    safe_user_id: str
    providence: str
    sec: str = "unauthenticated"

    def auth(self) -> dict[str, str]:
        """The ``auth`` field that reducers see (``providence`` is spelled so on the wire)."""
        return {
            "sec": self.sec,
            "user_id": self.user_id,
            "safe_user_id": self.safe_user_id,
            "providence": self.providence,
        }


def _known(providence: str, user_id: str) -> Identity:
    return Identity(user_id, safe_user_id(providence, user_id), providence)


def _text(value: object, name: str) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise EventError(f"{name}: expected a text that says who this is, got {value!r}", reason="bad_identity")


def identify(event: Mapping[str, Any]) -> Identity | None:
    """The identity that an event carries, or ``None``; methods in the order of the deployed system.

    >>> identify({"event": "test_framework_fake_identity", "user_id": "u0"}).safe_user_id
    'tc-testcase-u0'
    >>> identify({"event": "x", "user_tag": "bob"}).safe_user_id
    'ls-ls-bob'
    >>> identify({"event": "keystroke"}) is None
    True

    Raises :class:`~lo_kernel.errors.EventError` where the field is there and isn't usable.
    """
    if "user_id" in event:
        return _known("tc", "testcase-" + _text(event["user_id"], "user_id"))
    if "user_tag" in event:
        return _known("ls", "ls-" + _text(event["user_tag"], "user_tag"))
    chrome = event.get("chrome_identity")
    if isinstance(chrome, dict) and chrome.get("id") not in (None, ""):
        number = _text(chrome["id"], "chrome_identity.id")
        if not number.isdecimal():
            raise EventError(
                f"chrome_identity.id: expected a number in decimal digits, got {number!r}",
                reason="bad_identity",
            )
        google = f"gc-{int(number)}"
        return Identity(google, google, "gcu")
    if "hash" in event:
        return _known("mch", "hi-" + _text(event["hash"], "hash"))
    return None


def guest() -> Identity:
    """Somebody whom nothing is known of, under a new random id.

    >>> guest().safe_user_id.startswith("guest-")
    True
    """
    user_id = secrets.token_hex(16)
    return Identity(user_id, safe_user_id("guest", user_id), "guest", "none")


@dataclass(slots=True)
class Sender:
    """All that is the same for the events of one connection (or of one replayed file and learner).

    ``at`` is where they came from (origin, agent, ip); ``lock`` the fields that hold for every event;
    ``meta`` the identifying event; ``mark`` what tells a source apart (an acknowledged stream, a file).
    """

    identity: Identity
    source: str | None = None
    at: JSON = field(default_factory=dict)
    lock: JSON = field(default_factory=dict)
    meta: JSON = field(default_factory=dict)
    mark: JSON = field(default_factory=dict)
    _auth: dict[str, str] = field(init=False, repr=False)
    _metadata: JSON = field(init=False, repr=False)
    by: msgspec.Raw = field(init=False, repr=False, compare=False)
    """The sender as JSON text, as it stands in a line of the archive."""
    student: str = field(init=False)
    fresh: int = field(init=False, default=0, repr=False, compare=False)
    """Events since the learners were last counted."""
    last: float = field(init=False, default=0.0, repr=False, compare=False)
    """Time of the newest of them."""
    _server: JSON = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.student = self.identity.safe_user_id
        self._auth = self.identity.auth()
        self._server = {"time": 0.0, **self.at}
        self._metadata = {**self.meta, **self.lock, "auth": self._auth}
        if self.source is not None:
            self._metadata.setdefault("source", self.source)
        encoded = _encode(
            {
                "auth": self._auth,
                "source": self.source,
                "at": self.at,
                "lock": self.lock,
                "meta": self.meta,
                "mark": self.mark,
            }
        )
        self.by = msgspec.Raw(encoded)

    @property
    def encoded(self) -> bytes:
        """The sender as JSON text."""
        return bytes(self.by)

    @classmethod
    def decode(cls, encoded: bytes | msgspec.Raw) -> Sender:
        """The sender that :attr:`encoded` was made from."""
        data = msgspec.json.decode(encoded)
        auth = data["auth"]
        identity = Identity(auth["user_id"], auth["safe_user_id"], auth["providence"], auth["sec"])
        return cls(identity, data["source"], data["at"], data["lock"], data["meta"], data["mark"])

    def context(self, client: JSON) -> str | None:
        """Under which context an event is reduced: its locked source, else its own, else the sender's."""
        source = self.lock["source"] if "source" in self.lock else client.get("source", self.source)
        return source if isinstance(source, str) else None

    def event(self, body: JSON, time: float) -> Event:
        """The event as a reducer gets it. ``body`` is taken over, ``time`` is seconds since 1970 (UTC).

        Locked fields win over the body's own; an ``auth`` that a client sent is dropped.

        >>> sender = Sender(identify({"user_id": "u0"}), "my.source", lock={"doc_id": "d"})
        >>> event = sender.event({"event": "keystroke", "auth": "root"}, 1.5)
        >>> event["client"]["doc_id"], event["client"]["auth"]["safe_user_id"], event["server"]["time"]
        ('d', 'tc-testcase-u0', 1.5)
        """
        if self.lock:
            body.update(self.lock)
        if self.source is not None and "source" not in body:
            body["source"] = self.source
        body["auth"] = self._auth
        server = self._server.copy()
        server["time"] = time
        return {"client": body, "server": server, "metadata": self._metadata}

    def events(self, bodies: Sequence[JSON], time: float) -> list[Event]:
        """:meth:`event` of several bodies."""
        if self.lock or False in ["source" in body for body in bodies]:
            return [self.event(body, time) for body in bodies]
        auth, metadata = self._auth, self._metadata
        server = self._server.copy()
        server["time"] = time
        for body in bodies:
            body["auth"] = auth
        return [{"client": body, "server": server.copy(), "metadata": metadata} for body in bodies]


Arrival = tuple[Sender, JSON, bytes | msgspec.Raw, float, int | None]
"""An event on its way in: its sender, its body, the text of that, its time (seconds since 1970, UTC), and
its number in the stream or the file that the sender's mark names, counted from 1.
"""
