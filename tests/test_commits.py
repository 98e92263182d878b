"""When what came is committed: soon if somebody sent it, with many others if it is in a file anyway."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from event_files import study_log
from ingest_parts import SOURCE, count, idle, running
from waiting import auntil

from lo_kernel.engine import commits
from lo_kernel.engine import replay as replaying
from lo_kernel.engine.events import Arrival, Sender, identify
from lo_kernel.settings import Settings

SENDER = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]


def arrivals(many: int) -> list[Arrival]:
    """Events as a replay gives them."""
    bodies: list[dict[str, Any]] = [{"event": "k", "source": SOURCE, "number": n} for n in range(many)]
    return [(SENDER, body, json.dumps(body).encode(), 1.5, None) for body in bodies]


@pytest.fixture
def never_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait for another commit has none of its own."""
    monkeypatch.setattr(commits, "LATER", 1e6)


@pytest.mark.usefixtures("never_later")
@pytest.mark.parametrize("how", ["one", "array", "batch"])
async def test_an_event_that_somebody_sent_takes_those_that_wait_with_it(
    settings: Settings, how: str
) -> None:
    """Replayed events wait; with a live one all of them are in the store at once."""
    async with running(replace(settings, store="sqlite")) as runtime:
        registration = await runtime.add_reducer("count", count, module="tests").ready()
        run, pipeline = registration.run, runtime.pipeline
        assert run is not None
        await idle(runtime)
        pipeline.take_many(arrivals(100), later=True)
        await auntil(lambda: pipeline.synced == 100)  # an acknowledgement waits for no commit
        assert run.position == 0
        (live,) = arrivals(1)
        match how:
            case "one":
                pipeline.take(*live)
            case "array":
                pipeline.take_array(SENDER, [live[1]], [live[2]], 1.5)
            case "batch":
                pipeline.take_many([live])
        pipeline.take_many(arrivals(10), later=True)  # more of the file holds nothing up
        await auntil(lambda: run.position == 111)


@pytest.mark.usefixtures("never_later")
async def test_a_live_event_is_committed_while_a_replay_goes_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the replay's next slice, however many events it has still to bring; its end commits the rest."""
    path = study_log(tmp_path / "x.study.log", range(3000))
    async with running(replace(settings, store="sqlite")) as runtime:
        registration = await runtime.add_reducer("count", count, module="tests").ready()
        run, pipeline = registration.run, runtime.pipeline
        assert run is not None
        await idle(runtime)
        positions: list[tuple[int, int]] = []

        async def live() -> None:
            if not positions:
                assert run.position == 0  # those of the file alone wait
                body: dict[str, Any] = {"event": "keystroke", "source": SOURCE}
                number = pipeline.take(SENDER, body, b'{"event":"keystroke"}', 1.5)
                await auntil(lambda: run.position >= number)
                positions.append((number, run.position))

        monkeypatch.setattr(replaying, "give_way", live)
        report = await replaying.replay(runtime, path)
        assert report.events == 3000
        ((number, position),) = positions
        assert number == position < 3001
        await auntil(lambda: run.position == 3001)
