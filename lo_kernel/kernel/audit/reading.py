"""Reading the record: who ran what, what came of it, whose data it read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.aliases import Aliases, has_events
from lo_kernel.kernel.audit.chain import Text
from lo_kernel.kernel.audit.files import LogFile, lines_of, list_logs, text_path

__all__ = ["AuditReader", "Story", "rows_of", "when"]

_record = msgspec.json.Decoder(dict[str, Any]).decode
_text = msgspec.json.Decoder(Text).decode
_DELETED = "(deleted)"


class AuditReader:
    """The record of a workspace, to be read; also while kernels write it."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.folder = workspace / "audit"
        self.aliases = Aliases(self.folder)

    # -- records -------------------------------------------------------------------------------

    def records(self, since: str = "") -> Iterator[dict[str, Any]]:
        """All records, oldest first, with their texts in place; ``since`` is a time as records have it.

        A line that is damaged is left out: :func:`~lo_kernel.kernel.audit.verify.verify` says which.
        """
        logs = list_logs(self.folder)
        for place, log in enumerate(logs):
            if since and place + 1 < len(logs) and _first_time(logs[place + 1]) < since:
                continue
            texts: dict[str, str] | None = None
            for line in lines_of(log.path):
                try:
                    record = _record(line)
                except msgspec.MsgspecError:
                    continue
                if since and record.get("at", "") < since:
                    continue
                if b'"text:' in line:
                    if texts is None:
                        texts = self._texts(log)
                    for name, value in record.items():
                        record[name] = _with_texts(value, texts)
                yield record

    def _texts(self, log: LogFile) -> dict[str, str]:
        found = {}
        path = text_path(self.folder, log.first, packed=log.packed)
        try:
            for line in lines_of(path):
                try:
                    text = _text(line)
                except msgspec.MsgspecError:
                    continue
                found[f"text:{text.hash}"] = text.text
        except FileNotFoundError:
            pass
        return found

    # -- what it means -------------------------------------------------------------------------

    def story(self) -> Story:
        """The record with requests, outcomes and readings brought together."""
        story = Story()
        for record in self.records():
            story.take(record)
        return story

    def events(
        self,
        *,
        cells: bool = False,
        student: str | None = None,
        user: str | None = None,
        since: Any = None,
    ) -> list[dict[str, Any]]:
        """What happened, oldest first: requests with what came of them, deeds, readings by pages, gaps.

        ``cells``: only what ran. ``student``: only what has read this learner (a safe id), or concerns them.
        ``user``: only what this user did. ``since``: only what is later, see :func:`when`.
        """
        story = self.story()
        found = story.events
        if cells:
            found = [event for event in found if event["kind"] == "execute"]
        if student is not None:
            alias = self.aliases.find(student)
            found = [] if alias is None else [event for event in found if story.concerns(event, alias)]
        if user is not None:
            found = [event for event in found if event["user"] == user]
        if since is not None:
            start = when(since)
            found = [event for event in found if event["at"] >= start]
        return found

    def expect(self, student: str) -> None:
        """Raise ``LOError`` where nobody is known here under a safe id: "never read" is something else."""
        known = isinstance(student, str) and self.aliases.find(student) is not None
        if known or (isinstance(student, str) and has_events(self.workspace, student)):
            return
        erased = sum(each.get("kind") == "act" and each.get("what") == "erase" for each in self.records())
        raise LOError(
            f"expected the safe id of a learner, got {student!r}: under it there are no events here, and the "
            f"record has no reading. It may be mistyped; who was erased ({erased} here) is not known any more"
        )

    def check(self) -> Any:
        """Whether the record is whole."""
        from lo_kernel.kernel.audit.verify import verify

        return verify(self.workspace)

    def learners_of(self, number: int) -> list[str]:
        """Who was read by the event with this record number: safe ids, or what is left of them: aliases."""
        story, table = self.story(), self.aliases.table()
        for event in story.events:
            if event["n"] == number:
                aliases = frozenset().union(*(story.members(each) for each in event["sets"]))
                return sorted(table.get(alias, f"erased ({alias})") for alias in aliases)
        raise LOError(f"expected the number of an event on record, got {number!r}")


