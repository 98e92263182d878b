"""The record as files for others: JSON lines and CSV; the page is :mod:`~lo_kernel.kernel.audit.page`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lo_kernel.kernel.audit.reading import rows_of

__all__ = ["FORMATS", "to_csv", "to_jsonl"]

FORMATS: Final = ("jsonl", "csv", "html")


def to_jsonl(events: Sequence[Mapping[str, Any]]) -> str:
    """One event a line."""
    kept = [
        {name: value for name, value in event.items() if name not in ("record", "sets")} for event in events
    ]
    return "".join(msgspec.json.encode(event, order="deterministic").decode() + "\n" for event in kept)


def to_csv(events: Sequence[Mapping[str, Any]]) -> str:
    """One event a row. What a spreadsheet would take for a formula is given a ``'`` before it."""
    rows = rows_of(events)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["n"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    return out.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
