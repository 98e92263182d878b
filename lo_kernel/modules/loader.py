"""Loads the installed modules into a running app: what they have is registered, what goes wrong is named."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lo_kernel.errors import MissingExtraError
from lo_kernel.modules.contents import Contents, read_contents
from lo_kernel.modules.entry_points import Installed, installed_modules
from lo_kernel.modules.module import Module
from lo_kernel.modules.placeholders import import_module_of_the_field
from lo_kernel.modules.registering import Placed, Registrar

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["Loader", "pages_of"]


@dataclass
class _Read:
    """A module that was imported; without ``contents`` where it could not be."""

    listed: Module
    contents: Contents | None = None
    missing: list[str] = field(default_factory=list)
    """Packages that something stood in for."""


class Loader:
    """Loads modules, each as far as it goes."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.registrar = Registrar(runtime)
        self._dash: list[Placed] = []

    async def load(self, installed: Sequence[Installed] | None = None) -> None:
        """Load them all; only on the app's loop, once.

        All are imported before the first is put in: which of two has an id that both want isn't a matter of
        the order in which they come.
        """
        read = [await self._read(each) for each in (installed_modules() if installed is None else installed)]
        broken = {each.listed.name for each in read if each.contents is None}
        self.registrar.share_out([each.contents for each in read if each.contents is not None], broken)
        for each in read:
            since = time.perf_counter()
            if each.contents is not None:
                self._place(each.contents, each.listed, each.missing)
            each.listed.seconds += time.perf_counter() - since
            self.runtime.modules.add(each.listed)
        if self._dash:
            self._serve_dash()
        for name in self.runtime.modules:
            module = self.runtime.modules[name]
            for problem in module.problems:
                self.runtime.errors.add(f"module '{name}'", problem, kind="Module")

    async def _read(self, each: Installed) -> _Read:
        since = time.perf_counter()
        listed = Module(each.package, each.name, each.version, each.distribution)
        read = _Read(listed)
        self.runtime.modules.checks.clear()
        try:
            module, read.missing = import_module_of_the_field(each.load, each.package.partition(".")[0])
            read.contents = read_contents(module)
        except (Exception, SystemExit) as error:
            listed.error = f"{type(error).__name__}: {error}"
            self.runtime.errors.add(f"module '{each.package}'", error)
        else:
            await self.registrar.run_checks(listed)
        listed.seconds = time.perf_counter() - since
        return read

    def _place(self, contents: Contents, listed: Module, missing: list[str]) -> None:
        placed = self.registrar.put_in(contents, listed)
        if contents.dash_pages and missing:
            named = " and ".join(missing)
            why = (
                str(MissingExtraError("dash", "drawing them")) if "dash" in missing else f"{named} is missing"
            )
            listed.not_served.append(f"{pages_of(contents)}: {why}")
            contents.dash_pages = []
        if contents.dash_pages:
            self._dash.append(placed)
        else:
            self.registrar.link(placed)

    def _serve_dash(self) -> None:
        from lo_kernel.modules.dash_pages import make_dash

        try:
            pages = [(each.contents.name, page) for each in self._dash for page in each.contents.dash_pages]
            assets = self.runtime.workspace.path / "modules" / "dash-assets"
            self.runtime.modules.served.dash = make_dash(pages, assets)
        except Exception as error:
            self.runtime.errors.add("Dash pages of modules", error)
            for each in self._dash:
                each.listed.not_served.append(f"{pages_of(each.contents)}: {type(error).__name__}: {error}")
                each.contents.dash_pages = []
        for each in self._dash:
            self.registrar.link(each)


def pages_of(contents: Contents) -> str:
    """The Dash pages of a module, as they are named where they aren't served."""
    titles = ", ".join(repr(page.get("TITLE", page.get("SUBPATH"))) for page in contents.dash_pages)
    return f"the Dash page{'s'[: len(contents.dash_pages) != 1]} {titles}"
