"""What is known of one module that was loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Module"]


@dataclass
class Module:
    """One module, installed or injected (then its ``distribution`` is ``injected``).

    ``name`` is that of its package, under which its queries and pages are found; ``title`` what it calls
    itself. ``dashboards`` are ids, as ``lo.dashboards`` has them; ``links`` names of links to its pages, in
    the lists of dashboards that clients ask for. ``error`` says why it could not be loaded, ``problems``
    which parts of it could not, ``not_served`` what it has that this app has no use for.
    """

    name: str
    title: str = ""
    version: str = ""
    distribution: str = ""
    reducers: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    dashboards: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    not_served: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """What the home page shows."""
        return {
            "name": self.name,
            "title": self.title,
            "version": self.version,
            "reducers": len(self.reducers),
            "queries": len(self.queries),
            "error": self.error,
            "problems": list(self.problems),
            "not_served": list(self.not_served),
        }

    def __repr__(self) -> str:
        head = f"{self.name} {self.version}".rstrip()
        if self.error:
            return f"{head}: could not be loaded: {self.error}"
        parts = [f"{head}: {self.title}" if self.title not in ("", self.name) else head]
        for label in ("reducers", "queries", "dashboards", "links", "pages", "problems", "not_served"):
            values = getattr(self, label)
            if values:
                between = "; " if label in ("problems", "not_served") else ", "
                parts.append(f"  {label.replace('_', ' ')}: {between.join(values)}")
        return "\n".join(parts)
