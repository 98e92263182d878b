"""Erasing and exporting a learner beside what goes on: modules keep their states, the loop goes on."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from field_parts import install, on_path
from page_parts import send
from test_erase import KID, told_of

from lo_kernel.app import erasing, holding
from lo_kernel.app.erasing import erase
from lo_kernel.app.holding import held
from lo_kernel.engine.learners import mentions
from lo_kernel.settings import Settings


async def test_a_modules_states_go_on_after_an_erasure(settings: Settings, tmp_path: Path) -> None:
    """Its reducers are the same code as before, so the next start takes their states up where they stand."""
    settings = replace(settings, store="sqlite")
    with on_path(install(tmp_path / "site", "reading_log")):
        async with running_app(settings) as runtime:
            await send(runtime, "kid-1", "kid-10")
            before = {each.id: each.code for each in runtime.registry}
            assert before
            await erase(runtime, KID)
            assert {each.id: each.code for each in runtime.registry} == before
            states = {each.id: each.run.generation for each in runtime.registry if each.run}
        async with running_app(settings) as runtime:
            again = [await each.ready() for each in runtime.registry]
            assert {each.id: each.run.generation for each in again if each.run} == states


@pytest.mark.parametrize("how", ["erase", "held"])
async def test_values_are_searched_beside_the_loop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Neither keys nor values are looked through on the loop's thread, which has events to take meanwhile."""
    searched: list[tuple[str, bool]] = []
    loop = threading.current_thread()

    def watched(names: Any, ids: Any = ()) -> Any:
        named = mentions(names, ids)

        def look(text: str) -> bool:
            searched.append((text, threading.current_thread() is loop))
            return named(text)

        return look

    monkeypatch.setattr(erasing if how == "erase" else holding, "mentions", watched)
    async with running_app(settings) as runtime:
        await told_of(runtime)
        await (erase if how == "erase" else held)(runtime, KID)
    for text in ("namesake", f'"{KID}0"'):  # a key, and what is in its value
        assert (text, False) in searched
    assert [text for text, on_loop in searched if on_loop] == []


def test_a_value_names_somebody_inside_only() -> None:
    """In texts and in the names of an object, also in JSON within a text; whole ids only."""
    values = {
        "a": b'{"tc-u1":1}',
        "b": b'["tc-u10"]',
        "c": b'"{\\"x\\":\\"tc-u1\\"}"',
        "tc-u1": b"1",
        "d": None,
    }
    assert holding.naming(list(values), list(values.values()), mentions([], ["tc-u1"])) == ["a", "c"]
    assert holding.by_key(list(values), mentions([], ["tc-u1"])) == (["tc-u1"], ["a", "b", "c", "d"])
