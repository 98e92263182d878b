"""``lo-kernel audit``: whether the record is whole, what is on it, and files of it for others."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.commands.places import existing_workspace
from lo_kernel.errors import LOError
from lo_kernel.kernel.audit.files import list_logs
from lo_kernel.kernel.audit.page import to_html
from lo_kernel.kernel.audit.reading import AuditReader, rows_of, when
from lo_kernel.kernel.audit.report import FORMATS, to_csv, to_jsonl
from lo_kernel.kernel.audit.verify import verify
from lo_kernel.notebook.audit_words import first_line
from lo_kernel.query.rows import Rows
from lo_kernel.workspace import write_out

__all__ = ["main"]

_ACTIONS = ("verify", "show", "of", "export", "delete-text")
_FEWEST = 3  # letters of what is to be deleted: fewer stand nearly everywhere
_WIDTH = 60  # characters of code that a line shows


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel audit``; 1 where ``verify`` finds that the record is not whole."""
    parser = OptionParser(
        "audit", "The record: what ran, what came of it, whose data it read. verify: is it whole?"
    )
    parser.add_argument("action", choices=_ACTIONS, nargs="?", help="what to do")
    parser.add_argument("subject", nargs="?", help="of: a learner's safe id; delete-text: words in the text")
    parser.add_argument("--student", metavar="ID", help="export: only what has read this learner")
    parser.add_argument("--user", metavar="NAME", help="only what this user did")
    parser.add_argument("--since", metavar="TIME", help="only what is later, such as 2026-03-02T08:30 (UTC)")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="show: how many (default: 20)")
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="export: which (default: jsonl)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="export: where to; else stdout")
    parser.add_argument("--reason", default="", help="delete-text: why; it goes on record")
    add_settings(parser, only=["workspace"])
    options = parser.parse(arguments)
    if options.action is None:
        parser.error(f"expected what to do: {', '.join(_ACTIONS)}")
    settings, _ = settings_from(parser, options)
    if options.action in ("of", "delete-text") and not options.subject:
        parser.error(
            f"{options.action}: expected {'a learner' if options.action == 'of' else 'words'} after it"
        )
    if options.subject and options.action not in ("of", "delete-text"):
        parser.error(
            f"{options.action}: takes nothing after it, got {options.subject!r}; a workspace is named with "
            f"--workspace {options.subject}"
        )
    if options.since is not None:
        try:
            when(options.since)
        except LOError as error:
            parser.error(str(error))
    workspace = existing_workspace(parser, settings)
    recorded = bool(list_logs(workspace / "audit")) or (workspace / "audit" / "id").exists()
    verdict = verify(workspace) if options.action == "verify" else None
    if not recorded and (verdict is None or verdict.ok):  # else it is known elsewhere that there was one
        raise LOError(f"the workspace {workspace} has no record")
    if verdict is not None:
        print(verdict)
        if verdict.head is not None and verdict.head.n:
            print(f"its end: record {verdict.head.n}, {verdict.head.hash}")
        return 0 if verdict.ok else 1
    if options.action == "delete-text":
        return _delete_text(parser, options, workspace)
    student = options.subject if options.action == "of" else options.student
    reader = AuditReader(workspace)
    if student is not None:
        reader.expect(student)
    events = reader.events(student=student, user=options.user, since=options.since)
    if options.action == "export":
        return _export(options, workspace, events, student)
    if options.action == "show":
        events = events[-options.last :] if options.last > 0 else []
    rows = rows_of(events)
    for row in rows:
        row["what"] = first_line(row["what"], _WIDTH)
        row["at"] = row["at"][:19]
    shown = ("n", "at", "user", "kind", "what", "status", "learners", "reads")
    print(Rows({name: row[name] for name in shown} for row in rows))
    return 0


def _export(
    options: argparse.Namespace, workspace: Path, events: list[dict[str, object]], student: str | None
) -> int:
    if options.format == "html":
        others = AuditReader(workspace).aliases.table().values()
        text = to_html(
            events, workspace=workspace.name, verdict=verify(workspace), student=student, others=others
        )
    else:
        text = (to_csv if options.format == "csv" else to_jsonl)(events)
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_out(options.output, text.encode())
        print(f"{len(events)} entries: {options.output}")
    return 0


def _delete_text(parser: OptionParser, options: argparse.Namespace, workspace: Path) -> int:
    from lo_kernel.kernel.audit.erasing import delete_texts
    from lo_kernel.kernel.audit.log import AuditLog

    if not options.reason:
        parser.error("delete-text: expected --reason, which goes on record")
    if len("".join(options.subject.split())) < _FEWEST:
        parser.error(
            f"delete-text: expected at least {_FEWEST} letters, got {options.subject!r}: every text in which "
            "they stand goes"
        )
    log, words = AuditLog(workspace), options.subject.casefold()
    log.open()
    try:
        damaged: list[ValueError] = []
        count = delete_texts(
            log, lambda text: words in text.casefold(), options.reason, on_damage=damaged.append
        )
    finally:
        log.close()
    print(f"{count} texts deleted from the record; the chain stays as it was")
    for error in damaged:
        print(f"lo-kernel: {error}", file=sys.stderr)
    return 1 if damaged else 0
