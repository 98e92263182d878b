"""Cells as a session executes them, and the package code that comes of them."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lo_kernel.engine.reducers import declaration_of, kvs_pipeline, student_event_reducer
from lo_kernel.notebook.export.cells import read_history
from lo_kernel.notebook.export.plan import Plan, Wanted, make_plan
from lo_kernel.notebook.export.reach import Reach
from lo_kernel.notebook.export.sample import made_up, sample_text, states_text
from lo_kernel.notebook.export.writer import files_of
from lo_kernel.query.language import q

CONTEXT = "org.mitros.writing_analytics"


class Session:
    """Runs cells as a notebook does, each as In[n]; a cell that fails leaves what it did before."""

    def __init__(self, *cells: str) -> None:
        self.history = [""]
        self.published: dict[str, str] = {}
        self.memory: dict[str, Any] = {"__name__": "__main__", "lo": self._lo(), "get_ipython": _shell}
        for cell in cells:
            self.run(cell)

    def run(self, cell: str) -> None:
        """Run one cell."""
        self.history.append(cell)
        found = read_history(["", cell], "study.ipynb").cells
        try:
            for each in found:
                exec(compile(each.source, "cell", "exec"), self.memory)
        except ZeroDivisionError:
            pass  # how these tests let a cell fail

    def plan(self, *names: str, name: str = "my_module", **options: Any) -> Plan:
        """What an export of these reducers would be made of."""
        reach = Reach(read_history(self.history, "study.ipynb"), self.memory)
        wanted = [self._wanted(each) for each in names or ("count",)]
        return make_plan(
            name,
            reach,
            wanted,
            options.get("queries", {}),
            options.get("dashboards", []),
            options.get("published", {}),
            self.memory,
        )

    def code(self, *names: str) -> str:
        """The text of ``reducers.py``."""
        return files_of(self.plan(*names))["my_module/reducers.py"]

    def _wanted(self, name: str) -> Wanted:
        function = self.memory[name]
        declared = declaration_of(function)
        null = declared.null_state
        return Wanted(name, name, CONTEXT, declared.scope, null, null, function)

    def _lo(self) -> Any:
        def reducer(
            id: str | None = None, *, null_state: Any = None, scope: Any = None, **others: Any
        ) -> Any:
            return kvs_pipeline(null_state, scope)

        def publish(name: str) -> Any:
            return lambda function: function

        return SimpleNamespace(reducer=reducer, publish=publish, q=q)


def _shell() -> Any:
    return SimpleNamespace(
        run_line_magic=lambda *a: 7, run_cell_magic=lambda *a: None, system=lambda *a: None
    )


@contextmanager
def imported(files: dict[str, str], folder: Path, name: str = "my_module") -> Iterator[Any]:
    """The package of these files, imported; forgotten afterwards."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(f"{name}.module")
    finally:
        sys.path.remove(str(folder))
        for module in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[module]


def states(reducers: Sequence[Wanted]) -> str:
    """States of made-up events."""
    return asyncio.run(states_text(reducers, sample_text(made_up([CONTEXT]), [])))


def states_of(module: Any) -> str:
    """The same of a package's reducers."""
    entries = module.REDUCERS
    wanted = [
        Wanted(
            entry["id"].rpartition(".")[2],
            entry["id"],
            entry["context"],
            entry["scope"],
            function=entry["function"],
        )
        for entry in entries
    ]
    return states(wanted)


def lines_of(text: str) -> list[Any]:
    """JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


__all__ = ["CONTEXT", "Session", "imported", "lines_of", "states", "states_of", "student_event_reducer"]
