"""JSON lines of events: as clients send them, as reducers get them, or as the archive holds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import msgspec

from lo_kernel.engine.archive.lines import decode_line
from lo_kernel.engine.events import Identity, Sender, identify
from lo_kernel.engine.formats.base import Format, Parsed, decode_object, encode, parse_time, with_identity
from lo_kernel.engine.formats.objects import array_items
from lo_kernel.engine.formats.source import numbered_lines
from lo_kernel.engine.formats.study_log import StudyLog
from lo_kernel.engine.formats.xapi import Statements
from lo_kernel.engine.halves import mended
from lo_kernel.errors import EventError

__all__ = ["ArchiveLines", "JsonLines"]

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode: Any = msgspec.json.Decoder().decode


class ArchiveLines(Format):
    """Reads this archive's own lines, of another workspace: ``{"n":...,"t":...,"by":...,"body":...}``."""

    name: ClassVar[str] = "archive"

    def parse(self, record: bytes) -> Parsed | None:
        """See :class:`Format`; erased events are none."""
        try:
            line = decode_line(record)
            if line.gone is not None:
                return None
            body, by = _decode(line.body), bytes(line.by)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            decode_object(record)
            raise EventError(f"expected a line of an archive: {error}", reason="not_an_event") from None
        if type(body) is not dict:
            raise EventError("expected an object under 'body'", reason="not_an_event")
        sender = self._senders.get(by)
        if sender is None:
            sender = self.sender(by, lambda: self._make(by))
        return self.at(line.t), sender, body, bytes(line.body)

    def _make(self, by: bytes) -> Sender:
        try:
            found = Sender.decode(by)
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise EventError(f"expected the sender under 'by': {error!r}", reason="no_identity") from None
        return Sender(found.identity, found.source, found.at, found.lock, found.meta, self.mark)


class JsonLines(Format):
    """Reads JSON lines, or a JSON array, of events of any kind.

    Of events as clients send them, each line that says who it is (as on the wire, or with ``auth``) says
    it for those that follow, and ``lock_fields`` holds for them too.
    """

    name: ClassVar[str] = "jsonl"
    stateful: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._whole = StudyLog(**options)
        self._lines = ArchiveLines(**options)
        self._statements = Statements(**options)
        self._identity: Identity | None = None
        self._lock: dict[str, Any] = {}

    def records(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
        """See :class:`Format`; an array in a line is as many records."""
        first, chunks = _first_of(chunks)
        if first == b"[":
            yield from array_items(chunks)
            return
        for number, line in numbered_lines(chunks):
            if line[:1] != b"[":
                yield number, line
                continue
            try:
                try:
                    items = _decode_array(line)
                except msgspec.MsgspecError:
                    items = _decode_array(mended(line) or line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                yield number, line
                continue
            for item in items:
                yield number, bytes(item)

    def parse(self, record: Any) -> Parsed | None:
        """See :class:`Format`."""
        if type(record) is not dict and type(record) is not bytes:
            raise EventError(f"expected a JSON object, got {type(record).__name__}", reason="not_an_object")
        body: dict[str, Any] = record if isinstance(record, dict) else decode_object(record)
        text = encode(record) if isinstance(record, dict) else record
        if type(body.get("client")) is dict:
            return self._whole.whole(text)
        if "by" in body and "body" in body and "n" in body:
            return self._lines.parse(text)
        if "actor" in body and "verb" in body:
            return self._statements.parse(body)
        return self._client_event(body, text)

    def _client_event(self, body: dict[str, Any], text: bytes) -> Parsed | None:
        name = body.get("event")
        if type(name) is not str or not name:
            raise EventError(
                f"expected a field 'event' that says what happened, a text, got {name!r}", reason="no_event"
            )
        auth = body.pop("auth", None)
        who = with_identity(auth) or identify(body)
        if name == "lock_fields" and type(body.get("fields")) is dict:
            fields = dict(body["fields"])
            who = who or identify(fields)
            fields.pop("auth", None)
            self._lock = {**self._lock, **fields}
            self._identity = who or self._identity
            return None
        self._identity = who or self._identity
        if self._identity is None:
            self._identity = self._somebody()
        identity, lock = self._identity, self._lock
        key = (identity.safe_user_id, id(lock))
        sender = self.sender(
            key, lambda: Sender(identity, self.default_source, {"executable": "replay"}, lock, {}, self.mark)
        )
        time = self.at(*_time_of(body))
        if auth is not None or b"\n" in text:
            text = encode(body)
        return time, sender, body, text

    def _somebody(self) -> Identity:
        """Who sent what nobody says: one guest per file, the same each time."""
        name = str(self.mark.get("file", "unknown"))[:16]
        return Identity(name, f"guest-{name}", "guest", "none")


def _first_of(chunks: Iterable[bytes]) -> tuple[bytes, Iterable[bytes]]:
    """The first byte of a file that is no blank, and the whole of it."""
    iterator, seen = iter(chunks), []
    for chunk in iterator:
        seen.append(chunk)
        if text := b"".join(seen).removeprefix(b"\xef\xbb\xbf").lstrip():
            # an array over several lines; one that ends in its line is a batch of events
            whole = text[:1] == b"[" and not _ends_in_line(text)
            return (b"[" if whole else text[:1]), _chain(seen, iterator)
    return b"", seen


def _ends_in_line(text: bytes) -> bool:
    line = text.partition(b"\n")[0].rstrip()
    return line.endswith(b"]") and len(line) < len(text.rstrip())


def _chain(seen: list[bytes], rest: Iterator[bytes]) -> Iterator[bytes]:
    yield from seen
    yield from rest


def _time_of(body: dict[str, Any]) -> tuple[float | None, Any]:
    """The time of an event as a client sent it, and what is said of it that can't be read.

    ``time`` and ``ts`` are other things in many bodies: what can't be read there says nothing of a time.
    """
    metadata = body.get("metadata")
    inner = metadata if type(metadata) is dict else {}
    for value in (
        body.get("timestamp"),
        inner.get("ts"),
        inner.get("iso_ts"),
        body.get("time"),
        body.get("ts"),
    ):
        if value is not None and (time := parse_time(value)) is not None:
            return time, None
    said = (body.get("timestamp"), inner.get("ts"), inner.get("iso_ts"))
    return None, next((value for value in said if value is not None), None)
