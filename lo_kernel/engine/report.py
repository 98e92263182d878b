"""What came of reading files: counts, and the first few records of each kind that couldn't be used."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lo_kernel.errors import EventError

__all__ = ["ReplayReport", "Skipped"]

_EXAMPLES = 5


@dataclass(slots=True)
class Skipped:
    """Records that were left out for one reason: how many, and where the first of them are."""

    count: int = 0
    first: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ReplayReport:
    """How far a replay is, and in the end what came of it.

    ``events`` were added, ``held`` were in the archive already, ``others`` are of other learners than the
    one asked for, ``elsewhere`` of other contexts, and ``instead`` names the first few of those;
    ``skipped`` has what couldn't be used, by reason. ``untimed`` of what was added had no time, and has that
    of the record before it. ``erased`` are of learners who were erased after the file was known here, and
    left out; ``back`` names (by safe ids) who was erased earlier, and came in again with this file. ``done``
    of ``total`` bytes are read.

    >>> ReplayReport(files=["a.study.log"], events=10, held=2)
    10 events added from a.study.log; 2 held already
    """

    files: list[str] = field(default_factory=list)
    events: int = 0
    held: int = 0
    others: int = 0
    elsewhere: int = 0
    instead: list[str] = field(default_factory=list)
    untimed: int = 0
    erased: int = 0
    back: list[str] = field(default_factory=list)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    verb: str = "added"
    started: float = field(default_factory=time.perf_counter, repr=False)
    ended: float | None = field(default=None, repr=False)

    def skip(self, file: str, line: int, error: EventError) -> None:
        """Count a record that can't be used."""
        skipped = self.skipped.setdefault(error.reason, Skipped())
        skipped.count += 1
        if len(skipped.first) < _EXAMPLES:
            place = f"{file}, line {line}" if line else file
            skipped.first.append(f"{place}: {error}")

    def other(self, learner: str) -> None:
        """Count a record of another learner than the one asked for."""
        self.others += 1
        self._instead(learner)

    def other_context(self, context: object) -> None:
        """Count a record of another context than the one asked for."""
        self.elsewhere += 1
        self._instead(f"context {context!r}" if context else "no context")

    def _instead(self, name: str) -> None:
        if len(self.instead) < _EXAMPLES and name not in self.instead:
            self.instead.append(name)

    @property
    def read(self) -> int:
        """Records that were looked at."""
        left_out = sum(each.count for each in self.skipped.values())
        return self.events + self.held + self.others + self.elsewhere + self.erased + left_out

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended if self.ended is not None else time.perf_counter()) - self.started

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.read / max(self.seconds, 1e-9)

    @property
    def note(self) -> str:
        """One line for a progress bar."""
        return f"{self.events:,} events, {self.rate:,.0f} records/s"

    def __repr__(self) -> str:
        files = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        lines = [f"{self.events:,} events {self.verb} from {files}"]
        if self.held:
            lines[0] += f"; {self.held:,} held already"
        if self.others:
            lines[0] += f"; {self.others:,} of other learners"
        if self.elsewhere:
            lines[0] += f"; {self.elsewhere:,} of other contexts"
        if self.ended is not None:
            lines[0] += f" ({self.seconds:.1f} s, {self.rate:,.0f} records/s)"
        if self.instead and not self.events + self.held + self.erased:
            lines.append(f"of what was asked for there is nothing; there is: {', '.join(self.instead)}")
        if self.untimed:
            lines.append(
                f"{self.untimed:,} without a time; they have that of the record before them, or of the file"
            )
        if self.erased:
            lines.append(
                f"{self.erased:,} left out, of learners who were erased since this was first here: "
                "learner='...' takes one in again"
            )
        if self.back:
            named = ", ".join(self.back[:_EXAMPLES])
            more = f", and {len(self.back) - _EXAMPLES:,} more" if len(self.back) > _EXAMPLES else ""
            lines.append(f"erased here earlier, and in again with this: {named}{more}")
        for reason, skipped in self.skipped.items():
            lines.append(f"{skipped.count:,} left out: {reason}")
            lines += [f"    {text}" for text in skipped.first]
        return "\n".join(lines)
