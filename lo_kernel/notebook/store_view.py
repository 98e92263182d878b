"""``lo.kvs``: the store as a notebook sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lo_kernel.notebook.jobs import Job

if TYPE_CHECKING:
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.runtime import Runtime

__all__ = ["KeyValueStore"]

T = TypeVar("T")


class KeyValueStore:
    """The store: ``await lo.kvs[key]``, ``await lo.kvs.keys()``, ``await lo.kvs.set(key, value)``.

    A state's key is ``Internal,<module>.<function>,STUDENT:<safe id>``; keys that a reducer owns are
    read-only. A key that holds nothing gives ``None``. ``set`` starts at once and gives a job; what reads,
    reads when it is awaited. ``start`` makes the job of a name and its work.
    """

    def __init__(
        self, runtime: Runtime, bridge: LoopBridge, start: Callable[..., Job[Any]] | None = None
    ) -> None:
        self._runtime = runtime
        self._bridge = bridge
        self._start = start

    def __getitem__(self, key: str) -> Awaitable[Any]:
        key = _checked(key)
        return _Reading(f"lo.kvs[{key!r}]", lambda: self._bridge.run(self._get(key)))

    async def _get(self, key: str) -> Any:
        from lo_kernel.engine.keys import reading_of

        self._runtime.reads.record("store", *reading_of(key))
        return (await self._runtime.registry.read([key]))[0]

    def keys(self, prefix: str = "") -> Awaitable[list[str]]:
        """All keys that start with ``prefix``, sorted."""
        prefix = _checked(prefix)
        return _Reading(f"lo.kvs.keys({prefix!r})", lambda: self._bridge.run(self._keys(prefix)))

    async def _keys(self, prefix: str) -> list[str]:
        from lo_kernel.engine.keys import learners_of

        keys = await self._runtime.registry.keys(prefix)
        self._runtime.reads.record("store", "the list of keys", learners_of(keys))
        return keys

    def set(self, key: str, value: Any) -> Job[None]:
        """Store a JSON value under a key of one's own, in the process that owns the workspace."""
        work = self._runtime.set_value(_checked(key), value)
        return Job("kvs.set", work, self._bridge) if self._start is None else self._start("kvs.set", work)

    def __repr__(self) -> str:
        return f"<store {self._runtime.store.name}: await lo.kvs[key], await lo.kvs.keys(prefix)>"


class _Reading(Awaitable[T]):
    """Something that is read from the store when it is awaited, each time anew."""

    def __init__(self, written: str, read: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._written = written
        self._read = read

    def __await__(self) -> Generator[Any, None, T]:
        return self._read().__await__()

    def __getitem__(self, key: Any) -> NoReturn:
        raise TypeError(f"nothing is read yet: write (await {self._written})[{key!r}]")

    def __repr__(self) -> str:
        return f"<not read yet: write await {self._written}>"


def _checked(key: str) -> str:
    from lo_kernel.query.values import check_key

    return check_key(key)
