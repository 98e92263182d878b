"""Modules put into a running server: ``POST /inject/<name>``, where it was started with ``allow_inject``.

What comes in is code, which then runs with all that the server may do. So it takes a token of a kind of its
own (kept in a file of the workspace), never a cookie; it comes over TLS or from this machine; its size is
bounded; and who put what in, when, is on record. Nothing is touched before the whole module has been
imported and read.

    injected/token                      the token (0600)
    injected/active.json                what is in, newest last, so that a restart has it again (0600)
    injected/<name>/<sha256>/<name>/    the package
"""

from __future__ import annotations

import asyncio
import hmac
import importlib
import ipaddress
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.app.packing import LIMIT, Package, unpack
from lo_kernel.app.security import ACCESS, takes
from lo_kernel.errors import InjectError, LOError
from lo_kernel.modules.contents import Contents, read_contents
from lo_kernel.modules.module import Module
from lo_kernel.workspace import write_private

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["MIGRATIONS", "Injector", "routes"]

MIGRATIONS: Final = ("restream", "drop", "keep")
"""What may become of a reducer's states; besides, the name of a function in the module's ``reducers``."""

_NEEDS = (
    "this takes the token of the kind 'inject', as 'Authorization: Bearer ...': it lies in the server's "
    "workspace, in injected/token"
)


class _Active(msgspec.Struct):
    """One version that was put in."""

    sha256: str
    version: str
    who: str
    time: float


