"""Every helper of `lo` on both loops: awaited in a cell, waited for in a thread, awaited in a thread.

A name of `lo`, or of what it holds, that has no case here fails the first test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import RunningKernel
from test_inject import project

_CLASS = """\
import asyncio, collections.abc, inspect, json, pathlib, threading
import lo_kernel
from IPython.display import display
from lo_kernel import student_event_reducer

STEP = 1

@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    counted = {"count": state["count"] + STEP}
    return counted, counted

@student_event_reducer(null_state={"count": 0})
def again(event, state):
    return {"count": state["count"] + 1}, None

await lo.simulate(students=5, seconds=0.2, speed=40, seed=1)
STUDENTS = sorted(row["student"] for row in await lo.query("seen"))
ELSEWHERE = []  # what touched the states on a loop that isn't the app's

def watch_over(holder, name):
    work, home = getattr(holder, name), get_ipython().kernel.app_host.loop
    async def watched(*given, **named):
        if asyncio.get_running_loop() is not home:
            ELSEWHERE.append(name)
        return await work(*given, **named)
    setattr(holder, name, watched)

watch_over(lo._runtime.registry, "read")
watch_over(lo._runtime.registry, "keys")
watch_over(lo._runtime, "set_value")
HELD = pathlib.Path("class.study.log")
await lo.events.export(HELD)
"""

# A case is a call and what must be true of what it gives. `way` is new with each way of calling; a word
# after a name makes it another case of the same name.
_CASES = """\
way = ""
KEY = "Internal"

def stopped(chart):
    display(chart)
    chart.stop()
    return chart

def is_row(value):
    return len(value) > 0 and isinstance(value[0], dict)

def on_file(path):
    path = pathlib.Path(path)
    return path.stat().st_size > 0

CASES = {
    "url": (lambda: lo.url, lambda it: it.startswith("http://127.0.0.1:")),
    "port": (lambda: lo.port, lambda it: it > 0),
    "token": (lambda: lo.token, len),
    "ingest_url": (lambda: lo.ingest_url, lambda it: it.startswith("ws://")),
    "own": (lambda: lo.own(), lambda it: it is True),
    "simulate": (lambda: lo.simulate(students=1, seconds=0.1, speed=40, seed=2), lambda it: it.events > 0),
    "events": (lambda: len(lo.events), bool),
    "events repr": (lambda: repr(lo.events), len),
    "events.count": (lambda: lo.events.count(learner=STUDENTS[-1]), bool),
    "events.tail": (lambda: lo.events.tail(3), lambda it: len(it) == 3),
    "events.filter": (lambda: lo.events.filter(learner=STUDENTS[-1], limit=2), lambda it: len(it) == 2),
    "events.read": (lambda: lo.events.read(learner=STUDENTS[-1], limit=2), lambda it: len(it) == 2),
    "events.to_frame": (lambda: lo.events.to_frame(limit=2), lambda it: len(it) == 2),
    "events.export": (lambda: lo.events.export(f"{way}.study.log"), lambda it: on_file(f"{way}.study.log")),
    "kvs": (lambda: repr(lo.kvs), len),
    "kvs.set": (lambda: lo.kvs.set("mine", way), lambda it: it is None),
    "kvs item": (lambda: lo.kvs["mine"], lambda it: it == way),
    "kvs.keys": (lambda: lo.kvs.keys(KEY), lambda it: len(it) >= 2),
    "reducer": (
        lambda: lo.reducer("declared", null_state={})(lambda event, state: (state, state)),
        lambda it: lo.reducers["declared"].function is it,
    ),
    "add_reducer": (lambda: lo.add_reducer("again", again), lambda it: it.id == "again"),
    "reducers": (lambda: list(lo.reducers), lambda it: {"seen", "again", "declared"} <= set(it)),
    "reducers item": (lambda: lo.reducers["seen"].status, lambda it: it == "live"),
    "reducers repr": (lambda: repr(lo.reducers), lambda it: "again" in it),
    "reducers.remove": (lambda: lo.reducers.remove("again"), lambda it: "again" not in lo.reducers),
    "replay": (lambda: lo.replay(HELD), lambda it: it.held > 0 and not it.skipped),
    "fold": (lambda: lo.fold(again, HELD), lambda it: sum(each["count"] for each in it.values()) > 0),
    "query": (lambda: lo.query("seen"), is_row),
    "query dag": (lambda: lo.query(lo.q.select(lo.q.keys("seen"), fields="All")), is_row),
    "explain": (lambda: repr(lo.explain("seen")), len),
    "q": (lambda: lo.q.variable("roster"), bool),
    "queries": (lambda: repr(lo.queries) + lo.queries._repr_html_(), lambda it: "seen" in it),
    "publish": (lambda: lo.publish(f"mine.{way}")(lambda rows: rows), callable),
    "watch": (lambda: lo.watch("seen"), is_row),
    "dashboard": (lambda: stopped(lo.dashboard("seen")), lambda it: not it.live),
    "dashboard page": (lambda: display(lo.dashboard("seen", embed="page")), lambda it: it is None),
    "dashboards": (lambda: repr(lo.dashboards), lambda it: "seen" in it),
    "overview": (lambda: stopped(lo.overview()), lambda it: not it.live),
    "modules": (lambda: repr(lo.modules), len),
    "errors": (lambda: repr(lo.errors) + lo.errors._repr_html_(), lambda it: not list(lo.errors)),
    "errors.clear": (lambda: lo.errors.clear(), lambda it: it is None),
    "audit": (lambda: repr(lo.audit) + lo.audit._repr_html_(), len),
    "audit.tail": (lambda: lo.audit.tail(3), lambda it: len(it) == 3),
    "audit.cells": (lambda: lo.audit.cells(), is_row),
    "audit.of": (lambda: lo.audit.of(STUDENTS[-1]), is_row),
    "audit.by": (lambda: lo.audit.by(lo.audit.tail(1)[0]["user"]), is_row),
    "audit.since": (lambda: lo.audit.since("2020-01-01"), is_row),
    "audit.learners": (lambda: lo.audit.learners(lo.audit.tail(1)[0]["n"]), lambda it: it is not None),
    "audit.verify": (lambda: lo.audit.verify(), lambda it: bool(it)),
    "audit.to_frame": (lambda: lo.audit.to_frame(), len),
    "reveal": (lambda: lo.reveal(reason="a test"), lambda it: it is not None),
    "export_student": (lambda: lo.export_student(STUDENTS[-1], f"{way}.json"), on_file),
    "erase": (lambda: lo.erase(STUDENTS.pop(0)), bool),
    "export": (lambda: lo.export(f"of_{way}", reducers=["seen"], sample=5, proof=False), bool),
    "inject": (lambda: lo.inject(lo.url, PROJECT, token=INJECT), lambda it: isinstance(it, dict)),
    "lo": (lambda: repr(lo) + lo._repr_html_(), lambda it: "seen" in it),
}

