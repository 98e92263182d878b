"""What a function reaches: the statements that must come along, each as it was when it mattered.

A name that a statement needs when it runs is what the cells before it made of that name; a name in a
function's body is what the last cell made of it. Statements come out in the order in which they ran, so that
the module ends up with the values that the notebook had.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lo_kernel.notebook.export.cells import Notebook
from lo_kernel.notebook.export.declared import Said, calls_of_lo, declaring, rewritten
from lo_kernel.notebook.export.seam import SEAM
from lo_kernel.notebook.export.units import Unit, units_of

__all__ = ["Problem", "Reach", "Reached", "star_names"]

_END = sys.maxsize
NOTEBOOK_ONLY = {
    "lo": "lo is there in a notebook only",
    "get_ipython": "a magic is there in a notebook only",
    "display": "display is there in a notebook only",
    "In": "the history is there in a notebook only",
    "Out": "the history is there in a notebook only",
    "_": "the last output is there in a notebook only",
    "__": "the last output is there in a notebook only",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that can't be shipped: where, what, and a way out."""

    place: str
    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}. {self.way_out}"


@dataclass
class Reached:
    """What must come along, in order, and what of it can't."""

    units: list[Unit] = field(default_factory=list)
    names: dict[Unit, set[str]] = field(default_factory=dict)
    """Which of a statement's names are used."""
    stars: dict[Unit, set[str]] = field(default_factory=dict)
    """Names that come from ``from module import *``."""
    seam: set[str] = field(default_factory=set)
    """The field's names that were not imported in a cell."""
    problems: list[Problem] = field(default_factory=list)


def star_names(module: str) -> frozenset[str]:
    """The names that ``from module import *`` gives; none where it can't be imported."""
    try:
        found = sys.modules.get(module) or importlib.import_module(module)
    except Exception:
        return frozenset()
    public = getattr(found, "__all__", None)
    return frozenset(public if public is not None else (n for n in vars(found) if not n.startswith("_")))


