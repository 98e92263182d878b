"""``kvs`` and ``cache``: the store as the field sees it, over the app's one and only."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_kernel.engine.keys import learners_of, reading_of
from lo_kernel.engine.store import PLAIN
from lo_kernel.errors import LOError, NotOwnerError
from lo_kernel.query.values import check_key

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["FieldStore", "cache", "kvs"]

_REMEMBERED = 10_000  # answers that a memoized function keeps


class FieldStore:
    """``await kvs[key]``, ``await kvs.keys()``, ``await kvs.set(key, value)``, and what goes with them.

    A key that a reducer owns can be read; its states change by events alone.
    """

    def __init__(self, field: Field) -> None:
        self._field = field

    def __getitem__(self, key: str) -> Awaitable[Any]:
        return self._field.bridge.run(self._get([check_key(key)], one=True))

    async def _get(self, keys: Sequence[str], *, one: bool = False) -> Any:
        runtime = self._field.runtime
        for key in keys:
            runtime.reads.record("store", *reading_of(key))
        found = await runtime.registry.read(list(keys))
        return found[0] if one else found

    async def multiget(self, keys: Sequence[str]) -> list[Any]:
        """Several values, in the order asked for."""
        values: list[Any] = await self._field.bridge.run(self._get([check_key(key) for key in keys]))
        return values

    async def keys(self) -> list[str]:
        """All keys, those of external states too."""
        return await self._field.bridge.run(self._keys())

    async def _keys(self) -> list[str]:
        runtime = self._field.runtime
        await runtime.pipeline.commit()  # external states are in the store alone
        keys = await runtime.registry.keys()
        runtime.reads.record("store", "the list of keys", learners_of(keys))
        return keys

    async def set(self, key: str, value: Any) -> None:
        """Store a JSON value under a key of one's own."""
        await self._field.bridge.run(self._field.runtime.set_value(check_key(key), value))

    async def remove(self, key: str) -> None:
        """Take a key of one's own away, in the process that owns the workspace."""
        owner = self._field.runtime.registry.owner_of(check_key(key))
        if owner is not None:
            raise LOError(
                f"the key {key!r} belongs to the reducer {owner!r}: await lo.reducers.remove({owner!r}) "
                "takes it out with all its states"
            )
        await self._field.bridge.run(self._remove_one(key))

    async def _remove_one(self, key: str) -> None:
        self._check_owner(f"can't remove {key!r}: remove it")
        await self._remove([key])
        self._field.runtime.reads.act("value removed", learners=learners_of([key]), texts={"key": key})

    async def _remove(self, keys: Sequence[str]) -> None:
        runtime = self._field.runtime
        for key in keys:
            runtime.pipeline.plain.pop(key, None)
        await runtime.store.remove(PLAIN, list(keys))

    async def clear(self) -> None:
        """Begin anew: keys of one's own go, and all reducers start with no states; events stay archived.

        In the process that owns the workspace.
        """
        await self._field.bridge.run(self._clear())

    async def _clear(self) -> None:
        runtime = self._field.runtime
        self._check_owner("can't clear its store: clear it")
        for registration in runtime.registry.all():
            described = self._field.described(registration)
            await runtime.remove_reducer(registration.id)
            await self._field.add(described, migrate="drop").ready()
        owned = runtime.registry.owner_of
        keys = [key for key in await runtime.registry.keys() if owned(key) is None]
        await self._remove(keys)
        runtime.reads.act("store cleared", learners=learners_of(keys), texts={"key": keys})

    def _check_owner(self, what: str) -> None:
        """A process that follows has a store of its own: what is taken out there, the owner still has."""
        runtime = self._field.runtime
        if runtime.started is not None and not runtime.takes_events:
            raise NotOwnerError(
                f"this process follows the workspace, and {what} in the one that owns the workspace, or take "
                "it over with await lo.own() once that one has ended"
            )

    async def dump(self, filename: str | None = None) -> dict[str, Any]:
        """Everything as one JSON object, which is written to ``filename`` as well, where one is given."""
        keys = await self.keys()
        data = dict(zip(keys, await self.multiget(keys), strict=True))
        if filename:
            text = json.dumps(data, indent=4)
            await asyncio.to_thread(Path(filename).write_text, text, encoding="utf-8")
        return data

    async def load(self, filename: str) -> None:
        """Take keys of one's own from a file that :meth:`dump` wrote; those of reducers are left out."""
        text = await asyncio.to_thread(Path(filename).read_text, encoding="utf-8")
        for key, value in json.loads(text).items():
            if not key.startswith(("Internal,", "External,")):
                await self.set(key, value)


class _Stores:
    """``KVS``: called, it gives the store. Others by name, as the field configures them, are not there."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def __call__(self) -> FieldStore:
        return FieldStore(self._field)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is one store, KVS(), and none of the name {name!r}")


def kvs(field: Field) -> dict[str, Any]:
    """``kvs``."""

    def kvs_startup_check() -> bool:
        """Do nothing: the store is there."""
        return True

    return {"KVS": _Stores(field), "kvs_startup_check": kvs_startup_check}


def cache(field: Field) -> dict[str, Any]:
    """``cache``."""

    def async_memoization() -> Callable[[Any], Any]:
        """Let a coroutine function remember its answers, by its arguments as JSON."""

        def decorate(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            known: dict[str, Any] = {}

            @functools.wraps(function)
            async def remembered(*args: Any, **kwargs: Any) -> Any:
                key = json.dumps([args, kwargs], sort_keys=True)
                if key not in known:
                    answer = await function(*args, **kwargs)
                    while len(known) >= _REMEMBERED:
                        del known[next(iter(known))]
                    known[key] = answer
                return known[key]

            return remembered

        return decorate

    return {"async_memoization": async_memoization}
