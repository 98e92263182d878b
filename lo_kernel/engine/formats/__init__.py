"""File formats of events, and how one is found out.

===========  ==================================================================================
study_log    the deployed system's ``*.study.log``: JSON, a tab, a time
jsonl        JSON lines (or an array) of events as clients send them, or with client/server/metadata
archive      lines of an archive of this package
xapi         xAPI statements
csv, tsv     a table with columns for learner, event and time
===========  ==================================================================================

Each may be compressed with gzip or zstd, whatever its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.engine.formats.base import Format, Parsed
from lo_kernel.engine.formats.jsonl import ArchiveLines, JsonLines
from lo_kernel.engine.formats.source import Bytes, Fingerprint, fingerprint, opened
from lo_kernel.engine.formats.study_log import StudyLog, study_line
from lo_kernel.engine.formats.table import EVENT, LEARNER, Csv, Tsv
from lo_kernel.engine.formats.xapi import Statements
from lo_kernel.errors import EventError

__all__ = [
    "FORMATS",
    "Bytes",
    "Fingerprint",
    "Format",
    "Parsed",
    "detect",
    "fingerprint",
    "named",
    "opened",
    "study_line",
]

FORMATS: Final[dict[str, type[Format]]] = {
    each.name: each for each in (StudyLog, JsonLines, ArchiveLines, Statements, Csv, Tsv)
}


def detect(path: Path) -> type[Format]:
    """The format of a file, by what is in it; :class:`EventError` where it is none of ours.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x"
    ...     _ = path.write_text('{"event": "keystroke", "user_id": "u0"}')
    ...     detect(path).name
    'jsonl'
    """
    source = opened(path)
    try:
        head = b""
        for chunk in source:
            head += chunk
            if b"\n" in head.lstrip() or len(head) > 1 << 20:
                break
        problem = source.problem
    finally:
        source.close()
    if problem and not head:
        raise EventError(f"{path}: {problem}", reason="unreadable")
    found = _by_head(head.removeprefix(b"\xef\xbb\xbf").lstrip())
    if found is None and head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise EventError(f"{path} is written in UTF-16: save it as UTF-8", reason="unknown_format")
    if found is None:
        start = head[:60].decode(errors="replace")
        raise EventError(
            f"{path}: expected a study log, JSON lines of events, xAPI statements, or a table with columns "
            f"such as {LEARNER[1]!r} and {EVENT[0]!r}; it begins with {start!r}. "
            f"Where you know better, say format=..., one of {', '.join(FORMATS)}",
            reason="unknown_format",
        )
    return found


def named(path: Path, name: str) -> type[Format]:
    """The format of a name, for a file of which somebody knows it.

    Raises :class:`EventError` where the first record can't be read in it, and the file is clearly another's:
    a record is known by its number, so in a wrong format it might even be taken for one that is held.
    """
    kind = FORMATS[name]
    wrong = _first_wrong(path, kind)
    if wrong is None:
        return kind
    try:
        other = detect(path)
    except EventError:
        if not issubclass(kind, Csv) or wrong.reason not in ("no_identity", "no_event"):
            return kind  # the first record may be the only one that is damaged
        raise EventError(f"{path}, as {name}: {wrong}", reason="wrong_format") from None
    if other is kind or _first_wrong(path, other) is not None:
        return kind
    raise EventError(
        f"{path} is no {name}: it looks like {other.name}. Leave format={name!r} out. What its first record "
        f"says as {name}: {wrong}",
        reason="wrong_format",
    )


def _first_wrong(path: Path, kind: type[Format]) -> EventError | None:
    """Why the first record of a file can't be read in a format; ``None`` where it can, or there is none."""
    source = opened(path)
    try:
        format = kind()
        for _, record in format.records(source):
            format.parse(record)
            break
    except EventError as error:
        return error
    finally:
        source.close()
    return None


def _by_head(head: bytes) -> type[Format] | None:
    if not head:
        return JsonLines  # an empty file has no events, in any format
    line = head.partition(b"\n")[0].rstrip(b"\r")
    if head[:1] == b"[":
        start = head[:20_000]
        return Statements if b'"actor"' in start and b'"verb"' in start else JsonLines
    if head[:1] == b"{":
        text, tab, stamp = line.rpartition(b"\t")
        if tab and stamp[:4].isdigit() and text.endswith(b"}"):
            return StudyLog
        if b'"statements"' in head[:200]:
            return Statements
        try:
            record = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # damaged, or one object over many lines: what follows the first line will tell
            return JsonLines if b"\n{" in head or b'"event"' in line else None
        if {"n", "t", "by", "body"} <= set(record):
            return ArchiveLines
        if {"actor", "verb"} <= set(record):
            return Statements
        return JsonLines if {"event", "client"} & set(record) else None
    names = line.decode(errors="replace").lower()
    for kind in (Tsv, Csv):
        columns = {name.strip().strip('"') for name in names.split(kind.delimiter_of(names))}
        if len(columns) > 1 and columns & set(LEARNER) and columns & set(EVENT):
            return kind
    return None
