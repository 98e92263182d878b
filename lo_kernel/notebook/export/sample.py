"""A recorded sample of events with other ids in it, and the states that it gives.

Of a few learners the first events are taken, under ids such as ``tc-testcase-s1``: everything that says who
somebody is, is replaced wherever it stands in an event, and where the event came from is left out. What
learners typed stays, since reducers count it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from lo_kernel.engine.archive import Archive
from lo_kernel.engine.events import ANY_CONTEXT, Event, Sender
from lo_kernel.engine.fold import fold
from lo_kernel.engine.states import encode_state
from lo_kernel.errors import ExportError
from lo_kernel.notebook.export.plan import Wanted

__all__ = ["LEARNERS", "made_up", "recorded", "sample_text", "states_text"]

LEARNERS = 3
"""Of how many learners events are taken."""

_LOOK = 100_000  # events of the archive that are looked through
_TELLING = 6  # characters; a shorter text may be a part of any word
_WHO = ("user_id", "user_tag", "hash", "email", "safe_user_id")


def recorded(archive: Archive, contexts: Iterable[str], limit: int) -> tuple[list[Event], list[str]]:
    """The first events of a few learners in these contexts, as reducers get them, and who they are."""
    wanted = set(contexts)
    senders: dict[bytes, Sender] = {}
    events: list[Event] = []
    learners: dict[str, int] = {}
    for looked, record in enumerate(archive.read(0)):
        if looked >= _LOOK or len(events) >= limit:
            break
        key = bytes(record.by)
        sender = senders.get(key)
        if sender is None:
            sender = senders[key] = Sender.decode(key)
        student = sender.student
        if student not in learners and len(learners) >= LEARNERS:
            continue
        body = msgspec.json.decode(record.body)
        if not isinstance(body, dict) or sender.context(body) not in wanted:
            continue
        if learners.get(student, 0) >= max(1, limit // LEARNERS):
            continue
        learners[student] = learners.get(student, 0) + 1
        events.append(sender.event(body, record.t))
    return events, list(learners)


def made_up(contexts: Iterable[str]) -> list[Event]:
    """Events of two learners who don't exist, for a notebook that has seen none yet."""
    events = []
    for context in contexts:
        for number in (1, 2):
            sender = Sender.decode(
                msgspec.json.encode(
                    {"auth": _auth(number), "source": context, "at": {}, "lock": {}, "meta": {}, "mark": {}}
                )
            )
            for place in range(5):
                body = {
                    "event": "google_docs_save",
                    "doc_id": f"doc-{number}",
                    "bundles": [{"commands": [{"ty": "is", "ibi": 1 + place, "s": "abcde"[place]}]}],
                    "timestamp": 1_700_000_000_000 + place * 1000,
                }
                events.append(sender.event(body, 1_700_000_000.0 + place))
    return events


def sample_text(
    events: Sequence[Event], learners: Sequence[str], names: Mapping[str, Any] | None = None
) -> str:
    """Events as JSON lines, with other ids.

    ``names`` are further texts that say who a learner is, by safe id; also of learners whose events these
    aren't, and who may be named in them.
    """
    others: dict[str, str] = {}
    numbers = {student: number for number, student in enumerate(learners, 1)}
    for event in events:
        auth = event["client"]["auth"]
        number = numbers.setdefault(auth["safe_user_id"], len(numbers) + 1)
        others.setdefault(auth["safe_user_id"], f"tc-testcase-s{number}")
        others.setdefault(auth["user_id"], f"testcase-s{number}")
        for text in _identities(event):
            others.setdefault(text, f"s{number}")
        for text in (names or {}).get(auth["safe_user_id"], ()):
            others.setdefault(str(text), f"Learner {number}")
    for number, (student, texts) in enumerate((names or {}).items(), 1):
        if student not in numbers:
            others.setdefault(student, f"tc-testcase-x{number}")
            for text in texts:
                if len(str(text)) >= _TELLING:
                    others.setdefault(str(text), f"Classmate {number}")
    raw = msgspec.json.encode(events).decode()
    there = [text for text in others if text and msgspec.json.encode(text).decode()[1:-1] in raw]
    others = {text: others[text] for text in sorted(there, key=len, reverse=True)}
    lines = []
    for event in events:
        number = numbers[event["client"]["auth"]["safe_user_id"]]
        new = _replaced(event, others, "")
        new["client"]["auth"] = _auth(number)
        if "auth" in new.get("metadata", {}):
            new["metadata"]["auth"] = _auth(number)
        new["server"] = {"time": event["server"]["time"]}
        lines.append(msgspec.json.encode(new).decode() + "\n")
    return "".join(lines)


def _auth(number: int) -> dict[str, str]:
    return {
        "sec": "unauthenticated",
        "user_id": f"testcase-s{number}",
        "safe_user_id": f"tc-testcase-s{number}",
        "providence": "tc",
    }


def _identities(event: Event) -> Iterator[str]:
    """Texts of an event that say who sent it."""
    for part in (event["client"], event.get("metadata") or {}):
        for name in _WHO:
            if isinstance(part.get(name), str | int) and not isinstance(part.get(name), bool):
                yield str(part[name])
        chrome = part.get("chrome_identity")
        if isinstance(chrome, dict):
            yield from (str(value) for value in chrome.values() if value)


def _replaced(value: Any, others: Mapping[str, str], key: str) -> Any:
    if isinstance(value, dict):
        return {_replaced(name, others, ""): _replaced(item, others, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, others, key) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and key in (*_WHO, "id"):
        return others.get(str(value), value)
    if not isinstance(value, str):
        return value
    if value in others:
        return others[value]
    for text, other in others.items():  # the longest first
        if len(text) >= _TELLING and text in value:
            value = value.replace(text, other)
    return value


async def states_text(reducers: Sequence[Wanted], sample: str) -> str:
    """The states that reducers give for a sample, a line each; the same text for the same states.

    Raises :class:`ExportError` where a reducer gives other states each time.
    """
    first = await _states(reducers, sample)
    again = await _states(reducers, sample)
    for one, other in zip(first.splitlines(), again.splitlines(), strict=False):
        if one != other:
            name = json.loads(one)["reducer"]
            raise ExportError(
                f"the reducer {name!r} gives other states for the same events each time: {one[:150]} and "
                f"then {other[:150]}. Take times from event['server']['time'], and nothing from chance or "
                "memory"
            )
    return first


async def _states(reducers: Sequence[Wanted], sample: str) -> str:
    lines = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sample.jsonl"
        path.write_text(sample, encoding="utf-8")
        for each in reducers:
            folded = await fold(each.function, path, context=each.context or ANY_CONTEXT, scope=each.scope)
            lines += [
                state_line(each.name, key, encode_state(state).decode())
                for key, state in sorted(folded.items())
            ]
            lines.append(json.dumps({"reducer": each.name, "failures": folded.failures}))
    return "\n".join(lines) + "\n"


def state_line(reducer: str, key: str, state: str) -> str:
    """One state as a line; ``state`` is its JSON."""
    whose = json.dumps(",".join(key.split(",")[2:]))
    return f'{{"reducer": {json.dumps(reducer)}, "of": {whose}, "state": {state}}}'
