"""The one place where an exported module meets the Learning Observer that it runs in."""

from __future__ import annotations

import ast
from importlib.resources import files

from lo_kernel.notebook.export.units import Unit

__all__ = ["SEAM", "SEAM_FILE", "seam_text", "through_seam"]

SEAM = ("EventField", "KeyField", "Scope", "kvs_pipeline", "student_event_reducer")
"""The field's names that a module uses."""

SEAM_FILE = "seam.py"
_HOMES = (
    "lo_kernel",
    "lo_kernel.engine.keys",
    "lo_kernel.engine.reducers",
    "learning_observer.stream_analytics.helpers",
)


def through_seam(unit: Unit, used: set[str]) -> set[str]:
    """Of the names that an import gives and that are used, those that come through the seam instead."""
    node = unit.node
    if not isinstance(node, ast.ImportFrom) or node.module not in _HOMES or node.level:
        return set()
    return {
        each.name for each in node.names if each.name in SEAM and each.asname is None and each.name in used
    }


def seam_text() -> str:
    """The module that stands between; the same that ``lo-kernel new`` writes."""
    template = files("lo_kernel") / "templates" / "module" / "package" / f"{SEAM_FILE}.txt"
    return template.read_text(encoding="utf-8")
