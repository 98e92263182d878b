"""The field's own names for store and rosters: on record, and refused, where `lo` and the pages are."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from typing import Any

import pytest
from apps import running_app
from page_parts import send
from test_erasing import ADA, BEN, count
from test_kvs_on_record import Noted

from lo_kernel.bridge import LoopBridge
from lo_kernel.compat.field import Field
from lo_kernel.compat.storing import FieldStore
from lo_kernel.errors import LOError, NotOwnerError, QueryError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


def store_of(runtime: Runtime) -> FieldStore:
    """The store of this app, whichever was started last."""
    return FieldStore(Field(runtime, LoopBridge(asyncio.get_running_loop())))


async def test_what_is_taken_out_of_the_store_is_on_record(settings: Settings) -> None:
    """Removing a key and clearing all are deeds as setting one is; whose blobs went is said."""
    blob = f"Blob,{ADA},my.source,essay"
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="erasing").ready()
        await runtime.set_value(blob, "text")
        await runtime.set_value("other", 1)
        await runtime.set_value("mine", 1)
        runtime.reads = noted = Noted()
        store = store_of(runtime)
        await store.remove("mine")
        assert noted.found == [("value removed", str({"key": "mine"}), [])]
        await store.clear()
        assert await runtime.registry.keys() == []
        assert [what for what, _, _ in noted.found[1:]] == ["reducer removed", "reducer", "store cleared"]
        assert noted.found[-1] == ("store cleared", str({"key": [blob, "other"]}), [ADA])


async def test_a_follower_takes_nothing_out(settings: Settings) -> None:
    """It would be out of its own memory alone: the error says where to do it, and nothing is on record."""
    settings = replace(settings, store="sqlite")
    async with running_app(settings) as owner, running_app(settings) as follower:
        await store_of(owner).set("mine", 1)
        follower.reads = noted = Noted()
        store = store_of(follower)
        with pytest.raises(NotOwnerError, match=r"can't remove 'mine': .*lo\.own"):
            await store.remove("mine")
        with pytest.raises(NotOwnerError, match=r"can't clear its store: .*lo\.own"):
            await store.clear()
        assert noted.found == []
        assert await store_of(owner)["mine"] == 1


async def test_a_key_that_no_store_holds_is_refused_in_words(settings: Settings) -> None:
    """By each verb, as `lo.kvs` does; the store goes on working."""
    async with running_app(replace(settings, store="sqlite")) as runtime:
        store = store_of(runtime)
        half, number = "half \ud83d", 5
        wrong: Any
        for wrong, error in ((half, QueryError), (number, LOError)):
            with pytest.raises(error, match="key"):
                await store[wrong]
            with pytest.raises(error, match="key"):
                await store.multiget(["mine", wrong])
            with pytest.raises(error, match="key"):
                await store.set(wrong, 1)
            with pytest.raises(error, match="key"):
                await store.remove(wrong)
        await store.set("mine", 1)
        assert await store["mine"] == 1


async def test_a_class_is_a_reading(settings: Settings) -> None:
    """`rosters.courseroster` is on record as the page's way to the same is, with whose data it gave."""
    async with running_app(settings) as runtime:
        await send(runtime, "ada", "ben")
        runtime.reads = noted = Noted()
        rosters = importlib.import_module("learning_observer.rosters")
        assert [row["user_id"] for row in await rosters.courseroster(None, "all")] == [ADA, BEN]
        assert noted.found == [("roster", "the roster of a course", [ADA, BEN])]
