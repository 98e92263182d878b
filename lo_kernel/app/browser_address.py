"""How a browser reaches the app: directly, or through whatever stands between it and this machine.

Asked in this order: what the setting ``public_url`` says; Colab; VS Code's proxy; JupyterHub; a Jupyter
server on this machine that has jupyter-server-proxy; this machine itself. What is found through a Jupyter
server is a path without a host, which a page of that server resolves by itself.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lo_kernel.settings import Settings, http_address

__all__ = ["BrowserAddress", "Proxies", "ask_proxy", "find_address", "jupyter_server", "probe_proxy"]

_PROBE_SECONDS: Final = 0.5
_HOLDS_SECONDS: Final = 60.0
_NO_PORT: Final = 1
"""A port that nobody listens on: asked for it, a proxy that is there fails, and one that isn't gives 404."""


@dataclass(frozen=True, slots=True)
class BrowserAddress:
    """Where a browser finds the app.

    ``kind`` is ``setting``, ``colab``, ``vscode``, ``jupyterhub``, ``jupyter`` or ``local``. ``base`` ends
    with a slash; for Colab, which makes addresses itself, it is empty. ``hosts`` are the names under which
    the app will be asked then.

    >>> BrowserAddress("local", "http://127.0.0.1:9999/").of("dashboards/my-class", "t-1")
    'http://127.0.0.1:9999/dashboards/my-class?token=t-1'
    """

    kind: str
    base: str
    hosts: tuple[str, ...] = ()

    def of(self, path: str, token: str = "") -> str:
        """The address of one page; ``token`` goes into it where it is needed to open it."""
        return f"{self.base}{path}" + (f"?token={token}" if token else "")


def find_address(
    settings: Settings,
    port: int,
    environ: Mapping[str, str],
    *,
    runtime_dir: Path | None = None,
    probe: Callable[[Mapping[str, Any]], bool] | None = None,
) -> BrowserAddress:
    """How a browser reaches the app on ``port``; ``environ`` is the kernel's environment.

    ``runtime_dir`` is where Jupyter servers leave their files; ``probe`` says whether one has a proxy.

    >>> find_address(Settings(), 9999, {"JUPYTERHUB_SERVICE_PREFIX": "/user/ann/"}).base
    '/user/ann/proxy/9999/'
    """
    if settings.public_url:
        base = _template(settings.public_url, port)
        return BrowserAddress("setting", base, _host_of(base))
    if "COLAB_RELEASE_TAG" in environ:
        return BrowserAddress("colab", "")
    vscode = environ.get("VSCODE_PROXY_URI", "")
    if "port" in vscode:
        base = _template(vscode, port)
        return BrowserAddress("vscode", base, _host_of(base))
    hub = environ.get("JUPYTERHUB_SERVICE_PREFIX", "")
    if hub:
        public = environ.get("JUPYTERHUB_PUBLIC_URL", "") or environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "")
        return BrowserAddress("jupyterhub", f"{_slashed(hub)}proxy/{port}/", _host_of(public))
    server = jupyter_server(environ, runtime_dir)
    if server is not None and (probe or probe_proxy)(server):
        return BrowserAddress("jupyter", f"{_slashed(server.get('base_url', '/'))}proxy/{port}/")
    return BrowserAddress("local", http_address(settings.host, port))


def jupyter_server(environ: Mapping[str, str], runtime_dir: Path | None = None) -> dict[str, Any] | None:
    """What the Jupyter server that started this kernel says of itself; ``None`` where none did."""
    pid = environ.get("JPY_PARENT_PID", "")
    if not pid.isdecimal():
        return None
    if runtime_dir is None:
        from jupyter_core.paths import jupyter_runtime_dir

        runtime_dir = Path(jupyter_runtime_dir())
    for path in _server_files(runtime_dir, pid):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and isinstance(found.get("port"), int):
            return {name: found[name] for name in ("base_url", "port", "secure", "token") if name in found}
    return None


class Proxies:
    """Which Jupyter servers have a proxy: asked when first wanted, and remembered.

    An answer that is older than ``seconds`` is given as it is, and asked for again on a thread, beside
    whoever wanted it; that a server can't be reached is asked again each time.
    """

    def __init__(
        self,
        ask: Callable[[Mapping[str, Any]], bool | None] | None = None,
        *,
        seconds: float = _HOLDS_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask or ask_proxy
        self._seconds = seconds
        self._clock = clock
        self._known: dict[tuple[Any, ...], tuple[bool | None, float]] = {}  # the answer, until when it holds
        self._asking: set[tuple[Any, ...]] = set()
        self._lock = threading.Lock()

    def __call__(self, server: Mapping[str, Any]) -> bool:
        """Whether a server has one, as far as is known; only the first time this waits for the server."""
        key = tuple(sorted(server.items()))
        if key not in self._known:
            self._note(key, server)
        there, until = self._known[key]
        if there is None or self._clock() >= until:
            self._ask_beside(key, server)
        return bool(there)

    def _note(self, key: tuple[Any, ...], server: Mapping[str, Any]) -> None:
        self._known[key] = self._ask(server), self._clock() + self._seconds

    def _ask_beside(self, key: tuple[Any, ...], server: Mapping[str, Any]) -> None:
        def ask() -> None:
            try:
                self._note(key, server)
            finally:
                self._asking.discard(key)

        with self._lock:
            if key in self._asking:
                return
            self._asking.add(key)
        threading.Thread(target=ask, name="lo-proxy", daemon=True).start()


def probe_proxy(server: Mapping[str, Any]) -> bool:
    """Whether a Jupyter server is known to have a proxy; see :func:`ask_proxy`."""
    return bool(ask_proxy(server))


def ask_proxy(server: Mapping[str, Any]) -> bool | None:
    """Whether a Jupyter server has jupyter-server-proxy: without it, the address is not found (404).

    A server answers whoever it doesn't know alike, whether it has the address or not. So it is asked with
    its own token, which this user can read and which goes nowhere else; where that isn't enough, the answer
    is no. ``None`` where it doesn't answer within half a second.
    """
    if server.get("secure"):
        return False  # its certificate is hardly one of 127.0.0.1
    connection = http.client.HTTPConnection("127.0.0.1", int(server["port"]), timeout=_PROBE_SECONDS)
    try:
        path = f"{_slashed(str(server.get('base_url', '/')))}proxy/{_NO_PORT}/"
        token = str(server.get("token") or "")
        connection.request("GET", path, headers={"Authorization": f"token {token}"} if token else {})
        return connection.getresponse().status not in (301, 302, 303, 307, 308, 401, 403, 404)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _server_files(folder: Path, pid: str) -> Iterator[Path]:
    yield folder / f"jpserver-{pid}.json"
    yield folder / f"nbserver-{pid}.json"


def _template(address: str, port: int) -> str:
    """An address in which ``{port}`` or ``{{port}}`` stands for the port."""
    return _slashed(re.sub(r"\{\{?port\}?\}", str(port), address))


def _slashed(address: str) -> str:
    return address if address.endswith("/") else f"{address}/"


def _host_of(address: str) -> tuple[str, ...]:
    host = urlsplit(address).hostname
    return (host,) if host else ()
