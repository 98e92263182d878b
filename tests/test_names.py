"""Made-up names: what learners are called in a notebook, and in what is shown inside one."""

from __future__ import annotations

import asyncio
import json
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from apps import running_app
from conftest import StartKernel
from page_parts import class_list, send, serving
from waiting import until

from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.app.security import EMBED
from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.made_up import MadeUpNames
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.errors import QueryError
from lo_kernel.lock import FileLock
from lo_kernel.notebook.dashboards_view import DashboardPage
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.query.rosters import Rosters
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Browser

    OpenBrowser = Callable[[], AbstractAsyncContextManager[Browser]]

ANN, BO = ("ann", "Ann Arbor"), ("bo", "Bo Derek")
REAL = [name for _, name in (ANN, BO)]
IDS = ["tc-testcase-ann", "tc-testcase-bo"]


@student_event_reducer(null_state={"count": 0}, module_override="names")
async def count(event: dict[str, Any], state: dict[str, Any]) -> Any:
    """Count."""
    return {"count": state["count"] + 1}, None


@pytest.fixture
def classroom(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a class list of two."""
    return replace(settings, roster=str(class_list(tmp_path / "class.csv", [ANN, BO])))


def add_board(runtime: Runtime) -> Dashboard:
    """A reducer, and a dashboard of it."""
    runtime.add_reducer("count", count, module="names")
    return runtime.dashboards.add(Dashboard("board", "My board", (Panel("count"),)))


def token_of(runtime: Runtime, kind: str) -> str:
    """A token of this kind, or a ticket."""
    return runtime.security.tokens.get(kind) or runtime.security.ticket(kind)


async def profiles(runtime: Runtime, kind: str) -> dict[str, Any]:
    """Whom a client with this kind of token sees, by each of the ways that give names."""
    headers = {"Authorization": f"Bearer {token_of(runtime, kind)}"}
    found: dict[str, Any] = {}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{runtime.url}webapi/courseroster/c1") as answer:
            found["roster"] = [name_in(row) for row in await answer.json()]
        async with session.get(f"{runtime.url}webapi/learner/{IDS[0]}") as answer:
            found["learner"] = name_in(await answer.json())
        async with session.ws_connect(f"{runtime.url}wsapi/communication_protocol") as socket:
            query = {"execution_dag": "names", "target_exports": ["count"], "kwargs": {}}
            await socket.send_json({"q": query})
            rows = [each["value"] for each in await socket.receive_json(timeout=5)]
            found["rows"] = [name_in(row) for row in rows]
    return found


def name_in(row: dict[str, Any]) -> str:
    """The name in a row's profile."""
    return str(row["profile"].get("name", {}).get("full_name", ""))


def test_a_learner_keeps_the_name_over_restarts(tmp_path: Path) -> None:
    """The same in another process; all are different; the file is its user's alone."""
    learners = [f"tc-u{number}" for number in range(3000)]
    names = MadeUpNames(tmp_path).of(learners)
    assert len(set(names.values())) == len(learners)
    assert MadeUpNames(tmp_path).of(reversed(learners)) == names
    assert stat.S_IMODE((tmp_path / "names.jsonl").stat().st_mode) == 0o600
    assert max(map(len, names.values())) <= 22


def test_names_say_nothing_of_the_id(tmp_path: Path) -> None:
    """Another workspace calls the same learners otherwise: nobody computes the name from the id."""
    learners = [f"tc-u{number}" for number in range(50)]
    here, there = (MadeUpNames(tmp_path / where).of(learners) for where in ("here", "there"))
    assert sum(here[who] == there[who] for who in learners) < 5


def test_processes_agree_on_names(tmp_path: Path) -> None:
    """What one has given out, the other gives too, and neither gives a name twice."""
    one, two = MadeUpNames(tmp_path), MadeUpNames(tmp_path)
    first = one.of(["a", "b"])
    assert two.of(["b", "c"])["b"] == first["b"]
    assert one.of(["c"])["c"] == two.find("c")


def test_another_process_at_the_file_holds_nobody_up(tmp_path: Path) -> None:
    """While it holds the lock, names that were given stay, and new ones are not there yet; all at once."""
    names = MadeUpNames(tmp_path)
    before = names.of(["a", "b"])
    other = FileLock(tmp_path / "names.lock")
    assert other.acquire()
    began = time.perf_counter()
    assert [names.of(["a", "c"]) for _ in range(50)] == [{"a": before["a"]}] * 50
    with pytest.raises(TimeoutError, match="try again"):
        names.forget("a")
    assert not names.forget("nobody")
    assert time.perf_counter() - began < 0.5
    other.release()
    until(lambda: "c" in names.of(["a", "c"]), what="a name to be drawn")
    assert MadeUpNames(tmp_path).of(["a", "b", "c"]) == before | names.of(["c"])
    assert names.forget("a")


def test_a_name_that_is_not_written_down_is_not_given(tmp_path: Path) -> None:
    """Another process would give another one: where the file can't grow, that is the error each time."""
    names = MadeUpNames(tmp_path)
    before = names.of(["a"])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (names.path.stat().st_size, limit[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                names.of(["b", "a"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert names.of(["a"]) == before
    assert names.of(["b"]) == MadeUpNames(tmp_path).of(["b"])


DRAW = """
import json, sys
from pathlib import Path
from lo_kernel.engine.made_up import MadeUpNames
names, given = MadeUpNames(Path(sys.argv[1])), {}
print("ready", flush=True)
sys.stdin.readline()
for learner in (f"tc-u{number}" for number in range(100)):
    while learner not in (drawn := names.of([learner])):
        pass
    given |= drawn
print(json.dumps(given))
"""


def test_processes_that_draw_at_once_agree(tmp_path: Path) -> None:
    """However they get into each other's way, no learner has two names, and no name two learners."""
    drawing = [
        subprocess.Popen(
            [sys.executable, "-c", DRAW, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for each in drawing:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in drawing:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    given = [json.loads(each.communicate(timeout=20)[0]) for each in drawing]
    assert given[0] == given[1] == given[2] == MadeUpNames(tmp_path).of(given[0])
    assert len(set(given[0].values())) == 100


def test_a_forgotten_name_is_gone(tmp_path: Path) -> None:
    """No line of the file has it, others stay; if the learner comes again, the name is drawn anew."""
    names = MadeUpNames(tmp_path)
    before = names.of(["a", "b"])
    assert names.forget("a")
    assert not names.forget("a")
    text = (tmp_path / "names.jsonl").read_text()
    assert before["a"] not in text
    assert MadeUpNames(tmp_path).find("b") == before["b"]


def test_a_half_written_line_costs_that_line(tmp_path: Path) -> None:
    """A process that was killed while it wrote leaves the others' names as they were."""
    before = MadeUpNames(tmp_path).of(["a"])
    with (tmp_path / "names.jsonl").open("a") as file:
        file.write('{"learner":"b","na')
    again = MadeUpNames(tmp_path)
    assert again.of(["a", "c"])["a"] == before["a"]
    assert MadeUpNames(tmp_path).find("c") == again.find("c") is not None


@pytest.mark.parametrize("kind", ["notebook", EMBED])
async def test_a_notebook_and_its_frames_see_made_up_names(classroom: Settings, kind: str) -> None:
    """In a course's roster, a learner's page and the rows of queries; the same name in each."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo")
        made_up = list(runtime.made_up.of(IDS).values())
        assert await profiles(runtime, kind) == {"roster": made_up, "learner": made_up[0], "rows": made_up}
        assert not set(made_up) & set(REAL)


async def test_a_teacher_sees_the_rosters_names(classroom: Settings) -> None:
    """With a token of the kind `read`, also while frames of a notebook show the same answers."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo")
        await profiles(runtime, EMBED)
        assert await profiles(runtime, "read") == {"roster": REAL, "learner": REAL[0], "rows": REAL}


async def test_revealed_names_are_seen_in_frames_too(classroom: Settings) -> None:
    """After a reveal, in new answers and in those that are open; who came later is still made up."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo")
        address = f"{runtime.url}wsapi/communication_protocol?token={token_of(runtime, EMBED)}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
            query = {"execution_dag": "names", "target_exports": ["count"], "kwargs": {}}
            await socket.send_json({"q": query})
            await socket.receive_json(timeout=5)
            runtime.rosters.reveal({IDS[0]: "Ann Arbor"})
            (change,) = await socket.receive_json(timeout=5)
            assert name_in(change["value"]) == "Ann Arbor"
        seen = await profiles(runtime, EMBED)
        assert seen["roster"] == ["Ann Arbor", runtime.made_up.find(IDS[1])]


async def test_an_answer_is_made_once_for_each_way_of_naming(classroom: Settings) -> None:
    """All frames share one computation and one encoding, all teachers another."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        await send(runtime, "ann")
        subscriptions = [
            runtime.live.subscribe("names.count", names=naming)
            for naming in (True, "notebook", True, "notebook")
        ]
        updates = [await anext(each) for each in subscriptions]
        assert len(runtime.live) == 2
        assert updates[0].frames is updates[2].frames
        assert updates[1].frames is updates[3].frames
        for each in subscriptions:
            each.close()


async def test_a_rosters_function_gives_names_too(settings: Settings) -> None:
    """Where a function knows the names, a notebook's are made up; where nobody does, there are none."""
    async with running_app(settings) as runtime:
        add_board(runtime)
        await send(runtime, "ann", "bo")
        assert "name" not in (await runtime.executor.rows("count", names=runtime.rosters.notebook_names))[0]
        runtime.rosters.use(lambda course: [{"user_id": IDS[0], "name": "Ann Arbor"}, {"user_id": IDS[1]}])
        rows = await runtime.executor.rows("count", names=runtime.rosters.notebook_names)
        assert [row["name"] for row in rows] == [runtime.made_up.find(IDS[0]), ""]


async def test_a_course_that_is_not_there_is_raised_in_a_notebook(classroom: Settings) -> None:
    """``lo.query`` raises it with the courses that there are; no table hides it."""
    async with running_app(classroom) as runtime:
        add_board(runtime)
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        with pytest.raises(QueryError, match="there is no course 'c9' in the roster; there are: "):
            await lo.query("count", course_id="c9")


async def test_a_reveal_stands_when_the_roster_changes(classroom: Settings) -> None:
    """Who was revealed stays so, and who comes into the file later has a made-up name."""
    async with running_app(classroom) as runtime:
        rosters = runtime.rosters
        rosters.reveal(await rosters.names())
        class_list(Path(classroom.roster), [ANN, BO, ("cy", "Cy Young")])
        rosters._looked -= 60
        assert len(await rosters.roster()) == 3
        there = rosters.notebook_names
        assert [there[each] for each in IDS] == REAL
        assert there["tc-testcase-cy"] == runtime.made_up.find("tc-testcase-cy") != "Cy Young"


async def test_names_that_cannot_be_kept_are_no_names(
    classroom: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the workspace can't be written, a notebook sees the id alone, and never the roster's name."""

    def full(self: MadeUpNames, learners: object) -> dict[str, str]:
        raise OSError("no space left")

    monkeypatch.setattr(MadeUpNames, "of", full)
    async with running_app(classroom) as runtime:
        assert isinstance(runtime.rosters, Rosters)
        assert [name_in(row) for row in await runtime.rosters.roster(names="notebook")] == ["", ""]


async def test_a_frames_ticket_does_not_become_the_browsers_cookie(classroom: Settings) -> None:
    """A page in a frame leaves a teacher's page in the same browser as it was."""
    async with running_app(classroom) as runtime, aiohttp.ClientSession() as session:
        add_board(runtime)
        for kind, sets in ((EMBED, False), ("read", True)):
            address = f"{runtime.url}dashboards/board?token={runtime.security.ticket(kind)}"
            async with session.get(address) as answer:
                assert answer.status == 200
                assert (runtime.security.cookie in answer.cookies) is sets


@pytest.mark.browser
async def test_a_page_inside_a_notebook_shows_no_name_of_the_roster(
    classroom: Settings, open_browser: OpenBrowser
) -> None:
    """Not in its list, its chart, or a learner's details; after `lo.reveal` it shows them as they are."""
    async with running_app(classroom) as runtime:
        board = add_board(runtime)
        await send(runtime, "ann", "bo")
        page_of_it = DashboardPage(runtime, board)

        async def notebook(_: web.Request) -> web.Response:
            text = f"<!doctype html><title>notebook</title>{page_of_it._html()}"
            return web.Response(text=text, content_type="text/html")

        around = web.Application()
        around.router.add_get("/", notebook)
        async with serving(around) as port, open_browser() as browser:
            person = await browser.new_context()
            window, teacher = await person.new_page(), await person.new_page()
            await teacher.goto(f"{runtime.url}dashboards/board?token={runtime.security.tokens['read']}")
            await window.goto(f"http://127.0.0.1:{port}/")
            frame = window.frame_locator("iframe")
            await frame.locator("#lines tr[data-key]").first.wait_for()
            await frame.locator(".plot svg").wait_for()
            made_up = runtime.made_up.of(IDS)
            assert await frame.locator("#lines .name").all_inner_texts() == sorted(made_up.values())
            await frame.locator("#lines tr[data-key]").first.click()
            await frame.locator("#detail .events li").first.wait_for()
            shown = await frame.locator("body").inner_text()
            assert not [name for name in REAL if name in shown]
            await teacher.reload()
            await teacher.locator("#lines tr[data-key]").first.wait_for()
            assert await teacher.locator("#lines .name").all_inner_texts() == REAL
            runtime.rosters.reveal(dict(zip(IDS, REAL, strict=True)))
            await frame.locator("#lines .name", has_text="Ann Arbor").wait_for()


def test_a_notebook_shows_made_up_names_until_they_are_revealed(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    """In rows, charts and what `lo.watch` gives; the same after a restart; they go with the learner."""
    roster = class_list(tmp_path / "class.csv", [("sim-01", "Ann Arbor"), ("sim-02", "Bo Derek")])
    kernel = start_kernel(env={"LO_KERNEL_ROSTER": str(roster)})
    reducer = (
        "@lo.reducer('seen', null_state={'count': 0})\n"
        "def seen(event, state):\n"
        "    return {'count': state['count'] + 1}, None\n"
    )
    kernel.execute(reducer + "await lo.simulate(students=2, seconds=0.25, speed=80, seed=1)")
    show = (
        "import json; rows = await lo.query('seen')\n"
        "chart = lo.dashboard('seen'); await chart.settled()\n"
        "async for watched in lo.watch('seen'): break\n"
        "print(json.dumps([[r['name'] for r in rows], [r['student'] for r in chart._rows],"
        " [r['name'] for r in watched]]))"
    )
    before = json.loads(kernel.execute(show).text)
    assert before[0] == before[1] == before[2]
    assert not set(before[0]) & {"Ann Arbor", "Bo Derek"}
    kernel.restart()
    kernel.execute(reducer)
    assert json.loads(kernel.execute(show).text) == before
    kernel.execute("await lo.reveal(reason='consent forms')")
    assert json.loads(kernel.execute(show).text)[0] == ["Ann Arbor", "Bo Derek"]
    kernel.execute("await lo.erase('tc-testcase-sim-01')")
    left = (kernel.workspace / "names.jsonl").read_text()
    assert before[0][0] not in left
    assert before[0][1] in left
