"""All that an injected module has: served like an installed one's, refused whole, loaded at a restart."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app
from field_parts import add_metadata, on_path
from harness import free_port
from test_inject import MODULE, counts, project, server
from waiting import auntil

from lo_kernel.app.health import reasons
from lo_kernel.app.inject import Injector
from lo_kernel.app.packing import LIMIT, pack
from lo_kernel.app.sending import send
from lo_kernel.app.simulate import simulate_class
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.errors import InjectError
from lo_kernel.read_log import NoReadLog
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

PARTS = """
from learning_observer.adapters.adapter import add_common_migrator
from learning_observer.prestartup import register_startup_check
@register_startup_check
def check():
    CHECKED.append(STEP)
def adapt(event):
    return event
add_common_migrator(adapt, __file__)
CHECKED = []
from injected_one.reducers import STEP
def greet(request):
    return {"greeting": STEP}
def grade(n=0):
    return STEP
FUNCTIONS = {"injected_one.grade": grade, "learning_observer.roster": grade}
TICKS = {"injected_one.grade": 3600}
EXTRA_VIEWS = [{"suburl": "colors", "static_json": ["red", STEP]}]
AJAX = {"greet": greet}
COURSE_DASHBOARDS = [{"name": "Colors", "url": "/views/injected_one/colors/"},
    {"name": "Gone", "url": "/gone"}, {"name": "Injected", "url": "/dashboards/injected"}]
