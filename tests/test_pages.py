"""Home, dashboards and status over HTTP: what is served, to whom, and that none of it tells a secret."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app
from page_parts import class_list, send

from lo_kernel.app.assets import Assets
from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.app.overview import add_overview
from lo_kernel.app.pages import content_security_policy
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

JAVASCRIPT_BYTES = 950 * 1024
COMPRESSED_BYTES = 320 * 1024


@asynccontextmanager
async def _app(
    settings: Settings, kind: str = "read"
) -> AsyncIterator[tuple[Runtime, aiohttp.ClientSession]]:
    """The app with the class overview, and a client with a token of this kind."""
    async with running_app(settings) as runtime:
        add_overview(runtime)
        headers = {"Authorization": f"Bearer {runtime.security.tokens[kind]}"}
        async with aiohttp.ClientSession(base_url=runtime.url, headers=headers) as client:
            yield runtime, client


async def _json(client: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status
        return await answer.json()


async def _data(client: aiohttp.ClientSession, path: str) -> Any:
    """What a page has been given to begin with."""
    async with client.get(path) as answer:
        found = re.search(
            r'<script type="application/json" id="about">(.*?)</script>', await answer.text(), re.S
        )
        assert found is not None
        return json.loads(found[1])


async def test_home_lists_what_there_is(settings: Settings) -> None:
    """The home page has courses, dashboards, reducers with their errors, sources and events."""
    async with _app(settings) as (runtime, client):
        await send(runtime, "ann")
        about = await _data(client, "/")
        assert about["courses"] == [{"id": "everyone", "name": "Everyone seen"}]
        assert [board["url"] for board in about["dashboards"]] == ["dashboards/overview"]
        assert {each["id"] for each in about["reducers"]} == {
            "overview.activity", "overview.time_on_task", "overview.writing",
        }  # fmt: skip
        assert all(each["errors"] == 0 for each in about["reducers"])
        assert (about["learners"], about["active"], about["sources"], about["events"]) == (1, 1, 0, 1)
        assert (await _json(client, "/home.json")).keys() == about.keys()


async def test_pages_hold_no_secret_and_ask_no_other_site(settings: Settings) -> None:
    """No token stands in a page or a script; each address in them is relative."""
    async with _app(settings) as (runtime, client):
        texts = []
        for path in ("/", "/dashboards/overview", "/dashboards/nothing"):
            async with client.get(path) as answer:
                texts.append(await answer.text())
        texts += [asset.plain.decode() for asset in Assets() if "vega" not in asset.name]
        for text in texts:
            assert not any(token and token in text for token in runtime.security.tokens.values())
            links = re.findall(r'(?:href|src)="([^"]*)"', text)
            assert not [link for link in links if link.startswith("/") or "//" in link]


async def test_a_title_can_not_break_out_of_the_page(settings: Settings) -> None:
    """A title with markup in it is text, in the page and in its data."""
    title = "</script><script>alert(1)</script>&\"'"
    async with _app(settings) as (runtime, client):
        runtime.dashboards.add(Dashboard("evil", title, (Panel("overview.class", title=title),)))
        async with client.get("/dashboards/evil") as answer:
            text = await answer.text()
        assert "<script>alert" not in text
        assert unescape(re.findall("<h1>(.*?)</h1>", text, re.S)[0]) == title
        assert (await _data(client, "/dashboards/evil"))["panels"][0]["title"] == title


async def test_pages_say_what_they_may_load_and_who_may_frame_them(settings: Settings) -> None:
    """No inline script, nothing from elsewhere; Jupyter on this machine and the public host may frame."""
    async with _app(replace(settings, public_url="https://lab.example.org/x/")) as (_, client):
        for path in ("/", "/dashboards/overview", "/dashboards/nothing"):
            async with client.get(path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert answer.headers["Cache-Control"] == "no-store"
                rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
                assert rules["default-src"] == "'none'"
                assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
                framing = rules["frame-ancestors"].split()
                assert {
                    "'self'",
                    "http://localhost:*",
                    "http://127.0.0.1:*",
                    "https://lab.example.org:*",
                } <= set(framing)
                text = await answer.text()
                assert not re.search(
                    r"<script(?![^>]*(?:src=|application/json))|<style| style=| on\w+=", text
                )


def test_the_policy_names_no_host_that_is_not_asked_for() -> None:
    """Without settings only this machine, and VS Code's own scheme, may frame a page."""
    framing = content_security_policy(Settings()).partition("frame-ancestors ")[2].split()
    assert all("localhost:" in each or "127.0.0.1:" in each for each in framing[1:-1])
    assert (framing[0], framing[-1]) == ("'self'", "vscode-webview:")


