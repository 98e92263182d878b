"""Checking the record: every change, loss, insertion and truncation of the chain, and where it is."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from lo_kernel.kernel.audit.aliases import AliasRow, signed_part
from lo_kernel.kernel.audit.chain import GENESIS, VERSION, Text, canonical
from lo_kernel.kernel.audit.files import LogFile, lines_of, list_logs, text_path
from lo_kernel.kernel.audit.witness import Head, Witness, parse_head

__all__ = ["Problem", "Verdict", "verify"]

_TAIL: Final = 76  # bytes of ,"hash":"..."} at the end of a line
_TEXT: Final = re.compile(rb'"text:([0-9a-f]{64})"')
_TRIES: Final = 5  # looks at a record that others write to, before a problem counts as one
_MANY: Final = 100  # problems after which the rest is counted only


class _Short(msgspec.Struct, gc=False):
    """Of a record, what the check looks at."""

    n: int
    kind: str
    v: int


_short = msgspec.json.Decoder(_Short).decode
_text = msgspec.json.Decoder(Text).decode
_alias = msgspec.json.Decoder(AliasRow).decode


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written: in which file, on which line, and what."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{where}: {self.what}"


@dataclass(slots=True)
class Verdict:
    """What a check found: ``records`` were read; ``problems`` are none where all is as it was written."""

    records: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: Head | None = None

    @property
    def ok(self) -> bool:
        """Whether the record is whole."""
        return not self.problems

    def add(self, file: str, line: int, what: str) -> None:
        """Note a problem."""
        if len(self.problems) < _MANY:
            self.problems.append(Problem(file, line, what))
        elif len(self.problems) == _MANY:
            self.problems.append(Problem(file, line, "and more: the first hundred are named"))

    def __repr__(self) -> str:
        end = f", up to number {self.head.n}" if self.head else ""
        first = f"{'whole' if self.ok else 'NOT WHOLE'}: {self.records:,} records{end}"
        return "\n".join([first, *map(str, self.problems), *(f"note: {note}" for note in self.notes)])


def verify(workspace: Path, *, state: Path | None = None) -> Verdict:
    """Check the whole record of a workspace; nothing is written, also while kernels write to it.

    ``state`` is the folder of what is kept outside of the workspace, by default the user's.
    """
    for _ in range(_TRIES):
        before = _stamp(workspace)
        verdict = _Check(workspace, state).run()
        if verdict.ok or _stamp(workspace) == before:
            break  # else files were replaced or deleted on purpose under its hands: it looks again
    return verdict


def _stamp(workspace: Path) -> list[tuple[str, int, int, int]]:
    """What tells whether the record was written to meanwhile."""
    found = []
    for path in sorted((workspace / "audit").glob("*")):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return found


class _Check:
    """One check, and what it knows at the line where it is."""

    def __init__(self, workspace: Path, state: Path | None) -> None:
        self.workspace = workspace
        self.folder = workspace / "audit"
        self.verdict = Verdict()
        self.n, self.hash = 0, GENESIS  # of the newest record
        self.redacted: set[str] = set()
        self.hashes: dict[int, str] = {}  # of the records at which the witnesses saw the chain end
        self.texts: dict[int, set[str]] = {}  # those that each file's records name
        chain = ""
        with contextlib.suppress(OSError):
            chain = (self.folder / "id").read_text(encoding="ascii").strip()
        self.witness = Witness(chain or "none", state)
        # before the files are read: a kernel that writes meanwhile moves the end on, and never back
        self.known = {
            head.n: (head.hash, where) for where, head in self._heads() if head is not None and head.n
        }

    def _heads(self) -> list[tuple[str, Head | None]]:
        shared = None
        with contextlib.suppress(OSError):
            shared = parse_head((self.folder / "head").read_bytes())
        return [("the workspace", shared), (str(self.witness.head_path), self.witness.head())]

    def run(self) -> Verdict:
        verdict = self.verdict
        logs = list_logs(self.folder)
        self._anchors()
        for log in logs:
            self._file(log, newest=log == logs[-1])
        for log in logs:
            self._texts(log)
        self._aliases()
        self._end()
        if not logs and not self.known:
            verdict.notes.append("there is no record here")
        verdict.head = Head(self.n, self.hash, logs[-1].first if logs else 0, 0)
        return verdict

    # -- the chain -----------------------------------------------------------------------------

    def _file(self, log: LogFile, *, newest: bool) -> None:
        add, name, number = self.verdict.add, log.path.name, 0
        texts = self.texts.setdefault(log.first, set())
        if log.first != self.n + 1:
            add(name, 0, self._jump(log.first))
        sha256, hashed, last = hashlib.sha256, self.hash.encode(), self.n
        known = self.known
        try:
            for number, line in enumerate(lines_of(log.path), 1):
                cut = len(line) - _TAIL
                whole = line[-3:] == b'"}\n' and line[cut : cut + 9] == b',"hash":"'
                if not whole:
                    if newest and not line.endswith(b"\n"):
                        self.verdict.notes.append(
                            f"{name}: its last line is half written, as a crash leaves it"
                        )
                        continue
                    add(name, number, "this is no record any more")
                    continue
                found = line[cut + 9 : -3]
                body = line[:cut] + b"}"
                try:
                    entry = _short(body)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    add(name, number, "this is no record any more")
                    last, hashed = last + 1, found
                    continue
                if sha256(hashed + body).hexdigest().encode() != found:
                    add(name, number, self._changed(entry.n, last))
                if entry.n in known:
                    self.hashes[entry.n] = found.decode()
                last, hashed = entry.n, found
                self.verdict.records += 1
                if b'"text:' in line:
                    texts.update(each.decode() for each in _TEXT.findall(line))
                if entry.kind == "redaction":
                    self.redacted.update(msgspec.json.decode(body).get("hashes", ()))
                elif entry.kind == "gap":
                    self._gap(name, number, msgspec.json.decode(body))
                elif entry.v > VERSION:
                    add(
                        name,
                        number,
                        f"expected schema version {VERSION}, got {entry.v}: use a later lo_kernel",
                    )
        except (OSError, ValueError) as error:
            add(name, number + 1, f"it can't be read on from here: {error}")
        self.n, self.hash = last, hashed.decode("ascii", "replace")

    def _jump(self, first: int) -> str:
        if first > self.n + 1:
            return f"the records {self.n + 1} to {first - 1} before it are gone, and no anchor says why"
        return f"it begins with record {first}, but the one before it ended with {self.n}"

    def _changed(self, number: int, before: int) -> str:
        if number == before + 1:
            return f"record {number} is not what was written here, or the one before it isn't"
        if number > before + 1:
            return f"the records {before + 1} to {number - 1} are missing before this one"
        return f"record {number} comes after record {before}: lines were moved or put in"

    def _gap(self, name: str, line: int, gap: dict[str, Any]) -> None:
        if gap.get("reason") == "lost":
            self.verdict.add(
                name, line, f"the records {gap['first']} to {gap['last']} were gone when this one was written"
            )
        else:
            self.verdict.notes.append(f"record {gap['n']}: a gap ({gap.get('reason')})")

    # -- its two ends --------------------------------------------------------------------------

    def _anchors(self) -> None:
        """Go along the anchors to where the chain begins now."""
        try:
            lines = (self.folder / "anchors.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return
        for place, line in enumerate(lines, 1):
            try:
                anchor = msgspec.json.decode(line, type=dict[str, Any])
                signature = anchor.pop("signature")
                first, last, before, after = (anchor[key] for key in ("first", "last", "before", "after"))
            except (msgspec.MsgspecError, KeyError):
                self.verdict.add("anchors.jsonl", place, "this is no anchor any more")
                continue
            good = self.witness.signed(canonical(anchor), signature)
            if good is False:
                self.verdict.add(
                    "anchors.jsonl", place, "its signature is not good: retention did not write it"
                )
                continue
            if good is None:
                self.verdict.notes.append(
                    f"the signature of anchor {place} can't be checked here: its key is with the user who "
                    "kept the record"
                )
            if first != self.n + 1 or before != self.hash:
                self.verdict.add("anchors.jsonl", place, f"expected an anchor from record {self.n + 1} on")
            self.n, self.hash = last, after
            self.verdict.notes.append(
                f"the records {first} to {last} were deleted on {anchor.get('at', '')[:10]} by retention"
            )
            if last in self.known:
                self.hashes[last] = after

    def _end(self) -> None:
        for number, (expected, where) in self.known.items():
            if number > self.n:
                self.verdict.add(
                    "the end",
                    0,
                    f"the chain ends with record {self.n}, but according to {where} it went on to {number}: "
                    f"{number - self.n} records are gone",
                )
            elif self.hashes.get(number, expected) != expected:
                self.verdict.add("the end", 0, f"record {number} is another one than {where} knows")
        if self.n and self.witness.head() is None:
            self.verdict.notes.append(
                "nothing outside of the workspace knows where this chain ended: whether records are missing "
                "at its end can't be told here"
            )
        for other in self.witness.others(self.workspace):
            head = other.head()
            if head is not None and head.n:
                self.verdict.add(
                    "the record",
                    0,
                    f"this workspace had another one, of {head.n} records, which is gone ({other.head_path}; "
                    "delete that file if this was meant)",
                )

    # -- texts ---------------------------------------------------------------------------------

    def _texts(self, log: LogFile) -> None:
        named, found = self.texts[log.first], set()
        path = text_path(self.folder, log.first, packed=log.packed)
        try:
            for number, line in enumerate(lines_of(path), 1):
                try:
                    text = _text(line)
                except msgspec.MsgspecError:
                    if line.endswith(b"\n"):
                        self.verdict.add(path.name, number, "this is no text any more")
                    continue
                if hashlib.sha256((text.salt + text.text).encode()).hexdigest() != text.hash:
                    self.verdict.add(path.name, number, "this text is not what was written")
                found.add(text.hash)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.verdict.add(path.name, 0, f"it can't be read: {error}")
        missing = named - found - self.redacted
        if missing:
            self.verdict.add(
                path.name, 0, f"{len(missing)} texts are gone, and no record says that they were deleted"
            )
        if gone := (named & self.redacted) - found:
            texts = "1 text" if len(gone) == 1 else f"{len(gone)} texts"
            self.verdict.notes.append(f"{path.name}: {texts} of it deleted, on record")

    # -- aliases -------------------------------------------------------------------------------

    def _aliases(self) -> None:
        """A line that was put in or changed; one that was deleted looks like an erasure."""
        name, unchecked = "aliases.jsonl", 0
        try:
            for number, line in enumerate(lines_of(self.folder / name), 1):
                try:
                    row = _alias(line)
                except msgspec.MsgspecError:
                    if line.endswith(b"\n"):
                        self.verdict.add(name, number, "this is no alias any more")
                    continue
                if row.erased:
                    continue
                good = self.witness.signed(signed_part(row.alias, row.learner), row.signature)
                if good is False:
                    self.verdict.add(
                        name, number, "its signature is not good: this alias is not whose it was"
                    )
                unchecked += good is None
        except OSError:
            pass
        if unchecked:
            self.verdict.notes.append(
                f"whose the {unchecked} aliases are can't be checked here: the key is with the user who kept "
                "the record"
            )