STUDENT_DASHBOARDS = [{"name": "Mine", "url": "/views/injected_one/colors/?mine"}]
DASH_PAGES = [{"TITLE": "Drawn", "SUBPATH": "drawn"}]
THIRD_PARTY = {"require.js": {}}
"""
FULL = MODULE.replace("FUNCTIONS = {}", PARTS)
NEXT = "DASHBOARDS.append({'id': 'next', 'title': 'Next', 'panels': [{'query': 'injected_one.all'}]})\n"


BROKEN = "\ndef broken(state):\n    raise KeyError('no such key')\n"


def broken(folder: Path, **how: Any) -> Path:
    """A module with a migration that fails."""
    made = project(folder, **how)
    reducers = made / "injected_one/reducers.py"
    reducers.write_text(reducers.read_text() + BROKEN)
    return made


class Deeds(NoReadLog):
    """Keeps the deeds on record."""

    def __init__(self) -> None:
        self.deeds: list[tuple[str, str, dict[str, Any]]] = []

    def act(self, what: str, name: str = "", *, learners: Iterable[str] = (), **details: Any) -> None:
        """Keep one."""
        if what.startswith("module"):
            self.deeds.append((what, name, details))


def parts(runtime: Runtime) -> dict[str, Any]:
    """All that a module can add to an app, in a form that can be compared."""
    served, boards = runtime.modules.served, runtime.dashboards
    return {
        "modules": {name: repr(runtime.modules[name]) for name in runtime.modules},
        "functions": {each.name: each.function for each in runtime.functions},
        "reducers": {each.id: (each.code, each.status) for each in runtime.registry},
        "queries": [info.name for info in runtime.catalog],
        "boards": {each: boards[each] for each in boards},
        "links": [link["name"] for link in [*boards.course_links, *boards.student_links]],
        "views": dict(served.views),
        "ajax": dict(served.ajax),
        "folders": dict(served.folders),
        "adapters": list(runtime.adapters),
        "ticks": sorted(boards._ticking),
        "imported": {name: id(sys.modules[name]) for name in sys.modules if name.startswith("injected_one")},
    }


async def got(runtime: Runtime, path: str) -> tuple[int, str]:
    """What is at an address."""
    read = {"Authorization": f"Bearer {runtime.security.tokens['read']}"}
    async with (
        aiohttp.ClientSession(headers=read) as client,
        client.get(f"{runtime.url}{path}") as response,
    ):
        return response.status, await response.text()


async def test_a_server_starts_while_its_store_is_away(settings: Settings, tmp_path: Path) -> None:
    """With a module that was put in, too: its reducers wait for the store, the app doesn't, and nothing more
    goes in or out before it is back.
    """
    async with server(settings) as (runtime, token):
        await send(runtime.url, token, project(tmp_path / "1"))
    away = replace(settings, store=f"redis://127.0.0.1:{free_port()}/0", start_within=5)
    async with server(away) as (runtime, token):
        assert runtime.registry.get("injected_one.counted").status == "waiting"
        assert runtime.modules["injected_one"].version == "0.1.0"
        assert "injected" in runtime.dashboards
        assert "reducer 'injected_one.counted' is going through the past" in reasons(runtime)
        for rollback in (False, True):
            with pytest.raises(InjectError, match="the store has not answered"):
                await send(runtime.url, token, tmp_path / "1", rollback=rollback)
    async with server(settings) as (runtime, _):
        await auntil(lambda: reasons(runtime) == [])


async def test_one_that_cannot_be_loaded_again_is_named(settings: Settings, tmp_path: Path) -> None:
    """After a restart: in the log of errors, the health answer and the list of modules; it can be mended or
    rolled back, and the app runs.
    """
    async with server(settings) as (runtime, token):
        await send(runtime.url, token, project(tmp_path / "1"))
        await send(runtime.url, token, project(tmp_path / "2", step=2, version="0.2.0"))
    files = settings.workspace_path.glob("injected/injected_one/*/injected_one/reducers.py")
    (newest,) = (path for path in files if "STEP = 2" in path.read_text())
    newest.write_text("1 / 0")
    async with server(settings) as (runtime, token):
        assert "ZeroDivisionError" in runtime.modules["injected_one"].error
        assert "ZeroDivisionError" in str(runtime.errors.of("module 'injected_one'"))
        assert reasons(runtime) == ["module 'injected_one' could not be loaded"]
        answer = await send(runtime.url, token, "injected_one", rollback=True)
        assert answer["version"] == "0.1.0"
        assert reasons(runtime) == []
        assert len(runtime.errors.of("module 'injected_one'")) == 0


async def test_it_has_what_an_installed_one_has(settings: Settings, tmp_path: Path) -> None:
    """Views, calls, files, links, functions, what runs by the clock, checks: they work while it is in, and
    are as they were when it is out. What a running server can't serve is in its answer and in the list.
    """
    folder = project(tmp_path / "1", module=FULL)
    (folder / "injected_one/static").mkdir()
    (folder / "injected_one/static/about.txt").write_text("about it")
    second = project(tmp_path / "2", step=2, version="0.2.0", module=FULL + NEXT)
    async with server(settings) as (runtime, token):
        empty = parts(runtime)
        answer = await send(runtime.url, token, folder)
        assert await got(runtime, "views/injected_one/colors/") == (200, '["red",1]')
        assert await got(runtime, "ajax/injected_one/greet") == (200, '{"greeting":1}')
        assert await got(runtime, "static/modules/injected_one/about.txt") == (200, "about it")
        assert sys.modules["injected_one.module"].CHECKED == [1]
        there = parts(runtime)
        assert there["links"] == ["Colors", "Mine"]
        assert there["ticks"] == ["injected_one.grade"]
        assert len(there["adapters"]) == 1
        named = "\n".join(answer["not_served"])
        for what in ("the Dash page 'Drawn'", "require.js", "'Gone' at /gone"):
            assert what in named
        assert runtime.modules["injected_one"].not_served == answer["not_served"]
        _, home = await got(runtime, "home.json")
        assert "the Dash page 'Drawn'" in home
        assert "Colors" in home

        await send(runtime.url, token, second)
        assert await got(runtime, "views/injected_one/colors/") == (200, '["red",2]')
        assert (await got(runtime, "static/modules/injected_one/about.txt"))[0] == 404
        now = parts(runtime)
        assert (now["links"], len(now["adapters"])) == (["Colors", "Mine"], 1)
        assert now["functions"]["injected_one.grade"]() == 2
        assert list(now["boards"]) == ["injected", "next"]
        await send(runtime.url, token, "injected_one", rollback=True)
        assert (await got(runtime, "static/modules/injected_one/about.txt"))[0] == 200
        back = parts(runtime)
        assert back["functions"]["injected_one.grade"]() == 1
        assert list(back["boards"]) == ["injected"]
        await send(runtime.url, token, "injected_one", rollback=True)
        assert parts(runtime) == empty


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (NEXT + "DASHBOARDS.append({'id': 'x', 'title': 'X', 'panels': [{'query': 'no_such'}]})", "no_such"),
        (
            NEXT + "DASHBOARDS.append({'id': 'taken', 'title': 'X', 'panels': [{'query': 'q'}]})",
            "from notebook",
        ),
        (NEXT + "DASHBOARDS.append({'id': 'x'})", "expected id, title and panels"),
        (NEXT + "REDUCERS.append({'id': 'twin', 'context': None, 'function': counted})", "both write"),
        (NEXT + "EXECUTION_DAG['exports'] = {'all': {'returns': 'gone'}}", "gone"),
        (NEXT + "register_startup_check(lambda: 1 / 0)", "ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_what_is_refused_leaves_nothing_behind(
    settings: Settings, tmp_path: Path, more: str, message: str, first: bool
) -> None:
    """Wherever it is refused: neither board, function, reducer nor page of it is there, and all that the
    version before has is.
    """
    from lo_kernel.app.dashboards import Dashboard

    async with server(settings) as (runtime, token):
        await simulate_class(runtime.ingest_url, students=1, seconds=0.25, seed=3, speed=20)
        runtime.catalog.add("q", {"execution_dag": {"q": "a"}, "exports": {"q": {"returns": "q"}}})
        runtime.dashboards.add(Dashboard.of("q", title="Taken"))
        if not first:
            await send(runtime.url, token, project(tmp_path / "1", module=FULL))
        before, counted = parts(runtime), await counts(runtime)
        bad = project(tmp_path / "2", step=9, version="9.0.0", module=FULL + more)
        with pytest.raises(InjectError, match=message):
            await send(runtime.url, token, bad)
        assert parts(runtime) == before
        assert await counts(runtime) == counted
        assert not first or "injected_one.counted" not in runtime.registry.paused


async def test_a_migration_that_fails_leaves_the_states(settings: Settings, tmp_path: Path) -> None:
    """Where the states can't be brought over, the version before goes on with those it had, which were kept
    and not folded, and all of its parts are there.
    """
    async with server(settings) as (runtime, token):
        await simulate_class(runtime.ingest_url, students=1, seconds=0.25, seed=3, speed=20)
        await send(runtime.url, token, project(tmp_path / "1", module=FULL))
        await send(
            runtime.url, token, project(tmp_path / "2", step=2, version="2", module=FULL), migrate="doubled"
        )
        doubled, before = await counts(runtime), parts(runtime)
        bad = broken(tmp_path / "3", step=3, version="3", module=FULL + NEXT)
        with pytest.raises(InjectError, match="no such key"):
            await send(runtime.url, token, bad, migrate="broken")
        assert await counts(runtime) == doubled
        after = parts(runtime)
        assert after == before


async def test_a_reducer_of_somebody_else_is_left_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an injection, a restart, nor a rollback takes the place or the states of one of this id."""

    @kvs_pipeline(null_state={"n": 0}, module_override="nb", qualname_override="mine")
    async def mine(event: Any, state: Any) -> Any:
        state["n"] += 1
        return state, state

    def theirs(runtime: Runtime) -> Any:
        return runtime.add_reducer("injected_one.counted", mine, module="nb").ready()

    async def states(runtime: Runtime) -> list[Any]:
        keys = await runtime.registry.keys("Internal,nb.mine,")
        return [state["n"] for state in await runtime.registry.read(keys)]

    async with server(settings) as (runtime, token):
        await simulate_class(runtime.ingest_url, students=1, seconds=0.25, seed=3, speed=20)
        await theirs(runtime)
        before, counted = parts(runtime), await states(runtime)
        assert counted
        for migrate in ("broken", "restream"):
            with pytest.raises(InjectError, match="'nb' has a reducer of this id: take that one out first"):
                await send(runtime.url, token, broken(tmp_path / migrate), migrate=migrate)
            assert (parts(runtime), await states(runtime)) == (before, counted)
        await runtime.remove_reducer("injected_one.counted")
        await send(runtime.url, token, tmp_path / "restream")
        await theirs(runtime)
        await send(runtime.url, token, "injected_one", rollback=True)
        assert await states(runtime) == counted
        await runtime.remove_reducer("injected_one.counted")
        await send(runtime.url, token, tmp_path / "restream")

    start = Injector.start

    async def later(injector: Injector) -> None:
        injector.runtime.add_reducer("injected_one.counted", mine, module="nb")
        await start(injector)

    monkeypatch.setattr(Injector, "start", later)
    async with server(settings) as (runtime, token):
        assert runtime.registry.get("injected_one.counted").module == "nb"
        assert "'nb' has a reducer of this id" in str(runtime.errors.of("module 'injected_one'"))
        await send(runtime.url, token, "injected_one", rollback=True)
        assert "injected_one.counted" in runtime.registry


