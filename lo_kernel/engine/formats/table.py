"""Tables: CSV and TSV with a header, one row an event."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, Final

from lo_kernel.engine.events import Identity, Sender, safe_user_id
from lo_kernel.engine.formats.base import Format, Parsed, encode, parse_time
from lo_kernel.engine.formats.source import LONGEST
from lo_kernel.errors import EventError

__all__ = ["Csv", "Tsv"]

LEARNER: Final = (
    "learner",
    "student",
    "student_id",
    "user_id",
    "user",
    "userid",
    "anon student id",
    "actor",
    "uid",
)
TIME: Final = ("timestamp", "time", "server_time", "datetime", "date", "event_time")
EVENT: Final = ("event", "event_type", "event_name", "action", "verb", "type")

_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")


class Csv(Format):
    """Reads CSV. The columns of learner, time and event are found by their names; the rest is the body."""

    name: ClassVar[str] = "csv"
    source: ClassVar[str | None] = "table"

    def records(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
        """See :class:`Format`: rows as dictionaries, under the names that an event has."""
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST))  # else the lines of a long text are rows
        taken: list[str] = []  # the lines of the row at hand
        wrong: list[str] = []
        lines = _text_lines(chunks, taken, wrong)
        begin: list[str] = []
        for first in lines:
            begin.append(first)
            if first.strip("\ufeff \r\n"):
                break
        delimiter = self.delimiter_of(begin[-1] if begin else "")
        reader = csv.reader(chain(begin, lines), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            row: list[str] = []
            bad: csv.Error | None = None
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                bad = error
            if header is None:
                for _, found in _rows(line, row, bad, taken, None, delimiter):
                    if isinstance(found, EventError):
                        yield line, found
                    elif any(name.strip("\ufeff ") for name in found):
                        header = _header(found)
            elif bad is None and len(taken) == 1 and not wrong and len(row) <= len(header):
                if row:
                    yield line, dict(zip(header, row, strict=False))
            else:
                for number, found in _rows(line, row, bad, taken, len(header), delimiter):
                    if isinstance(found, EventError):
                        yield number, found
                    elif found:
                        yield number, dict(zip(header, found, strict=False))
            taken.clear()
            wrong.clear()

    @classmethod
    def delimiter_of(cls, header: str) -> str:
        """What stands between the names of a header: where a comma is in numbers, tables have semicolons.

        >>> Csv.delimiter_of("event;user_id;value"), Csv.delimiter_of('event,user_id,"a;b"')
        (';', ',')
        """
        return ";" if _known(header, ";") > _known(header, ",") else ","

    def parse(self, record: Any) -> Parsed | None:
        """See :class:`Format`."""
        if isinstance(record, EventError):
            raise record
        body = {name: value for name, value in record.items() if value != ""}
        learner = body.pop("learner", None)
        if learner is None:
            raise EventError(
                f"expected a learner, in a column named {', '.join(LEARNER)}", reason="no_identity"
            )
        if "event" not in body:
            raise EventError(f"expected an event, in a column named {', '.join(EVENT)}", reason="no_event")
        sender = self.sender(learner, lambda: self._make(learner))
        stamp = body.get("timestamp")
        return self.at(parse_time(stamp), stamp), sender, body, encode(body)

    def _make(self, learner: str) -> Sender:
        providence, dash, _ = learner.partition("-")
        known = bool(dash) and providence in ("tc", "ls", "gcu", "mch", "gc", "guest", "xapi", "lti")
        safe = learner if known else safe_user_id("table", learner)
        identity = Identity(learner, safe, providence if known else "table")
        return Sender(identity, self.default_source, {"executable": "replay"}, {}, {}, self.mark)


class Tsv(Csv):
    """Reads TSV."""

    name: ClassVar[str] = "tsv"

    @classmethod
    def delimiter_of(cls, header: str) -> str:
        """A tab."""
        return "\t"


def _known(header: str, delimiter: str) -> int:
    """How many names that we know a header has, read with this delimiter."""
    names = {name.strip().strip('"').lower() for name in header.removeprefix("\ufeff").split(delimiter)}
    return len(names & {*LEARNER, *TIME, *EVENT})


def _header(row: list[str]) -> list[str]:
    names = [_NOT_UTF8.sub("\ufffd", name).removeprefix("\ufeff").strip() for name in row]
    for wanted, columns in (("learner", LEARNER), ("timestamp", TIME), ("event", EVENT)):
        if wanted in names:
            continue
        lower = [name.lower() for name in names]
        found = next((column for column in columns if column in lower), None)
        if found is not None:
            names[lower.index(found)] = wanted
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 2
        while names[place] in taken:  # else one would be lost behind the other
            names[place] = f"{name}_{number}"
            number += 1
        taken.add(names[place])
    return names


def _text_lines(chunks: Iterable[bytes], taken: list[str], wrong: list[str]) -> Iterator[str]:
    """Lines as text, which are put into ``taken`` as well; into ``wrong``, too, where they aren't UTF-8.

    What isn't is kept in them as lone surrogates.
    """
    for line in _lines(chunks):
        taken.append(line)
        if not line.isascii() and _NOT_UTF8.search(line):
            wrong.append(line)
        yield line


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    rest = ""
    for chunk in chunks:
        lines = (rest + decode(chunk)).split("\n")
        rest = lines.pop()
        for line in lines:
            yield line + "\n"
    if rest := rest + decode(b"", True):
        yield rest


def _rows(
    line: int, row: list[str], bad: csv.Error | None, taken: list[str], width: int | None, delimiter: str
) -> Iterator[tuple[int, list[str] | EventError]]:
    """What a row is that isn't a plain one, from ``line`` on: itself, rows of its lines, or what is wrong.

    ``width`` is how many columns there are; the header itself has none, and keeps what isn't UTF-8.
    """
    if width is not None and len(taken) > 1 and (bad is not None or delimiter == "\t"):
        alone = [_alone(each, delimiter) for each in taken]
        # A quote is somebody's own where all of its lines are whole rows.
        if all(len(each) == width for each in alone):
            for number, (each, text) in enumerate(zip(alone, taken, strict=True)):
                yield line + number, _not_utf8([text]) or each
            return
    try:
        if bad is not None:
            row = _as_it_stands(taken, delimiter, bad)
        if width is not None and len(row) > width:
            raise EventError(f"expected {width} values, got {len(row)}", reason="not_a_row")
    except EventError as error:
        yield line, _over(error, line, line + len(taken) - 1)
    else:
        yield line, (_not_utf8(taken) if width is not None else None) or row


def _alone(line: str, delimiter: str) -> list[str]:
    """A line as a row of its own; a quote that isn't closed in it is part of a text."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return line.rstrip("\r\n").split(delimiter)


