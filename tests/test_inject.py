"""Modules put into a running server: who may, what is refused, what a restart and a rollback leave."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app

from lo_kernel.app.inject import _is_loopback
from lo_kernel.app.packing import LIMIT, pack, unpack
from lo_kernel.app.sending import check_target, send
from lo_kernel.app.simulate import simulate_class
from lo_kernel.errors import InjectError
from lo_kernel.read_log import NoReadLog
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

REDUCERS = """
from lo_kernel import student_event_reducer

@student_event_reducer(null_state={"n": 0})
def counted(event, state):
    state["n"] += STEP
    return state, state

def doubled(state):
    return {"n": state["n"] * 2}
"""
MODULE = """
from injected_one.reducers import counted
NAME = "Injected"
REDUCERS = [{"id": "injected_one.counted", "context": None, "function": counted}]
FUNCTIONS = {}
EXECUTION_DAG = {"execution_dag": {"all": {"dispatch": "select", "keys": {"dispatch": "keys",
    "function": "injected_one.counted"}, "fields": "All"}}, "exports": {"all": {"returns": "all"}}}
DASHBOARDS = [{"id": "injected", "title": "Injected", "panels": [{"query": "injected_one.all"}]}]
"""


def project(
    folder: Path, *, step: int = 1, version: str = "0.1.0", needs: str = "", module: str = MODULE
) -> Path:
    """The folder of an exported module."""
    (folder / "injected_one").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "injected-one"\nversion = "{version}"\ndependencies = [{needs}]\n'
        '[project.entry-points.lo_modules]\ninjected_one = "injected_one.module"\n'
    )
    (folder / "injected_one/__init__.py").write_text("")
    (folder / "injected_one/reducers.py").write_text(f"STEP = {step}\n{REDUCERS}")
    (folder / "injected_one/module.py").write_text(module)
    return folder


@asynccontextmanager
async def server(settings: Settings) -> AsyncIterator[tuple[Runtime, str]]:
    """A server that takes modules, and its token."""
    async with running_app(replace(settings, allow_inject=True)) as runtime:
        yield runtime, (settings.workspace_path / "injected/token").read_text()


async def counts(runtime: Runtime) -> list[int]:
    """What the injected reducer has counted, learner by learner."""
    keys = await runtime.registry.keys("Internal,injected_one.reducers.counted,")
    return [state["n"] for state in await runtime.registry.read(sorted(keys))]


async def test_a_module_goes_in_is_replaced_and_comes_out(settings: Settings, tmp_path: Path) -> None:
    """A module counts past and live events, a new version migrates as was said, a rollback brings the old
    one back.
    """
    acts: list[tuple[str, str, dict[str, Any]]] = []
    one, two = project(tmp_path / "1"), project(tmp_path / "2", step=3, version="0.2.0")
    async with server(settings) as (runtime, token):

        class Reads(NoReadLog):
            def act(self, what: str, name: str = "", *, learners: Any = (), **details: Any) -> None:
                acts.append((what, name, details))

        runtime.reads = Reads()
        await simulate_class(runtime.ingest_url, students=2, seconds=0.25, seed=3, speed=40)
        answer = await send(runtime.url, token, one)
        assert (answer["version"], answer["reducers"]) == ("0.1.0", ["injected_one.counted"])
        first = await counts(runtime)
        assert sum(first) == runtime.archive.last
        assert runtime.modules["injected_one"].title == "Injected"
        assert "injected" in runtime.dashboards
        rows = await runtime.executor.rows("injected_one.all", {})
        assert sorted(row["n"] for row in rows) == sorted(first)

        await send(runtime.url, token, two)
        assert await counts(runtime) == [3 * n for n in first]
        await send(runtime.url, token, project(tmp_path / "3", step=4, version="0.3.0"), migrate="doubled")
        assert await counts(runtime) == [6 * n for n in first]

        answer = await send(runtime.url, token, "injected_one", rollback=True)
        assert answer["version"] == "0.2.0"
        assert await counts(runtime) == [3 * n for n in first]
        await send(runtime.url, token, "injected_one", rollback=True)
        answer = await send(runtime.url, token, "injected_one", rollback=True)
        assert answer["version"] is None
        assert "injected_one.counted" not in runtime.registry
        assert "injected" not in runtime.dashboards
        assert "injected_one" not in runtime.catalog
        with pytest.raises(InjectError, match="nothing to roll back"):
            await send(runtime.url, token, "injected_one", rollback=True)
    done = [(what, name, details["version"]) for what, name, details in acts if what.startswith("module")]
    assert done == [
        ("module injected", "injected_one", "0.1.0"),
        ("module injected", "injected_one", "0.2.0"),
        ("module injected", "injected_one", "0.3.0"),
        ("module rolled back", "injected_one", "0.3.0"),
        ("module rolled back", "injected_one", "0.2.0"),
        ("module rolled back", "injected_one", "0.1.0"),
        ("module rollback refused", "injected_one", ""),
    ]
    details = next(details for what, _, details in acts if what == "module injected")
    assert len(details["sha256"]) == 64
    assert details["who"].endswith(" from 127.0.0.1")


async def test_a_restart_has_it_again(settings: Settings, tmp_path: Path) -> None:
    """What was in before a restart is in after it; a server that takes no modules leaves it out."""
    async with server(settings) as (runtime, token):
        await send(runtime.url, token, project(tmp_path / "1"))
    async with server(settings) as (runtime, again):
        assert again == token
        assert runtime.modules["injected_one"].version == "0.1.0"
        assert "injected_one.counted" in runtime.registry
    async with running_app(settings) as runtime:
        assert "injected_one" not in runtime.modules
        tokens = runtime.workspace.tokens
        for each in (token, tokens["notebook"], tokens["read"]):
            with pytest.raises(
                InjectError, match=r"refuses \(403\): this server takes no modules.*--allow-inject$"
            ):
                await send(runtime.url, each, tmp_path / "1")
        async with aiohttp.ClientSession() as client, client.post(f"{runtime.url}inject/x") as answer:
            said = {"error": "this server takes no modules: it was not started with --allow-inject"}
            assert (answer.status, await answer.json()) == (403, said)


async def test_what_fails_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    """A module that can't be imported, read, or run here is refused whole, and the one before goes on."""
    async with server(settings) as (runtime, token):
        await simulate_class(runtime.ingest_url, students=1, seconds=0.25, seed=3, speed=20)
        await send(runtime.url, token, project(tmp_path / "1"))
        before = await counts(runtime)
        wrong = {
            "can't be imported: ZeroDivisionError": {"module": "1 / 0"},
            "expected NAME": {"module": "REDUCERS = []"},
            "REDUCERS, entry 1": {"module": "NAME = 'x'\nREDUCERS = [{'id': 'x'}]"},
            "no reducer has the id 'x'": {
                "module": MODULE.replace('"function": "injected_one.counted"', '"function": "x"')
            },
            "no-such-package>=1.0.*with pip": {"needs": '"no-such-package>=1.0"'},
            "msgspec>=999": {"needs": '"msgspec>=999"'},
        }
        for number, (message, how) in enumerate(wrong.items()):
            bad = project(tmp_path / f"bad{number}", step=9, version="9.0.0", **how)
            with pytest.raises(InjectError, match=message):
                await send(runtime.url, token, bad)
            assert runtime.modules["injected_one"].version == "0.1.0"
            assert await counts(runtime) == before
        with pytest.raises(InjectError, match="migrate: expected 'restream'"):
            await send(runtime.url, token, project(tmp_path / "2", step=2), migrate="nothing")
        assert await counts(runtime) == before
        assert len(list((settings.workspace_path / "injected/injected_one").iterdir())) == 1


