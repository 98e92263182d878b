"""Aliases: a random name for each learner, under which the record knows them.

    audit/aliases.jsonl    {"alias":"k3v7q2m5x9","learner":"tc-testcase-ada"}

The table lies outside of the chain. Without a learner's line the record is as whole as before, and nobody can
say any more who the alias was.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.kernel.audit.files import lines_of, open_private, write_over

__all__ = ["Aliases"]

_LETTERS: Final = "abcdefghjkmnpqrstvwxyz23456789"
_LENGTH: Final = 10


class _Row(msgspec.Struct, gc=False):
    alias: str
    learner: str


_row = msgspec.json.Decoder(_Row).decode


class Aliases:
    """The table of a workspace. To be used while the record's lock is held, except for reading."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "aliases.jsonl"
        self._by_learner: dict[str, str] = {}
        self._stamp: tuple[int, int, int] = (0, 0, 0)

    def of(self, learners: Iterable[str]) -> list[str]:
        """The aliases of learners, in the same order; those who have none yet are given one."""
        self.refresh()
        known, made = self._by_learner, []
        found = []
        for learner in learners:
            alias = known.get(learner)
            if alias is None:
                alias = known[learner] = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
                made.append(msgspec.json.encode(_Row(alias, learner)) + b"\n")
            found.append(alias)
        if made:
            descriptor = open_private(self.path)
            try:
                os.write(descriptor, b"".join(made))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._stamp = self._now()
        return found

    def find(self, learner: str) -> str | None:
        """The alias of a learner; ``None`` for somebody of whom nothing was read."""
        self.refresh()
        return self._by_learner.get(learner)

    def table(self) -> dict[str, str]:
        """Learners by alias."""
        self.refresh()
        return {alias: learner for learner, alias in self._by_learner.items()}

    def forget(self, learner: str) -> bool:
        """Delete a learner's line; whether there was one."""
        self.refresh()
        if self._by_learner.pop(learner, None) is None:
            return False
        rows = (msgspec.json.encode(_Row(alias, who)) + b"\n" for who, alias in self._by_learner.items())
        write_over(self.path, b"".join(rows))
        self._stamp = self._now()
        return True

    def refresh(self) -> None:
        """Read the table anew where another process has changed it."""
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._by_learner.clear()
        if stamp != (0, 0, 0):
            for line in lines_of(self.path):
                try:
                    row = _row(line)
                except msgspec.MsgspecError:
                    continue
                self._by_learner[row.learner] = row.alias
        self._stamp = stamp

    def _now(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns)
