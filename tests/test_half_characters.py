r"""Half an emoji, as browsers log it (``"\ud83d"`` alone): the event counts, live and in replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from event_files import study_event, study_text
from ingest_parts import bodies, expect, hear, idle, key_of, rejected, running, say, talking, typed, who

from lo_kernel.engine.fold import fold
from lo_kernel.engine.halves import mended
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.engine.replay import replay
from lo_kernel.settings import Settings

HALF, EMOJI = "\ud83d", "\U0001f600"


@kvs_pipeline(null_state={"keys": []}, module_override="tests", qualname_override="keys")
def keys(event: Any, state: Any) -> Any:
    """Which keys were pressed."""
    if "key" in event["client"]:
        state["keys"].append(event["client"]["key"])
    return state, state


@pytest.mark.parametrize("how", ["frame", "array", "stream", "first"])
async def test_half_an_emoji_is_accepted(settings: Settings, how: str) -> None:
    """The reducer gets U+FFFD in its place, whole ones stay, and the frame is kept as it came."""
    pressed = [HALF, EMOJI, "\udc00" + HALF + EMOJI + HALF, "\\ud83d"]
    events = [typed(number, key=key) for number, key in enumerate(pressed)]
    async with talking(settings) as (runtime, ws):
        await runtime.add_reducer("keys", keys, module="tests").ready()
        if how == "first":  # nobody is known yet
            await say(ws, *events, who("u0"))
        elif how == "stream":
            await say(ws, {"event": "lock_fields", "fields": {}, "ack": {"stream": "s"}}, who("u0"), *events)
            while (await hear(ws, "ack"))["n"] < 5:
                pass
        else:
            await say(ws, who("u0"), *([events] if how == "array" else events))
        mended_keys = ["\ufffd", EMOJI, f"\ufffd\ufffd{EMOJI}\ufffd", "\\ud83d"]
        await expect(runtime, key_of("u0", "tests.keys"), {"keys": mended_keys})
        await idle(runtime)
        assert [body["key"] for body in bodies(runtime) if "key" in body] == mended_keys
        kept = rejected(settings.workspace_path)
        assert {line["reason"] for line in kept} == {"half_character"}
        frames = [json.loads(line["text"]) for line in kept]
        said = [event["key"] for event in (frames[0] if how == "array" else frames)]
        assert said == (pressed if how == "array" else [pressed[0], pressed[2]])
        assert runtime.archive.rejected == 0
        assert len(runtime.errors) == 0


async def test_what_is_no_json_besides_is_refused_as_it_came(settings: Settings) -> None:
    """Half a character makes nothing else of a broken frame."""
    async with talking(settings) as (runtime, ws):
        await say(ws, who("u0"), '{"event": "x", "key": "\\ud83d"')
        assert (await hear(ws, "error"))["reason"] == "not_json"
        await say(ws, '[{"event": "x", "key": "\\ud83d"}, {"event": 1e999}]')
        assert (await hear(ws, "error"))["reason"] == "not_json"
        await idle(runtime)
        assert [
            line["text"] for line in rejected(settings.workspace_path) if line["reason"] == "not_json"
        ] == [
            '{"event": "x", "key": "\\ud83d"',
            '{"event": 1e999}',
        ]
        assert bodies(runtime)[1:] == [{"event": "x", "key": "\ufffd"}]


FILES = {
    "study.log": "".join(
        study_text(study_event(number, key=key)) for number, key in enumerate([HALF, EMOJI])
    ),
    "jsonl": "".join(
        json.dumps(study_event(number, key=key)) + "\n" for number, key in enumerate([HALF, EMOJI])
    ),
    "line.jsonl": json.dumps([study_event(0, key=HALF), study_event(1, key=EMOJI)]) + "\n{}\n",
    "json": json.dumps([study_event(0, key=HALF), study_event(1, key=EMOJI)], indent=1),
    "client.jsonl": "".join(
        json.dumps({"event": "x", "source": "org.mitros.writing_analytics", "user_id": "u0", "key": key})
        + "\n"
        for key in (HALF, EMOJI)
    ),
}


@pytest.mark.parametrize("name", FILES)
async def test_files_have_them_too(settings: Settings, tmp_path: Path, name: str) -> None:
    """Replay and fold read such a record, in each format, as it is read live."""
    path = tmp_path / name
    path.write_text(FILES[name])
    async with running(settings) as runtime:
        await runtime.add_reducer("keys", keys, module="tests").ready()
        report = await replay(runtime, path)
        assert report.events == 2
        await expect(runtime, key_of("u0", "tests.keys"), {"keys": ["\ufffd", EMOJI]})
    assert await fold(keys, path) == {key_of("u0", "tests.keys"): {"keys": ["\ufffd", EMOJI]}}


def test_escapes_are_told_apart() -> None:
    """A backslash that is escaped begins no escape, and nothing that is whole is touched."""
    for text in (rb'"\\ud83d"', rb'"\ud83d\ude00"', rb'"\\\\ud83d"', b'"\xc3\xa9\\n"'):
        assert mended(text) is None
    assert mended(rb'"\\\ud83d"') == rb'"\\\ufffd"'
    assert mended(rb'"\uDE00\uD83D\uDE00"') == rb'"\ufffd\uD83D\uDE00"'