async def test_scripts_are_small_compressed_and_kept_for_good(settings: Settings) -> None:
    """All scripts are at most 950 KB, 320 KB compressed; their address names the content."""
    scripts = [asset for asset in Assets() if asset.name.endswith(".js")]
    assert sum(asset.size for asset in scripts) <= JAVASCRIPT_BYTES
    assert sum(len(asset.compressed) for asset in scripts) <= COMPRESSED_BYTES
    async with running_app(settings) as runtime, aiohttp.ClientSession(runtime.url) as client:
        for asset in Assets():
            async with client.get(f"/{asset.path}") as answer:  # no token: it is the same for everyone
                assert answer.status == 200
                assert "immutable" in answer.headers["Cache-Control"]
                assert answer.headers["Content-Encoding"] == "gzip"
                assert await answer.read() == asset.plain
        async with client.get(f"/{asset.path}", headers={"Accept-Encoding": "identity"}) as answer:
            assert "Content-Encoding" not in answer.headers
            assert await answer.read() == asset.plain
        for path in (
            "/static/0000000000000000/page.css",
            f"/static/{asset.digest}/..%2Fpages.py",
            "/static/x/y",
        ):
            async with client.get(path) as answer:
                assert answer.status in (401, 404)


def test_what_is_not_ours_is_named_with_its_licence() -> None:
    """Each bundled script is the named version's, as its digest says, and its licence lies beside it."""
    import gzip
    import hashlib

    from lo_kernel.app import assets

    folder = Path(assets.__file__).parent / "static" / "vendor"
    named = json.loads((folder / "versions.json").read_text())
    assert {each["file"] for each in named} == {path.name for path in folder.glob("*.gz")}
    licences = (folder / "LICENSES.txt").read_text()
    for each in named:
        data = gzip.decompress((folder / each["file"]).read_bytes())
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
        assert f"{each['name']} {each['version']}" in licences


async def test_status_has_memory_lag_and_sizes(settings: Settings) -> None:
    """`/admin/status` gives what the home page has, and memory, lag of the loop, store and archive sizes."""
    async with _app(settings) as (runtime, client):
        await send(runtime, "ann", "bo")
        await runtime.pipeline.commit()
        now = await _json(client, "/admin/status")
        assert now["memory"] > 10_000_000
        assert 0 <= now["loop_lag"] < 10
        assert now["archive"]["bytes"] > 0
        assert now["store"]["up"] is True
        assert (now["events"], now["learners"], now["events_on_disk"]) == (2, 2, 2)
        assert now["dashboards"] == [{"id": "overview", "title": "Class overview"}]


