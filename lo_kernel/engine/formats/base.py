"""What a file format does: cut a file into records, and make events of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec

from lo_kernel.engine.events import Arrival, Event, Identity, Sender
from lo_kernel.engine.formats.source import LONGEST, numbered_lines
from lo_kernel.engine.halves import mended
from lo_kernel.errors import EventError

__all__ = [
    "LATEST",
    "Format",
    "Parsed",
    "decode_object",
    "encode",
    "parse_time",
    "whole_of",
    "with_identity",
]

encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
LATEST: Final = 1e11
"""Times from here on, in seconds since 1970, are none."""

_MOST: Final = 5000  # senders that a format remembers

_WRITTEN: Final = re.compile(
    r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})"  # the year first: then it is clear what is a month
    r"(?:(?:T|\s+)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?\s*([AaPp][Mm])?\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?"
)
_DIGITS: Final = re.compile(r"((?:19|20)\d{2})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2}))?")


Parsed = tuple[float, Sender, dict[str, Any], bytes]
"""An event of a file: its time (seconds since 1970, UTC), its sender, its body, and the body's text."""


class Format:
    """A file format.

    ``mark`` goes into each sender, ``source`` is the context of events that name none, ``time`` that of
    events that have none before the first that has one.
    """

    name: ClassVar[str]
    source: ClassVar[str | None] = None
    takes: ClassVar[bool] = False
    """Whether it has a :meth:`take` of its own."""
    stateful: ClassVar[bool] = False
    """Whether a record's meaning depends on those before it, so that none may be left unread."""

    def __init__(
        self, *, mark: dict[str, Any] | None = None, source: str | None = None, time: float = 0.0
    ) -> None:
        self.mark = mark or {}
        self.default_source = source if source is not None else self.source
        self.time = time
        self.untimed = 0
        """Records that had no time, up to now."""
        self._senders: dict[Any, Sender] = {}

    def records(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
        """The records of a file, each with its line, counted from 1; bad ones too."""
        return numbered_lines(chunks)

    def parse(self, record: Any) -> Parsed | None:
        """The event of a record; ``None`` where it is none by its meaning.

        Raises :class:`EventError` where it is bad.
        """
        raise NotImplementedError

    def take(self, lines: Sequence[bytes], at: int, number: int, most: int, into: list[Arrival]) -> int:
        """Put the events of lines from ``at`` on into a list, as far as they are like earlier ones.

        ``number`` is the first one's; gives where it ended: behind the last, at a line that :meth:`parse` has
        to look at, or where the list is ``most`` long. A format may leave all to that; where it doesn't, its
        records are lines.
        """
        return at

    def event(self, record: Any) -> tuple[str, Event] | None:
        """The learner and the event as a reducer gets it."""
        try:
            parsed = self.parse(record)
        except EventError as error:
            parsed = self.parse(whole_of(record, error))
        if parsed is None:
            return None
        time, sender, body, _ = parsed
        return sender.student, sender.event(body, time)

    def at(self, time: float | None, said: Any = None) -> float:
        """A record's time; where it has none, that of the one before.

        ``said`` is what the record has in its place. Raises :class:`EventError` where that says no time:
        one that was made up would be there for good, and not be told from the others.
        """
        if time is not None and 0.0 <= time < LATEST:
            self.time = time
            return time
        if said is None:
            said = time
        if said is not None and said != "":
            raise EventError(
                f"expected a time such as '2024-03-01 11:00:00' or seconds since 1970, got {said!r}",
                reason="time_unreadable",
            )
        self.untimed += 1
        return self.time

    def sender(self, key: Any, make: Callable[[], Sender]) -> Sender:
        """The sender of a key, made once."""
        found = self._senders.get(key)
        if found is None:
            if len(self._senders) >= _MOST:
                self._senders.clear()
            found = self._senders[key] = make()
        return found


def whole_of(record: Any, error: EventError) -> bytes:
    """A record that could not be read, without its half characters; raises ``error`` where it has none."""
    whole = mended(record) if type(record) is bytes else None
    if whole is None:
        raise error
    return whole


def decode_object(record: bytes) -> dict[str, Any]:
    """The JSON object of a record; :class:`EventError` says why it is none."""
    if len(record) > LONGEST:
        raise EventError(f"expected a record of at most {LONGEST:,} bytes", reason="too_large")
    try:
        found = _decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"expected JSON: {error}", reason="not_json") from None
    if type(found) is not dict:
        raise EventError(f"expected a JSON object, got {type(found).__name__}", reason="not_an_object")
    return found


def parse_time(value: Any) -> float | None:
    """A time as people write it, in seconds since 1970 (UTC); ``None`` where it is none, or not a clear one.

    A number is in seconds, milliseconds or microseconds, whichever gives a year between 1973 and 5138. A
    text is such a number, ISO 8601, or a date with the year first, with or without a time of day; without
    a zone it is UTC. Where day or month come first nobody can say which is which, so that is none.

    >>> parse_time(1700000000000), parse_time("2023-11-14T22:13:20Z"), parse_time("1700000000.5")
    (1700000000.0, 1700000000.0, 1700000000.5)
    >>> parse_time("2023/11/14 22:13:20"), parse_time("2023-11-14 10:13:20 PM UTC"), parse_time("20231114")
    (1700000000.0, 1700000000.0, 1699920000.0)
    >>> parse_time("yesterday") is None, parse_time("01/03/2024 11:00") is None
    (True, True)
    """
    if isinstance(value, str):
        value = value.strip()
        dated = value[4:5] in ("-", "/") or (len(value) in (8, 14) and value.isdigit())
        number = None if dated else _number(value)
        if number is None and (moment := _written(value)) is not None:
            return moment
        value = _number(value) if dated else number
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e17:
        return None
    return float(value) / (1e6 if value >= 1e14 else 1e3 if value >= 1e11 else 1.0)


def _number(text: str) -> float | None:
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _written(text: str) -> float | None:
    """The time of a text that is a date, maybe with a time of day."""
    if text[4:5] == "-":  # as nearly all are
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    try:
        if digits := _DIGITS.fullmatch(text):  # as seconds these were days of 1970, as milliseconds far away
            moment = datetime(*(int(part) for part in digits.groups() if part), tzinfo=UTC)  # type: ignore[misc,arg-type]
        elif parts := _WRITTEN.fullmatch(text):
            year, _, month, day, hour, minute, second, part, half, zone = parts.groups()
            if half is not None:
                if not 1 <= int(hour) <= 12:
                    return None
                hour = str(int(hour) % 12 + 12 * (half in ("PM", "pm", "Pm", "pM")))
            clear = (
                f"{year}-{int(month):02}-{int(day):02}T{int(hour or 0):02}:{minute or '00'}:{second or '00'}"
            )
            clear += f".{part[:6]}" if part else ""
            clear += "+00:00" if zone in (None, "Z", "UTC", "GMT") else zone
            moment = datetime.fromisoformat(clear)
        elif any(mark in text for mark in "-:TW"):  # digits alone may look like a date and be a number
            moment = datetime.fromisoformat(text)
        else:
            return None
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def with_identity(auth: Any) -> Identity | None:
    """The identity of an ``auth`` field, as the server wrote it; ``None`` where it isn't one."""
    if not isinstance(auth, dict) or not isinstance(auth.get("safe_user_id"), str):
        return None
    safe = auth["safe_user_id"]
    return Identity(
        str(auth.get("user_id", safe)),
        safe,
        str(auth.get("providence", safe.partition("-")[0])),
        str(auth.get("sec", "unauthenticated")),
    )
