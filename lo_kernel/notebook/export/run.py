"""One export from its plan to its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lo_kernel.errors import ExportError
from lo_kernel.notebook.export import texts
from lo_kernel.notebook.export.plan import Plan, raise_problems
from lo_kernel.notebook.export.proof import check_tools, prove
from lo_kernel.notebook.export.report import ExportReport
from lo_kernel.notebook.export.requirements import requirements
from lo_kernel.notebook.export.sample import states_text
from lo_kernel.notebook.export.shipping import plain_text
from lo_kernel.notebook.export.writer import (
    Place,
    diff_of,
    files_of,
    hashes_of,
    next_version,
    put_in_place,
    work_folder,
    write_files,
)

__all__ = ["Export", "Prepared", "prepare"]

Step = Callable[[int, str], None]
STEPS = 5


@dataclass
class Prepared:
    """An export whose arguments and code are in order; nothing is written yet."""

    plan: Plan
    place: Place
    files: dict[str, str]
    requirements: dict[str, str]
    plain: dict[str, dict[str, str]]
    proof: str


def prepare(
    plan: Plan, path: str | Path, *, proof: bool | str, overwrite: bool, memory: Mapping[str, Any] | None
) -> Prepared:
    """Check everything that can be checked without running anything; :class:`ExportError` says what is
    wrong.
    """
    kind = ("venv" if proof else "") if isinstance(proof, bool) else proof
    if kind not in ("", "venv", "index"):
        raise ExportError(f"proof: expected True, False or 'index', got {proof!r}")
    if kind:
        check_tools()
    units = [*plan.code.units, *(unit for unit in plan.more.units if unit not in plan.code.names)]
    names = {unit: plan.code.names.get(unit, set()) | plan.more.names.get(unit, set()) for unit in units}
    stars = [*plan.code.stars, *plan.more.stars]
    needs, problems = requirements([*units, *stars], names, plan.name)
    raise_problems(problems)
    place = Place.look(Path(path).expanduser().absolute() / plan.name, overwrite=overwrite)
    return Prepared(plan, place, files_of(plan), needs, _plain(plan, memory), kind)


def _plain(plan: Plan, memory: Mapping[str, Any] | None) -> dict[str, dict[str, str]]:
    """Constants that come along, as texts, by the module that has them."""
    found: dict[str, dict[str, str]] = {}
    for where, part in ((f"{plan.name}.reducers", plan.code), (f"{plan.name}.functions", plan.more)):
        for unit in part.units:
            if unit.is_import or unit.is_definition:
                continue
            for name in sorted(unit.binds | unit.changes):
                if plan.reach.binder(name) not in part.names:
                    continue  # an earlier value, that a default or the like keeps
                text = plain_text((memory or {}).get(name)) if name in (memory or {}) else None
                if text is not None:
                    found.setdefault(where, {})[name] = text
    return found


@dataclass
class Export:
    """The part of an export that takes time."""

    prepared: Prepared
    sample: str
    """Events, as JSON lines."""
    about: dict[str, Any]
    """What the README says of them."""
    states: str = ""

    async def go(self, on_step: Step = lambda number, what: None) -> ExportReport:
        """Fold the sample, write, prove, and only then move the package to its place."""
        prepared, plan, place = self.prepared, self.prepared.plan, self.prepared.place
        on_step(0, "folding the sample")
        states = self.states or await states_text(plan.reducers, self.sample)
        files = {**prepared.files, "tests/sample.jsonl": self.sample, "tests/states.jsonl": states}
        files["README.md"] = texts.readme(plan, prepared.requirements, self.about)
        with work_folder(place.folder) as work:
            made = work / place.folder.name
            made.mkdir()
            files = write_files(made, files)
            version = next_version(place, files)
            files["pyproject.toml"] = texts.pyproject(plan, version, prepared.requirements, hashes_of(files))
            (made / "pyproject.toml").write_text(files["pyproject.toml"], encoding="utf-8")
            proof = None
            if prepared.proof:
                proof = await prove(
                    made, plan.name, states, prepared.plain, kind=prepared.proof, on_step=on_step
                )
            on_step(4, "moving it to its place")
            put_in_place(made, place)
        on_step(STEPS, str(place.folder))
        return ExportReport(
            plan.name,
            place.folder,
            version,
            [f"{plan.name}.{each.name}" for each in plan.reducers],
            [f"{plan.name}.{name}" for name in plan.dag["exports"]],
            [board["id"] for board in plan.dashboards],
            list(prepared.requirements.values()),
            sorted(files),
            self.sample.count("\n"),
            diff_of(place.files, files),
            proof,
            bool(place.files),
            plan.notes,
        )
