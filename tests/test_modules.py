"""Installed modules: what the field wrote is loaded and served, and what goes wrong is named."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app
from field_parts import READING, add_dash, add_metadata, install, on_path
from ingest_parts import connect, idle, say, state_of, who

from lo_kernel.engine.reducers import declaration_of
from lo_kernel.engine.states import json_state
from lo_kernel.modules.contents import read_contents
from lo_kernel.modules.look import may_have_modules
from lo_kernel.modules.placeholders import PlaceholderModule, import_module_of_the_field
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


@asynccontextmanager
async def app_with(settings: Settings, folder: Path, *names: str) -> AsyncIterator[Runtime]:
    """The app, with these modules of the corpus installed."""
    with on_path(install(folder, *names)):
        async with running_app(settings) as runtime:
            yield runtime


def tokened(runtime: Runtime, path: str, kind: str = "read") -> str:
    """An address of the app, with a token."""
    return (
        f"{runtime.url}{path.lstrip('/')}{'&' if '?' in path else '?'}token={runtime.security.tokens[kind]}"
    )


async def get(runtime: Runtime, path: str, status: int = 200) -> Any:
    """What is at an address: JSON, or text."""
    async with aiohttp.ClientSession() as session, session.get(tokened(runtime, path)) as answer:
        text = await answer.text()
        assert answer.status == status, text
        return json.loads(text) if answer.content_type == "application/json" else text


async def read_events(runtime: Runtime, *events: dict[str, Any], user: str = "u0") -> None:
    """Send events of the corpus's source over the real websocket, and wait until they are folded."""
    async with connect(runtime.ingest_url) as ws:
        await say(ws, {**who(user), "source": READING})
        await say(ws, *({"source": READING, **event} for event in events))
        await say(ws, {"event": "terminate", "source": READING})
        await ws.receive()
        await ws.receive()
    await idle(runtime)


async def test_a_module_of_the_field_is_loaded(settings: Settings, tmp_path: Path) -> None:
    """Its reducers, queries and links are there when the app answers, under the field's names."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        module = runtime.modules["reading_log"]
        assert (module.title, module.version, module.error, module.problems) == ("Reading Log", "1.2", "", [])
        assert module.reducers[:2] == ["reading_log.event_counter", "reading_log.last_event"]
        assert "reading_log.counts" in module.queries
        assert [link["name"] for link in runtime.dashboards.course_links] == ["Reading Log", "Colors"]
        assert runtime.dashboards.student_links[0]["url"] == "/views/reading_log/colors/?mine"
        assert sys.modules["reading_log.module"].CHECKED == [True]
        shown = repr(runtime.modules)
        assert "reading_log 1.2: Reading Log" in shown
        assert "reading_log.event_counter" in shown


async def test_every_declaration_and_scope_folds(settings: Settings, tmp_path: Path) -> None:
    """Each decorator and each field of a scope gives the states that it should, under the field's keys."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        await read_events(
            runtime,
            {"event": "open", "doc_id": "d1", "tab_id": "t.0"},
            {"event": "read", "doc_id": "d1", "text": "one two", "page": 7},
            {
                "event": "read",
                "doc_id": "d1",
                "text": "three",
                "page": 7,
                "class_id": "c1",
                "teacher_id": "t1",
            },
            {"event": "note", "object": {"title": "On reading"}},
        )
        states = {
            "event_counter,STUDENT:tc-testcase-u0": {"count": 5},
            "last_event,STUDENT:tc-testcase-u0": {"seen": 5, "event": "note"},
            "words_in_document,EventField.doc_id:d1,STUDENT:tc-testcase-u0": {"words": 3},
            "tab_visits,EventField.doc_id:d1,EventField.tab_id:t.0,STUDENT:tc-testcase-u0": {"visits": 1},
            "readers,RESOURCE:d1": {"readers": ["tc-testcase-u0"]},
            "class_events,CLASS:c1": {"events": 1},
            "teacher_events,TEACHER:t1": {"events": 1},
            "pages_by_number,STUDENT:tc-testcase-u0": {"times": {"7": 2}, "pair": [7, 2]},
            "titles,STUDENT:tc-testcase-u0": {"titles": ["On reading"]},
        }
        found = {key: await state_of(runtime, f"Internal,reading_log.reducers.{key}") for key in states}
        assert found == states
        time = await state_of(runtime, "Internal,reading_log.reducers.student_time,STUDENT:tc-testcase-u0")
        assert time["saved_ts"] > 0
        assert [each.last_error for each in runtime.registry if each.errors] == []