class Reach:
    """Looks names up in a notebook's statements. ``memory`` is what the session holds, where there is one."""

    def __init__(self, notebook: Notebook, memory: Mapping[str, object] | None = None) -> None:
        self.notebook = notebook
        self.memory = memory
        self.said: list[Said] = []
        """Registrations that the code shows, in order."""
        self.units = [self._rewritten(unit) for unit in units_of(notebook)]
        self.said += calls_of_lo(self.units)
        self._binders: dict[str, list[Unit]] = {}
        self._changers: dict[str, list[Unit]] = {}
        self._stars = [unit for unit in self.units if unit.star]
        for unit in self.units:
            for name in unit.binds:
                self._binders.setdefault(name, []).append(unit)
            for name in unit.changes:
                self._changers.setdefault(name, []).append(unit)
        self.future = any(
            unit.is_import
            and "annotations" in unit.binds
            and getattr(unit.node, "module", "") == "__future__"
            for unit in self.units
        )

    def _rewritten(self, unit: Unit) -> Unit:
        new, said = rewritten(unit)
        for each in said:
            each.unit = new
        self.said += said
        return new

    def declare(self, name: str, scope: str) -> None:
        """Give a function that declares nothing a declaration; ``scope`` is code."""
        old = self.binder(name)
        if old is None:
            return
        new = declaring(old, scope)
        if new is not old:
            self.units[self.units.index(old)] = new
            self._binders[name] = [new if each is old else each for each in self._binders[name]]

    # -- looking up ----------------------------------------------------------------------------

    def binder(self, name: str, before: int = _END) -> Unit | None:
        """The statement that made ``name`` what it was before a point; ``None`` where none did."""
        found = [unit for unit in self._binders.get(name, ()) if unit.order < before]
        last = found[-1] if found else None
        for star in self._stars:
            if star.order < before and (last is None or star.order > last.order):
                last = star if name in star_names(star.star) else last
        if last is None or last.is_removal:
            return None
        for earlier in reversed(found[:-1] if found and last is found[-1] else []):
            if not self._same(earlier, last, name):
                break
            last = earlier
        return last

    def changers(self, name: str, after: int, before: int = _END) -> list[Unit]:
        """Statements that change the value of ``name`` between two points."""
        return [unit for unit in self._changers.get(name, ()) if after < unit.order < before]

    def _same(self, earlier: Unit, later: Unit, name: str) -> bool:
        """Whether a cell that ran again gave ``name`` what it had already."""
        if earlier.code != later.code or self.changers(name, earlier.order, later.order):
            return False
        return all(
            self.binder(need, earlier.order) is self.binder(need, later.order)
            and not self.changers(need, earlier.order, later.order)
            for need in later.now - later.binds
        )

    # -- collecting ----------------------------------------------------------------------------

    def collect(self, names: Iterable[str], given: frozenset[str] = frozenset()) -> Reached:
        """Everything that ``names`` reach; ``given`` are names that are there anyway."""
        found = Reached()
        done: set[tuple[Unit, int]] = set()
        waiting: list[tuple[Unit, str, int]] = []

        def want(name: str, before: int, asker: Unit | None) -> None:
            unit = self.binder(name, before)
            if unit is None and asker is not None and before != _END:
                # called before it was defined, or defined in a cell that ran later: what holds now
                unit = self.binder(name) if name in asker.later else None
            if unit is None and name in SEAM:
                found.seam.add(name)
                return
            if unit is None:
                if problem := self._missing(name, asker):
                    found.problems.append(problem)
                return
            if unit.star:
                found.stars.setdefault(unit, set()).add(name)
                return
            waiting.append((unit, name, before))
            for changer in self.changers(name, unit.order, before):
                waiting.append((changer, "", before))

        for name in names:
            want(name, _END, None)
        while waiting:
            unit, name, before = waiting.pop()
            used = found.names.setdefault(unit, set())
            if name:
                used.add(name)
            if (unit, before) in done:
                continue
            done.add((unit, before))
            for need in sorted(unit.now - given):
                want(need, unit.order, unit)
            for need in sorted(unit.later - given):
                want(need, before, unit)
            for need in sorted(unit.hints - unit.now - unit.later - given):
                if self.binder(need, before) is not None:
                    want(need, before, unit)
        found.units = sorted(found.names, key=lambda unit: unit.order)
        found.problems = list(dict.fromkeys(found.problems))
        return found

    def _missing(self, name: str, asker: Unit | None) -> Problem | None:
        """Why a name that no statement binds can't be shipped."""
        place = asker.place_of(name) if asker is not None else self.notebook.name
        if name in NOTEBOOK_ONLY and name not in self._binders:
            line = asker.cell.typed(asker.names.get(name, asker.line)) if asker is not None else ""
            if name == "get_ipython":
                return Problem(
                    place, f"the magic {line!r} is there in a notebook only", "Write it in plain Python"
                )
            out = "Take it out, or hand the function what it needs"
            if asker is not None and not asker.is_definition:
                value = self._value(next(iter(asker.binds), ""))
                out = f"Write the value itself{value}"
            return Problem(place, f"{line!r} needs {name!r}, and {NOTEBOOK_ONLY[name]}", out)
        if asker is not None and self.future and name in asker.hints:
            return None  # an annotation that nobody evaluates
        removed = self._binders.get(name)
        if removed:
            return Problem(
                place,
                f"{name!r} was taken away again ({removed[-1].place})",
                "Run the cell that defines it again",
            )
        for cell in self.notebook.cells:
            if cell.language and name in cell.raw:
                return Problem(
                    place,
                    f"{name!r} is defined nowhere but in cell {cell.label}, in %%{cell.language}",
                    "Define it in a cell of plain Python",
                )
        if self.memory is not None and name in self.memory:
            kind = type(self.memory[name]).__name__
            return Problem(
                place,
                f"{name!r} ({kind}) is in this notebook's memory only: no cell that ran defines it",
                f"Define it in a cell{self._value(name)}, run that, and export again",
            )
        return Problem(
            place, f"{name!r} is defined nowhere", "Define it in a cell, or take it out of the function"
        )

    def _value(self, name: str) -> str:
        value = (self.memory or {}).get(name)
        if isinstance(value, int | float | str | bool) and len(repr(value)) < 60:
            return f", such as {name} = {value!r}"
        return ""
