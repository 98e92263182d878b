"""Where the browser finds the app: directly, or through what stands before it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from apps import running_app
from harness import free_port
from page_parts import serving
from waiting import auntil

from lo_kernel.app.browser_address import Proxies, ask_proxy, find_address, jupyter_server, probe_proxy
from lo_kernel.app.dashboards import Dashboard, Panel
from lo_kernel.bridge import LoopBridge
from lo_kernel.notebook.dashboards_view import DashboardList, browser_address
from lo_kernel.query.language import q
from lo_kernel.settings import Settings

SERVER = {"JPY_PARENT_PID": "77"}


def jupyter(folder: Path, **about: object) -> Path:
    """What a Jupyter server of process 77 leaves in its folder."""
    (folder / "jpserver-77.json").write_text(
        json.dumps({"base_url": "/lab/", "port": 8888, "token": "s", **about})
    )
    return folder


@pytest.mark.parametrize(
    ("environ", "kind", "base"),
    [
        ({}, "local", "http://127.0.0.1:9999/"),
        ({"COLAB_RELEASE_TAG": "x"}, "colab", ""),
        (
            {"VSCODE_PROXY_URI": "https://c.example.org/proxy/{{port}}"},
            "vscode",
            "https://c.example.org/proxy/9999/",
        ),
        ({"JUPYTERHUB_SERVICE_PREFIX": "/user/ann/"}, "jupyterhub", "/user/ann/proxy/9999/"),
        (SERVER, "jupyter", "/lab/proxy/9999/"),
    ],
)
def test_each_way_is_found(tmp_path: Path, environ: dict[str, str], kind: str, base: str) -> None:
    """Each surrounding is known by what it leaves in the environment."""
    found = find_address(Settings(), 9999, environ, runtime_dir=jupyter(tmp_path), probe=lambda _: True)
    assert (found.kind, found.base) == (kind, base)


def test_a_setting_wins(tmp_path: Path) -> None:
    """What is set overrides all that is found; the port may stand in it."""
    environ = {"JUPYTERHUB_SERVICE_PREFIX": "/user/ann/", "COLAB_RELEASE_TAG": "x"}
    found = find_address(Settings(public_url="https://lo.example.org/p/{port}"), 9999, environ)
    assert (found.kind, found.base, found.hosts) == (
        "setting", "https://lo.example.org/p/9999/", ("lo.example.org",),
    )  # fmt: skip


def test_a_hub_that_says_its_public_name_has_it_allowed() -> None:
    """Behind a hub the app is asked under the hub's name."""
    environ = {
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ann/",
        "JUPYTERHUB_PUBLIC_URL": "https://hub.example.org/user/ann/",
    }
    assert find_address(Settings(), 9999, environ).hosts == ("hub.example.org",)


def test_without_a_proxy_it_is_this_machine(tmp_path: Path) -> None:
    """A Jupyter server without jupyter-server-proxy is no way to the app."""
    found = find_address(Settings(), 9999, SERVER, runtime_dir=jupyter(tmp_path), probe=lambda _: False)
    assert found.kind == "local"


@pytest.mark.parametrize("text", ["", "[]", '{"port": "x"}', "{"])
def test_a_file_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    """What another program left half written is no server."""
    (tmp_path / "jpserver-77.json").write_text(text)
    assert jupyter_server(SERVER, tmp_path) is None
    assert jupyter_server({"JPY_PARENT_PID": "../77"}, tmp_path) is None


@pytest.mark.parametrize(("status", "there"), [(404, False), (500, True), (503, True)])
async def test_the_probe_asks_the_server(status: int, there: bool) -> None:
    """404 means that there is no proxy; anything else comes from one."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with serving(app) as port:
        server = {"port": port, "base_url": "/lab/"}
        assert await asyncio.to_thread(probe_proxy, server) is there
    assert asked == ["/lab/proxy/1/"]
    assert await asyncio.to_thread(probe_proxy, server) is False  # it is gone


class Jupyter:
    """A server that says how often it was asked for its proxy."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked = 0
        self.app = web.Application()
        self.app.router.add_get("/{path:.*}", self._answer)

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status)


async def test_a_server_is_asked_once_and_again_beside() -> None:
    """Its answer is remembered; when that is old, it is still given at once, while the server is asked."""
    now, jupyter = [0.0], Jupyter(status=404)
    proxies = Proxies(seconds=60, clock=lambda: now[0])
    async with serving(jupyter.app) as port:
        server: dict[str, Any] = {"port": port, "base_url": "/"}
        assert await asyncio.to_thread(proxies, server) is False
        jupyter.status = 500  # the proxy was installed
        now[0] = 59.0
        assert proxies(server) is False
        assert jupyter.asked == 1
        now[0] = 60.0
        assert proxies(server) is False  # on the server's own loop: to wait for it would take for ever
        await auntil(lambda: proxies(server))
        assert jupyter.asked == 2
        assert await asyncio.to_thread(proxies, {**server, "base_url": "/other/"}) is True
        assert jupyter.asked == 3


async def test_a_server_that_does_not_answer_is_asked_again_each_time() -> None:
    """That nobody answers is no answer: the next time one comes in, it counts."""
    jupyter, port = Jupyter(status=500), free_port()
    server: dict[str, Any] = {"port": port, "base_url": "/"}
    proxies = Proxies(clock=lambda: 0.0)
    assert ask_proxy(server) is None
    assert proxies(server) is False
    runner = web.AppRunner(jupyter.app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        await auntil(lambda: proxies(server))
        assert jupyter.asked == 1
        assert proxies(server) is True
        assert jupyter.asked == 1
    finally:
        await runner.cleanup()


async def test_links_of_a_notebook_ask_jupyter_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often dashboards and queries are shown, the server is asked by the first of them alone."""
    server = Jupyter(status=500)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JPY_PARENT_PID", "77")
    async with running_app(settings) as runtime, serving(server.app) as port:
        jupyter(tmp_path, port=port)
        first = await asyncio.to_thread(browser_address, runtime)
        assert (first.kind, first.base) == ("jupyter", f"/lab/proxy/{runtime.port}/")
        runtime.dashboards.add(
            Dashboard("mine", "Mine", (Panel(q.call("learning_observer.courseroster")()),))
        )
        boards = DashboardList(runtime, LoopBridge(asyncio.get_running_loop()))
        for _ in range(3):
            assert first.base in boards._repr_html_()
            assert browser_address(runtime) == first
        assert server.asked == 1
