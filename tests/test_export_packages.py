"""Exporting a reducer of a package: it comes along where a cell imports it, else its package is named."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from field_parts import add_metadata, on_path
from ingest_parts import running

from lo_kernel.errors import ExportError
from lo_kernel.notebook.export.session import SessionExport
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

PACKAGE = """
from lo_kernel import student_event_reducer
@student_event_reducer(null_state={"n": 0})
def seen(event, state):
    return state, state
"""


def exported(runtime: Runtime, memory: dict[str, Any], path: Path, *cells: str) -> SessionExport:
    """An export of the reducer ``seen``, by a session that ran these cells and has this in memory."""
    history = SimpleNamespace(input_hist_raw=["", *cells])
    return SessionExport(
        runtime,
        SimpleNamespace(user_ns={"__name__": "__main__", **memory}, history_manager=history),
        "my_module",
        path,
        reducers=["seen"],
        queries=None,
        dashboards=None,
        sample=0,
        proof=False,
        overwrite=False,
    )


@asynccontextmanager
async def installed(settings: Settings, folder: Path) -> AsyncIterator[tuple[Runtime, Any]]:
    """An app with the reducer ``seen`` of an installed package, and that reducer."""
    add_metadata(folder, "seen_elsewhere")
    (folder / "seen_elsewhere-1.2.dist-info/top_level.txt").write_text("seen_elsewhere")
    (folder / "seen_elsewhere.py").write_text(PACKAGE)
    with on_path(folder):
        seen = importlib.import_module("seen_elsewhere").seen
        async with running(settings) as runtime:
            runtime.add_reducer("seen", seen, module="jupyter-helper")
            yield runtime, seen


@pytest.mark.parametrize(
    "cell",
    ["unseen = 1", "print('seen')", "# seen", "import seen_elsewhere", "x = seen", "def f():\n    seen = 1"],
)
async def test_a_word_in_a_cell_is_no_definition(settings: Settings, tmp_path: Path, cell: str) -> None:
    """Where no cell binds the name, the package is what to install, whatever the cells say besides."""
    async with installed(settings, tmp_path / "site") as (runtime, seen):
        with pytest.raises(ExportError, match=r"is seen_elsewhere's, .*: that package is what to install$"):
            exported(runtime, {"seen": seen}, tmp_path, cell)


@pytest.mark.parametrize("names", ["seen", "*"])
async def test_one_that_a_cell_imports_comes_along(settings: Settings, tmp_path: Path, names: str) -> None:
    """By its name, or with all of its package's; the module then needs that package."""
    async with installed(settings, tmp_path / "site") as (runtime, seen):
        export = exported(runtime, {"seen": seen}, tmp_path, f"from seen_elsewhere import {names}")
    assert [each.name for each in export.prepared.plan.reducers] == ["seen"]
    assert export.prepared.requirements == {"seen_elsewhere": "seen_elsewhere>=1.2"}
