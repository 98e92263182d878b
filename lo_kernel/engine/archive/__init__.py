"""The archive: every event that was accepted, one JSON line each, in the order of acceptance.

    archive/events-000000000001.jsonl
    {"n":1,"t":1795395047.45,"by":{...who sent it, from where...},"body":{...as it was received...}}

``n`` counts from 1, without a gap unless something was lost to damage; ``t`` is the server's time (seconds
since 1970, UTC). The body is the text that came, byte for byte where it had no line break, apart from the
identity in ``by``. A segment is named after its first event; when it is full the next begins, and the
closed one is compressed (:mod:`~lo_kernel.engine.archive.segments`). An event counts as accepted when its
line is on disk (:meth:`Archive.flush`). The archive is the truth: states are folds of it.

What came and was no event lies in ``rejected/rejected.jsonl``, with the reason; what was found damaged, in
``archive/damaged/``.
"""

from __future__ import annotations

from lo_kernel.engine.archive.cursor import UNSOUND, Cursor, Search, Senders
from lo_kernel.engine.archive.lines import Record
from lo_kernel.engine.archive.writer import Archive

__all__ = ["UNSOUND", "Archive", "Cursor", "Record", "Search", "Senders"]
