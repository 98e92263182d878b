"""Somebody who was erased is in no open query any more, whichever way it found them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apps import running_app
from page_parts import send
from query_parts import Parts, Reducer
from waiting import auntil

from lo_kernel import KeyField, Scope, kvs_pipeline
from lo_kernel.app.erasing import erase
from lo_kernel.query.language import q
from lo_kernel.settings import Settings

LISTED = q.select(q.keys("count"), q.ALL)


@kvs_pipeline(null_state={"n": 0}, scope=Scope([KeyField.STUDENT]))
async def count(event: Any, state: Any) -> Any:
    """Count events."""
    state["n"] += 1
    return state, state


async def test_a_list_of_all_states_is_without_who_was_erased(tmp_path: Path) -> None:
    """An open query that lists what is in the store sends the row of who is erased away, whole."""
    async with running_app(Settings(workspace=str(tmp_path), port=0)) as runtime:
        await runtime.add_reducer("count", count, module="m").ready()
        await send(runtime, "ann", "ben")
        subscription = runtime.live.subscribe(LISTED)
        running = subscription.running
        await auntil(lambda: len(running.answer("result") or ()) == 2)
        await erase(runtime, "tc-testcase-ann")
        await auntil(lambda: len(running.answer("result")) == 1)
        await subscription.settled()
        assert [change.path for change in subscription.shared.board.snapshot().changes] == [
            "students.tc-testcase-ben"
        ]
        assert running.learners() == {"tc-testcase-ben"}
        subscription.close()


async def test_nor_is_a_list_of_the_states_of_one_that_waits_for_its_code(tmp_path: Path) -> None:
    """A reducer that is paused can't be run anew: with its states go all that an open query has of them."""
    settings = Settings(workspace=str(tmp_path), port=0)
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="m").ready()
        await send(runtime, "ann", "ben")
    async with running_app(settings) as runtime:
        subscription = runtime.live.subscribe(LISTED)
        running = subscription.running
        await auntil(lambda: len(running.answer("result") or ()) == 2)
        await erase(runtime, "tc-testcase-ann")
        await auntil(lambda: "no reducer has the id 'count'" in str(running.answer("result")))
        await subscription.settled()
        assert "tc-testcase" not in str(subscription.shared.board.snapshot().changes)
        subscription.close()


async def test_a_reducer_that_was_replaced_has_no_keys_of_the_one_before() -> None:
    """Keys that other code doesn't make any more are in no open query, as in none that is asked anew."""
    parts = Parts(Reducer("count", default={"n": None}), people=2)
    for learner in parts.people:
        parts.set("count", learner, {"n": 1})
    async with parts.live.subscribe(LISTED) as subscription:
        await anext(subscription)
        del parts.states.states["Internal,m.count,STUDENT:tc-u1"]
        parts.live.reducers_changed()
        assert (await anext(subscription)).gone == ["students.tc-u1"]
