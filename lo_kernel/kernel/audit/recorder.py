"""What is put on record: requests as a kernel takes them, what came of them, readings, deeds.

Nothing here raises into a cell or the app: what can't be written is counted, said in ``lo.errors`` once, and
put on record as a ``gap`` with the next record that can.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Token
from typing import Any, Final

from lo_kernel.kernel.audit.aliases import Aliases, has_events
from lo_kernel.kernel.audit.attribution import ASKING, Asking
from lo_kernel.kernel.audit.chain import Text, text_of
from lo_kernel.kernel.audit.log import AuditLog, Writing
from lo_kernel.kernel.audit.witness import Witness

__all__ = ["Recorder"]

_REMEMBERED: Final = 4096
"""Readings that are remembered so as not to be written again while they stay the same."""

_WHOLE: Final = 4  # a set is written as what changed while that is less than a fourth of it


class Recorder:
    """Writes what happens into an :class:`AuditLog`; it is the app's ``ReadLog``, too.

    ``on_error`` is told, once, what keeps the record from being written.
    """

    def __init__(self, log: AuditLog, *, on_error: Callable[[BaseException], None] | None = None) -> None:
        self.log = log
        self.on_error = on_error
        self._key: bytes | None = None
        self.aliases = Aliases(log.folder, sign=self._sign, present=self._present)
        self.pending: dict[str, str] = {}
        """Requests on record whose outcome isn't yet: their kinds by id."""
        self._erased: list[Callable[[str], bool]] = []  # whom no late output may name
        self._later: set[str] = set()  # requests that were taken after they were erased
        self._lost = 0
        self._lock = threading.RLock()
        self._file = 0  # whose sets and readings are remembered: each file can be read by itself
        self._sets: dict[frozenset[str], str] = {}
        self._last_set: tuple[str, frozenset[str]] = ("", frozenset())
        self._readings: dict[tuple[Asking | None, str, str], str] = {}

    # -- writing -------------------------------------------------------------------------------

    def write(self, kind: str, fields: Mapping[str, Any], texts: Sequence[Text] = ()) -> bool:
        """Put one record on record; whether that was possible."""
        return self._written(lambda writing: writing.append(kind, fields, texts))

    def _written(self, write: Callable[[Writing], object]) -> bool:
        try:
            with self._lock, self.log.writing() as writing:
                if self._lost:
                    writing.append("gap", {"reason": "not written", "records": self._lost})
                    self._lost = 0
                write(writing)
        except Exception as error:  # OSError for the most part; a cell must not notice any other either
            self._lost += 1
            if self._lost == 1:
                self.note(error)
            return False
        return True

    def note(self, error: BaseException) -> None:
        """Say what went wrong."""
        if self.on_error is not None:
            self.on_error(error)

    # -- requests ------------------------------------------------------------------------------

    def begin(
        self,
        kind: str,
        header: Mapping[str, Any],
        fields: Mapping[str, Any],
        texts: Mapping[str, Any] | None = None,
    ) -> Token[Asking | None]:
        """Put on record that a request was taken; what it reads from now on in this context is its doing.

        ``texts`` are the fields that are free text, or mappings and lists of such. What this gives is for
        :meth:`end`.
        """
        request = str(header.get("msg_id", ""))
        token = ASKING.set(Asking(request))
        record = {"request": request, "type": kind, **fields}
        if session := header.get("session"):
            record["session"] = session
        if username := header.get("username"):
            record["claims"] = username
        if subshell := header.get("subshell_id"):
            record["subshell"] = subshell
        self.pending[request] = kind
        if self._erased:
            self._later.add(request)
        aside: list[Text] = []
        for name, value in (texts or {}).items():
            record[name] = _set_aside(value, aside)
        self.write("intent", record, aside)
        return token

    def end(self, token: Token[Asking | None]) -> None:
        """What comes next in this context is no longer the request's doing."""
        with contextlib.suppress(ValueError):  # it began in another context, which is gone
            ASKING.reset(token)

    def within(self, kind: str, texts: Mapping[str, Any], **fields: Any) -> None:
        """Put on record something that a running request does, such as a ``!shell`` line."""
        aside: list[Text] = []
        named = {name: _set_aside(value, aside) for name, value in texts.items()}
        self.write("intent", {**self._asking(), "type": kind, **fields, **named}, aside)

    # -- readings (ReadLog) --------------------------------------------------------------------

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """Put on record that whoever asks has read these learners' data; again only when the set changes."""
        asking, members = ASKING.get(), frozenset(learners)
        self._written(lambda writing: self._read(writing, asking, kind, what, members))

    def _read(
        self, writing: Writing, asking: Asking | None, kind: str, what: str, members: frozenset[str]
    ) -> None:
        if writing.first != self._file:
            self._file = writing.first
            self._sets.clear()
            self._readings.clear()
            self._last_set = ("", frozenset())
        digest = self._set(writing, members)
        key = (asking, kind, what)
        if self._readings.get(key) == digest:
            return
        while len(self._readings) >= _REMEMBERED:
            del self._readings[next(iter(self._readings))]
        self._readings[key] = digest
        writing.append(
            "read",
            {**self._asking(asking), "type": kind, "what": what, "learners": len(members), "set": digest},
        )

    def _set(self, writing: Writing, members: frozenset[str]) -> str:
        """The digest of a set of learners, which is on record in this file from now on."""
        known = self._sets.get(members)
        if known is not None:
            return known
        ordered = sorted(members)
        aliases = sorted(self.aliases.of(ordered))
        digest = hashlib.sha256(",".join(aliases).encode()).hexdigest()[:32]
        base, before = self._last_set
        added, removed = members - before, before - members
        if base and len(added) + len(removed) < len(members) // _WHOLE:
            change = {
                "base": base,
                "add": sorted(self.aliases.of(added)),
                "remove": sorted(self.aliases.of(removed)),
            }
        else:
            change = {"add": aliases}
        writing.append("set", {"set": digest, "learners": len(members), **change})
        while len(self._sets) >= _REMEMBERED // 16:
            del self._sets[next(iter(self._sets))]
        self._sets[members] = digest
        self._last_set = (digest, members)
        return digest

    def act(self, what: str, name: str = "", *, learners: Iterable[str] = (), **details: Any) -> None:
        """Put a deed on record: a reducer loaded, an export, an erasure.

        ``details`` that are free text are given as ``texts={...}``.
        """
        asking, members = ASKING.get(), frozenset(learners)
        aside: list[Text] = []
        texts = {key: _set_aside(value, aside) for key, value in details.pop("texts", {}).items()}

        def write(writing: Writing) -> None:
            fields = {**self._asking(asking), "what": what, "name": name, **details, **texts}
            if members:
                if writing.first != self._file:
                    self._file = writing.first
                    self._sets.clear()
                    self._readings.clear()
                    self._last_set = ("", frozenset())
                fields |= {"learners": len(members), "set": self._set(writing, members)}
            writing.append("act", fields, aside)

        self._written(write)

    @contextlib.contextmanager
    def on_behalf(self, client: str, path: str, connection: str = "") -> Iterator[None]:
        """What is read inside is a client's doing: the kind of its token, what it asked for.

        ``connection`` tells those apart that stay, such as websockets.
        """
        token = ASKING.set(Asking(client=client, path=path, connection=connection))
        try:
            yield
        finally:
            ASKING.reset(token)

    def _asking(self, asking: Asking | None = None) -> dict[str, str]:
        asking = asking or ASKING.get()
        if asking is None:
            return {"by": "unattributed"}
        if asking.request:
            return {"by": "request", "request": asking.request}
        fields = {"by": "client", "client": asking.client, "path": asking.path}
        return fields | ({"connection": asking.connection} if asking.connection else {})

    # -- learners ------------------------------------------------------------------------------

    def _sign(self, data: bytes) -> str:
        if self._key is None:
            try:
                self._key = Witness(self.log.chain, self.log.state).key()
            except OSError:  # a home that can't be written: `verify` says what that costs
                self._key = b""
        return hmac.digest(self._key, data, "sha256").hex() if self._key else ""

    def _present(self, learners: Iterable[str]) -> set[str]:
        """Those of whom there are events."""
        return {learner for learner in learners if has_events(self.log.workspace, learner)}

    def forget(self, learner: str, named: Callable[[str], bool] | None = None) -> int:
        """Delete a learner's alias, and texts that are ``named`` (by default: that hold the id); how many.

        The record is as whole as before, and names them no more. Raises ``OSError`` where it can't be
        written.
        """
        from lo_kernel.engine.learners import mentions
        from lo_kernel.kernel.audit.erasing import delete_texts

        named = named or mentions([], ids=[learner])
        with self._lock:
            with self.log.writing():
                self.aliases.forget(learner)
                self._sets.clear()
                self._readings.clear()
                self._last_set = ("", frozenset())
            self._erased.append(named)
            self._later.clear()
        return delete_texts(self.log, named, "a learner was erased", on_damage=self.note)

    def knows(self, learner: str) -> bool:
        """Whether a learner has an alias."""
        return self.aliases.find(learner) is not None

    def withholds(self, request: str, output: str) -> bool:
        """Whether an output is not to be put on record: it names somebody who was erased after the request
        was taken. What a request gives comes to the record a moment later than it happened.
        """
        return request not in self._later and any(named(output) for named in self._erased)


def _set_aside(value: Any, aside: list[Text]) -> Any:
    """What stands in the chain for a free text: ``text:<hash>``; the text goes to ``aside``."""
    if isinstance(value, Mapping):
        return {str(name): _set_aside(each, aside) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_set_aside(each, aside) for each in value]
    text = text_of(str(value))
    aside.append(text)
    return f"text:{text.hash}"
