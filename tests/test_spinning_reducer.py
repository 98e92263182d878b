"""A reducer that does not come to an end: the stop button ends it, and the kernel is of use again."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import aiohttp
import pytest
from apps import running_app
from conftest import StartKernel
from ingest_parts import expect, key_of, say, talking, typed, who
from waiting import auntil, until

import lo_kernel
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.engine.run.interrupting import Interrupted, call_in, interruptible
from lo_kernel.errors import ReducerError
from lo_kernel.kernel import interrupts
from lo_kernel.kernel.host import _LoopThread
from lo_kernel.query.language import q
from lo_kernel.settings import Settings

SOURCE = "org.mitros.writing_analytics"
REDUCERS = """
import time

@lo.reducer('count', null_state={'n': 0})
def count(event, state):
    return {'n': state['n'] + 1}, None

@lo.reducer('spins', null_state={'n': 0})
def spins(event, state):
    does = event['client'].get('does')
    if does:
        print(does, file=open(does, 'a'))
    if does == 'sleep':
        time.sleep(0.1)
    while does == 'spin':
        pass
    return {'n': state['n'] + 1}, None

await lo.reducers['spins'].ready()
"""
WHERE = """
def goes_on(event):
    print('where', file=open('where', 'a'))
    while True:
        pass
"""
AT_ITS_END = """
import signal
kernel = get_ipython().kernel
def finish_metadata(*given):
    del kernel.finish_metadata
    signal.raise_signal(signal.SIGINT)
    return kernel.finish_metadata(*given)
kernel.finish_metadata = finish_metadata
1 + 2
"""
LOOK = "print([(await lo.query(each))[0]['n'] for each in ('count', 'spins')])"
KINDS = "print([(each.where, each.kind, each.count) for each in lo.errors])"


async def _send(url: str, does: list[str | None]) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
        await ws.send_json({"event": "test_framework_fake_identity", "source": SOURCE, "user_id": "u0"})
        for each in does:
            await ws.send_json({"event": "keystroke", "source": SOURCE, "does": each})


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_the_stop_button_ends_a_reducer_that_spins(start_kernel: StartKernel, loop: str) -> None:
    """Once costs that event alone; twice, and the reducer is paused, and a mended one sees all events.

    A reducer that does end is not touched by an interrupt that is meant for the cell; a cell that awaits
    beside one that doesn't is cancelled. A function that chooses events is ended as well.
    """
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    kernel.execute(REDUCERS)
    url = kernel.execute("print(lo.ingest_url)").text.strip()

    def send(*does: str | None) -> None:
        with suppress(TimeoutError):  # who is held says no goodbye
            asyncio.run(asyncio.wait_for(_send(url, list(does)), 0.5))

    def at_work(does: str, times: int) -> None:
        path = kernel.root / does
        until(lambda: path.exists() and len(path.read_text().split()) == times, what=f"it to {does}")

    cell = kernel.send("import asyncio\nprint('on', flush=True)\nawait asyncio.sleep(30)")
    kernel.next_message(lambda message: message["content"].get("text") == "on\n")
    send(*["sleep"] * 8)
    kernel.interrupt()
    assert kernel.collect(cell, timeout=10).reply["ename"] == "CancelledError"
    at_work("sleep", 8)
    assert kernel.execute(LOOK).text == "[9, 9]\n"

    cell = kernel.send("print('on', flush=True)\nawait asyncio.sleep(30)")
    kernel.next_message(lambda message: message["content"].get("text") == "on\n")
    send("spin", None)
    at_work("spin", 1)
    kernel.interrupt()
    assert kernel.collect(cell, timeout=10).reply["ename"] == "CancelledError"
    until(lambda: "'Interrupted', 1)" in kernel.execute(KINDS).text, what="the call to end")
    assert "it failed at 1 event (see lo.errors)" in kernel.execute("lo.reducers").value
    send("spin", None)
    at_work("spin", 2)
    if loop == "thread":
        assert kernel.execute("1 + 1").value == "2"
    kernel.interrupt()
    until(lambda: "'Paused', 1)" in kernel.execute(KINDS).text, what="the reducer to be paused")
    until(lambda: "paused, 1 event behind" in kernel.execute("lo.reducers").value, what="it to be set aside")
    counted, spun = (int(each) for each in kernel.execute(LOOK).text.strip("[]\n").split(","))
    assert counted - spun == 3, "the two events, and the one behind them"

    kernel.execute(REDUCERS.replace("while does", "while 0 and does"))
    assert kernel.execute(LOOK).text == f"[{counted}, {counted}]\n"
    assert kernel.execute(KINDS).text == "[]\n"

    kernel.execute(WHERE)
    cell = kernel.send("await lo.events.read(where=goes_on)")
    at_work("where", 1)
    kernel.interrupt()
    assert kernel.collect(cell, timeout=10).reply["status"] == "error"
    assert kernel.execute(AT_ITS_END).value == "3", "an interrupt after a cell costs no reply"


@student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="count")
async def count(event: Any, state: Any) -> Any:
    """Count events."""
    return {"n": state["n"] + 1}, False


@student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="count")
async def interrupted(event: Any, state: Any) -> Any:
    """Raise what is raised in a reducer that is interrupted."""
    raise Interrupted


async def test_one_that_spins_at_the_past_leaves_the_old_one_in_place(settings: Settings) -> None:
    """A new version that is interrupted while it goes through the past takes nobody's place."""
    async with talking(settings) as (runtime, ws):
        await runtime.add_reducer("count", count, module="tests").ready()
        await say(ws, who("u0"), *[typed(number) for number in range(5)])
        await expect(runtime, key_of("u0"), {"n": 6})
        new = runtime.add_reducer("count", interrupted, module="tests")
        with pytest.raises(ReducerError, match="cancelled"):
            await new.ready()
        assert [each.kind for each in runtime.errors] == ["Interrupted", "GivenUp"]
        await say(ws, typed(5))
        await expect(runtime, key_of("u0"), {"n": 7})
        assert repr(runtime.registry.get("count")).endswith("live, 7 events since the start>")


