"""``lo-kernel export``: what a notebook file says, in the file's order, without running it.

Only the statements that reducers reach are executed, in this process, to learn what decorators declare and to
fold a sample; cells that simulate, ask or draw are read, not run.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lo_kernel.app.dashboards import Dashboard, own_id
from lo_kernel.engine.events import ANY_CONTEXT, Event
from lo_kernel.engine.fold import fold
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import check_reducer, declaration_of, kvs_pipeline, student_event_reducer
from lo_kernel.errors import ExportError, LOError
from lo_kernel.notebook.export.cells import read_notebook
from lo_kernel.notebook.export.declared import Said
from lo_kernel.notebook.export.plan import Wanted, make_plan, raise_problems
from lo_kernel.notebook.export.reach import Reach, Reached
from lo_kernel.notebook.export.report import ExportReport
from lo_kernel.notebook.export.run import Export, prepare
from lo_kernel.notebook.export.sample import LEARNERS, made_up, sample_text
from lo_kernel.query.language import q

__all__ = ["FileExport"]

_LO = frozenset({"lo"})


class FileExport:
    """An export of a notebook file. Making one checks everything; :meth:`go` does it."""

    def __init__(
        self,
        notebook: Path,
        name: str,
        path: str | Path,
        *,
        reducers: Sequence[str] = (),
        queries: Sequence[str] = (),
        proof: bool | str = True,
        overwrite: bool = False,
    ) -> None:
        self.reach = Reach(read_notebook(notebook))
        self.notes = self.reach.notebook.notes
        self.values: dict[str, Any] = {
            "__name__": "__main__",
            "EventField": EventField,
            "KeyField": KeyField,
            "Scope": Scope,
            "kvs_pipeline": kvs_pipeline,
            "student_event_reducer": student_event_reducer,
        }
        self._ran: set[Any] = set()
        published = self._published()
        wanted = self._wanted(reducers)
        dags = {each: self._value(ast.parse(each, mode="eval").body) for each in queries}
        boards = self._boards({each.name: each.id for each in wanted}, {each.id for each in wanted})
        plan = make_plan(name, self.reach, wanted, dags, boards, published, None)
        self.prepared = prepare(plan, path, proof=proof, overwrite=overwrite, memory=None)

    async def go(self, events: Path | None, limit: int, on_step: Callable[[int, str], None]) -> ExportReport:
        """Take a sample from a file of events (``None``: made-up ones), write, prove, put in place."""
        contexts = list(dict.fromkeys(each.context or ANY_CONTEXT for each in self.prepared.plan.reducers))
        about = {
            "of": "that were made up, since no file of events was given",
            "where": "when the notebook was exported",
        }
        found = made_up(contexts)
        learners: list[str] = []
        if events is not None:
            found, learners = await _from_file(events, contexts, limit)
            about["of"] = f"of {len(learners)} learners, from {events.name}"
        export = Export(self.prepared, sample_text(found, learners), {**about, "events": len(found)})
        return await export.go(on_step)

    # -- reading -------------------------------------------------------------------------------

    def _published(self) -> dict[str, str]:
        found = {}
        for said in self.reach.said:
            if said.kind == "publish" and said.arguments and isinstance(said.arguments[0], ast.Constant):
                found[str(said.arguments[0].value)] = said.function
        return found

    def _wanted(self, chosen: Sequence[str]) -> list[Wanted]:
        found: dict[str, Wanted] = {}
        for said in self.reach.said:
            if said.kind not in ("reducer", "add_reducer"):
                continue
            first = said.argument(0, "id")
            reducer_id = said.function if first is None else str(self._value(first))
            if chosen and reducer_id not in chosen and said.function not in chosen:
                continue
            if not said.function:
                raise ExportError(
                    f"{said.unit.place}: the reducer {reducer_id!r} has no name of its own: give the "
                    "function a name, and add that"
                )
            found[reducer_id] = self._one(reducer_id, said)
        absent = [each for each in chosen if not any(each in (w.id, w.name) for w in found.values())]
        if absent:
            raise ExportError(
                f"no cell registers the reducer {absent[0]!r}; there are: {', '.join(found) or 'none'}"
            )
        return list(found.values())

    def _one(self, reducer_id: str, said: Said) -> Wanted:
        function = self._value(ast.Name(said.function, ast.Load()))
        check_reducer(function)
        declared = declaration_of(function)
        given = {
            key: self._value(value)
            for key, value in said.options.items()
            if key in ("scope", "context", "default", "module")
        }
        for place, key in enumerate(("module", "scope", "context", "default"), 2):
            if said.kind == "add_reducer" and len(said.arguments) > place:
                given[key] = self._value(said.arguments[place])
        scope = given.get("scope")
        default = given.get("default")
        return Wanted(
            said.function,
            reducer_id,
            given.get("context"),
            declared.scope if scope is None else Scope(scope),
            declared.null_state,
            declared.null_state if default is None else default,
            function,
            given.get("module") or "jupyter-helper",
        )

    def _boards(self, names: Mapping[str, str], ids: set[str]) -> list[Dashboard]:
        boards: dict[str, Dashboard] = {}
        for said in self.reach.said:
            if said.kind != "dashboard":
                continue
            try:
                what = self._value(said.arguments[0])
                options = {key: self._value(value) for key, value in said.options.items() if key != "embed"}
                chart = (
                    self._value(said.arguments[1]) if len(said.arguments) > 1 else options.pop("chart", None)
                )
                own = {key: options.pop(key, None) for key in ("title", "field", "course", "id")}
                named = [self._named(each, names) for each in what] if isinstance(what, list) else what
                board = Dashboard.of(self._named(named, names), chart, **own, parameters=options)
                if own["id"] is None:
                    board = replace(board, id=own_id(boards, board, titled=own["title"] is not None))
            except Exception as error:
                self.notes.append(
                    f"{said.unit.place}: this dashboard can't be read without running the notebook "
                    f"({type(error).__name__}: {error}): left out; lo.export in the notebook takes it"
                )
                continue
            strange = [
                p.query
                for p in board.panels
                if isinstance(p.query, str) and p.query.removesuffix("_export") not in ids
            ]
            if strange:
                self.notes.append(
                    f"{said.unit.place}: the dashboard shows {strange[0]!r}, which isn't exported: left out"
                )
                continue
            boards[board.id] = board
        return list(boards.values())

    def _named(self, what: Any, names: Mapping[str, str]) -> Any:
        if isinstance(what, tuple) and len(what) == 2:
            return self._named(what[0], names), what[1]
        return names.get(getattr(what, "__name__", ""), what) if callable(what) else what

    # -- running -------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        """The value of an expression, once the statements that it reaches have run."""
        names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} - {"lo"}
        there = self.values.keys() | vars(builtins).keys()
        names = {name for name in names if name not in there or self.reach.binder(name) is not None}
        reached = self.reach.collect(sorted(names), given=_LO)
        raise_problems(reached.problems)
        self._execute(reached)
        expression = ast.fix_missing_locations(ast.Expression(node))
        return eval(compile(expression, "notebook", "eval"), self.values | {"lo": _stand_in()})

    def _execute(self, reached: Reached) -> None:
        units = sorted({*reached.units, *reached.stars}, key=lambda unit: unit.order)
        for unit in units:
            if unit in self._ran:
                continue
            self._ran.add(unit)
            self.values["lo"] = _stand_in()
            code = compile(
                ast.Module([unit.node], []), f"{unit.cell.notebook}, cell {unit.cell.label}", "exec"
            )
            try:
                exec(code, self.values)
            except Exception as error:
                raise ExportError(
                    f"{unit.place}: running it in the file's order gives {type(error).__name__}: {error}. "
                    "Run the notebook from top to bottom to see the same"
                ) from error
            finally:
                self.values.pop("lo", None)


def _stand_in() -> SimpleNamespace:
    """What of ``lo`` is there without a notebook: the builders of queries."""
    return SimpleNamespace(q=q)


async def _from_file(path: Path, contexts: Sequence[str], limit: int) -> tuple[list[Event], list[str]]:
    """The first events of a few learners in a file of any format that can be replayed."""
    events: list[Event] = []
    counts: dict[str, int] = {}
    each = max(1, limit // LEARNERS)

    def take(event: Event, state: Any) -> Any:
        student = event["client"]["auth"]["safe_user_id"]
        source = event["client"].get("source", (event.get("metadata") or {}).get("source"))
        if source in contexts and (student in counts or len(counts) < LEARNERS):
            counts[student] = counts.get(student, 0) + 1
            if counts[student] <= each:
                events.append(event)
        return False, False

    try:
        await fold(take, path)
    except LOError as error:
        raise ExportError(f"{path}: no events can be read from it: {error}") from None
    if not events:
        raise ExportError(f"{path}: it holds no events of {', '.join(contexts)}, which the reducers hear")
    return events, list(counts)
