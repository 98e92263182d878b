"""``lo.audit``: the record as a notebook sees it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from lo_kernel.errors import LOError
from lo_kernel.notebook.audit_words import first_line, plural, reads_of, title_of
from lo_kernel.query.rows import Rows

__all__ = ["AuditView", "Reader"]

_CARD = 12  # entries on the card
_COLUMNS = ("n", "at", "user", "kind", "what", "status", "learners", "reads")
_WIDTH = 72

_STYLE = """
.lo-audit{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.45;
 max-width:60rem;border:1px solid var(--jp-border-color1,#d0d7de);border-radius:6px;padding:.8em 1em}
.lo-audit p{margin:.2em 0 .6em}
.lo-audit table{border-collapse:collapse;width:100%;font-size:13px;table-layout:auto!important;margin:0}
.lo-audit tr{background:none!important}
.lo-audit td{text-align:left!important;padding:.4em 1em .4em .6em!important;vertical-align:top!important;
 white-space:normal!important;max-width:none!important;
 border-top:1px solid var(--jp-border-color2,#e4e8ec)!important}
.lo-audit td:first-child{white-space:nowrap!important;width:1%;border-left:3px solid transparent!important}
.lo-audit tr.lo-reads td:first-child{border-left-color:var(--jp-brand-color1,#0969da)!important}
.lo-audit td:last-child{white-space:nowrap!important;width:1%;padding-right:0!important}
.lo-audit code{font-size:12px;background:none!important;padding:0!important;overflow-wrap:anywhere;
 color:var(--jp-ui-font-color2,#59636e)}
.lo-audit .lo-soft{color:var(--jp-ui-font-color2,#59636e)}
.lo-audit .lo-bad{color:var(--jp-error-color1,#b42318)}
"""


class Reader(Protocol):
    """What reads the record; the kernel brings it."""

    def events(
        self, *, cells: bool = False, student: str | None = None, user: str | None = None, since: Any = None
    ) -> list[dict[str, Any]]:
        """What happened, oldest first."""
        ...

    def expect(self, student: str) -> None:
        """Raise where nobody is known under this id."""
        ...

    def learners_of(self, number: int) -> list[str]:
        """Who was read by an event."""
        ...

    def check(self) -> Any:
        """Whether the record is whole; shown as text."""
        ...


class AuditView:
    """The record: what ran in this workspace, what came of it, and whose data it read. Show it for the
    newest.

    Each method gives rows that print as a table, oldest first. ``n`` is the number on record, ``at`` the time
    (UTC), ``learners`` how many were read, ``reads`` what of them.
    """

    def __init__(self, reader: Reader | None) -> None:
        self._reader = reader

    def tail(self, n: int = 20) -> Rows:
        """The newest ``n`` entries, of whatever kind."""
        if not isinstance(n, int):
            raise LOError(f"tail: expected how many entries, got {n!r}")
        return _rows(self._there().events()[-n:] if n > 0 else [])

    def cells(self, n: int | None = None) -> Rows:
        """The cells that ran, or the newest ``n`` of them."""
        found = self._there().events(cells=True)
        return _rows(found if n is None else found[len(found) - min(n, len(found)) :])

    def of(self, student: str) -> Rows:
        """Everything that has read this learner (a safe id, such as ``tc-testcase-ada``).

        An error where nobody is known here by that id: mistyped, or erased.
        """
        reader = self._there()
        reader.expect(student)
        return _rows(reader.events(student=student))

    def by(self, user: str) -> Rows:
        """What this user did."""
        return _rows(self._there().events(user=user))

    def since(self, time: Any) -> Rows:
        """What is later: ``"2026-03-02T08:30"`` (UTC), a ``datetime``, a ``timedelta`` or seconds ago."""
        return _rows(self._there().events(since=time))

    def learners(self, n: int) -> list[str]:
        """Whose data the entry with the number ``n`` has read; safe ids. One who was erased is nameless."""
        return self._there().learners_of(n)

    def verify(self) -> Any:
        """Check the chain from its first record to its last."""
        return self._there().check()

    def to_frame(self) -> Any:
        """All entries as a data frame, with pandas or polars, whichever is installed."""
        return _rows(self._there().events()).to_frame()

    def _there(self) -> Reader:
        if self._reader is None:
            raise LOError("no record is kept here: that takes a kernel, and a workspace that can be written")
        return self._reader

    def __repr__(self) -> str:
        if self._reader is None:
            return "no record is kept here"
        return f"{self._summary()}\n{_short(self._reader.events()[-_CARD:])!r}"

    def _summary(self) -> str:
        events = self._there().events()
        cells = sum(event["kind"] == "execute" for event in events)
        readers = sum(bool(event["learners"]) for event in events)
        first = f" since {events[0]['at'][:10]}" if events else ""
        return f"{cells:,} cells{first}; {readers:,} entries have read learners' data"

    def _repr_html_(self) -> str:
        if self._reader is None:
            return f"<em>{html.escape(repr(self))}</em>"
        newest = self._reader.events()[-_CARD:]
        days = {event["at"][:10] for event in newest}
        users = {event["user"] for event in newest}
        rows = "".join(_line(each, day=len(days) > 1, user=len(users) > 1) for each in reversed(newest))
        here = "".join([f" of {each}" for each in days if len(days) == 1])
        here += "".join([f" by {each}" for each in users if len(users) == 1 and each])
        return (
            f'<style>{_STYLE}</style><div class="lo-audit"><p><strong>The record</strong> '
            f'<span class="lo-soft">{html.escape(self._summary())}.<br>The newest{html.escape(here)}, UTC; '
            f"a line at the left marks what has read learners' data:</span></p>"
            f"<table><tbody>{rows}</tbody></table>"
            '<p class="lo-soft" style="margin-top:.8em">lo.audit.of(student): what has read one learner. '
            "lo.audit.verify(): whether the record is whole.</p></div>"
        )


def _line(event: Mapping[str, Any], *, day: bool, user: bool) -> str:
    escape = html.escape
    status = event.get("status", "")
    ended = {"no outcome": "not known yet", "aborted": "not run"}.get(status, status)
    if status == "error":
        ended = f'<span class="lo-bad">{escape(str(event.get("error", "")))}</span>'
    elif status == "ok" and event.get("ms") is not None:
        ended = f"{event['ms'] / 1000:.2f} s"
    code = first_line(event["code"], _WIDTH) if event.get("code") else ""
    about = [escape(title_of(event)), f"<code>{escape(code)}</code>" if code else ""]
    if reason := event.get("record", {}).get("reason"):
        about.append(f'<span class="lo-soft">Reason: {escape(str(reason))}</span>')
    if event["learners"]:
        many = plural(event["learners"], "learner", "learners")
        what = reads_of(event)
        about.append(escape(f"Read data of {many}: {what}" if what else f"It concerns {many}"))
    parts = [event["at"][:10] if day else "", event["at"][11:19], event["user"] if user else ""]
    when = "<br>".join(escape(each) for each in parts if each)
    reads = ' class="lo-reads"' if event["learners"] else ""
    return (
        f'<tr{reads}><td class="lo-soft">{when}</td><td>{"<br>".join(filter(None, about))}</td>'
        f'<td class="lo-soft">{ended}</td></tr>'
    )


def _rows(events: Iterable[Mapping[str, Any]]) -> Rows:
    return Rows(
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
            "reads": "; ".join(dict.fromkeys(event["reads"])),
            "by": event.get("by", ""),
            "cell": event.get("cell", ""),
        }
        for event in events
    )


def _short(events: Iterable[Mapping[str, Any]]) -> Rows:
    rows = _rows(events)
    return Rows(
        {name: first_line(row[name], _WIDTH) if name == "what" else row[name] for name in _COLUMNS}
        for row in rows
    )