class Injector:
    """Puts modules in and takes them out; only on the app's loop."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.folder = runtime.workspace.path / "injected"
        self._active: dict[str, list[_Active]] = {}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Make the token where there is none, and load what was in before the restart."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "token"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32).encode())
        self.runtime.security.tokens = {
            **self.runtime.security.tokens,
            "inject": path.read_text(encoding="utf-8").strip(),
        }
        try:
            data = (self.folder / "active.json").read_bytes()
            self._active = msgspec.json.decode(data, type=dict[str, list[_Active]])
        except FileNotFoundError:
            return
        except msgspec.MsgspecError as error:
            self.runtime.errors.add("injected modules", error)
            return
        for name, versions in self._active.items():
            try:
                await self._put_in(name, versions[-1], "restream")
            except Exception as error:
                self.runtime.errors.add(f"module '{name}'", error)

    def stop(self) -> None:
        """Forget what was imported, so that another app in this process begins anew."""
        for name in self._active:
            _forget(name)

    async def inject(self, name: str, package: Package, *, migrate: str, who: str) -> dict[str, Any]:
        """Put a module in, or in the place of the one of this name; :class:`InjectError` leaves all as it
        was.
        """
        async with self._lock:
            _check_requirements(package.requirements)
            before = self._versions(name)
            self._check_place(name, before)
            new = _Active(package.sha256, package.version, who, time.time())
            target = self.folder / name / package.sha256
            if not target.exists():
                await asyncio.to_thread(package.write, target)
            try:
                reducers = await self._put_in(name, new, migrate)
            except Exception as error:
                if before:
                    await self._put_in(name, before[-1], "restream")
                else:
                    await self._take_out(name)
                if not any(each.sha256 == new.sha256 for each in before):
                    shutil.rmtree(target, ignore_errors=True)
                self._record("module refused", name, new)
                raise InjectError(f"{name}: {error}") from error
            if not before or before[-1].sha256 != new.sha256:
                self._active[name] = [*before, new]
            self._save()
            self._record("module injected", name, new, migrate=migrate)
            return self._answer(name, reducers)

    async def rollback(self, name: str, *, who: str) -> dict[str, Any]:
        """Take the newest version out: the one before it is back, or none."""
        async with self._lock:
            before = self._versions(name)
            if not before:
                raise InjectError(f"there is nothing to roll back: no module {name!r} was put in here")
            reducers: list[str] = []
            if len(before) > 1:
                reducers = await self._put_in(name, before[-2], "restream")
            else:
                await self._take_out(name)
            gone = before.pop()
            self._active = {key: value for key, value in (self._active | {name: before}).items() if value}
            self._save()
            self._record("module rolled back", name, _Active(gone.sha256, gone.version, who, time.time()))
            return self._answer(name, reducers)

    # -- loading -------------------------------------------------------------------------------

    def _versions(self, name: str) -> list[_Active]:
        return list(self._active.get(name, ()))

    def _check_place(self, name: str, before: list[_Active]) -> None:
        if not before and (name in self.runtime.modules or name in sys.modules):
            raise InjectError(
                f"{name!r} is installed on this server: update it there (pip install, restart), or export "
                f"under "
                "another name"
            )

    async def _put_in(self, name: str, version: _Active, migrate: str) -> list[str]:
        """Import and read a version, and only then let it take the place of what is there; its reducers."""
        contents = self._read(name, self.folder / name / version.sha256)
        if contents.problems:
            raise InjectError("; ".join(contents.problems))
        change = self._migration(name, migrate)
        old = self.runtime.modules.get(name)
        listed = Module(name, contents.title, version.version, "injected")
        waiting = []
        runtime = self.runtime
        for published, function in contents.functions.items():
            runtime.functions.publish(published, mark=False)(function)
        for entry in contents.reducers:
            registration = runtime.add_reducer(
                entry.id,
                entry.function,
                module=contents.name,
                context=entry.context,
                scope=entry.scope,
                default=entry.default,
                migrate=change,
                release=version.version,
            )
            listed.reducers.append(entry.id)
            waiting.append(registration.ready())
        if contents.dag is not None:
            runtime.catalog.add(contents.name, contents.dag)
            exports = runtime.catalog.get(contents.name).exports
            listed.queries = [f"{contents.name}.{each}" for each in exports if each not in listed.reducers]
        await asyncio.gather(*waiting)
        for data in contents.dashboards:
            board = Dashboard.from_json(data, source=contents.title)
            self._check_board(board, old)
            runtime.dashboards.add(board)
            listed.dashboards.append(board.id)
        for board_id in set(old.dashboards if old else ()) - set(listed.dashboards):
            runtime.dashboards.remove(board_id)
        for reducer in set(old.reducers if old else ()) - set(listed.reducers):
            await runtime.remove_reducer(reducer)
        runtime.modules.add(listed)
        return listed.reducers

    def _check_board(self, board: Dashboard, old: Module | None) -> None:
        boards = self.runtime.dashboards
        if (
            board.id in boards
            and boards[board.id].source != board.source
            and not (old is not None and board.id in old.dashboards)
        ):
            raise InjectError(f"the dashboard {board.id!r} is there already, from {boards[board.id].source}")

    def _read(self, name: str, folder: Path) -> Contents:
        """Import a version in the place of the one that was imported under this name, and read it."""
        kept = {each: sys.modules.pop(each) for each in list(sys.modules) if each.partition(".")[0] == name}
        importlib.invalidate_caches()
        sys.path.insert(0, str(folder))
        try:
            return read_contents(importlib.import_module(f"{name}.module"))
        except BaseException as error:
            _forget(name)
            sys.modules.update(kept)
            raise InjectError(f"it can't be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(folder))

    def _migration(self, name: str, migrate: str) -> Any:
        if migrate in MIGRATIONS:
            return migrate
        found: Callable[[Any], Any] | None = getattr(sys.modules.get(f"{name}.reducers"), migrate, None)
        if not callable(found):
            raise InjectError(
                f"migrate: expected {', '.join(map(repr, MIGRATIONS))} or the name of a function in "
                f"{name}.reducers, got {migrate!r}"
            )
        return found

    async def _take_out(self, name: str) -> None:
        runtime = self.runtime
        own: set[str] = set()
        if name in runtime.modules:
            listed = runtime.modules[name]
            for board_id in listed.dashboards:
                if board_id in runtime.dashboards:
                    runtime.dashboards.remove(board_id)
            own |= set(listed.reducers)
            runtime.modules.remove(name)
        own |= {each.id for each in runtime.registry if each.module == name}
        for reducer in sorted(own):
            if reducer in runtime.registry:
                await runtime.remove_reducer(reducer)
        runtime.catalog.remove(name)
        _forget(name)

    # -- what is kept --------------------------------------------------------------------------

    def _save(self) -> None:
        write_private(self.folder / "active.json", msgspec.json.encode(self._active))

    def _record(self, what: str, name: str, version: _Active, **more: str) -> None:
        self.runtime.reads.act(
            what, name, sha256=version.sha256, version=version.version, who=version.who, **more
        )

    def _answer(self, name: str, reducers: list[str]) -> dict[str, Any]:
        versions = self._versions(name)
        return {
            "module": name,
            "version": versions[-1].version if versions else None,
            "sha256": versions[-1].sha256 if versions else None,
            "reducers": reducers,
            "versions": len(versions),
            "dashboards": list(self.runtime.modules[name].dashboards) if versions else [],
        }


def _forget(name: str) -> None:
    for each in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[each]


def _check_requirements(requirements: tuple[str, ...]) -> None:
    """What a module needs must be installed already: nothing is installed by an injection."""
    absent = []
    for each in requirements:
        name, _, least = each.partition(">=")
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(each)
            continue
        if least and _numbers(there) < _numbers(least):
            absent.append(f"{each} ({there} is installed)")
    if absent:
        raise InjectError(f"it needs {', '.join(absent)}: install that on the server first, with pip")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.partition("+")[0].split(".") if part.isdecimal()]


def routes(injector: Injector) -> list[web.RouteDef]:
    """``POST /inject/<name>`` with a package, ``DELETE`` to roll it back."""

    def refusal(request: web.Request) -> web.Response | None:
        access = request[ACCESS]
        if access.kind != "inject":
            return _no(403, f"a token of the kind {access.kind!r} is not good for this: {_NEEDS}")
        if access.by_cookie:
            return _no(403, f"a cookie is not good for this: {_NEEDS}")
        if not _is_private(request):
            return _no(403, "code comes in over TLS or from this machine only: use https://")
        return None

    @takes("inject", needs=_NEEDS)
    async def put(request: web.Request) -> web.StreamResponse:
        if (no := refusal(request)) is not None:
            return no
        name = request.match_info["name"]
        if (request.content_length or 0) > LIMIT:
            return _no(413, f"a module has at most {LIMIT:,} bytes, packed")
        data = bytearray()
        async for chunk in request.content.iter_chunked(1 << 16):
            data += chunk
            if len(data) > LIMIT:
                return _no(413, f"a module has at most {LIMIT:,} bytes, packed")
        digest = request.headers.get("X-Content-SHA256", "")
        try:
            package = unpack(name, bytes(data))
            if digest and not hmac.compare_digest(digest.encode(), package.sha256.encode()):
                raise InjectError("what came in is not what was sent: its hash is another")
            migrate = request.query.get("migrate", "restream")
            return web.json_response(await injector.inject(name, package, migrate=migrate, who=_who(request)))
        except LOError as error:
            return _no(422, str(error))

    @takes("inject", needs=_NEEDS)
    async def remove(request: web.Request) -> web.StreamResponse:
        if (no := refusal(request)) is not None:
            return no
        try:
            return web.json_response(await injector.rollback(request.match_info["name"], who=_who(request)))
        except LOError as error:
            return _no(422, str(error))

    return [web.post("/inject/{name}", put), web.delete("/inject/{name}", remove)]


def _who(request: web.Request) -> str:
    """From where, and who the sender says to be."""
    said = "".join(each for each in request.headers.get("X-LO-User", "") if each.isprintable())[:80]
    return f"{said} from {request.remote}".strip()


def _is_private(request: web.Request) -> bool:
    """Whether nobody on the way could read or change a request: TLS, or this machine.

    Behind a proxy of this machine that ends TLS, the proxy says which scheme it was asked by.
    """
    told = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    if not _is_loopback(request.remote):
        return request.secure
    return told in ("", "https") if "X-Forwarded-For" not in request.headers else told == "https"


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address((address or "").partition("%")[0]).is_loopback
    except ValueError:
        return False


def _no(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
