"""What came of an export, for a person."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ExportReport", "Proof"]


@dataclass(frozen=True)
class Proof:
    """A package was built, installed into an environment of its own, and tested there."""

    tests: int
    states: int
    seconds: float
    kind: str = "venv"

    def __str__(self) -> str:
        where = "with nothing shared" if self.kind == "index" else "of its own"
        return (
            f"built, installed into an environment {where}, {self.tests} tests passed there, "
            f"{self.states} states equal byte for byte ({self.seconds:.1f} s)"
        )


@dataclass
class ExportReport:
    """A package: where it is, what is in it, and how it was proved."""

    name: str
    path: Path
    version: str
    reducers: list[str]
    queries: list[str]
    dashboards: list[str]
    requirements: list[str]
    files: list[str]
    events: int
    diff: str = ""
    proof: Proof | None = None
    updated: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """Everything but the diff, a line each."""
        head = f"{self.name} {self.version} in {self.path}"
        lines = [f"{head}: {'updated' if self.updated else 'new'}"]
        lines.append(f"reducers: {', '.join(self.reducers)}")
        lines.append(f"queries: {', '.join(self.queries)}")
        if self.dashboards:
            lines.append(f"dashboards: {', '.join(self.dashboards)}")
        lines.append(f"needs: {', '.join(self.requirements) or 'nothing but Python'}")
        lines.append(f"proof: {self.proof}" if self.proof else "proof: none was asked for")
        if self.updated and not self.diff:
            lines.append("nothing has changed since the last export")
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"next: pip install {self.path}; lo-kernel serve --modules {self.name}")
        return lines

    def __repr__(self) -> str:
        return "\n".join([*self.lines, *([self.diff.rstrip()] if self.diff else [])])

    def _repr_html_(self) -> str:
        lines = "<br>".join(html.escape(line) for line in self.lines)
        diff = f"<pre>{html.escape(self.diff)}</pre>" if self.diff else ""
        return f"<div>{lines}</div>{diff}"
