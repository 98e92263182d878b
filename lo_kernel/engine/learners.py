"""Who was seen: every learner that an event came from, kept in the store with an archive position."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from lo_kernel.engine.events import Identity, Sender
from lo_kernel.engine.store import Commit, ReducerRow, Store

__all__ = ["Learner", "Learners", "mentions"]

_ROW = "lo_kernel.learners"
_GENERATION = -1


# What may stand within a safe id beside letters, digits and "_": it ends one only where none follows.
_WITHIN = r"[.\-+~@%]"
_COLOUR = re.compile(r"(?:\x1b|\\+(?:u001b|x1b|033))\[[0-9;]*m")
_ESCAPE = re.compile(r"\\+[abfnrtv]")


def mentions(names: Iterable[str], ids: Iterable[str] = ()) -> Callable[[str], bool]:
    """What tells whether a text names somebody by one of ``names``, in any case, or by one of ``ids``.

    Whole ones only: not where more of an id follows or goes before. One of one to three characters, which
    may be any number or word, counts between quotation marks only. The text may be JSON, or code: what is
    written as ``\\n`` there is no letter of a name; nor is a terminal's colour.

    >>> named = mentions(["Copper Heron", "7"], ids=["tc-u1"])
    >>> [named(text) for text in ("of tc-u1.", "the copper heron", "who == '7'")]
    [True, True, True]
    >>> [named(text) for text in ("tc-u10", "tc-u1-b", "tc-u1.b", "tc-U1", "x = 7")]
    [False, False, False, False, False]
    """
    parts = [*(_whole(name, "i") for name in names if name), *(_whole(name) for name in ids if name)]
    if not parts:
        return lambda text: False
    search = re.compile("|".join(parts)).search

    def named(text: str) -> bool:
        written = "\\" in text or "\x1b" in text
        return search(text) is not None or (written and search(_plain(text)) is not None)

    return named


def _plain(text: str) -> str:
    return _ESCAPE.sub(" ", _COLOUR.sub("", text)).replace('\\"', '"').replace("\\'", "'")


def _whole(name: str, flags: str = "") -> str:
    here = f"(?{flags}:{re.escape(name)})" if flags else re.escape(name)
    if len(name) <= 3:
        return rf"(?<=[\"']){here}(?=[\"'])"
    return rf"(?<!\w)(?<!\w{_WITHIN}){here}(?!{_WITHIN}*\w)"


class Learner(msgspec.Struct):
    """A learner; times are seconds since 1970 (UTC)."""

    safe_user_id: str
    user_id: str
    providence: str
    first_seen: float
    last_seen: float
    events: int = 0


class Learners(Mapping[str, Learner]):
    """Learners by safe id, in the order of their first event.

    >>> learners = Learners()
    >>> learners.seen(Identity("testcase-u0", "tc-testcase-u0", "tc"), 1.5).user_id
    'testcase-u0'
    >>> list(learners)
    ['tc-testcase-u0']
    """

    def __init__(self) -> None:
        self._learners: dict[str, Learner] = {}
        self._dirty: set[str] = set()
        self._listeners: list[Callable[[Learner], None]] = []
        self._touched: list[Sender] = []
        self.position = 0  # number of the newest event that is in what was committed

    def seen(self, identity: Identity, time: float) -> Learner:
        """Note an event of a learner."""
        return self._count(identity, 1, time)

    def touch(self, sender: Sender, time: float) -> None:
        """Note the first event of a sender in a batch; more are counted in the sender itself."""
        sender.fresh = 1
        sender.last = time
        self._touched.append(sender)
        if sender.student not in self._learners:
            self._count(sender.identity, 0, time)

    def _count(self, identity: Identity, events: int, time: float) -> Learner:
        learner = self._learners.get(identity.safe_user_id)
        if learner is None:
            safe_id = identity.safe_user_id
            learner = Learner(safe_id, identity.user_id, identity.providence, time, time, events)
            self._learners[safe_id] = learner
            for listener in list(self._listeners):
                listener(learner)
        else:
            learner.events += events
            if time > learner.last_seen:
                learner.last_seen = time
        self._dirty.add(learner.safe_user_id)
        return learner

    def _gather(self) -> None:
        touched, self._touched = self._touched, []
        for sender in touched:
            self._count(sender.identity, sender.fresh, sender.last)
            sender.fresh = 0

    def subscribe(self, listener: Callable[[Learner], None]) -> Callable[[], None]:
        """Call ``listener`` when somebody new is seen; gives what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def load(self, store: Store) -> None:
        """Take up what the store holds, and nothing else."""
        self._gather()
        self._learners, self._dirty, self.position = {}, set(), 0
        for row in await store.rows():
            if row.id == _ROW:
                self.position = row.position
        keys = await store.keys(_GENERATION)
        for text in await store.get_many(_GENERATION, keys):
            if text is not None:
                learner = msgspec.json.decode(text, type=Learner)
                self._learners[learner.safe_user_id] = learner
        self._learners = dict(sorted(self._learners.items(), key=lambda item: item[1].first_seen))

    def commit(self, position: int) -> Commit | None:
        """What to write so that the store stands at an archive position; ``None`` where nothing changed."""
        self._gather()
        if position == self.position and not self._dirty:
            return None
        self.position = position
        states = {name: msgspec.json.encode(self._learners[name]) for name in self._dirty}
        self._dirty = set()
        row = ReducerRow(
            id=_ROW, key_name=_ROW, context="*", scope=[], code="1", generation=_GENERATION, position=position
        )
        return Commit(_GENERATION, states, row)

    def join(self, earlier: Learners) -> None:
        """Add what was counted elsewhere, of other events: earlier ones."""
        self._gather()
        for name, found in earlier._learners.items():
            mine = self._learners.get(name)
            if mine is None:
                self._learners[name] = found
                for listener in list(self._listeners):
                    listener(found)
            else:
                mine.events += found.events
                mine.first_seen = min(mine.first_seen, found.first_seen)
                mine.last_seen = max(mine.last_seen, found.last_seen)
        self._learners = dict(sorted(self._learners.items(), key=lambda item: item[1].first_seen))
        self._dirty.update(earlier._dirty)
        self.position = -1

    async def forget(self, safe_user_id: str, store: Store) -> bool:
        """Take a learner out, of the store too; whether they were known.

        No commit may be on its way to the store. An event of theirs that comes meanwhile counts anew.
        """
        self._gather()
        self._dirty.discard(safe_user_id)
        known = self._learners.pop(safe_user_id, None) is not None
        await store.remove(_GENERATION, [safe_user_id])
        return known

    def unsaved(self, commit: Commit) -> None:
        """The store didn't take a commit: it comes again with the next."""
        self._dirty.update(commit.states)
        self.position = -1

    def __getitem__(self, safe_user_id: str) -> Learner:
        if self._touched:
            self._gather()
        return self._learners[safe_user_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._learners)

    def __len__(self) -> int:
        return len(self._learners)
