"""Puts what a module has into a running app, and takes it out again: of installed modules and injected ones.

All of it happens in one step of the loop: nobody sees half of a module. What can't be put in is named in the
module's ``problems``, what isn't served here in its ``not_served``; the rest goes on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.errors import DashboardError
from lo_kernel.modules.contents import Contents
from lo_kernel.modules.module import Module
from lo_kernel.query.dag import Dag

if TYPE_CHECKING:
    from lo_kernel.engine.registration import Registration
    from lo_kernel.query.functions import Function
    from lo_kernel.runtime import Runtime

__all__ = ["Placed", "Registrar"]


@dataclass
class Placed:
    """What of a module is in the app, and what is to be there again without it."""

    contents: Contents
    listed: Module
    adapters: list[Callable[[Any], Any]] = field(default_factory=list)
    """What changes its events as they come in."""
    registrations: list[Registration] = field(default_factory=list)
    functions: dict[str, Function | None] = field(default_factory=dict)
    """Those that it published, each with what had its name before."""
    links: list[dict[str, Any]] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    """Reducers whose states were in the store before, without code here."""


class Registrar:
    """Registers modules; only on the app's loop."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.served = runtime.modules.served

    async def run_checks(self, listed: Module) -> None:
        """Run what a module wants run once it is imported."""
        for check in self.runtime.modules.checks:
            try:
                result = check()
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                listed.problems.append(f"its check {check.__name__!r}: {type(error).__name__}: {error}")

    def check(self, contents: Contents, *, migrate: Any, before: Placed | None = None) -> list[str]:
        """What :meth:`put_in` would not take, as far as can be said without changing anything."""
        runtime = self.runtime
        listed = Module(contents.name, problems=list(self.of_others(contents).values()))
        for entry in contents.reducers:
            check = partial(
                runtime.registry.check,
                entry.id,
                entry.function,
                context=entry.context,
                scope=entry.scope,
                default=entry.default,
                migrate=migrate,
            )
            _attempt(listed, f"reducer {entry.id!r}", check)
        if contents.dag is not None:
            read = partial(Dag.read, contents.dag, name=contents.name, other=runtime.catalog.node_of)
            _attempt(listed, "EXECUTION_DAG", read)
        for data in contents.dashboards:
            _attempt(listed, _called(data), partial(self._board, data, contents.title, before))
        return listed.problems

    def of_others(self, contents: Contents) -> dict[str, str]:
        """Its reducers that would take the place, and the states, of one that somebody else has; why not."""
        registry = self.runtime.registry
        found: dict[str, str] = {}
        for entry in contents.reducers:
            if entry.id in registry and (there := registry.get(entry.id)).module != contents.name:
                found[entry.id] = (
                    f"reducer {entry.id!r}: expected an id that nobody else has, and {there.module!r} has a "
                    "reducer of this id: take that one out first, or give this one another id"
                )
        return found

    def share_out(self, several: Sequence[Contents], broken: Container[str] = ()) -> None:
        """Of several modules that are put in together, leave each reducer's id to one, and name it to others.

        That is the one whose states the store has, or else the first: who comes later takes nobody's states,
        at no start. ``broken`` are those that could not be loaded this time: what they had is left to them.
        """
        wanted: dict[str, list[str]] = {}
        for contents in several:
            for entry in contents.reducers:
                wanted.setdefault(entry.id, []).append(contents.name)
        paused = self.runtime.registry.paused
        owners = {}
        for reducer_id, names in wanted.items():
            had = paused[reducer_id].module if reducer_id in paused else ""
            owners[reducer_id] = had if had in names or had in broken else names[0]
        for contents in several:
            for entry in contents.reducers:
                if (owner := owners[entry.id]) != contents.name:
                    how = "has its states, but could not be loaded" if owner in broken else "is in"
                    contents.problems.append(
                        f"reducer {entry.id!r}: the modules {owner!r} and {contents.name!r} both have one of "
                        f"this id. That of {owner!r} {how}; that of {contents.name!r} "
                        "is left out: give it another id in REDUCERS, or load one of the two (the setting "
                        "'modules', or --modules)"
                    )
            contents.reducers = [each for each in contents.reducers if owners[each.id] == contents.name]

    def put_in(
        self,
        contents: Contents,
        listed: Module,
        *,
        migrate: Any = "restream",
        before: Placed | None = None,
        adapters: list[Callable[[Any], Any]] | None = None,
    ) -> Placed:
        """Register all that a module has, in the place of what is there of it (``before``).

        ``listed``, with its version, is filled.
        Reducers begin with the past, which nobody waits for here; those that only ``before`` had stay, since
        their states would go with them. Links come with :meth:`link`.
        """
        runtime = self.runtime
        placed = Placed(contents, listed, list(adapters or ()))
        listed.title = contents.title
        listed.problems += contents.problems
        listed.not_served += contents.not_served
        if before is not None:
            self._clear(before)
        runtime.adapters += placed.adapters
        registry = runtime.registry
        placed.paused = [
            entry.id
            for entry in contents.reducers
            if entry.id in registry.paused and entry.id not in registry
        ]
        for name, function in contents.functions.items():
            _attempt(listed, f"function {name!r}", partial(self._publish, name, function, placed, before))
        for entry in contents.reducers:
            add = partial(
                runtime.add_reducer,
                entry.id,
                entry.function,
                module=contents.name,
                context=entry.context,
                scope=entry.scope,
                default=entry.default,
                migrate=migrate,
                release=listed.version,
            )
            if (registration := _attempt(listed, f"reducer {entry.id!r}", add)) is not None:
                placed.registrations.append(registration)
                listed.reducers.append(entry.id)
        if contents.dag is not None:
            _attempt(listed, "EXECUTION_DAG", partial(runtime.catalog.add, contents.name, contents.dag))
        elif before is not None and before.contents.dag is not None:
            self._drop_dag(contents.name)
        if contents.name in runtime.catalog:
            exports = runtime.catalog.get(contents.name).exports
            own = [name for name in exports if name.removesuffix("_export") not in listed.reducers]
            listed.queries = [f"{contents.name}.{name}" for name in own]
        for data in contents.dashboards:
            _attempt(listed, _called(data), partial(self._add_board, data, placed, before))
        for name, seconds in contents.ticks.items():
            _attempt(listed, f"TICKS, {name!r}", partial(runtime.dashboards.tick, name, seconds))
        self._serve(contents, listed)
        if before is not None:
            self._drop_rest(before, placed)
        return placed

    def take_out(self, placed: Placed) -> None:
        """Take out all of a module but its reducers, whose states go with them."""
        self._clear(placed)
        self._drop_rest(placed, Placed(Contents(placed.contents.name, ""), Module(placed.contents.name)))
        self._drop_dag(placed.contents.name)

    def link(self, placed: Placed) -> None:
        """Put links to its pages on the home page, and into the lists that clients ask for."""
        boards, contents, listed = self.runtime.dashboards, placed.contents, placed.listed
        for page in contents.dash_pages:
            listed.pages.append(f"/{contents.name}/dash/{page['SUBPATH']}/")
        for links, into in (
            (contents.course_links, boards.course_links),
            (contents.student_links, boards.student_links),
        ):
            for link in links:
                name, url = str(link.get("name", contents.title)), str(link.get("url", ""))
                if url.removeprefix("/dashboards/") in listed.dashboards:
                    continue  # the dashboard itself is listed
                if not self._answers(url, listed):
                    listed.not_served.append(f"the dashboard {name!r} at {url}")
                    continue
                made = {"name": name, "url": url, "icon": link.get("icon"), "module": contents.name}
                into.append(made)
                placed.links.append(made)
                listed.links.append(name)

    # -- putting in ----------------------------------------------------------------------------

    def _publish(self, name: str, function: Any, placed: Placed, before: Placed | None) -> None:
        functions = self.runtime.functions
        there = functions.get(name) if name in functions else None
        functions.publish(name, mark=False)(function)
        own = before is not None and name in before.functions
        placed.functions[name] = before.functions[name] if before is not None and own else there

    def _board(self, data: Mapping[str, Any], source: str, before: Placed | None) -> Dashboard:
        board, boards = Dashboard.from_json(data, source=source), self.runtime.dashboards
        if board.id in boards and not (before is not None and board.id in before.listed.dashboards):
            raise DashboardError(f"{board.id!r} is there already, from {boards[board.id].source}")
        return board

    def _add_board(self, data: Mapping[str, Any], placed: Placed, before: Placed | None) -> None:
        board = self._board(data, placed.contents.title, before)
        self.runtime.dashboards.add(board)
        if board.id not in placed.listed.dashboards:
            placed.listed.dashboards.append(board.id)

    def _serve(self, contents: Contents, listed: Module) -> None:
        for view in contents.views:
            self.served.views[view.method, contents.name, view.suburl] = view
            listed.pages.append(f"/views/{contents.name}/{view.suburl}/")
        for name, call in contents.ajax.items():
            self.served.ajax[contents.name, name] = call
            listed.pages.append(f"/ajax/{contents.name}/{name}")
        self.served.folders.update(contents.folders)

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

    # -- taking out ----------------------------------------------------------------------------

    def _clear(self, placed: Placed) -> None:
        """Take out what nobody keeps an eye on: it can be put in again without a gap that anybody sees."""
        contents, served, boards = placed.contents, self.served, self.runtime.dashboards
        for adapter in placed.adapters:
            if adapter in self.runtime.adapters:
                self.runtime.adapters.remove(adapter)
        for view in contents.views:
            served.views.pop((view.method, contents.name, view.suburl), None)
        for name in contents.ajax:
            served.ajax.pop((contents.name, name), None)
        for start in contents.folders:
            served.folders.pop(start, None)
        for links in (boards.course_links, boards.student_links):
            links[:] = [link for link in links if not any(link is own for own in placed.links)]

    def _drop_rest(self, old: Placed, new: Placed) -> None:
        """Take out what only the old one has: dashboards, what runs by the clock, functions."""
        runtime = self.runtime
        for board_id in old.listed.dashboards:
            if board_id not in new.listed.dashboards and board_id in runtime.dashboards:
                runtime.dashboards.remove(board_id)
        for name in old.contents.ticks.keys() - new.contents.ticks.keys():
            runtime.dashboards.tick_no_more(name)
        for name, there in old.functions.items():
            if name in new.functions:
                continue
            if there is None:
                runtime.functions.remove(name)
            else:
                again = runtime.functions.publish(
                    name, description=there.description, columns=there.columns, mark=False
                )
                again(there.function)

    def _drop_dag(self, name: str) -> None:
        """Take a module's own queries out; those of its reducers stay."""
        catalog = self.runtime.catalog
        catalog.remove(name)
        for registration in self.runtime.registry.all():
            if registration.module == name:
                catalog.add_reducer(registration, name)


def _called(board: Mapping[str, Any]) -> str:
    return f"dashboard {str(board.get('title', ''))!r}"


def _attempt(listed: Module, what: str, act: Callable[[], Any]) -> Any:
    """Do one thing and give its result; where it can't be done it is named, and the rest goes on."""
    try:
        return act()
    except Exception as error:
        listed.problems.append(f"{what}: {error}")
        return None