async def test_only_its_own_token_will_do(settings: Settings, tmp_path: Path) -> None:
    """The notebook's token, a reader's, a cookie, a request from afar and one that is too large are
    refused. Who came with another token hears which it takes and where that lies.
    """
    name, data = pack(project(tmp_path / "1"))
    async with server(settings) as (runtime, token), aiohttp.ClientSession() as client:
        url = f"{runtime.url}inject/{name}"

        async def ask(headers: dict[str, str], data: bytes = data) -> tuple[int, str]:
            async with client.post(url, data=io.BytesIO(data), headers=headers) as response:
                return response.status, await response.text()

        async def status(token: str, data: bytes = data, headers: dict[str, str] | None = None) -> int:
            return (await ask({"Authorization": f"Bearer {token}", **(headers or {})}, data))[0]

        def bearer(token: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {token}"}

        cookie = {"Cookie": f"{runtime.security.cookie}={token}", "Origin": runtime.url[:-1]}
        others = [
            (bearer(runtime.security.tokens[each]), 403, each) for each in ("notebook", "read", "ingest")
        ]
        for headers, code, said in [
            *others,
            (cookie, 403, "a cookie is not good"),
            (bearer("wrong"), 401, "unknown here"),
            ({}, 401, "injected/token"),
        ]:
            refused, text = await ask(headers)
            assert refused == code
            assert said in text
            assert "the token of the kind 'inject'" in text
            assert "injected/token" in text
            assert "card of lo" not in text
        assert "unknown here" not in text  # of the last, which brought none
        afar = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
        assert await status(token, headers=afar) == 403
        assert await status(token, b"x" * (LIMIT + 1)) == 413
        assert await status(token, b"no archive") == 422
        assert await status(token, headers={"X-Content-SHA256": "0" * 64}) == 422
        assert "injected_one" not in runtime.modules
        assert await status(token, headers=afar | {"X-Forwarded-Proto": "https"}) == 200
        async with client.get(
            f"{runtime.url}home.json", headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            assert answer.status == 403  # it is good for nothing else
    assert (settings.workspace_path / "injected/token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../evil.py", "no file of the package"),
        ("/etc/evil.py", "no file of the package"),
        ("injected_one/../../evil.py", "no file of the package"),
        ("injected_one\\..\\evil.py", "no file of the package"),
        ("os/path.py", "no file of the package"),
        ("injected_one/evil.so", "no file of the package"),
        ("injected_one/big.json", "at most 300 files and"),
    ],
)
def test_an_archive_holds_only_its_package(path: str, message: str) -> None:
    """A path that leads elsewhere, another kind of file, and one that unpacks too large are refused."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path, b"0" * (9 << 20 if "big" in path else 10))
    with pytest.raises(InjectError, match=message):
        unpack("injected_one", packed.getvalue())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "'lo_modules', got nothing there; lo.export('my_module') makes one"),
        ({}, "'lo_modules', got a folder without it; lo.export"),
        ({"pyproject.toml": "[project]"}, "'lo_modules', got one whose pyproject.toml doesn't; lo.export"),
        (
            {"pyproject.toml": "[project]\nentry-points = 3"},
            "got one whose pyproject.toml doesn't; lo.export",
        ),
        ({"pyproject.toml": "="}, "'lo_modules', got one that can't be read: Invalid statement"),
    ],
)
def test_a_folder_that_is_no_module_is_named(
    tmp_path: Path, files: dict[str, str] | None, message: str
) -> None:
    """The error says what is missing there, in words."""
    if files is not None:
        (tmp_path / "mine").mkdir()
        for name, text in files.items():
            (tmp_path / "mine" / name).write_text(text)
    with pytest.raises(InjectError, match=re.escape(message)) as error:
        pack(tmp_path / "mine")
    assert str(error.value).startswith(f"{tmp_path / 'mine'}: expected the folder of an exported module")
    assert "Error(" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://school.example:9999", "use https"),
        ("school.example", "expected the address"),
        ("ftp://x", "expected"),
    ],
)
def test_code_goes_nowhere_in_the_open(url: str, message: str) -> None:
    """A client sends over TLS or to this machine only, and never without a token."""
    with pytest.raises(InjectError, match=message):
        check_target(url, "token")
    with pytest.raises(InjectError, match="expected token="):
        check_target("https://school.example", "")
    assert check_target("https://school.example/lo/", "t") == "https://school.example/lo"
    assert _is_loopback("::1")
    assert not _is_loopback("203.0.113.9")


async def test_health_says_whether_it_is_ready(settings: Settings) -> None:
    """Anybody may ask whether the app lives and is ready; where a reducer failed it isn't, and says why."""
    async with running_app(settings) as runtime, aiohttp.ClientSession() as client:

        async def ask(what: str) -> tuple[int, Any]:
            async with client.get(f"{runtime.url}health/{what}") as response:
                return response.status, json.loads(await response.text())

        assert await ask("live") == (200, {"status": "live"})
        assert await ask("ready") == (200, {"status": "ready", "reasons": []})
        registration = runtime.add_reducer("r", lambda event, state: (state, state), module="m")
        await registration.ready()
        registration.status = "catching up"
        status, answer = await ask("ready")
        assert (status, answer["reasons"]) == (503, ["reducer 'r' is going through the past"])
        registration.status = "live"
        assert await ask("ready") == (200, {"status": "ready", "reasons": []})
