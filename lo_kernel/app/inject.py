"""Modules put into a running server: ``POST /inject/<name>``, where it was started with ``allow_inject``.

What comes in is code, which then runs with all that the server may do. So it takes a token of a kind of its
own (kept in a file of the workspace), never a cookie; it comes over TLS or from this machine; its size is
bounded; and who put what in, when, is on record, and so is what was refused. Nothing is touched before the
whole module has been imported, read and checked; what only shows when it is put in is undone as a whole.

    injected/token                      the token (0600)
    injected/active.json                what is in, newest last, so that a restart has it again (0600)
    injected/<name>/<sha256>/<name>/    the package
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import importlib
import ipaddress
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from lo_kernel.app.holding import USER
from lo_kernel.app.packing import LIMIT, Package, unpack
from lo_kernel.app.security import ACCESS, takes
from lo_kernel.errors import InjectError, LOError
from lo_kernel.modules.contents import Contents, read_contents
from lo_kernel.modules.loader import pages_of
from lo_kernel.modules.module import Module
from lo_kernel.modules.placeholders import import_module_of_the_field
from lo_kernel.modules.registering import Placed, Registrar
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


_NAMED: Final = 100  # characters of a module's name on record
_INJECTED: Final = "injected"  # in the place of a distribution's name


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
        self._placed: dict[str, Placed] = {}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Make the token where there is none, and load what was in before the restart.

        Each as far as it goes, as installed ones are; their reducers go through the past beside the app.
        """
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
            await self._load(name, versions[-1])

    def stop(self) -> None:
        """Forget what was imported, so that another app in this process begins anew."""
        for name in self._placed:
            _forget(name)

    async def take(
        self, name: str, data: bytes, *, digest: str = "", migrate: str = "restream", who: str
    ) -> dict[str, Any]:
        """Put a packed module in; what is refused (:class:`InjectError`) is on record, too.

        ``digest`` is its SHA-256 in hex, as the sender knows it.
        """
        sent = _Active(hashlib.sha256(data).hexdigest(), "", who, time.time())
        try:
            package = await asyncio.to_thread(unpack, name, data)
            sent.version = package.version
            if digest and not hmac.compare_digest(digest.encode(), package.sha256.encode()):
                raise InjectError("what came in is not what was sent: its hash is another")
            return await self.inject(name, package, migrate=migrate, who=who)
        except Exception:
            self._record("module refused", name, sent)
            raise

    def refused(self, name: str, who: str) -> None:
        """Put on record what was refused before it was looked at."""
        self._record("module refused", name, _Active("", "", who, time.time()))

    async def inject(self, name: str, package: Package, *, migrate: str, who: str) -> dict[str, Any]:
        """Put a module in, or in the place of the one of this name; :class:`InjectError` leaves all as it
        was.
        """
        async with self._lock:
            self._check_store()
            _check_requirements(package.requirements)
            before = self._versions(name)
            self._check_place(name, before)
            new = _Active(package.sha256, package.version, who, time.time())
            target = self.folder / name / package.sha256
            try:
                if not target.exists():
                    await asyncio.to_thread(package.write, target)
                reducers = await self._put_in(name, new, migrate)
            except BaseException as error:
                if not any(each.sha256 == new.sha256 for each in before):
                    shutil.rmtree(target, ignore_errors=True)
                if isinstance(error, Exception):
                    raise InjectError(f"{name}: {error}") from error
                raise
            if not before or before[-1].sha256 != new.sha256:
                self._active[name] = [*before, new]
            self._save()
            self._record("module injected", name, new, migrate=migrate)
            return self._answer(name, reducers)

    async def rollback(self, name: str, *, who: str) -> dict[str, Any]:
        """Take the newest version out: the one before it is back, or none."""
        async with self._lock:
            before = self._versions(name)
            try:
                if not before:
                    raise InjectError(f"there is nothing to roll back: no module {name!r} was put in here")
                self._check_store()
                reducers: list[str] = []
                if len(before) > 1:
                    reducers = await self._put_in(name, before[-2], "restream")
                else:
                    await self._take_out(name)
            except Exception:
                newest = before[-1] if before else _Active("", "", "", 0.0)
                asked = _Active(newest.sha256, newest.version, who, time.time())
                self._record("module rollback refused", name, asked)
                raise
            gone = before.pop()
            self._active = {key: value for key, value in (self._active | {name: before}).items() if value}
            self._save()
            self._record("module rolled back", name, _Active(gone.sha256, gone.version, who, time.time()))
            return self._answer(name, reducers)

    # -- loading -------------------------------------------------------------------------------

    def _versions(self, name: str) -> list[_Active]:
        return list(self._active.get(name, ()))

    def _check_store(self) -> None:
        if not self.runtime.registry.loaded.is_set():
            raise InjectError(
                "the store has not answered since this server started, and it has the states: try again when "
                "/health/ready says that it takes them"
            )

    def _check_place(self, name: str, before: list[_Active]) -> None:
        listed = self.runtime.modules.get(name)
        if (listed is not None and listed.distribution != _INJECTED) or (not before and name in sys.modules):
            raise InjectError(
                f"{name!r} is installed on this server: update it there (pip install, restart), or export "
                "under another name"
            )

    async def _load(self, name: str, version: _Active) -> None:
        """Load a version that was in before the restart, as far as it goes; nobody waits for its reducers."""
        listed, errors = Module(name, version=version.version, distribution=_INJECTED), self.runtime.errors
        try:
            self._check_place(name, self._versions(name))
            with _imported_anew(name):
                contents, adapters = await self._read(name, version, listed)
        except Exception as error:
            listed.error = str(error)
            errors.add(f"module '{name}'", error)
        else:
            others = self._registrar.of_others(contents)
            contents.problems += others.values()
            contents.reducers = [each for each in contents.reducers if each.id not in others]
            self._placed[name] = self._place(contents, listed, adapters=adapters)
            for problem in listed.problems:
                errors.add(f"module '{name}'", problem, kind="Module")
        if name not in self.runtime.modules:
            self.runtime.modules.add(listed)

    async def _put_in(self, name: str, version: _Active, migrate: str) -> list[str]:
        """Import and check a version, and only then let it take the place of what is there; its reducers."""
        before = self._placed.get(name)
        listed = Module(name, version=version.version, distribution=_INJECTED)
        with _imported_anew(name):
            contents, adapters = await self._read(name, version, listed)
            change = self._migration(name, migrate)
            found = [*listed.problems, *contents.problems]
            found = found or self._registrar.check(contents, migrate=change, before=before)
            if found:
                raise InjectError("; ".join(found))
            placed = self._place(contents, listed, migrate=change, before=before, adapters=adapters)
            try:
                if listed.problems:
                    raise InjectError("; ".join(listed.problems))
                await asyncio.gather(*(each.ready() for each in placed.registrations))
            except BaseException:
                await self._undo(placed, before)
                raise
        self._placed[name] = placed
        self.runtime.modules.add(listed)
        self.runtime.errors.forget(f"module '{name}'")
        await self._remove_reducers(before, placed)
        return listed.reducers

    def _place(self, contents: Contents, listed: Module, **how: Any) -> Placed:
        placed = self._registrar.put_in(contents, listed, **how)
        self._registrar.link(placed)
        return placed

    async def _undo(self, placed: Placed, before: Placed | None) -> None:
        """Have what was there before in the place of what was put in.

        Reducers that were not through with the past yet go on with the states that they had.
        """
        if before is None:
            self._registrar.take_out(placed)
            await self._remove_reducers(placed, None, paused=placed.paused)
            return
        old = before.listed
        listed = Module(old.name, version=old.version, distribution=_INJECTED)
        listed.problems = list(old.problems)
        again = self._place(before.contents, listed, before=placed, adapters=before.adapters)
        listed.problems = list(dict.fromkeys(listed.problems))
        self._placed[old.name] = again
        self.runtime.modules.add(listed)
        await self._remove_reducers(placed, again, paused=placed.paused)
        await asyncio.gather(*(each.ready() for each in again.registrations), return_exceptions=True)

    async def _take_out(self, name: str) -> None:
        placed = self._placed.pop(name, None)
        if placed is not None:
            self._registrar.take_out(placed)
            await self._remove_reducers(placed, None)
            _forget(name)
        listed = self.runtime.modules.get(name)
        if listed is not None and listed.distribution == _INJECTED:
            self.runtime.modules.remove(name)
        self.runtime.errors.forget(f"module '{name}'")

    async def _remove_reducers(
        self, old: Placed | None, new: Placed | None, *, paused: Collection[str] = ()
    ) -> None:
        """Take out the reducers that only the old one has; the states of those in ``paused`` stay."""
        if old is None:
            return
        runtime = self.runtime
        there = set(new.listed.reducers) if new is not None else set()
        for reducer in old.listed.reducers:
            if reducer in there or reducer not in runtime.registry:
                continue
            if runtime.registry.get(reducer).module != old.contents.name:
                continue  # somebody else has put one in its place
            if reducer in paused:
                runtime.catalog.remove_reducer(reducer, old.contents.name)
                await runtime.registry.pause(reducer)
                again = runtime.registry.get(reducer)
                runtime.catalog.add_reducer(again, again.module)
            else:
                await runtime.remove_reducer(reducer)

    async def _read(
        self, name: str, version: _Active, listed: Module
    ) -> tuple[Contents, list[Callable[[Any], Any]]]:
        """Import a version and read it, with what it brings to change events; its checks are run."""
        runtime, folder = self.runtime, self.folder / name / version.sha256
        adapters = list(runtime.adapters)
        runtime.modules.checks.clear()
        sys.path.insert(0, str(folder))
        try:
            module, _ = import_module_of_the_field(lambda: importlib.import_module(f"{name}.module"), name)
            contents = read_contents(module)
            if contents.dash_pages:  # there is one application for those of all modules, made at the start
                contents.not_served.append(f"{pages_of(contents)}: only an installed module's are")
                contents.dash_pages = []
        except BaseException as error:
            raise InjectError(f"it can't be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(folder))
            own = [each for each in runtime.adapters if each not in adapters]
            runtime.adapters[:] = adapters  # those of its own come with the rest
        await self._registrar.run_checks(listed)
        return contents, own

    @property
    def _registrar(self) -> Registrar:
        return Registrar(self.runtime)

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

    # -- what is kept --------------------------------------------------------------------------

    def _save(self) -> None:
        write_private(self.folder / "active.json", msgspec.json.encode(self._active))

    def _record(self, what: str, name: str, version: _Active, **more: str) -> None:
        self.runtime.reads.act(
            what, name[:_NAMED], sha256=version.sha256, version=version.version, who=version.who, **more
        )

    def _answer(self, name: str, reducers: list[str]) -> dict[str, Any]:
        versions = self._versions(name)
        listed = self.runtime.modules.get(name) if versions else None
        return {
            "module": name,
            "version": versions[-1].version if versions else None,
            "sha256": versions[-1].sha256 if versions else None,
            "reducers": reducers,
            "versions": len(versions),
            "dashboards": list(listed.dashboards) if listed is not None else [],
            "not_served": list(listed.not_served) if listed is not None else [],
        }


@contextlib.contextmanager
def _imported_anew(name: str) -> Iterator[None]:
    """Import a package in the place of the one that was imported under this name; that one is back where the
    new one comes to nothing.
    """
    kept = {each: sys.modules.pop(each) for each in list(sys.modules) if each.partition(".")[0] == name}
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        _forget(name)
        sys.modules.update(kept)
        raise


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
            injector.refused(request.match_info["name"], _who(request))
            return _no(403, f"a cookie is not good for this: {_NEEDS}")
        if not _is_private(request):
            injector.refused(request.match_info["name"], _who(request))
            return _no(403, "code comes in over TLS or from this machine only: use https://")
        return None

    @takes("inject", needs=_NEEDS)
    async def put(request: web.Request) -> web.StreamResponse:
        if (no := refusal(request)) is not None:
            return no
        name, who = request.match_info["name"], _who(request)
        data = bytearray()
        if (request.content_length or 0) <= LIMIT:
            async for chunk in request.content.iter_chunked(1 << 16):
                data += chunk
                if len(data) > LIMIT:
                    break
        if max(len(data), request.content_length or 0) > LIMIT:
            injector.refused(name, who)
            return _no(413, f"a module has at most {LIMIT:,} bytes, packed")
        digest = request.headers.get("X-Content-SHA256", "")
        migrate = request.query.get("migrate", "restream")
        try:
            return web.json_response(
                await injector.take(name, bytes(data), digest=digest, migrate=migrate, who=who)
            )
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
    said = "".join(each for each in unquote(request.headers.get(USER, "")) if each.isprintable())[:80]
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