async def test_queries_of_a_module_answer(settings: Settings, tmp_path: Path) -> None:
    """Each shorthand of the query language, from a module's own DAG, gives its rows."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        await read_events(runtime, {"event": "open"})
        ask = runtime.executor.run
        course = {"course_id": "1"}
        assert await ask("reading_log", ["counts"], course) == {"counts": [{"events": 2}]}
        assert await ask("reading_log", ["all_counts"], course) == {"all_counts": [{"count": 2}]}
        assert await ask("reading_log", ["nothing"], course) == {"nothing": [{}]}
        joined = (await ask("reading_log", ["with_roster"], course))["with_roster"]
        assert joined == [{"events": 2, "user_id": "tc-testcase-u0", "profile": {}}]
        shouted = (await ask("reading_log", ["shouted"], {**course, "mark": "!!"}))["shouted"]
        assert [row["text"] for row in shouted] == ["OPEN!!"]
        assert await ask("reading_log", ["one_shout"]) == {"one_shout": {"text": "HELLO!"}}
        words = {"student_id": "tc-testcase-u0", "doc_id": "d1"}
        assert await ask("reading_log", ["document_words"], words) == {"document_words": [{"words": 0}]}
        rows = await runtime.executor.rows("reading_log.event_counter")
        assert [dict(row) for row in rows] == [{"student": "tc-testcase-u0", "count": 2}]


async def test_views_calls_and_files_of_a_module_are_served(settings: Settings, tmp_path: Path) -> None:
    """Views, AJAX calls, files in the package and built pages answer, to whoever has a token."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        assert await get(runtime, "/views/reading_log/colors/") == ["red", "green"]
        assert await get(runtime, "/ajax/reading_log/greet?name=Ann") == {"greeting": "hello Ann"}
        assert "<title>Reading log" in await get(
            runtime, "/static/repos/reading_log/reading/master/index.html"
        )
        assert "green" in await get(runtime, "/static/modules/reading_log/reading.css")
        assert "<title>Board<" in await get(runtime, "/reading_log/board/")
        assert "<title>Board, about<" in await get(runtime, "/reading_log/board/about")
        assert "board" in await get(runtime, "/_next/reading_log/board/_next/static/board.js")
        echo = tokened(runtime, "/views/reading_log/api/echo/")
        async with aiohttp.ClientSession() as session, session.post(echo, json={"say": "hi"}) as answer:
            assert await answer.json() == {"said": "hi"}
        bare = f"{runtime.url}views/reading_log/colors/"
        async with aiohttp.ClientSession() as session, session.get(bare) as answer:
            assert answer.status == 401


async def test_what_a_handler_raises_is_named(settings: Settings, tmp_path: Path) -> None:
    """A view that fails answers with its error, and `lo.errors` has it; one that isn't there says so."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        assert "ZeroDivisionError" in (await get(runtime, "/views/reading_log/broken/", 500))["error"]
        assert "ZeroDivisionError" in str(runtime.errors.of("view 'reading_log/broken'"))
        assert "no view 'nothing'" in (await get(runtime, "/views/reading_log/nothing/", 404))["error"]
        assert "no call 'nothing'" in (await get(runtime, "/ajax/reading_log/nothing", 404))["error"]


async def test_no_file_outside_of_a_module_is_served(settings: Settings, tmp_path: Path) -> None:
    """No way of writing an address leads out of a module's folder."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        for path in ("../module.py", "..%2fmodule.py", "%2e%2e/module.py", "pages/../../module.py"):
            await get(runtime, f"/static/modules/reading_log/{path}", 404)


async def test_what_cannot_be_served_is_named(settings: Settings, tmp_path: Path) -> None:
    """Repositories, downloads, pages that were not built and old aggregators are listed, with their links."""
    async with app_with(settings, tmp_path / "site", "reading_log") as runtime:
        named = "\n".join(runtime.modules["reading_log"].not_served)
    for what in ("'elsewhere'", "'not_built'", "require.js and 1 more", "COURSE_AGGREGATORS", "'Gone'"):
        assert what in named


async def test_a_module_whose_pages_need_what_is_missing_is_loaded(
    settings: Settings, tmp_path: Path
) -> None:
    """Reducers and queries work where Dash or its components are missing, and the page is named."""
    async with app_with(settings, tmp_path / "site", "quiz_board") as runtime:
        module = runtime.modules["quiz_board"]
        assert not module.error
        assert module.reducers == ["quiz_board.answers_given"]
        assert "the Dash page 'The quiz board'" in module.not_served[-2]
        assert "/quiz_board/dash/quiz" in module.not_served[-1]
        assert runtime.dashboards.course_links == []
        async with connect(runtime.ingest_url) as ws:
            await say(ws, {**who("u0"), "source": "org.example.quiz"})
            await say(ws, {"event": "answer", "right": True, "source": "org.example.quiz"})
            await say(ws, {"event": "terminate", "source": "org.example.quiz"})
            await ws.receive()
            await ws.receive()
        await idle(runtime)
        answer = await runtime.executor.run("quiz_board", ["answers_given_export"], {"course_id": "1"})
        (row,) = answer["answers_given_export"]
        assert (row["user_id"], row["answers"], row["right"]) == ("tc-testcase-u0", 1, 1)
    assert not [name for name, each in sys.modules.items() if isinstance(each, PlaceholderModule)]


async def test_dash_pages_are_served_where_dash_is_installed(settings: Settings, tmp_path: Path) -> None:
    """A Dash page answers at its address, with its query and body, and its link is on the home page."""
    site = tmp_path / "site"
    add_dash(site)
    async with app_with(settings, site, "field_page") as runtime:
        module = runtime.modules["field_page"]
        assert (module.error, module.not_served) == ("", [])
        assert [link["url"] for link in runtime.dashboards.course_links] == ["/field_page/dash/page"]
        page = await get(runtime, "/field_page/dash/page/?a=1")
        assert page.startswith("A page of Dash<div><h1>Drawn by Dash</h1></div>")
        assert "a=1" in page
        assert await get(runtime, "/field_page/dash/nothing/", 404) == "no page"
        address = tokened(runtime, "/field_page/dash/page/")
        async with aiohttp.ClientSession() as session, session.post(address, data=b"posted") as answer:
            assert (await answer.text()).endswith("posted")
            assert answer.headers.getall("X-Two") == ["1", "2"]
        assert (runtime.workspace.path / "modules" / "dash-assets" / "field_page_page.css").exists()


async def test_without_dash_its_pages_are_named(settings: Settings, tmp_path: Path) -> None:
    """Where Dash isn't installed, the page is named with the pip command, and its address says so."""
    async with app_with(settings, tmp_path / "site", "field_page") as runtime:
        assert 'pip install "lo-kernel[dash]"' in repr(runtime.modules)
        assert "lo.modules says why" in await get(runtime, "/field_page/dash/page/", 404)


async def test_one_that_fails_is_named_and_the_rest_run(settings: Settings, tmp_path: Path) -> None:
    """A module that can't be imported is named with its error, in `lo.errors` and on the home page."""
    async with app_with(settings, tmp_path / "site", "field_broken", "reading_log") as runtime:
        assert "learning_observer.dashboard" in runtime.modules["field_broken"].error
        assert "reading_log.event_counter" in runtime.registry
        assert "learning_observer.dashboard" in str(runtime.errors.of("module 'field_broken'"))
        home = await get(runtime, "/home.json")
    broken, reading = home["modules"]
    assert (broken["name"], reading["name"], reading["reducers"]) == ("field_broken", "reading_log", 10)
    assert "learning_observer.dashboard" in broken["error"]


