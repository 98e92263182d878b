"""``util``: small functions that modules of the field use."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["util"]

_MISSING: Any = object()


def util(field: Field) -> dict[str, Any]:
    """``util``."""
    count = itertools.count(1)

    def generate_unique_token() -> str:
        """A text that no other call gives."""
        return f"{next(count)}-{_timestamp()}-{uuid.uuid4()}"

    return {
        "async_generator_to_list": _listed,
        "async_zip": _zipped,
        "clean_json": _clean,
        "ensure_async_generator": _each,
        "from_safe_filename": lambda name: re.sub(r"-(\d+)-", lambda found: chr(int(found[1])), name),
        "generate_unique_token": generate_unique_token,
        "get_domain_from_email": lambda email: email.partition("@")[2] or None if email else None,
        "get_nested_dict_value": _get,
        "get_seconds_since_epoch": lambda: datetime.now(UTC).timestamp(),
        "insecure_hash": lambda data: "MD5_" + hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "paginate": lambda items, size: [items[at : at + size] for at in range(0, len(items), size)],
        "remove_nested_dict_value": _remove,
        "secure_hash": lambda data: "SHA512_" + hashlib.sha3_512(data).hexdigest(),
        "timeparse": datetime.fromisoformat,
        "timestamp": _timestamp,
        "to_safe_filename": lambda name: "".join(map(_safe, name)),
        "translate_json_keys": _translated,
        "url_pathname": lambda address: address.split("/", 3)[-1],
    }


def _timestamp() -> str:
    """Now, in UTC, as ISO 8601 without a zone."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat()


def _safe(character: str) -> str:
    known = character.isidentifier() or character.isalnum()
    return character if known else f"-{ord(character)}-"


def _get(d: Any, key_str: str | None = None, default: Any = _MISSING) -> Any:
    """The value at a dotted path; ``KeyError`` where there is none, and no default."""
    here = d
    for name in filter(None, (key_str or "").split(".")):
        if not isinstance(here, dict) or name not in here:
            if default is _MISSING:
                raise KeyError(f"there is nothing at {key_str!r}")
            return default
        here = here[name]
    return here


def _remove(d: Any, key_str: str) -> Any:
    """Take the value at a dotted path out, and give it."""
    path, _, name = key_str.rpartition(".")
    holder = _get(d, path)
    if not isinstance(holder, dict) or name not in holder:
        raise KeyError(f"there is nothing at {key_str!r}")
    return holder.pop(name)


def _translated(d: Any, translations: dict[str, str]) -> Any:
    """Give keys other names, in place and all the way down."""
    if isinstance(d, dict):
        for key in list(d):
            d[translations.get(key, key)] = _translated(d.pop(key), translations)
    elif isinstance(d, list):
        for item in d:
            _translated(item, translations)
    return d


def _clean(value: Any) -> Any:
    """A copy that is JSON: what isn't becomes text."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | type({}.keys())):
        return [_clean(item) for item in value]
    return str(value)


async def _each(items: Any) -> AsyncIterator[Any]:
    """Anything as an async iterator; a dict is one item."""
    if isinstance(items, dict):
        yield items
    elif isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    elif isinstance(items, Iterable):
        for item in items:
            yield item
    else:
        raise TypeError(f"expected something to go through, got {type(items).__name__}")


async def _zipped(first: Any, second: Any) -> AsyncIterator[Any]:
    """Two of them side by side, as far as the shorter one goes."""
    left, right = aiter(_each(first)), aiter(_each(second))
    while True:
        try:
            yield tuple(await asyncio.gather(anext(left), anext(right)))
        except StopAsyncIteration:
            return


async def _listed(items: Any) -> list[Any]:
    """All items of an async iterator."""
    return [item async for item in items]