async def test_paused_states_stay_where_an_injection_is_refused(settings: Settings, tmp_path: Path) -> None:
    """Of a module that could not be loaded after a restart: they answer as before, until it is mended."""
    settings = replace(settings, store="sqlite")
    async with server(settings) as (runtime, token):
        await simulate_class(runtime.ingest_url, students=1, seconds=0.25, seed=3, speed=20)
        await send(runtime.url, token, project(tmp_path / "1"))
        counted = await counts(runtime)
    (file,) = settings.workspace_path.glob("injected/injected_one/*/injected_one/reducers.py")
    file.write_text("1 / 0")
    async with server(settings) as (runtime, token):
        rows = await runtime.executor.rows("injected_one.counted")
        bad = broken(tmp_path / "2", step=2, version="2")
        with pytest.raises(InjectError, match="no such key"):
            await send(runtime.url, token, bad, migrate="broken")
        assert runtime.registry.get("injected_one.counted").status == "paused"
        assert await counts(runtime) == counted
        assert await runtime.executor.rows("injected_one.counted") == rows
        await send(runtime.url, token, bad, migrate="doubled")
        assert await counts(runtime) == [2 * each for each in counted]


async def test_each_refusal_is_on_record(settings: Settings, tmp_path: Path) -> None:
    """By whom and what, wherever it is refused; names are read as they are written."""
    name, data = pack(project(tmp_path / "1"))
    async with server(settings) as (runtime, token), aiohttp.ClientSession() as client:
        runtime.reads = reads = Deeds()

        async def ask(name: str, data: bytes, **headers: str) -> int:
            given = {"Authorization": f"Bearer {token}", "X-LO-User": "J%C3%B6rg", **headers}
            async with client.post(
                f"{runtime.url}inject/{name}", data=io.BytesIO(data), headers=given
            ) as response:
                return response.status

        _, needy = pack(project(tmp_path / "2", needs='"no-such-package>=1"'))
        cookie = {"Authorization": "", "Cookie": f"{runtime.security.cookie}={token}"}
        refused = [
            (await ask(name, needy), name, "0.1.0"),
            (await ask("json", data.replace(b"injected_one", b"json")), "json", ""),
            (await ask(name, b"no archive"), name, ""),
            (await ask(name, data, **{"X-Content-SHA256": "0" * 64}), name, "0.1.0"),
            (await ask(name, b"x" * (LIMIT + 1)), name, ""),
            (await ask(name, data, **{"X-Forwarded-For": "203.0.113.9"}), name, ""),
            (await ask(name, data, **cookie, Origin=runtime.url[:-1]), name, ""),
        ]
        assert [status for status, *_ in refused] == [422, 422, 422, 422, 413, 403, 403]
        assert [(what, name, details["version"]) for what, name, details in reads.deeds] == [
            ("module refused", name, version) for _, name, version in refused
        ]
        assert {details["who"] for _, _, details in reads.deeds} == {"Jörg from 127.0.0.1"}
        assert len(reads.deeds[0][2]["sha256"]) == 64


async def test_installed_and_injected_ones_list_dashboards_by_id(settings: Settings, tmp_path: Path) -> None:
    """A module's dashboards are what `lo.dashboards` has them under, however it came; one that is installed
    takes no other version by injection.
    """
    folder = project(tmp_path / "1", module=FULL)
    async with server(settings) as (runtime, token):
        await send(runtime.url, token, folder)
        injected = runtime.modules["injected_one"]
        assert (injected.dashboards, injected.links) == (["injected"], ["Colors", "Mine"])
    add_metadata(folder, "injected_one")
    with on_path(folder):
        async with server(settings) as (runtime, token):
            installed = runtime.modules["injected_one"]
            assert (installed.dashboards, installed.links) == (["injected"], ["Colors", "Mine"])
            assert installed.distribution == "injected_one"
            assert "is installed on this server" in str(runtime.errors.of("module 'injected_one'"))
            with pytest.raises(InjectError, match="is installed on this server"):
                await send(runtime.url, token, folder)
    async with running_app(settings) as runtime:
        assert list(runtime.modules) == []
