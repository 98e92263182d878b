"""xAPI statements (IEEE 9274.1.1): who (actor) did what (verb) with what (object), when.

A statement becomes an event: ``event`` is the last part of the verb's id, the statement's own fields stay
as they are, and the actor is the sender. A mail address is not kept: the learner goes by its
``mbox_sha1sum``, the identifier that the standard has for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from lo_kernel.engine.events import Identity, Sender, safe_user_id
from lo_kernel.engine.formats.base import Format, Parsed, decode_object, encode, parse_time
from lo_kernel.engine.formats.objects import array_items
from lo_kernel.engine.formats.source import numbered_lines
from lo_kernel.errors import EventError

__all__ = ["Statements"]


class Statements(Format):
    """Reads statements: a JSON array of them, JSON lines, or a response with ``{"statements": [...]}``."""

    name: ClassVar[str] = "xapi"
    source: ClassVar[str | None] = "xapi"

    def records(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
        """See :class:`Format`."""
        iterator = iter(chunks)
        head = b""
        for chunk in iterator:
            head += chunk
            if head.strip():
                break
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        place = head.find(b"[") if b'"statements"' in head[:200] else -1
        if text[:1] == b"[":
            yield from array_items(_chain(head, iterator))
        elif place >= 0:
            yield from array_items(_chain(head[place:], iterator))
        else:
            yield from numbered_lines(_chain(head, iterator))

    def parse(self, record: Any) -> Parsed | None:
        """See :class:`Format`."""
        statement = dict(record) if type(record) is dict else decode_object(encode_if_needed(record))
        actor, verb = statement.pop("actor", None), statement.get("verb")
        identity = _identity(actor)
        if type(verb) is not dict or type(verb.get("id")) is not str:
            raise EventError(f"expected 'verb' with an 'id', got {verb!r}", reason="no_verb")
        stamp, stored = statement.get("timestamp"), statement.get("stored")
        time = parse_time(stamp)
        if time is None:
            time = parse_time(stored)
        body: dict[str, Any] = {"event": verb["id"].rstrip("/").rpartition("/")[2] or verb["id"]}
        statement.pop("authority", None)
        body.update((name, value) for name, value in statement.items() if name != "event")
        sender = self.sender(
            identity.safe_user_id,
            lambda: Sender(identity, self.default_source, {"executable": "replay"}, {}, {}, self.mark),
        )
        return self.at(time, stamp if stamp is not None else stored), sender, body, encode(body)


def encode_if_needed(record: Any) -> bytes:
    """The text of a record."""
    return record if isinstance(record, bytes) else encode(record)


def _identity(actor: Any) -> Identity:
    if type(actor) is not dict:
        raise EventError(f"expected an object under 'actor', got {actor!r}", reason="no_actor")
    account = actor.get("account")
    name: Any = actor.get("mbox_sha1sum") or actor.get("openid")
    if type(actor.get("mbox")) is str:
        name = hashlib.sha1(actor["mbox"].encode(), usedforsecurity=False).hexdigest()
    elif type(account) is dict and type(account.get("name")) is str:
        name = account["name"]
        if "@" in name:
            name = hashlib.sha1(f"mailto:{name}".encode(), usedforsecurity=False).hexdigest()
    if type(name) is not str or not name:
        raise EventError(
            "expected an actor with mbox, mbox_sha1sum, openid or account: whose statement is this?",
            reason="no_actor",
        )
    return Identity(name, safe_user_id("xapi", name), "xapi")


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest
