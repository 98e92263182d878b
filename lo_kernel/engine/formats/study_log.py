"""Study logs: the files that the deployed Learning Observer writes, ``*.study.log[.gz]``.

A line is the event as a reducer gets it, as JSON with sorted keys, then a tab and a UTC ISO time; readers
split at the last tab.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec

from lo_kernel.engine.events import Arrival, Event, Sender
from lo_kernel.engine.formats.base import (
    LATEST,
    Format,
    Parsed,
    decode_object,
    encode,
    parse_time,
    with_identity,
)
from lo_kernel.engine.formats.source import LONGEST
from lo_kernel.errors import EventError

__all__ = ["StudyLog", "study_line"]


class _Line(msgspec.Struct, gc=False):
    client: msgspec.Raw
    server: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


class _Server(msgspec.Struct, gc=False):
    time: float | None = None


_decode: Any = msgspec.json.Decoder().decode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_time = msgspec.json.Decoder(float).decode
_decode_server = msgspec.json.Decoder(_Server).decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_TIME: Final = re.compile(rb'"time"\s*:\s*[-+.eE\d]+')
_AUTH: Final = re.compile(rb'"auth"\s*:\s*(\{[^{}]*\})')
_HEAD: Final = re.compile(rb'\{"client":\{"auth":\{[^{}]*\},')
_COMMA: Final = ord(",")
_MOST: Final = 20_000  # senders' texts that are remembered
_TAILS: Final = 8  # of one sender, who comes from several places, say
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Kind:
    """What the events of one sender have in common in a file: all their text but the body and the time.

    ``tail`` is what stands between the two.
    """

    __slots__ = ("sender", "tail")

    def __init__(self, sender: Sender, tail: bytes) -> None:
        self.sender = sender
        self.tail = tail


class StudyLog(Format):
    """Reads study logs."""

    name: ClassVar[str] = "study_log"
    takes: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._kinds: dict[bytes, tuple[_Kind, ...]] = {}  # by how lines begin, up to the end of `auth`

    def parse(self, record: bytes) -> Parsed | None:
        """See :class:`Format`."""
        found: list[Arrival] = []
        self.take((record + b"\n",), 0, 1, 1, found)
        if found:
            sender, body, raw, time, _ = found[0]
            return time, sender, body, bytes(raw)
        text, tab, stamp = record.rpartition(b"\t")
        if not tab:
            text = record
        parsed = self.whole(text, stamp)
        self._learn(text, parsed)
        return parsed

    def take(self, lines: Sequence[bytes], at: int, number: int, most: int, into: list[Arrival]) -> int:
        """See :class:`Format`.

        Written with sorted keys, a line begins with the body's ``auth``, and ends with the metadata, the
        server's part, and in it the time. Where all that is as in a line that was taken apart before, what
        is left is the body, and it alone is decoded.

        Lines are cut by methods that take one argument: ``find`` and its like take as long to look at
        theirs as to find.
        """
        kinds, time, put = self._kinds, self.time, into.append
        try:
            for line in lines[at : at + most - len(into)]:
                begins, _, rest = line.partition(b"}")
                rest, _, ends = rest.rpartition(b'"time":')
                for kind in kinds[begins]:
                    raw = rest.removesuffix(kind.tail)
                    if raw is not rest:
                        break
                else:
                    break
                if raw[0] != _COMMA:
                    break
                raw = b"{" + raw[1:]
                body = _decode(raw)
                moment, _, stamp = ends.partition(b"}}\t")
                its = _decode_time(moment)
                if "auth" in body or not 0.0 <= its < LATEST or not stamp or b"\t" in stamp:
                    break
                time = its
                put((kind.sender, body, raw, time, number))
                number += 1
                at += 1
        except (LookupError, ValueError, RecursionError):  # one is new here, or can't be read
            pass
        self.time = time
        return at

    def _learn(self, text: bytes, parsed: Parsed) -> None:
        """Remember what this line has in common with others, if it is written as lines usually are."""
        time, sender, _, raw = parsed
        head = _HEAD.match(text)
        at, time_at = text.rfind(b',"metadata":'), text.rfind(b'"time":') + 7
        server_at = text.rfind(b',"server":{')
        if head is None or not 0 < at < server_at < time_at or b"}" in text[server_at:time_at]:
            return  # the time may be another's
        try:
            plain = text[:at] == head[0] + raw[1:] and float(text[time_at:-2]) == time
        except ValueError:
            return
        if plain and text.endswith(b"}}"):
            if len(self._kinds) >= _MOST:
                self._kinds.clear()
            begins = head[0].removesuffix(b"},")
            others = self._kinds.get(begins, ())[: _TAILS - 1]
            self._kinds[begins] = (_Kind(sender, text[at:time_at].removesuffix(b'"time":')), *others)

    def whole(self, text: bytes, stamp: bytes = b"") -> Parsed:
        """An event as a reducer gets it, as one JSON text."""
        try:
            line = _decode_line(text)
            body = _decode(line.client)
            server = bytes(line.server)
            time = _decode_server(server).time
        except _UNREADABLE as error:
            decode_object(text)
            raise EventError(
                f"expected an object with 'client', 'server' and 'metadata': {error}", reason="not_an_event"
            ) from None
        if type(body) is not dict:
            raise EventError("expected an object under 'client'", reason="not_an_event")
        auth = body.pop("auth", None)
        raw, written = _without_auth(bytes(line.client), body, auth)
        metadata = bytes(line.metadata)
        key = (written, metadata, server if time is None else _without_time(server))
        sender = self._senders.get(key)
        if sender is None:
            sender = self.sender(key, lambda: self._make(auth, metadata, server))
        if time is None:
            said = stamp.decode(errors="replace").rstrip("\r")
            return self.at(parse_time(said), said), sender, body, raw
        return self.at(time), sender, body, raw

    def _make(self, auth: Any, metadata: bytes, server: bytes) -> Sender:
        try:
            meta, at = _decode(metadata), _decode(server)
        except _UNREADABLE as error:
            raise EventError(f"expected JSON under 'metadata': {error}", reason="not_json") from None
        meta = meta if type(meta) is dict else {}
        at = at if type(at) is dict else {}
        at.pop("time", None)
        identity = with_identity(auth) or with_identity(meta.pop("auth", None))
        if identity is None:
            raise EventError(
                "expected 'auth' with 'safe_user_id' under 'client' or 'metadata': whose event is this?",
                reason="no_identity",
            )
        meta.pop("auth", None)
        source = meta.get("source", self.default_source)
        return Sender(identity, source if type(source) is str else None, at, {}, meta, self.mark)

    def event(self, record: bytes) -> tuple[str, Event] | None:
        """See :class:`Format`; without a detour over sender and body."""
        if len(record) > LONGEST:
            raise EventError(f"expected a record of at most {LONGEST:,} bytes", reason="too_large")
        text, tab, _ = record.rpartition(b"\t")
        try:
            event: Event = _decode(text if tab else record)
            return event["client"]["auth"]["safe_user_id"], event
        except Exception:
            return super().event(record)


def _without_time(server: bytes) -> bytes:
    """What says where a server took an event, for all events of a sender; ``time`` deeper in it stays."""
    if server.count(b'"time"') == 1:
        return _TIME.sub(b"", server)
    at = _decode(server)
    del at["time"]
    return encode(at)


def _without_auth(raw: bytes, body: dict[str, Any], auth: Any) -> tuple[bytes, bytes]:
    """The text of a body without its ``auth``, and the text of that; the rest stays as it was written."""
    if auth is None:
        return raw if b"\n" not in raw else encode(body), b""
    start = raw.find(b'"auth"')
    match = _AUTH.match(raw, start)
    if match is None or raw.find(b'"auth"', start + 6) >= 0 or b"\n" in raw or b"}" in match[1][1:-1]:
        return encode(body), _encode_sorted(auth)
    try:
        if _decode(match[1]) != auth:
            return encode(body), _encode_sorted(auth)
    except _UNREADABLE:  # a brace inside a text ended the match too early
        return encode(body), _encode_sorted(auth)
    before, after = raw[:start].rstrip(), raw[match.end() :].lstrip()
    if before.endswith(b","):
        return before[:-1] + after, match[1]
    return before + after.removeprefix(b",").lstrip(), match[1]


def study_line(event: Event) -> bytes:
    r"""The line of an event in a study log.

    >>> study_line({"server": {"time": 0.5}, "client": {"event": "x"}, "metadata": {}})
    b'{"client":{"event":"x"},"metadata":{},"server":{"time":0.5}}\t1970-01-01T00:00:00.500000\n'
    """
    time = datetime.fromtimestamp(event["server"]["time"], UTC).replace(tzinfo=None)
    return _encode_sorted(event) + b"\t" + time.isoformat().encode() + b"\n"
