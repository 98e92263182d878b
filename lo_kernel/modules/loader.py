"""Loads the installed modules into a running app: what they have is registered, what goes wrong is named."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.errors import MissingExtraError
from lo_kernel.modules.contents import Contents, read_contents
from lo_kernel.modules.entry_points import Installed, installed_modules
from lo_kernel.modules.module import Module
from lo_kernel.modules.placeholders import import_module_of_the_field

if TYPE_CHECKING:
    from lo_kernel.modules.served import Served
    from lo_kernel.runtime import Runtime

__all__ = ["Loader"]


class Loader:
    """Loads modules, each as far as it goes. ``checks`` are what a module wants run once it is imported."""

    def __init__(self, runtime: Runtime, served: Served, checks: list[Callable[[], Any]]) -> None:
        self.runtime = runtime
        self.served = served
        self.checks = checks
        self._dash: list[tuple[Contents, Module]] = []

    async def load(self, installed: Sequence[Installed] | None = None) -> None:
        """Load them all; only on the app's loop, once."""
        for each in installed_modules() if installed is None else installed:
            await self._load(each)
        if self._dash:
            self._serve_dash()
        for name in self.runtime.modules:
            module = self.runtime.modules[name]
            for problem in module.problems:
                self.runtime.errors.add(f"module '{name}'", problem, kind="Module")

    async def _load(self, each: Installed) -> None:
        since = time.perf_counter()
        package = each.value.partition(":")[0].strip().removesuffix(".module")
        listed = Module(package, each.name, each.version, each.distribution)
        self.checks.clear()
        try:
            module, missing = import_module_of_the_field(each.load, package.partition(".")[0])
            contents = read_contents(module)
        except (Exception, SystemExit) as error:
            listed.error = f"{type(error).__name__}: {error}"
            self.runtime.errors.add(f"module '{package}'", error)
        else:
            listed.title = contents.title
            listed.problems, listed.not_served = contents.problems, contents.not_served
            await self._run_checks(listed)
            self._register(contents, listed, each)
            self._serve(contents, listed, missing)
        listed.seconds = time.perf_counter() - since
        self.runtime.modules.add(listed)

    async def _run_checks(self, listed: Module) -> None:
        for check in self.checks:
            try:
                result = check()
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                listed.problems.append(f"its check {check.__name__!r}: {type(error).__name__}: {error}")

    def _register(self, contents: Contents, listed: Module, each: Installed) -> None:
        runtime = self.runtime
        for name, function in contents.functions.items():
            publish = partial(runtime.functions.publish(name, mark=False), function)
            self._attempt(listed, f"function {name!r}", publish)
        for entry in contents.reducers:
            add = partial(
                runtime.add_reducer,
                entry.id,
                entry.function,
                module=contents.name,
                context=entry.context,
                scope=entry.scope,
                default=entry.default,
                release=each.version,
            )
            if self._attempt(listed, f"reducer {entry.id!r}", add):
                listed.reducers.append(entry.id)
        if contents.dag is not None:
            add_dag = partial(runtime.catalog.add, contents.name, contents.dag)
            self._attempt(listed, "EXECUTION_DAG", add_dag)
        if contents.name in runtime.catalog:
            exports = runtime.catalog.get(contents.name).exports
            own = [name for name in exports if name.removesuffix("_export") not in listed.reducers]
            listed.queries = [f"{contents.name}.{name}" for name in own]
        for board in contents.dashboards:
            title = str(board.get("title", ""))
            if self._attempt(listed, f"dashboard {title!r}", partial(self._add_board, board, contents.title)):
                listed.dashboards.append(title)
        for name, seconds in contents.ticks.items():
            runtime.dashboards.tick(name, seconds)

    def _add_board(self, board: Mapping[str, Any], source: str) -> None:
        self.runtime.dashboards.add(Dashboard.from_json(board, source=source))

    @staticmethod
    def _attempt(listed: Module, what: str, act: Callable[[], Any]) -> bool:
        """Do one thing; where it can't be done it is named, and the rest goes on."""
        try:
            act()
        except Exception as error:
            listed.problems.append(f"{what}: {error}")
            return False
        return True

    def _serve(self, contents: Contents, listed: Module, missing: list[str]) -> None:
        for view in contents.views:
            self.served.views[view.method, contents.name, view.suburl] = view
            listed.pages.append(f"/views/{contents.name}/{view.suburl}/")
        for name, call in contents.ajax.items():
            self.served.ajax[contents.name, name] = call
            listed.pages.append(f"/ajax/{contents.name}/{name}")
        self.served.folders.update(contents.folders)
        if contents.dash_pages and missing:
            named = " and ".join(missing)
            why = (
                str(MissingExtraError("dash", "drawing them")) if "dash" in missing else f"{named} is missing"
            )
            listed.not_served.append(f"{_pages(contents)}: {why}")
            contents.dash_pages = []
        if contents.dash_pages:
            self._dash.append((contents, listed))
        else:
            self._link(contents, listed)

    def _serve_dash(self) -> None:
        from lo_kernel.modules.dash_pages import make_dash

        try:
            pages = [(contents.name, page) for contents, _ in self._dash for page in contents.dash_pages]
            self.served.dash = make_dash(pages, self.runtime.workspace.path / "modules" / "dash-assets")
        except Exception as error:
            self.runtime.errors.add("Dash pages of modules", error)
            for contents, listed in self._dash:
                listed.not_served.append(f"{_pages(contents)}: {type(error).__name__}: {error}")
                contents.dash_pages = []
        for contents, listed in self._dash:
            self._link(contents, listed)

    def _link(self, contents: Contents, listed: Module) -> None:
        """Put links to its pages on the home page, and into the lists that clients ask for."""
        boards = self.runtime.dashboards
        for page in contents.dash_pages:
            listed.pages.append(f"/{contents.name}/dash/{page['SUBPATH']}/")
        for links, into in (
            (contents.course_links, boards.course_links),
            (contents.student_links, boards.student_links),
        ):
            for link in links:
                name, url = str(link.get("name", contents.title)), str(link.get("url", ""))
                shown = url.removeprefix("/dashboards/")
                if shown in boards and any(shown == board.get("id") for board in contents.dashboards):
                    continue  # the dashboard itself is listed
                if not self._answers(url, listed):
                    listed.not_served.append(f"the dashboard {name!r} at {url}")
                    continue
                into.append({"name": name, "url": url, "icon": link.get("icon"), "module": contents.name})
                listed.dashboards.append(name)

    def _answers(self, url: str, listed: Module) -> bool:
        """Whether there is something at an address."""
        if "://" in url:
            return True
        path = url.partition("?")[0].partition("#")[0]
        if path.strip("/") in [page.strip("/") for page in listed.pages]:
            return True
        if path.startswith("/dashboards/"):
            return path.removeprefix("/dashboards/") in self.runtime.dashboards
        from lo_kernel.modules.routes import find_file

        return find_file(self.served.folders, path.lstrip("/")) is not None


def _pages(contents: Contents) -> str:
    titles = ", ".join(repr(page.get("TITLE", page.get("SUBPATH"))) for page in contents.dash_pages)
    return f"the Dash page{'s'[: len(contents.dash_pages) != 1]} {titles}"
