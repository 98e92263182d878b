"""What queries need of the engine, as protocols.

The engine's classes fit these by their shape. Tests may bring small ones of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from lo_kernel.engine.keys import Scope

__all__ = [
    "JSON",
    "Changes",
    "Learner",
    "Learners",
    "MadeUpNames",
    "ReadLog",
    "Reducers",
    "Registration",
    "StateReader",
    "Unsubscribe",
]

JSON: TypeAlias = Any
"""A JSON value: ``None``, a bool, a number, a string, a list or a dict with string keys."""

Unsubscribe: TypeAlias = Callable[[], None]


class StateReader(Protocol):
    """Where states are read, on the app's loop."""

    async def read(self, keys: list[str]) -> list[JSON]:
        """States under ``keys``, in that order; ``None`` where there is none. They are copies."""
        ...

    async def keys(self, prefix: str) -> list[str]:
        """All keys that start with ``prefix``."""
        ...


class Changes(Protocol):
    """Where changes of states are heard; on the app's loop."""

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Unsubscribe:
        """Call ``listener`` with the Internal keys that changed, at most once per loop iteration.

        Where a reducer was replaced or restreamed, with all keys that may have changed.
        """
        ...


class Registration(Protocol):
    """A reducer, as queries see it."""

    @property
    def id(self) -> str:
        """Its name in queries."""
        ...

    @property
    def module(self) -> str:
        """The module under which it was registered."""
        ...

    @property
    def qualname(self) -> str:
        """The middle part of its keys in the store."""
        ...

    @property
    def scope(self) -> Scope:
        """What its states belong to."""
        ...

    @property
    def null_state(self) -> JSON:
        """What the reducer is given as the state of someone who has none yet."""
        ...

    @property
    def default(self) -> JSON:
        """What queries answer for someone who has no state; the null state where nothing else was said."""
        ...

    def why_stateless(self, key: str, /) -> str:
        """Why there is no state under a key: it ``failed`` at its events, ``kept`` nothing of them, or there
        were ``none``; empty where that isn't known.
        """
        ...

    def ready(self) -> Awaitable[object]:
        """Wait until it has gone through the past; at once where it has."""
        ...


class Reducers(Protocol):
    """The registry."""

    def get(self, reducer_id: str, /) -> Registration:
        """The reducer of this id; an ``UnknownReducerError`` that lists what there is otherwise."""
        ...

    def __iter__(self) -> Iterator[Registration]: ...


class Learner(Protocol):
    """Someone who has sent an event."""

    @property
    def safe_user_id(self) -> str:
        """The id under which states are stored, such as ``tc-testcase-u0``."""
        ...

    @property
    def user_id(self) -> str:
        """The id that the client gave, such as ``testcase-u0``."""
        ...


class Learners(Protocol):
    """Everyone seen so far, by safe id, in the order in which they came."""

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, safe_user_id: str, /) -> Learner: ...

    def __len__(self) -> int: ...

    def subscribe(self, listener: Callable[..., None], /) -> Unsubscribe:
        """Call ``listener`` when someone new is seen."""
        ...


class MadeUpNames(Protocol):
    """What learners are called where the names of the roster are not to be seen."""

    def of(self, learners: Iterable[str]) -> Mapping[str, str]:
        """The name of each (safe ids); ``OSError`` where a new one can't be kept."""
        ...


class ReadLog(Protocol):
    """Where it is put on record who read what, about whom."""

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """Put one reading on record; ``learners`` are safe ids."""
        ...
