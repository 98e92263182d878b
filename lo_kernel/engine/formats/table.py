"""Tables: CSV and TSV with a header, one row an event."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, Final

from lo_kernel.engine.events import Identity, Sender, safe_user_id
from lo_kernel.engine.formats.base import Format, Parsed, encode, parse_time
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


class Csv(Format):
    """Reads CSV. The columns of learner, time and event are found by their names; the rest is the body."""

    name: ClassVar[str] = "csv"
    source: ClassVar[str | None] = "table"

    def records(self, chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
        """See :class:`Format`: rows as dictionaries, under the names that an event has."""
        lines = _text_lines(chunks)
        first = next(lines, "")
        reader = csv.reader(chain([first] if first else [], lines), delimiter=self.delimiter_of(first))
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, EventError(f"expected a row: {error}", reason="not_a_row")
                continue
            if header is None:
                header = _header(row)
            elif len(row) > len(header):
                yield line, EventError(f"expected {len(header)} values, got {len(row)}", reason="not_a_row")
            elif row:
                yield line, dict(zip(header, row, strict=False))

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
    names = [name.removeprefix("\ufeff").strip() for name in row]
    for wanted, columns in (("learner", LEARNER), ("timestamp", TIME), ("event", EVENT)):
        if wanted in names:
            continue
        lower = [name.lower() for name in names]
        found = next((column for column in columns if column in lower), None)
        if found is not None:
            names[lower.index(found)] = wanted
    return names


def _text_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    for chunk in chunks:
        lines = (rest + decode(chunk)).split("\n")
        rest = lines.pop()
        for line in lines:
            yield line + "\n"
    if rest:
        yield rest
