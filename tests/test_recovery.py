"""What is left after a crash: everything that was acknowledged, once, and states that equal a plain fold."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from ingest_parts import SOURCE, idle, key_of, state_of
from waiting import auntil

from lo_kernel.engine.archive import Archive, Senders
from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.follow import take_stock
from lo_kernel.engine.learners import Learners
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.engine.registry import Registry
from lo_kernel.engine.store import Commit
from lo_kernel.engine.store.memory import MemoryStore
from lo_kernel.engine.store.sqlite import SqliteStore
from lo_kernel.engine.streams import Stream
from lo_kernel.errors import StoreError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

ROOT = Path(__file__).parents[1]
SENDERS = [Sender(identify({"user_id": f"u{number}"}), SOURCE) for number in range(3)]  # type: ignore[arg-type]


def _kill_rounds(rounds: int, *more: str, timeout: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "recovery.py", "--rounds", str(rounds), *more],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


WRONG = ("missing", "double", "wrong", "states_that_differ", "told_wrong")


def test_kill_9_under_load_loses_nothing_and_doubles_nothing() -> None:
    """Three rounds: nothing acknowledged is missing, nothing is there twice, states equal a plain fold."""
    report = _kill_rounds(3, "--seconds", "0.8", timeout=50)
    assert report["acknowledged"] > 100
    assert {name: report[name] for name in WRONG} == dict.fromkeys(WRONG, 0)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_rounds_of_kill_9(seed: int) -> None:
    """The same, fifty times."""
    report = _kill_rounds(50, "--seed", str(seed), timeout=880)
    assert {name: report[name] for name in WRONG} == dict.fromkeys(WRONG, 0)


async def test_a_commit_while_a_reducer_suspends_and_then_a_crash(settings: Settings) -> None:
    """The stored position is before the event in work; other keys' states may be ahead; the tail is exact."""
    gate = asyncio.Event()

    opened = weakref.ref(gate)  # whether it is open is no part of the code

    async def waits(event: Any, state: Any) -> Any:
        state.append(event["client"]["number"])
        if event["client"]["number"] == 5:
            await opened().wait()  # type: ignore[union-attr]
        return state, None

    waits_reducer = student_event_reducer([], module_override="tests", qualname_override="waits")(waits)
    settings = replace(settings, store="sqlite")
    runtime = Runtime(settings)
    await runtime.start()
    await runtime.add_reducer("waits", waits_reducer, module="tests").ready()
    for number in range(12):
        body = {"event": "k", "number": number}
        await runtime.pipeline.accept(SENDERS[number % 2], body, json.dumps(body).encode(), 1.0)
    await asyncio.sleep(0)
    await runtime.pipeline.commit()
    (row,) = [row for row in await runtime.store.rows() if row.id == "waits"]
    assert row.position == 5  # event 6 has number 5 in it
    assert row.ahead == {key_of("u0", "tests.waits"): 11}
    await _crash(runtime)

    gate.set()
    runtime = Runtime(settings)
    await runtime.start()
    registration = await runtime.add_reducer("waits", waits_reducer, module="tests").ready()
    await auntil(lambda: not registration.run.pending)  # type: ignore[union-attr]
    assert registration.events == 4  # of 12: the others are in the stored states
    assert await state_of(runtime, key_of("u0", "tests.waits")) == [0, 2, 4, 6, 8, 10]
    assert await state_of(runtime, key_of("u1", "tests.waits")) == [1, 3, 5, 7, 9, 11]
    await runtime.stop()


async def until_turns(predicate: Callable[[], bool]) -> None:
    """Like `auntil`, and looks at each turn of the loop."""
    for _ in range(100_000):
        if predicate():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came about")


async def _crash(runtime: Runtime) -> None:
    """End it without its end: what only memory has is gone."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    runtime.archive._buffer.clear()
    runtime.archive._rejections.clear()
    runtime.archive.close()
    await runtime.store.close()
    runtime.workspace.close()


async def test_a_crash_before_a_swap_leaves_the_old_states(settings: Settings) -> None:
    """What a shadow wrote is deleted at the next start, and the old code goes on from where it was."""
    settings = replace(settings, store="sqlite")

    def counting(step: int) -> Any:
        async def counts(event: Any, state: Any) -> Any:
            return state + step, None

        return student_event_reducer(0, module_override="tests", qualname_override="counts")(counts)

    runtime = Runtime(settings)
    await runtime.start()
    await runtime.add_reducer("counts", counting(1), module="tests").ready()
    for _ in range(8000):
        await runtime.pipeline.accept(SENDERS[0], {"event": "k"}, b'{"event":"k"}', 1.0)
    await idle(runtime)
    shadow = runtime.add_reducer("counts", counting(10), module="tests")
    await until_turns(lambda: shadow.done > 0)
    assert shadow.status == "catching up"
    await runtime.store.commit([Commit(2, {key_of("u0", "tests.counts"): b"7"})])
    await _crash(runtime)

    runtime = Runtime(settings)
    await runtime.start()
    await auntil(lambda: not runtime.registry._cleaners)
    assert await runtime.store.generations() == [-1, 1]
    again = await runtime.add_reducer("counts", counting(1), module="tests").ready()
    assert again.events == 0
    assert await state_of(runtime, key_of("u0", "tests.counts")) == 8000
    await runtime.stop()


# -- any interleaving --------------------------------------------------------------------------


class Unsteady(MemoryStore):
    """A store that outlives a crash, and can be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    async def commit(self, commits: Any) -> None:
        """Refuse while it is gone."""
        if self.down:
            raise StoreError("gone")
        await super().commit(commits)