def _as_it_stands(lines: list[str], delimiter: str, error: csv.Error) -> list[str]:
    """A row of one line whose quotes are somebody's own, such as ``"a" b``.

    Over more lines nobody knows which quote is whose: then rows of others may be in it.
    """
    if len(lines) == 1:
        if "\r" in lines[0].rstrip("\r\n"):
            raise EventError(
                "expected lines that end with \\n or \\r\\n, got \\r inside of one: save it anew",
                reason="not_a_row",
            )
        reader = csv.reader(lines, delimiter=delimiter)
        try:
            row = next(reader)
        except csv.Error as other:
            error = other
        else:
            if not row or "\n" not in row[-1]:  # else a quote is open at the end of the file
                return row
    raise EventError(f"expected a row: {error}", reason="not_a_row")


def _over(error: EventError, first: int, last: int) -> EventError:
    """What is wrong with a row, and over which lines it goes where it is more than one."""
    if last <= first:
        return error
    return EventError(
        f"{error}; lines {first} to {last} are one row here: is a quote in it not closed?",
        reason=error.reason,
    )


def _not_utf8(lines: list[str]) -> EventError | None:
    """What is wrong with the first of some lines that isn't UTF-8; ``None`` where all are."""
    for line in lines:
        if not line.isascii() and (found := _NOT_UTF8.search(line)):
            start = line[max(0, found.start() - 20) : found.start() + 20].strip()
            return EventError(
                f"expected UTF-8, got the byte {ord(found[0]) - 0xDC00:#04x} in "
                f"{_NOT_UTF8.sub(chr(0xFFFD), start)!r}: save the file as UTF-8 (spreadsheets: 'CSV UTF-8')",
                reason="not_utf8",
            )
    return None
