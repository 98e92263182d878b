"""Values of one's own, and the list of keys: on record, and set only where they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from apps import running_app
from page_parts import send
from test_erasing import ADA, BEN, count
from waiting import auntil

from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import NotOwnerError
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.notebook.store_view import KeyValueStore
from lo_kernel.read_log import NoReadLog
from lo_kernel.settings import Settings


class Noted(NoReadLog):
    """What was put on record."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, list[str]]] = []

    def record(self, kind: str, what: str, learners: Iterable[str]) -> None:
        """A reading."""
        self.found.append((kind, what, sorted(learners)))

    def act(self, what: str, name: str = "", *, learners: Iterable[str] = (), **details: Any) -> None:
        """A deed."""
        self.found.append((what, str(details.get("texts")), sorted(learners)))


async def test_the_list_of_keys_is_a_reading(settings: Settings) -> None:
    """It names every learner: so they were read, by whoever asked for it; what is set is on record, too."""
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="erasing").ready()
        await send(runtime, "ada", "ben")
        await runtime.pipeline.commit()
        runtime.reads = noted = Noted()
        store = KeyValueStore(runtime, LoopBridge(asyncio.get_running_loop()))
        await store.set(f"of {ADA}", 1)
        assert len(await store.keys("Internal")) == 2
        assert noted.found == [
            ("value set", str({"key": f"of {ADA}"}), []),
            ("store", "the list of keys", [ADA, BEN]),
        ]


async def test_a_follower_does_not_take_what_it_would_lose(settings: Settings) -> None:
    """Setting a value there is an error that says where it can be set; the owner keeps it over restarts."""
    settings = replace(settings, store="sqlite")
    async with running_app(settings) as owner, running_app(settings) as follower:
        bridge = LoopBridge(asyncio.get_running_loop())
        with pytest.raises(NotOwnerError, match=r"lo\.own"):
            await KeyValueStore(follower, bridge).set("mine", 1)
        await KeyValueStore(owner, bridge).set("mine", 1)
    async with running_app(settings) as again:
        assert await KeyValueStore(again, LoopBridge(asyncio.get_running_loop()))["mine"] == 1


async def test_a_value_is_set_without_waiting_for_it(settings: Settings) -> None:
    """Setting starts at once; what it fails with, where nobody awaits it, is in the errors."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        job = lo.kvs.set("mine", 1)
        await auntil(lambda: job.finished, what="the value to be set")
        assert await lo.kvs["mine"] == 1
        wrong = lo.kvs.set("mine", object())
        await auntil(lambda: wrong.finished, what="the job to end")
        assert wrong.status == "failed"
        assert "kvs.set" in [entry.where for entry in runtime.errors]