def _reducer(version: int) -> Any:
    async def folds(event: Any, state: Any) -> Any:
        number = event["client"]["number"]
        state["list"].append(number * version)
        if number % 7 == 3:
            raise ValueError("seven")
        if number % 5 == 1:
            return False, False
        if version == 2:  # the other one never suspends
            for _ in range(number * 7 % 9):
                await asyncio.sleep(0)
        if number % 13 == 6:
            return {"list": state["list"], "bad": {1}}, None
        state["n"] += 1
        return state, state

    null = {"n": 0, "list": []}
    return student_event_reducer(null, module_override="tests", qualname_override="folds")(folds)


async def _plain(archive: Archive, version: int) -> dict[str, Any]:
    states: dict[str, str] = {}
    senders = Senders()
    function = _reducer(version)
    for record in archive.read():
        sender = senders.of(record)
        state = json.loads(states.get(sender.student, '{"n": 0, "list": []}'))
        try:
            internal, _ = await function(sender.event(json.loads(bytes(record.body)), record.t), state)
            if internal is not False:
                states[sender.student] = json.dumps(internal)
        except (ValueError, TypeError):
            continue
    return {name: json.loads(text) for name, text in states.items()}


class UnsteadyFile(SqliteStore):
    """The same in a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "states.sqlite")
        self.down = False

    async def commit(self, commits: Any) -> None:
        """Refuse while it is gone."""
        if self.down:
            raise StoreError("gone")
        await super().commit(commits)


class Engine:
    """The engine alone, over a folder and a store that outlive it."""

    def __init__(self, folder: Path, store: Unsteady | UnsteadyFile, limit: int) -> None:
        self.store = store
        self.errors = ErrorLog()
        self.archive = Archive(folder, self.errors, segment_bytes=4000)
        self.pipeline = Pipeline(self.archive, store, self.errors, Learners())
        self.registry = Registry(self.pipeline, store, self.errors)
        self.registry.live_states = limit

    async def start(self) -> None:
        """From what folder and store have."""
        self.archive.open(writable=True)
        await take_stock(self.pipeline, self.store)
        await self.registry.load()

    def crash(self) -> None:
        """What isn't written is lost."""
        self.archive._buffer.clear()
        self.archive.close()


class Source:
    """A client with an acknowledged stream: it keeps what it sent, and sends again what is not on disk."""

    sender = Sender(SENDERS[0].identity, SOURCE, mark={"stream": "s"})

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], bytes]] = []
        self.told = 0  # so many are on disk, as it heard
        self.stream: Stream | None = None

    async def connect(self, engine: Engine) -> None:
        """Come back, hear the count, and go on from there."""
        streams = engine.pipeline.streams
        if self.stream is not None:
            self.told = max(self.told, self.stream.synced)
            streams.close(self.stream)
        self.stream = await streams.open("s", engine.store)
        count = await engine.pipeline.durable(self.stream)
        assert self.told <= count <= len(self.sent)
        self.told = count
        self._send(engine, self.sent[count:], array=False)

    async def send(self, engine: Engine, events: list[tuple[dict[str, Any], bytes]], *, array: bool) -> None:
        """Send something new, over a new connection where there is none."""
        if self.stream is None:
            await self.connect(engine)
        self.sent += events
        self._send(engine, events, array=array)

    def _send(self, engine: Engine, events: list[tuple[dict[str, Any], bytes]], *, array: bool) -> None:
        assert self.stream is not None
        numbered = [(self.stream.next(), json.loads(text), text) for _, text in events]
        new = [(number, body, text) for number, body, text in numbered if number is not None]
        if array and new:
            numbers, bodies, texts = zip(*new, strict=True)
            engine.pipeline.take_array(self.sender, bodies, texts, 1.0, numbers)
        for number, body, text in new:
            if not array:
                engine.pipeline.take(self.sender, body, text, 1.0, number)
            engine.pipeline.streams.put(self.stream, number)

    def cut_off(self) -> None:
        """The server has crashed."""
        if self.stream is not None:
            self.told = max(self.told, self.stream.synced)
        self.stream = None