class Story:
    """What happened, event by event: requests with what came of them, deeds, readings by others, gaps."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self._requests: dict[tuple[str, str], dict[str, Any]] = {}
        self._sets: dict[str, frozenset[str]] = {}

    def take(self, record: Mapping[str, Any]) -> None:
        """Take the next record."""
        kind = record.get("kind")
        if kind == "run":
            self.runs[record["run"]] = dict(record)
            self._event(record, "run", record.get("role", ""))
        elif kind == "set":
            members = set(self._sets.get(record.get("base", ""), ()))
            members.difference_update(record.get("remove", ()))
            self._sets[record["set"]] = frozenset(members.union(record.get("add", ())))
        elif kind == "intent":
            self._intent(record)
        elif kind == "outcome":
            self._outcome(record)
        elif kind == "read":
            self._read(record)
        elif kind == "act":
            event = self._event(record, "act", record.get("what", ""))
            event["name"] = record.get("name", "")
            event["sets"] = [record["set"]] if "set" in record else []
            event["learners"] = record.get("learners", 0)
            event["by"] = _by(record)
            if asked := record.get("asked"):  # by somebody who had another process do it
                event |= {"user": asked.get("user") or event["user"], "by": asked.get("at", event["by"])}
        elif kind in ("gap", "redaction", "retention"):
            self._event(record, kind, record.get("reason", ""))

    def members(self, digest: str) -> frozenset[str]:
        """The aliases of a set."""
        return self._sets.get(digest, frozenset())

    def concerns(self, event: Mapping[str, Any], alias: str) -> bool:
        """Whether an event has read the learner of this alias."""
        return any(alias in self.members(digest) for digest in event["sets"])

    def _event(self, record: Mapping[str, Any], kind: str, what: str) -> dict[str, Any]:
        run = self.runs.get(record.get("run", ""), {})
        event: dict[str, Any] = {
            "n": record["n"],
            "at": record["at"],
            "kind": kind,
            "what": what,
            "user": run.get("user", {}).get("name", ""),
            "run": record.get("run", ""),
            "record": record,
            "reads": [],
            "sets": [],
            "learners": 0,
        }
        self.events.append(event)
        return event

    def _intent(self, record: Mapping[str, Any]) -> None:
        event = self._event(record, record["type"], "")
        event |= {
            name: record[name] for name in ("cell", "silent", "claims", "expressions") if name in record
        }
        event["code"] = record.get("code", record.get("arguments", record.get("data", "")))
        event["notebook"] = self.runs.get(record["run"], {}).get("notebook", "")
        event["status"] = "" if record["type"] == "shell" else "no outcome"
        if record["type"] != "shell":
            self._requests[record["run"], record["request"]] = event

    def _outcome(self, record: Mapping[str, Any]) -> None:
        event = self._requests.get((record["run"], record["request"]))
        if event is None:
            event = self._event(record, record["type"], "")
            event["code"] = ""
        if not record.get("late"):
            event["status"] = record.get("status", "")
            event["ms"] = record.get("ms")
        if "error" in record:
            event["error"] = record["error"]
        outputs = event.setdefault("outputs", {})
        for name, (count, size) in record.get("outputs", {}).items():
            before = outputs.get(name, [0, 0])
            outputs[name] = [before[0] + count, before[1] + size]
        if "contents" in record:
            event.setdefault("contents", []).extend(record["contents"])

    def _read(self, record: Mapping[str, Any]) -> None:
        event = self._requests.get((record["run"], record.get("request", "")))
        if event is None:
            event = self._event(record, "read", record.get("what", ""))
            event["by"] = _by(record)
        event["reads"].append(f"{record['type']}: {record['what']}")
        event["sets"].append(record["set"])
        event["learners"] = max(event["learners"], record["learners"])


def _by(record: Mapping[str, Any]) -> str:
    if record.get("by") == "client":
        return f"{record['client']} token, {record['path']}"
    return str(record.get("by", ""))


def _with_texts(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str) and value.startswith("text:") and len(value) == 69:
        return texts.get(value, _DELETED)
    if isinstance(value, dict):
        return {name: _with_texts(each, texts) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_texts(each, texts) for each in value]
    return value


def _first_time(log: LogFile) -> str:
    for line in lines_of(log.path):
        try:
            return str(_record(line).get("at", ""))
        except msgspec.MsgspecError:
            continue
    return ""


def when(since: Any) -> str:
    """A time as records have it, from a `datetime` or `date`, a `timedelta` (ago), seconds ago, or a text.

    >>> when("2026-03-02")
    '2026-03-02T00:00:00.000000Z'
    """
    told = since
    try:
        if isinstance(since, int | float) and not isinstance(since, bool):
            since = timedelta(seconds=since)
        if isinstance(since, timedelta):
            since = datetime.now(UTC) - since
        if isinstance(since, str):
            since = datetime.fromisoformat(since)
        if isinstance(since, date) and not isinstance(since, datetime):
            since = datetime(since.year, since.month, since.day, tzinfo=UTC)
        if isinstance(since, datetime):
            if since.tzinfo is None:
                since = since.replace(tzinfo=UTC)
            return str(since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    except (ValueError, OverflowError):
        pass
    raise LOError(
        "since: expected a time such as '2026-03-02T08:30', a datetime or timedelta, or seconds ago, "
        f"got {told!r}"
    )


def rows_of(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events as flat rows: when, who, what, how it ended, how many learners."""
    rows = []
    for event in events:
        reads = list(dict.fromkeys(event["reads"]))
        rows.append(
            {
                "n": event["n"],
                "at": event["at"],
                "user": event["user"],
                "kind": event["kind"],
                "what": event.get("code") or event.get("name") or event["what"],
                "status": event.get("status", ""),
                "error": event.get("error", ""),
                "ms": event.get("ms"),
                "learners": event["learners"],
                "reads": "; ".join(reads),
                "by": event.get("by", "request" if event.get("code") else ""),
                "cell": event.get("cell", ""),
            }
        )
    return rows
