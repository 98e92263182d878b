"""``lo.export``: what this session executed, registered and shows."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.engine.events import ANY_CONTEXT
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.errors import ExportError, LOError
from lo_kernel.notebook.export.cells import read_history
from lo_kernel.notebook.export.plan import Wanted, check_name, make_plan
from lo_kernel.notebook.export.reach import Reach
from lo_kernel.notebook.export.report import ExportReport
from lo_kernel.notebook.export.run import STEPS, Export, Prepared, prepare
from lo_kernel.notebook.export.sample import made_up, recorded, sample_text

if TYPE_CHECKING:
    from lo_kernel.engine.registration import Registration
    from lo_kernel.runtime import Runtime

__all__ = ["SessionExport"]


class SessionExport:
    """An export of the session that a shell holds. Making one checks everything; :meth:`go` does it."""

    def __init__(
        self,
        runtime: Runtime,
        shell: Any,
        name: str,
        path: str | Path,
        *,
        reducers: Sequence[Any] | None,
        queries: Sequence[Any] | Mapping[str, Any] | None,
        dashboards: Sequence[Any] | None,
        sample: int,
        proof: bool | str,
        overwrite: bool,
    ) -> None:
        check_name(name)
        if not isinstance(sample, int) or isinstance(sample, bool) or not 0 <= sample <= 100_000:
            raise ExportError(f"sample: expected how many events to take, from 0 to 100000, got {sample!r}")
        self.runtime = runtime
        self.limit = sample
        self._memory: dict[str, Any] = shell.user_ns
        self.notebook = read_history(shell.history_manager.input_hist_raw, notebook_name(self._memory))
        reach = Reach(self.notebook, self._memory)
        wanted = self._reducers = [self._wanted(each, reach) for each in self._chosen(reducers)]
        boards = self._boards(dashboards, wanted)
        plan = make_plan(
            name, reach, wanted, self._queries(queries), boards, self._published(reach), self._memory
        )
        self.prepared: Prepared = prepare(plan, path, proof=proof, overwrite=overwrite, memory=self._memory)

    async def go(self, on_step: Callable[[int, int, str], None]) -> ExportReport:
        """Take a sample, write, prove, put in place."""
        import asyncio

        reducers = self.prepared.plan.reducers
        contexts = list(dict.fromkeys(each.context or ANY_CONTEXT for each in reducers))
        events, learners = await asyncio.to_thread(recorded, self.runtime.archive, contexts, self.limit)
        about = {"of": f"of {len(learners)} learners", "where": "in the notebook"}
        if events:
            self.runtime.reads.record("events", f"sample for the export {self.prepared.plan.name}", learners)
        else:
            events, about["of"] = made_up(contexts), "that were made up, since the notebook had seen none"
        wanted = {each.id for each in reducers}
        codes = {each.id: each.code for each in self.runtime.registry if each.id in wanted}
        self.runtime.reads.act("export", self.prepared.plan.name, learners=learners, reducers=codes)
        text = sample_text(events, learners, await self._names())
        export = Export(self.prepared, text, {**about, "events": len(events)})
        return await export.go(lambda done, what: on_step(done, STEPS, what))

    async def _names(self) -> dict[str, list[str]]:
        """By safe id, texts that say who somebody is: of all who were seen, and of the roster."""
        runtime = self.runtime
        names = {who: [runtime.learners[who].user_id] for who in runtime.learners}
        profiles = {row["user_id"]: row["profile"] for row in await runtime.rosters.roster(names=True)}
        shared = Counter(text for profile in profiles.values() for text in set(_texts(profile)))
        for who, profile in profiles.items():
            called = set(_texts(profile.get("name")))
            # what else several have, such as a role, tells nobody from the others
            names.setdefault(who, []).extend(
                text for text in _texts(profile) if shared[text] == 1 or text in called
            )
        return names

    # -- reducers ------------------------------------------------------------------------------

    def _chosen(self, reducers: Sequence[Any] | None) -> list[Registration]:
        registry = self.runtime.registry
        if reducers is None:
            return [each for each in registry if _of_notebook(each.function)]
        if isinstance(reducers, str) or not isinstance(reducers, Sequence):
            raise ExportError(f"reducers: expected a list of functions or ids, got {reducers!r:.80}")
        found = []
        for each in reducers:
            if isinstance(each, str):
                found.append(registry.get(each))
                continue
            same = [registration for registration in registry if registration.function is each]
            if not same:
                raise ExportError(
                    f"reducers: {getattr(each, '__name__', each)!r} is not registered: add it with "
                    "lo.add_reducer(id, function), or run its cell again"
                )
            found.append(same[0])
        return found

    def _wanted(self, registration: Registration, reach: Reach) -> Wanted:
        function = registration.function
        name = self._name_of(function) or self._name_of(inspect.unwrap(function))
        if name is None:
            raise ExportError(
                f"the reducer {registration.id!r} has no name in this notebook any more: run the cell that "
                "defines it and the one that adds it, or leave it out with reducers=[...]"
            )
        if not _of_notebook(function) and reach.binder(name) is None:
            raise ExportError(
                f"the reducer {registration.id!r} is {function.__module__}'s, not this notebook's: that "
                "package is what to install"
            )
        declared = declaration_of(function)
        return Wanted(
            name,
            registration.id,
            registration.context,
            registration.scope,
            declared.null_state,
            registration.default,
            function,
            registration.module,
        )

    def _name_of(self, value: Any) -> str | None:
        own = getattr(value, "__name__", None)
        if own in self._memory and self._memory[own] is value:
            return str(own)
        names = [
            name for name, each in list(self._memory.items()) if each is value and not name.startswith("_")
        ]
        return names[0] if names else None

    # -- queries and dashboards ----------------------------------------------------------------

    def _queries(self, queries: Sequence[Any] | Mapping[str, Any] | None) -> dict[str, Any]:
        if queries is None:
            return {}
        if isinstance(queries, Mapping):
            return {str(name): self._dag(each, str(name)) for name, each in queries.items()}
        found = {}
        own, modules = {each.id for each in self._reducers}, {each.module for each in self._reducers}
        for number, each in enumerate(queries, 1):
            if isinstance(each, str):
                dag, exports = self.runtime.catalog.resolve(each)
                if dag.name in modules and exports and exports[0].removesuffix("_export") in own:
                    continue  # each reducer brings its own
                if len(exports) != 1:
                    raise ExportError(
                        f"queries: {each!r} has several answers; name one: {', '.join(exports)}"
                    )
                data = dag.to_json()
                data["exports"] = {exports[0]: data["exports"][exports[0]]}
                found[exports[0]] = data
            else:
                name = self._name_of(each) or f"query_{number}"
                found[name] = self._dag(each, name)
        return found

    def _dag(self, query: Any, name: str) -> Any:
        from lo_kernel.query.dag import Dag

        if isinstance(query, str):
            dag, exports = self.runtime.catalog.resolve(query)
            data = dag.to_json()
            return {**data, "exports": {exports[0]: data["exports"][exports[0]]}}
        try:
            return Dag.read(query, name=name, other=self.runtime.catalog.node_of).to_json()
        except LOError as error:
            raise ExportError(f"queries: {name!r}: {error}") from None

    def _boards(self, dashboards: Sequence[Any] | None, reducers: list[Wanted]) -> list[Dashboard]:
        all_boards = self.runtime.dashboards
        if dashboards is None:
            own = {each.id for each in reducers}
            found = []
            for name in all_boards:
                read = {registration.id for registration in all_boards.reducers(name)}
                if all_boards[name].source == "notebook" and read and read <= own:
                    found.append(all_boards[name])
            return found
        boards = []
        for each in dashboards:
            if isinstance(each, Dashboard):
                boards.append(each)
                continue
            named = each if isinstance(each, str) else _board_of(each)
            boards.append(all_boards[named])
        return boards

    def _published(self, reach: Reach) -> dict[str, str]:
        """Names of functions by the names under which they are published: from cells, and from what is
        here.
        """
        found = {}
        for said in reach.said:
            if said.kind == "publish" and said.arguments:
                value = getattr(said.arguments[0], "value", None)
                if isinstance(value, str):
                    found[value] = said.function
        return found


def _board_of(shown: Any) -> str:
    """The id of a dashboard, of what ``lo.dashboard`` gives."""
    board = getattr(shown, "dashboard", None)
    return str(getattr(board, "id", None) or getattr(shown, "id", None) or shown)


def _of_notebook(function: Any) -> bool:
    return getattr(inspect.unwrap(function), "__module__", None) == "__main__"


def _texts(profile: Any) -> Iterator[str]:
    """The texts of a profile: names and addresses."""
    if isinstance(profile, Mapping):
        for value in profile.values():
            yield from _texts(value)
    elif isinstance(profile, str) and profile:
        yield profile


def notebook_name(memory: Mapping[str, Any]) -> str:
    """What the notebook is called, where a front end says so."""
    named = memory.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    name = PurePath(str(named)).name
    return name if name.endswith(".ipynb") else "notebook"
