"""Made-up names: what a notebook calls a learner where a name is wanted.

    names.jsonl    {"learner":"tc-testcase-ada","name":"Copper Heron"}

A learner keeps the name as long as the workspace lasts. It is drawn by lot and not computed from the id, so
nobody who lacks this file, which its user alone can read, finds the one from the other; and once the line is
deleted, nobody does. The words are things and animals: no name that a child has, and none that says anything
of one.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from lo_kernel.lock import FileLock
from lo_kernel.workspace import write_private

__all__ = ["MadeUpNames"]

_FIRST: Final = [
    "Acorn", "Agate", "Alder", "Almond", "Alpine", "Apple", "Arctic", "Atlas", "Azure", "Bamboo",
    "Barley", "Basalt", "Birch", "Bronze", "Butter", "Cactus", "Canyon", "Cedar", "Chalk", "Cherry",
    "Chestnut", "Citrus", "Clay", "Clover", "Cobalt", "Cocoa", "Comet", "Copper", "Cork", "Cotton",
    "Crystal", "Delta", "Denim", "Elm", "Ember", "Fennel", "Fjord", "Flint", "Garnet", "Glacier",
    "Granite", "Harbor", "Island", "Lagoon", "Larch", "Lemon", "Lichen", "Lilac", "Lime", "Linen",
    "Lunar", "Magenta", "Mango", "Maple", "Marble", "Meadow", "Melon", "Mint", "Misty", "Morning", "Moss",
    "Nickel", "Nutmeg", "Oak", "Ocean", "Ochre", "Orbit", "Palm", "Papaya", "Peach", "Pepper", "Pine",
    "Plum", "Polar", "Poplar", "Prairie", "Quartz", "Reed", "Sandy", "Satin", "Sesame", "Silver", "Slate",
    "Solar", "Sorrel", "Spruce", "Summit", "Sunny", "Teal", "Thistle", "Timber", "Topaz", "Tundra",
    "Umber", "Valley", "Vanilla", "Velvet", "Walnut", "Winter", "Zinc",
]  # fmt: skip
_SECOND: Final = [
    "Albatross", "Avocet", "Badger", "Bison", "Bittern", "Caribou", "Condor", "Cormorant", "Crane",
    "Curlew", "Dipper", "Dolphin", "Dunlin", "Egret", "Eider", "Falcon", "Fulmar", "Gannet", "Gazelle",
    "Gecko", "Godwit", "Goldfinch", "Grebe", "Guillemot", "Harrier", "Heron", "Hoopoe", "Ibex", "Ibis",
    "Jacana", "Kakapo", "Kestrel", "Kingfisher", "Kinglet", "Kiwi", "Koala", "Lapwing", "Lark", "Linnet",
    "Lynx", "Magpie", "Mallard", "Marmot", "Nuthatch", "Oriole", "Osprey", "Otter", "Panda", "Pelican",
    "Penguin", "Petrel", "Pintail", "Pipit", "Plover", "Puffin", "Quail", "Redstart", "Sandpiper", "Seal",
    "Shelduck", "Shrike", "Siskin", "Skylark", "Snipe", "Sparrow", "Starling", "Stork", "Swallow", "Swan",
    "Tanager", "Tapir", "Tern", "Thrush", "Toucan", "Turnstone", "Turtle", "Wagtail", "Warbler",
    "Waxwing", "Wheatear", "Whimbrel", "Widgeon", "Wombat",
]  # fmt: skip
_TRIES: Final = 20  # draws after which names get a number: most of them are taken
_LOCK_WITHIN: Final = 0.004  # s that another process at the file may hold up the loop
_PAUSE: Final = 0.1  # s after which it may do so again


class _Row(msgspec.Struct, gc=False):
    learner: str
    name: str


_row = msgspec.json.Decoder(_Row).decode


class MadeUpNames:
    """The made-up names of a workspace, shared by all processes that use it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     names = MadeUpNames(Path(folder)).of(["tc-u0", "tc-u1"])
    ...     again = MadeUpNames(Path(folder)).of(["tc-u1", "tc-u0"])
    >>> names == again, len(set(names.values()))
    (True, 2)
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "names.jsonl"
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._again = 0.0  # when names may be drawn, where another process was at it for too long

    def of(self, learners: Iterable[str]) -> dict[str, str]:
        """The name of each learner (safe ids); who has none yet is given one.

        While another process is busy with the file for more than a few milliseconds, who has none yet is left
        out: asked again later, they are given one. ``OSError`` where that can't be written down.
        """
        wanted = list(learners)
        if any(learner not in self._names for learner in wanted) and time.monotonic() >= self._again:
            try:
                self._add(wanted)
            except TimeoutError:
                self._again = time.monotonic() + _PAUSE
        return {learner: self._names[learner] for learner in wanted if learner in self._names}

    def find(self, learner: str) -> str | None:
        """The name of a learner who was given one."""
        self._refresh()
        return self._names.get(learner)

    def forget(self, learner: str) -> bool:
        """Delete a learner's name; whether there was one.

        ``TimeoutError`` while another process is busy with the file for more than a few milliseconds.
        """
        if self.find(learner) is None:
            return False
        lock = self._locked()
        try:
            self._refresh()
            if learner not in self._names:
                return False
            self._taken.discard(self._names.pop(learner))
            rows = (msgspec.json.encode(_Row(who, name)) + b"\n" for who, name in self._names.items())
            write_private(self.path, b"".join(rows))
            self._stamp = self._now()
            return True
        finally:
            lock.release()

    def _add(self, learners: list[str]) -> None:
        self._refresh()
        if all(learner in self._names for learner in learners):  # another process has named them
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self._locked()
        try:
            self._refresh()
            drawn: dict[str, str] = {}
            for learner in learners:
                if learner not in self._names and learner not in drawn:
                    drawn[learner] = self._draw()
                    self._taken.add(drawn[learner])
            if drawn:
                made = [msgspec.json.encode(_Row(who, name)) + b"\n" for who, name in drawn.items()]
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                with os.fdopen(descriptor, "rb+") as file:
                    end = file.seek(0, os.SEEK_END)
                    file.seek(max(0, end - 1))
                    if end and file.read() != b"\n":
                        made.insert(0, b"\n")  # the last line is half written
                    file.write(b"".join(made))
                self._names.update(drawn)  # now that they stand where others read them
                self._stamp = self._now()
        finally:
            lock.release()

    def _draw(self) -> str:
        number = 1
        while True:
            for _ in range(_TRIES):
                name = f"{secrets.choice(_FIRST)} {secrets.choice(_SECOND)}"
                if number > 1:
                    name += f" {number}"
                if name not in self._taken:
                    return name
            number += 1

    def _refresh(self) -> None:
        """Read the file anew where another process has changed it."""
        stamp = self._now()
        if stamp == self._stamp:
            return
        self._names.clear()
        self._taken.clear()
        if stamp != (0, 0, 0):
            for line in self.path.read_bytes().splitlines():
                try:
                    row = _row(line)
                except msgspec.MsgspecError:  # half written by a process that was killed
                    continue
                self._names[row.learner] = row.name
                self._taken.add(row.name)
        self._stamp = stamp

    def _locked(self) -> FileLock:
        lock = FileLock(self.path.with_name("names.lock"))
        deadline = time.monotonic() + _LOCK_WITHIN
        while not lock.acquire():
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {lock.path} for too long: try again")
            time.sleep(0.0005)
        return lock

    def _now(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns)
