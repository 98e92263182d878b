"""``lo.kvs``: the store as a notebook sees it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
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

    def __getitem__(self, key: str) -> Coroutine[Any, Any, Any]:
        key = _checked(key)
        return _Reading(f"lo.kvs[{key!r}]", lambda: self._bridge.run(self._get(key)))

    async def _get(self, key: str) -> Any:
        from lo_kernel.engine.keys import reading_of

        self._runtime.reads.record("store", *reading_of(key))
        return (await self._runtime.registry.read([key]))[0]

    def keys(self, prefix: str = "") -> Coroutine[Any, Any, list[str]]:
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


class _Reading(Coroutine[Any, Any, T]):
    """Something that is read from the store when it is awaited, each time anew.

    It is a coroutine for ``asyncio.run`` and ``asyncio.create_task``, and may be left without a warning.
    """

    def __init__(self, written: str, read: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._written = written
        self._read = read
        self._begun: Coroutine[Any, Any, T] | None = None  # by a task that goes on with it by itself

    def __await__(self) -> Generator[Any, None, T]:
        return self._read().__await__()

    def send(self, value: Any, /) -> Any:
        """Go on, as a task does; begins where that hasn't happened yet."""
        if self._begun is None:
            self._begun = self._read()
        return self._going_on(lambda begun: begun.send(value))

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any:
        """Raise an error where it waits, as a task does that is cancelled."""
        if self._begun is None:
            return super().throw(typ, val, tb)
        return self._going_on(lambda begun: begun.throw(typ if val is None else val))

    def close(self) -> None:
        """End what has begun."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.close()

    def _going_on(self, step: Callable[[Coroutine[Any, Any, T]], Any]) -> Any:
        begun = self._begun
        assert begun is not None
        try:
            return step(begun)
        except BaseException:  # it has ended, in whatever way
            self._begun = None
            raise

    def __iter__(self) -> NoReturn:
        raise TypeError(f"nothing is read yet: write for ... in await {self._written}")

    def __contains__(self, item: object) -> bool:
        raise TypeError(f"nothing is read yet: write {item!r} in await {self._written}")

    def __getitem__(self, key: Any) -> NoReturn:
        raise TypeError(f"nothing is read yet: write (await {self._written})[{key!r}]")

    def __repr__(self) -> str:
        return f"<not read yet: write await {self._written}>"


def _checked(key: str) -> str:
    from lo_kernel.query.values import check_key

    return check_key(key)
