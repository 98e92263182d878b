"""Where the browser finds the app: directly, or through what stands before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web
from page_parts import serving

from lo_kernel.app.browser_address import find_address, jupyter_server, probe_proxy
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
    import asyncio

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