async def test_of_a_module_that_is_half_wrong_the_rest_is_loaded(settings: Settings, tmp_path: Path) -> None:
    """Each part that can't be used is named, and the others work: reducers, settings, changes to events."""
    async with app_with(settings, tmp_path / "site", "field_half") as runtime:
        module = runtime.modules["field_half"]
        assert module.reducers == ["field_half.names"]
        problems = "\n".join(module.problems)
        for what in ("there is no API key", "reducer 'field_half.names.again': the reducers", "dispatch"):
            assert what in problems
        for what in ("REDUCERS, entry 3: expected a 'function'", "EXTRA_VIEWS, entry 1"):
            assert what in problems
        async with connect(runtime.ingest_url) as ws:
            await say(ws, {**who("u0"), "source": "org.example.half"})
            await say(ws, *({"event": name, "source": "org.example.half"} for name in ("A", "B", "C")))
            await say(ws, {"event": "terminate", "source": "org.example.half"})
            await ws.receive()
            await ws.receive()
        await idle(runtime)
        state = await state_of(runtime, "Internal,field_half.module.names,STUDENT:tc-testcase-u0")
        assert state == {"names": ["test_framework_fake_identity", "a", "b"]}


COUNTS = """
from lo_kernel import student_event_reducer

NAME = "{name}"

@student_event_reducer(null_state={{"by": "{name}"}})
async def counts(event, state):
    return state, None

@student_event_reducer(null_state={{"n": 0}})
async def own(event, state):
    return state, None

REDUCERS = [
    {{"id": "shared.counts", "function": counts, "context": None}},
    {{"function": own, "context": None}},
]
"""


def who_has_it(runtime: Runtime) -> tuple[str, dict[str, list[str]]]:
    """The module whose reducer of the id that two want is registered, and what is said of each."""
    said = {name: each.problems for name, each in runtime.modules.items()}
    return runtime.registry.get("shared.counts").module, said


async def test_of_two_modules_with_one_id_the_second_is_refused(settings: Settings, tmp_path: Path) -> None:
    """The error names both and what to do; the rest of it works. Who had it first keeps it at each start."""
    settings = replace(settings, store="sqlite")
    earlier, later, third = tmp_path / "b", tmp_path / "a", tmp_path / "c"
    for folder, name in ((earlier, "module_b"), (later, "module_a"), (third, "module_c")):
        folder.mkdir()
        (folder / f"{name}.py").write_text(COUNTS.format(name=name))
        add_metadata(folder, name, name)
    with on_path(earlier), on_path(third):
        async with running_app(settings) as runtime:
            assert who_has_it(runtime)[0] == "module_b"
            await runtime.registry.get("shared.counts").ready()
        with on_path(later):
            async with running_app(settings) as runtime:
                winner, said = who_has_it(runtime)
                assert winner == "module_b", "its states are in the store"
                assert said["module_b"] == []
                for name in ("module_a", "module_c"):
                    assert f"{name}.own" in runtime.registry
                    assert runtime.modules[name].reducers == [f"{name}.own"]
                    (problem,) = said[name]
                    for word in ("'shared.counts'", f"{name!r}", "'module_b'", "another id", "--modules"):
                        assert word in problem
                    assert problem in str(runtime.errors.of(f"module '{name}'"))
    (earlier / "module_b.py").write_text("import no_such_package_at_all")
    with on_path(earlier), on_path(later):
        async with running_app(settings) as runtime:
            assert runtime.registry.get("shared.counts").status == "paused"
            assert (
                "'module_b' has its states, but could not be loaded"
                in runtime.modules["module_a"].problems[0]
            )
    with on_path(third), on_path(later):
        async with running_app(settings) as runtime:
            assert who_has_it(runtime)[0] == "module_a", "who had it is gone: the first by name"


async def test_the_deployed_core_is_left_out(settings: Settings, tmp_path: Path) -> None:
    """Where the deployed package is installed, its own entry point is not loaded."""
    folder = tmp_path / "site"
    (folder / "learning_observer").mkdir(parents=True)
    (folder / "learning_observer" / "__init__.py").write_text("raise SystemExit('the deployed one')")
    add_metadata(folder, "learning_observer", "learning_observer.module")
    async with app_with(settings, folder, "reading_log") as runtime:
        assert list(runtime.modules) == ["reading_log"]
        assert not runtime.modules["reading_log"].error


