"""Aliases: a random name for each learner, under which the record knows them.

    audit/aliases.jsonl    {"alias":"k3v7q2m5x9","learner":"tc-testcase-ada","signature":"5d41..."}
                           {"erased":"9f86d081884c7d65"}

The table lies outside of the chain. Without a learner's line the record is as whole as before, and nobody can
say any more who the alias was. Each line is signed with the key that is kept outside of the workspace, so
that two learners can't be exchanged unseen.

The last line changes with each erasure. By it a process sees that another one has erased somebody whom it may
still hold in memory: it gives a line to those only who are in the archive, and puts the others on record
under an alias that is written down nowhere.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.kernel.audit.files import lines_of, open_private, write_over

__all__ = ["AliasRow", "Aliases", "has_events", "signed_part"]

_LETTERS: Final = "abcdefghjkmnpqrstvwxyz23456789"
_LENGTH: Final = 10


class AliasRow(msgspec.Struct, gc=False, omit_defaults=True):
    """A line: whose alias it is, or (``erased``) that somebody was erased."""

    alias: str = ""
    learner: str = ""
    signature: str = ""
    erased: str = ""


_row = msgspec.json.Decoder(AliasRow).decode


def signed_part(alias: str, learner: str) -> bytes:
    """What a line's signature is of."""
    return f"alias {alias} {learner}".encode()


def has_events(workspace: Path, learner: str) -> bool:
    """Whether an event of a learner (a safe id) is in a workspace's archive."""
    from lo_kernel.engine.archive import Search, Senders

    folder = workspace / "archive"
    found = Search(learner=learner).read(folder, lambda *_: None, Senders()) if folder.is_dir() else iter(())
    return next(found, None) is not None


class Aliases:
    """The table of a workspace. To be used while the record's lock is held, except for reading.

    ``sign`` gives the signature of a line; ``present`` says which of some learners are in the archive.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sign: Callable[[bytes], str] | None = None,
        present: Callable[[Iterable[str]], set[str]] | None = None,
    ) -> None:
        self.path = folder / "aliases.jsonl"
        self._sign = sign
        self._present = present
        self._by_learner: dict[str, str] = {}
        self._signatures: dict[str, str] = {}
        self._nobody: dict[str, str] = {}  # aliases of those whom another process has erased
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._erased = ""
        self._elsewhere = False  # whether another process has erased somebody since
        self.refresh()
        self._elsewhere = False

    def of(self, learners: Iterable[str]) -> list[str]:
        """The aliases of learners, in the same order; those who have none yet are given one."""
        self.refresh()
        wanted = list(learners)
        known = {**self._nobody, **self._by_learner} if self._nobody else self._by_learner
        new = [learner for learner in dict.fromkeys(wanted) if learner not in known]
        if new and self._present is not None and self._elsewhere:
            present = self._present(new)
            for learner in new:
                if learner not in present:
                    self._nobody.setdefault(learner, _draw())
            new = [learner for learner in new if learner in present]
        if new:
            self._add(new)
        return [self._by_learner.get(each) or self._nobody[each] for each in wanted]

    def _add(self, learners: list[str]) -> None:
        made = []
        for learner in learners:
            alias = _draw()
            self._by_learner[learner] = alias
            if self._sign is not None:
                self._signatures[learner] = self._sign(signed_part(alias, learner))
            made.append(self._line(learner))
        descriptor = open_private(self.path)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end:
                os.lseek(descriptor, end - 1, os.SEEK_SET)
                if os.read(descriptor, 1) != b"\n":  # its last line is half written
                    made.insert(0, b"\n")
            os.write(descriptor, b"".join(made))
            os.fsync(descriptor)
        except OSError:
            self._stamp = (0, 0, -1)  # read it anew
            raise
        finally:
            os.close(descriptor)
        self._stamp = self._now()

    def _line(self, learner: str) -> bytes:
        row = AliasRow(self._by_learner[learner], learner, self._signatures.get(learner, ""))
        return msgspec.json.encode(row) + b"\n"

    def find(self, learner: str) -> str | None:
        """The alias of a learner; ``None`` for somebody of whom nothing was read."""
        self.refresh()
        return self._by_learner.get(learner)

    def table(self) -> dict[str, str]:
        """Learners by alias."""
        self.refresh()
        return {alias: learner for learner, alias in self._by_learner.items()}

    def forget(self, learner: str) -> bool:
        """Delete a learner's line, and have other processes know of it; whether there was one."""
        self.refresh()
        had = self._by_learner.pop(learner, None) is not None
        self._signatures.pop(learner, None)
        self._erased = secrets.token_hex(8)
        rows = [self._line(who) for who in self._by_learner]
        rows.append(msgspec.json.encode(AliasRow(erased=self._erased)) + b"\n")
        write_over(self.path, b"".join(rows))
        self._stamp = self._now()
        return had

    def refresh(self) -> None:
        """Read the table anew where another process has changed it."""
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._by_learner.clear()
        self._signatures.clear()
        if stamp != (0, 0, 0):
            for line in lines_of(self.path):
                try:
                    row = _row(line)
                except msgspec.MsgspecError:
                    continue
                if row.erased:
                    self._elsewhere = self._elsewhere or row.erased != self._erased
                    self._erased = row.erased
                elif row.alias:
                    self._by_learner[row.learner] = row.alias
                    self._signatures[row.learner] = row.signature
                    self._nobody.pop(row.learner, None)
        self._stamp = stamp

    def _now(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _draw() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