STEPS = st.one_of(
    st.tuples(st.just("stream"), st.booleans(), st.integers(1, 12)),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("events"), st.integers(0, 2), st.integers(1, 12)),
    st.tuples(st.just("array"), st.integers(0, 2), st.integers(1, 12)),
    st.tuples(st.just("batch"), st.integers(0, 2), st.integers(1, 12)),
    st.tuples(st.just("commit"), st.booleans()),
    st.tuples(st.just("turn"), st.integers(1, 12)),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("register"), st.integers(1, 2), st.booleans()),
    st.tuples(st.just("store"), st.booleans()),
)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@given(st.lists(STEPS, min_size=5, max_size=30), st.integers(1, 2), st.sampled_from([1, 50]))
@tried(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_interleaving_gives_what_a_plain_fold_gives(
    kind: str, steps: list[Any], first: int, limit: int
) -> None:
    """Events, streams sent again, swaps, commits, a store that is gone, crashes: the states are exact.

    What came by the stream is in the archive once, in its order, and nothing acknowledged is lost.
    """
    asyncio.run(asyncio.wait_for(_interleave(kind, steps, first, limit), 20))


async def _interleave(kind: str, steps: list[Any], first: int, limit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Unsteady() if kind == "memory" else UnsteadyFile(Path(folder))
        await store.open()
        source = Source()
        engine = Engine(Path(folder), store, limit)
        await engine.start()
        version = number = 1
        for step in [("register", first, True), *steps, ("store", False), ("register", 0, True)]:
            match step:
                case ("events", user, many):
                    for body, text in _bodies(number, many):
                        engine.pipeline.take(SENDERS[user], body, text, 1.0)
                    number += many
                case ("array", user, many):  # of one sender
                    bodies, texts = zip(*_bodies(number, many), strict=True)
                    engine.pipeline.take_array(SENDERS[user], bodies, texts, 1.0)
                    number += many
                case ("batch", user, many):  # of several, one after another
                    engine.pipeline.take_many(
                        [
                            (SENDERS[(user + index // 2) % 3], body, text, 1.0, None)
                            for index, (body, text) in enumerate(_bodies(number, many))
                        ]
                    )
                    number += many
                case ("stream", array, many):
                    await source.send(engine, _bodies(number, many), array=array)
                    number += many
                case ("reconnect",):
                    await source.connect(engine)
                case ("register", wanted, wait):
                    version = wanted or version
                    added = engine.registry.add("folds", _reducer(version), context=SOURCE)
                    if wait and not store.down:
                        await added.ready()
                case ("commit", wait):
                    commit = asyncio.ensure_future(_commit(engine, store))
                    if wait:
                        await commit
                case ("turn", turns):
                    for _ in range(turns):
                        await asyncio.sleep(0)
                case ("crash", again):
                    await _cancel_all()
                    engine.crash()
                    source.cut_off()
                    engine = Engine(Path(folder), store, limit)
                    await engine.start()
                    if again:
                        engine.registry.add("folds", _reducer(version), context=SOURCE)
                case ("store", down):
                    store.down = down
        await source.connect(engine)
        run = engine.registry.get("folds").run
        assert run is not None
        await auntil(lambda: not run.pending)
        await engine.pipeline.commit()
        expected = {
            f"Internal,tests.folds,STUDENT:{k}": v for k, v in (await _plain(engine.archive, version)).items()
        }
        keys = [f"Internal,tests.folds,STUDENT:tc-testcase-u{user}" for user in range(3)]
        found = dict(zip(keys, await engine.registry.read(keys), strict=True))
        assert found == {key: expected.get(key) for key in keys}
        texts = dict(zip(keys, await store.get_many(run.generation, keys), strict=True))
        assert {key: json.loads(text) if text else None for key, text in texts.items()} == found
        lines = [(record.s, bytes(record.body)) for record in engine.archive.read() if record.s is not None]
        assert lines == [(place, text) for place, (_, text) in enumerate(source.sent, start=1)]
        await _cancel_all()
        engine.archive.close()
        await store.close()


def _bodies(after: int, many: int) -> list[tuple[dict[str, Any], bytes]]:
    bodies = [{"event": "k", "source": SOURCE, "number": after + index + 1} for index in range(many)]
    return [(body, json.dumps(body).encode()) for body in bodies]


async def _commit(engine: Engine, store: Unsteady | UnsteadyFile) -> None:
    try:
        await engine.pipeline.commit()
    except StoreError:
        assert store.down


async def _cancel_all() -> None:
    """End all tasks but those that this test runs in."""
    tasks = [task for task in asyncio.all_tasks() if task not in _own_tasks()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _own_tasks() -> list[asyncio.Task[Any]]:
    names = ("_interleave", "wait_for", "main")
    return [
        task
        for task in asyncio.all_tasks()
        if task is asyncio.current_task() or getattr(task.get_coro(), "__name__", "") in names
    ]