async def test_an_error_of_its_own_gives_no_reducer_up(settings: Settings) -> None:
    """Not even one that was interrupted once, and reads the archive because too much has waited."""
    async with talking(settings) as (runtime, ws):
        run = (await runtime.add_reducer("count", interrupted, module="tests").ready()).run
        assert run is not None
        await say(ws, who("u0"))
        await auntil(lambda: run.interrupts == 1)
        run.read = runtime.archive.last
        run._failed(ValueError("its own"), {})
        assert not run.given_up
        run._failed(Interrupted(), {})
        assert run.given_up


async def test_a_querys_function_is_found_too(settings: Settings) -> None:
    """It holds the loop as a reducer does; what raises in it is an error of its call."""
    found = []

    def function(rows: Any) -> Any:
        found.append(call_in(sys._getframe()) is sys._getframe())
        raise Interrupted

    async with running_app(settings) as runtime:
        runtime.functions.publish("f")(function)
        (row,) = await runtime.executor.rows(q.call("f")(q.parameter("x", required=False, default=1)))
        assert row["error"] == "f: Interrupted: it was interrupted, because it did not come to an end"
        assert found == [True]
        assert call_in(sys._getframe()) is None


def test_an_interrupt_too_late_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a call ends just before the exception is put to its thread, nothing is raised there."""
    monkeypatch.setattr(interrupts, "_PATIENCE", 0)
    called, over, ended, taken_back = (Lock() for _ in range(4))
    for lock in (called, over, ended, taken_back):
        lock.acquire()
    unharmed = []

    def call(event: Any) -> None:
        called.release()
        over.acquire()

    def app() -> None:
        interruptible(call)({})
        ended.release()
        unharmed.append(taken_back.acquire())

    def app_thread() -> int | None:
        if threading.current_thread() is not threading.main_thread():  # it knows that the call goes on
            over.release()
            ended.acquire()
            last = app.__code__.co_firstlineno + 3
            until(lambda: sys._current_frames()[thread.ident or 0].f_lineno == last)
        return thread.ident

    thread = Thread(target=app, daemon=True)
    thread.start()
    called.acquire()
    watched = interrupts.Interrupts(app_thread)
    assert not watched.came(sys._getframe())
    until(lambda: not watched._watched)
    taken_back.release()
    thread.join(10)
    assert unharmed == [True]


def test_an_interrupt_counts_while_another_call_is_watched() -> None:
    """One that came in a call before, which ended, doesn't take away what a later one does."""
    to_end, to_give_up, ended = Event(), Event(), []

    def quick(event: Any) -> None:
        to_end.wait()

    def spins(event: Any) -> None:
        while not to_give_up.is_set():
            pass

    def app() -> None:
        interruptible(quick)({})
        try:
            interruptible(spins)({})
        except Interrupted:
            ended.append(True)

    def at(function: Any) -> bool:
        call = call_in(sys._current_frames().get(thread.ident or 0))
        return call is not None and call.f_code is function.__code__

    thread = Thread(target=app, daemon=True)
    thread.start()
    watched = interrupts.Interrupts(lambda: thread.ident)
    try:
        until(lambda: at(quick))
        watched.came(sys._getframe())
        to_end.set()
        until(lambda: at(spins))
        watched.came(sys._getframe())
        until(lambda: bool(ended), what="the second call to be ended")
    finally:
        to_give_up.set()
    thread.join(10)


def test_the_apps_thread_goes_on_where_one_is_raised_between_calls() -> None:
    """In the loop's own code it ends nothing."""

    async def answer() -> int:
        return 42

    thread = _LoopThread()
    loop = thread.start()
    assert asyncio.run_coroutine_threadsafe(answer(), loop).result(10) == 42
    assert thread.ident is not None
    until(lambda: sys._current_frames()[thread.ident or 0].f_code.co_name == "select", what="it to wait")
    ident = ctypes.c_ulong(thread.ident)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Interrupted)) == 1
    assert asyncio.run_coroutine_threadsafe(answer(), loop).result(10) == 42
    loop.call_soon_threadsafe(thread.end_soon)
    thread.join()


@pytest.mark.parametrize(("file", "found"), [("engine_of_mine.py", True), ("engine/keys.py", False)])
def test_a_file_beside_the_engine_is_the_users(file: str, found: bool) -> None:
    """What it has is ended as any other function; what the engine itself calls is not."""
    functions: dict[str, Any] = {"sys": sys, "call_in": call_in}
    code = "def mine(event):\n    return call_in(sys._getframe()) is sys._getframe()"
    exec(compile(code, str(Path(lo_kernel.__file__).parent / file), "exec"), functions)
    assert interruptible(functions["mine"])({}) is found