async def awaited(value):
    if isinstance(value, collections.abc.AsyncIterator):
        rows = await asyncio.wait_for(anext(value), 20)
        await value.aclose()
        return rows
    if inspect.isawaitable(value):
        async def wait():
            return await value
        return await asyncio.wait_for(wait(), 20)
    return value

def waited_for(value):
    if hasattr(value, "result"):
        return value.result(20)
    return asyncio.run(awaited(value))

def told(name, check, value):
    return [] if check(value) else [f"{name}: {value!r}"[:500]]

async def by_awaiting():
    wrong = []
    for name, (call, check) in CASES.items():
        try:
            wrong += told(name, check, await awaited(call()))
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    return wrong

def by_waiting():
    wrong = []
    for name, (call, check) in CASES.items():
        try:
            wrong += told(name, check, waited_for(call()))
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    return wrong

async def on_a_thread(work):
    wrong = []
    thread = threading.Thread(target=lambda: wrong.append(work()))
    thread.start()
    await asyncio.to_thread(thread.join)
    return wrong[0]
"""

_WITHOUT_A_CASE = """\
names = [name for name in dir(lo) if not name.startswith("_")]
for held in ("events", "kvs", "reducers", "errors", "audit"):
    own = vars(type(getattr(lo, held)))
    names += [f"{held}.{name}" for name in own if not name.startswith("_")]
print(sorted(set(names) - {case.split()[0] for case in CASES}))
"""


@pytest.fixture(scope="module", params=["kernel", "thread"])
def class_kernel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningKernel]:
    """A kernel with a class in it, its app on the loop that the parameter says."""
    root = tmp_path_factory.mktemp(request.param)
    module = project(root / "project")
    kernel = RunningKernel(root, env={"LO_KERNEL_LOOP": request.param, "LO_KERNEL_ALLOW_INJECT": "1"})
    try:
        token = (kernel.workspace / "injected" / "token").read_text()
        kernel.execute(_CLASS)
        kernel.execute(_CASES + f"\nPROJECT, INJECT = {str(module)!r}, {token!r}\n")
        yield kernel
    finally:
        kernel.stop()


def test_each_name_has_a_case(class_kernel: RunningKernel) -> None:
    """What `lo` offers, and what its events, store, reducers, errors and record offer, is tried below."""
    assert class_kernel.execute(_WITHOUT_A_CASE).text == "[]\n"


@pytest.mark.parametrize(
    "call",
    [
        "await by_awaiting()",
        "await on_a_thread(by_waiting)",
        "await on_a_thread(lambda: asyncio.run(by_awaiting()))",
    ],
    ids=["in a cell", "in a thread", "on a loop of a thread"],
)
def test_it_works_wherever_it_is_called(
    class_kernel: RunningKernel, call: str, request: pytest.FixtureRequest
) -> None:
    """Each gives what it promises: awaited in a cell, by `.result()` in a thread, by `asyncio.run` there.

    Wherever that is, the states are touched on the app's loop alone.
    """
    way = "".join(each if each.isalnum() else "_" for each in request.node.callspec.id)
    result = class_kernel.execute(f"way = {way!r}\nprint({call}, ELSEWHERE)", timeout=50)
    assert result.text == "[] []\n"
    assert result.stderr == ""