async def test_metrics_are_prometheus_text(settings: Settings) -> None:
    """Each line of `/metrics` is a comment or a sample of a declared metric, in Prometheus' text format."""
    async with _app(settings) as (runtime, client):
        await send(runtime, "ann")
        async with client.get("/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await answer.text()
    declared: dict[str, str] = {}
    values = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            declared[name] = kind
        elif not line.startswith("# HELP "):
            found = re.fullmatch(r'([a-z_]+)(\{[a-z_]+="(?:[^"\\]|\\.)*"\})? ([0-9.e+-]+)', line)
            assert found is not None, line
            assert found[1] in declared
            values[found[1] + (found[2] or "")] = float(found[3])
    assert values["lo_events_total"] == 1
    assert values['lo_reducer_events_total{reducer="overview.activity"}'] == 1
    assert declared["lo_events_total"] == "counter"
    assert text.endswith("\n")


async def test_one_learner_and_only_that_learners_events(settings: Settings, tmp_path: Path) -> None:
    """A learner's newest events come first, of nobody else; reads are on record."""
    roster = str(class_list(tmp_path / "class.csv", [("ann", "Ann Arbor")]))
    async with _app(replace(settings, roster=roster)) as (runtime, client):
        for number in range(60):
            await send(runtime, "ann", "bo", number=number)
        runtime.archive.write()
        records: list[Any] = []
        runtime.reads = type("Log", (), {"record": lambda self, *about: records.append(about)})()
        ann = await _json(client, "/webapi/learner/tc-testcase-ann")
        assert ann["profile"]["name"]["full_name"] == "Ann Arbor"
        assert ann["events"] == 60
        assert [event["about"] for event in ann["recent"]] == [f"number: {n}" for n in range(59, 19, -1)]
        assert records == [("events", "learner's page", ["tc-testcase-ann"])]
        newest = ann["recent"][0]["n"]
        assert (await _json(client, f"/webapi/learner/tc-testcase-ann?after={newest}"))["recent"] == []
        assert "error" in await _json(client, "/webapi/learner/tc-testcase-nobody", status=404)


async def test_a_notebook_sees_no_names(settings: Settings, tmp_path: Path) -> None:
    """With the notebook's own token a learner has no name; with a teacher's, the roster's."""
    roster = str(class_list(tmp_path / "class.csv", [("ann", "Ann Arbor")]))
    async with _app(replace(settings, roster=roster), kind="notebook") as (runtime, client):
        await send(runtime, "ann")
        assert "Ann" not in json.dumps(await _json(client, "/webapi/learner/tc-testcase-ann"))


async def test_a_long_text_of_an_event_is_cut(settings: Settings) -> None:
    """What a learner's page shows of an event is a line, whatever the event holds."""
    async with _app(settings) as (runtime, client):
        await send(runtime, "ann", essay="x" * 100_000)
        runtime.archive.write()
        (event,) = (await _json(client, "/webapi/learner/tc-testcase-ann"))["recent"]
        assert len(event["about"]) <= 300


async def test_what_clients_of_the_field_ask_for(settings: Settings) -> None:
    """`/auth/userinfo`, `/config.json` and the lists of dashboards answer as PROTOCOL.md names them."""
    async with _app(settings) as (runtime, client):
        runtime.dashboards.course_links.append(
            {"name": "Other", "url": "/views/m/x/", "icon": {}, "module": "m"}
        )
        boards = await _json(client, "/webapi/course_dashboards")
        assert [(each["name"], each["url"]) for each in boards] == [
            ("Class overview", "/dashboards/overview"),
            ("Other", "/views/m/x/"),
        ]
        assert await _json(client, "/webapi/student_dashboards") == []
        assert (await _json(client, "/auth/userinfo"))["authorized"] is True
        assert (await _json(client, "/config.json"))["name"] == "lo_kernel"


async def test_a_dashboards_state_and_drawings(settings: Settings) -> None:
    """A page is told how its answers are drawn and how its reducers are doing; an unknown one is a 404."""
    async with _app(settings) as (runtime, client):
        await send(runtime, "ann", "bo")
        drawings = await _json(client, "/dashboards/overview/drawings")
        assert [each["kind"] for each in drawings] == ["categories", "line", "heatmap", "bar", "bar"]
        assert all(each["spec"]["data"] == {"name": "rows"} for each in drawings)
        state = await _json(client, "/dashboards/overview/state")
        assert (state["learners"], len(state["reducers"])) == (2, 3)
        for path in ("state", "drawings"):
            assert "overview" in (await _json(client, f"/dashboards/nothing/{path}", status=404))["error"]
        async with client.get("/dashboards/nothing") as answer:
            assert answer.status == 404
            assert "overview" in await answer.text()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/home.json",
        "/metrics",
        "/dashboards/overview",
        "/dashboards/overview/state",
        "/webapi/learner/x",
    ],
)
async def test_nothing_is_shown_to_a_source_of_events(settings: Settings, path: str) -> None:
    """A token that may only send events opens no page."""
    async with _app(settings, kind="ingest") as (_, client), client.get(path) as answer:
        assert answer.status == 403