async def test_states_of_another_version_are_folded_anew(settings: Settings, tmp_path: Path) -> None:
    """The same version goes on with its states; another one counts as other code."""
    codes = []
    for folder, version in (("a", "1.0"), ("b", "1.0"), ("c", "1.1")):
        with on_path(install(tmp_path / folder, "reading_log", version=version)):
            async with running_app(settings) as runtime:
                codes.append(runtime.registry.get("reading_log.event_counter").code)
    assert codes[0] == codes[1] != codes[2]


async def test_it_can_run_where_nothing_is_installed(settings: Settings) -> None:
    """Without modules the list says how to make one."""
    async with running_app(settings) as runtime:
        assert list(runtime.modules) == []
        assert "lo-kernel new my_module" in repr(runtime.modules)


def test_a_quick_look_finds_what_is_installed(tmp_path: Path) -> None:
    """The look at each start sees distributions that name the group; odd paths are no error."""
    odd = [str(tmp_path / "missing"), __file__, str(tmp_path)]
    assert not may_have_modules(odd)
    install(tmp_path, "reading_log")
    assert may_have_modules(odd)


def test_a_module_without_a_name_is_none(tmp_path: Path) -> None:
    """NAME is what makes a module; without it the error says what was expected."""
    with on_path(tmp_path):
        (tmp_path / "nameless_one.py").write_text("REDUCERS = []\n")
        import importlib

        from lo_kernel.errors import LOError

        module = importlib.import_module("nameless_one")
        with pytest.raises(LOError, match="nameless_one: expected NAME"):
            read_contents(module)


def test_what_stands_in_for_a_package_is_gone_afterwards() -> None:
    """A stand-in is there for the time of the import alone, and only for packages that draw pages."""

    def load() -> str:
        import lo_dash_react_components as missing  # type: ignore[import-not-found]

        def draw() -> str:
            return "drawn"

        drawn = missing.callback(missing.Output("a", "b"))(draw)
        return str(drawn())

    value, stood_in = import_module_of_the_field(load, "nothing")
    assert (value, stood_in) == ("drawn", ["lo_dash_react_components"])
    with pytest.raises(ModuleNotFoundError):
        load()
    with pytest.raises(ModuleNotFoundError):
        import_module_of_the_field(lambda: __import__("no_such_package_at_all"), "nothing")


def test_states_pass_through_json_as_in_the_field() -> None:
    """Tuples become lists and numbers as keys texts, as Python's json has them; the rest is refused."""
    assert json_state({"a": (1, (2,)), 3: {True: 1.5}}) == {"a": [1, [2]], "3": {"true": 1.5}}
    assert json_state(("a",)) == ["a"]
    for wrong in ({1, 2}, b"x", float("nan"), object()):
        with pytest.raises((TypeError, ValueError)):
            json_state({"wrong": wrong})


def test_a_reducer_is_declared_once_for_each_decorator(tmp_path: Path) -> None:
    """One function may be declared with two scopes: each declaration is a reducer of its own."""
    from lo_kernel.compat.decorators import make_decorators
    from lo_kernel.engine.keys import EventField, KeyField

    async def both(event: Any, state: Any) -> Any:
        return state, state

    declare = make_decorators(None)["kvs_pipeline"]
    one, two = declare(scope=[KeyField.STUDENT])(both), declare(scope=[EventField("doc_id")])(both)
    assert declaration_of(one).scope.names == ("STUDENT",)
    assert declaration_of(two).scope.names == ("EventField.doc_id",)


@pytest.mark.browser
async def test_the_home_page_shows_modules_and_what_failed(
    settings: Settings, tmp_path: Path, open_browser: Any
) -> None:
    """A person sees each module on the home page, and of one that could not be loaded why."""
    site = app_with(settings, tmp_path / "site", "field_broken", "reading_log")
    async with site as runtime, open_browser() as browser:
        page = await browser.new_page()
        await page.goto(tokened(runtime, "/"))
        await page.wait_for_selector("#modules li")
        shown = await page.locator("#modules-panel").inner_text()
    assert "Reading Log" in shown
    assert "10 reducers" in shown
    assert "could not be loaded: ImportError: learning_observer.dashboard" in shown
