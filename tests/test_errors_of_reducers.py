"""What `lo.errors` has of a reducer: as long as the code that failed is the one that answers."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from ingest_parts import SOURCE, idle, running
from msgspec import Raw
from waiting import auntil

from lo_kernel.engine.archive.lines import decode_body
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SENDER = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]


async def came(runtime: Runtime, *numbers: int) -> None:
    """Events of these numbers, folded."""
    for number in numbers:
        body = {"event": "x", "number": number}
        await runtime.pipeline.accept(SENDER, body, json.dumps(body).encode(), 1.5)
    await idle(runtime)


def fragile(step: int) -> Any:
    """A counter that fails at one event; each step is other code."""

    def count(event: Any, state: Any) -> Any:
        if event["client"]["number"] == 2 and step == 1:
            raise KeyError("second")
        return {"n": state["n"] + step}, None

    return kvs_pipeline({"n": 0}, module_override="tests", qualname_override="count")(count)


async def test_the_same_cell_again_forgets_nothing(settings: Settings) -> None:
    """Where the same code goes on, what it failed at is still told; other code begins with a clean sheet."""
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
    async with running(settings) as runtime:
        await runtime.add_reducer("count", fragile(1), module="tests").ready()
        for number in range(4):
            body = {"event": "x", "number": number}
            runtime.pipeline.take(sender, body, json.dumps(body).encode(), 1.5)
        await idle(runtime)
        for _ in range(2):
            again = runtime.add_reducer("count", fragile(1), module="tests")
            await again.ready()
            assert again.errors == 1
            (entry,) = runtime.errors.of("reducer 'count'")
            assert entry.message == "'second'"
        await runtime.add_reducer("count", fragile(2), module="tests").ready()
        assert runtime.errors.of("reducer 'count'") == []


async def test_code_on_its_way_out_is_no_news(settings: Settings) -> None:
    """What the old code fails at while the new one goes through the past isn't told; where the new one is
    given up, the old one's failures are told again.
    """
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
    body = {"event": "x", "number": 2}
    async with running(settings) as runtime:

        def send(count: int = 1) -> None:
            for _ in range(count):
                runtime.pipeline.take(sender, dict(body), json.dumps(body).encode(), 1.5)

        await runtime.add_reducer("count", fragile(1), module="tests").ready()
        send(2000)
        assert len(runtime.errors.of("reducer 'count'")) == 1
        new = runtime.add_reducer("count", fragile(2), module="tests")
        send()
        await new.ready()
        await idle(runtime)
        assert runtime.errors.of("reducer 'count'") == []
        await runtime.add_reducer("count", fragile(1), module="tests").ready()
        runtime.errors.clear()
        given_up = runtime.add_reducer("count", fragile(2), module="tests")
        given_up.cancel()
        await auntil(lambda: given_up.status == "cancelled", what="the new one to be given up")
        send()
        assert len(runtime.errors.of("reducer 'count'")) == 1


@pytest.mark.parametrize("stored", [False, True])
async def test_who_takes_over_counts_each_failure_once(workspace: Path, stored: bool) -> None:
    """What is folded anew in the store of the workspace was told before; what comes then is told.

    ``stored`` is whether the owner had the reducer, so that states are there and all is told already.
    """
    settings = Settings(workspace=str(workspace), port=0)
    ending = AsyncExitStack()
    owner = await ending.enter_async_context(running(settings))
    if stored:
        await owner.add_reducer("count", fragile(1), module="tests").ready()
    async with running(settings) as follower:
        await follower.add_reducer("count", fragile(1), module="tests").ready()
        await came(owner, 1, 2, 3, 2)
        await auntil(lambda: follower.registry.get("count").events == 2)
        told: list[str] = []
        follower.errors.subscribe(lambda entry: told.append(str(entry)))
        await ending.aclose()

        async def failed() -> tuple[int, int, int]:
            taken_up = await follower.registry.get("count").ready()
            (entry,) = follower.errors.of("reducer 'count'")
            return taken_up.events, taken_up.errors, entry.count

        assert await failed() == (2, 2, 2)
        await follower.own()
        assert await failed() == (2, 2, 2)
        assert follower.registry.get("count").last_error == "KeyError: 'second'"
        await came(follower, 1, 2)
        assert await failed() == (3, 3, 3)
        assert not told, "it was told before"


async def test_a_reducer_that_is_not_taken_up_after_all_tells_its_errors_again(workspace: Path) -> None:
    """Where its way into the new store is cancelled it goes on as it was, and so does what is told of it."""
    settings = Settings(workspace=str(workspace), port=0)
    ending = AsyncExitStack()
    owner = await ending.enter_async_context(running(settings))
    async with running(settings) as follower:
        count = await follower.add_reducer("count", fragile(1), module="tests").ready()
        await came(owner, *[1] * 5000)
        await auntil(lambda: count.events == 5000)
        await ending.aclose()
        await follower.own()
        await auntil(lambda: count.status == "catching up")
        count.cancel()
        await auntil(lambda: count.status == "cancelled")
        await came(follower, 2)
        assert (count.errors, len(follower.errors.of("reducer 'count'"))) == (1, 1)


async def test_a_takeover_in_the_middle_of_other_code_counts_its_failures_alone(workspace: Path) -> None:
    """A reducer that was on its way through the past begins anew, and so does the count."""
    settings = Settings(workspace=str(workspace), port=0)
    ending = AsyncExitStack()
    owner = await ending.enter_async_context(running(settings))
    async with running(settings) as follower:
        await came(owner, 1, *[2] * 5000)
        await auntil(lambda: follower.pipeline.routed == 5001)
        new = follower.add_reducer("count", fragile(1), module="tests")
        await auntil(lambda: bool(follower.errors.of("reducer 'count'")))
        assert new.status == "catching up"
        await ending.aclose()
        await follower.own()
        taken_up = await follower.registry.get("count").ready()
        (entry,) = follower.errors.of("reducer 'count'")
        assert (taken_up.errors, entry.count) == (5000, 5000)


def fail(log: ErrorLog, at: int, message: str) -> None:
    """One error of a reducer, at one of two lines."""
    try:
        if at:
            raise ValueError(message)
        raise ValueError(message)
    except ValueError as error:
        log.add("reducer 'count'", error)


def test_errors_that_say_different_things_are_told_apart() -> None:
    """Another line of code is another entry; other messages of one line are counted, and two of them kept."""
    log = ErrorLog()
    for number in range(60):
        fail(log, 0, f"no {number // 2}")
    fail(log, 1, "no 0")
    first, second = log
    assert str(first) == "reducer 'count': ValueError: no 0 (60 times, 58 with another message)"
    lines = repr(first).splitlines()
    assert lines[1:4] == ["the message is another in 58 of 60, such as:", "    no 1", "    no 2"]
    assert str(second) == "reducer 'count': ValueError: no 0"
    log.rename("reducer 'count'", "gone")
    assert log.of("gone") == [first, second]
    log.drop(first)
    assert list(log) == [second]


def test_no_text_of_an_event_makes_the_log_grow() -> None:
    """However much messages differ, and however long they are: of two more the beginning is kept."""
    log = ErrorLog()
    for number in range(1000):
        fail(log, 0, f"{number} " + "long " * 100_000)
    (entry,) = log
    assert (entry.count, entry.others) == (1000, 999)
    assert [len(text) < 250 for text in entry.other_messages] == [True, True]
    assert [text.split()[0] for text in entry.other_messages] == ["1", "2"]


def test_many_lines_of_code_share_one_entry_in_the_end() -> None:
    """A reducer that fails everywhere leaves room for the others."""
    log = ErrorLog()
    log.add("store", "away")
    for line in range(500):
        code = compile("\n" * line + "raise ValueError('no')", "<cell>", "exec")
        try:
            exec(code)
        except ValueError as error:
            log.add("reducer 'count'", error)
    assert len(log.of("store")) == 1
    assert len(log.of("reducer 'count'")) == 11
    assert sum(entry.count for entry in log.of("reducer 'count'")) == 500


def test_what_the_store_says_is_one_trouble_wherever_it_was_asked() -> None:
    """Lines of this package are of no matter to a reader: place and kind tell an error from others."""
    log = ErrorLog()
    for key in (b"\xff", b"{"):
        try:
            decode_body(Raw(key))
        except ValueError as error:
            log.add("archive", error)
    assert len(log) == 1


def test_an_error_that_has_no_text_is_noted_all_the_same() -> None:
    """A class of a notebook may fail where its message is asked for."""

    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    log = ErrorLog()
    log.add("reducer 'count'", Silent())
    assert log[0].kind == "Silent"
