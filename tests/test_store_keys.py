"""Keys of `lo.kvs` that no store can hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from apps import running_app

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import LOError, QueryError
from lo_kernel.notebook.store_view import KeyValueStore
from lo_kernel.settings import Settings


async def test_a_key_that_is_half_a_character_is_refused_in_words(settings: Settings) -> None:
    """Reading, listing and setting say which key it is, and never how text is encoded."""
    async with running_app(settings) as runtime:
        kvs = KeyValueStore(runtime, LoopBridge(asyncio.get_running_loop()))
        said = r"a key of the store: expected text, got half of a character: '\\ud83d'"
        with pytest.raises(QueryError, match=said):
            await kvs["\ud83d"]
        with pytest.raises(QueryError, match=said):
            await kvs.keys("\ud83d")
        with pytest.raises(QueryError, match=said):
            await kvs.set("\ud83d", 1)
        number: Any = 5
        with pytest.raises(LOError, match="a key is a text such as"):
            await kvs.set(number, 1)
        await kvs.set("\U0001f600", 1)
        assert await kvs["\U0001f600"] == 1
