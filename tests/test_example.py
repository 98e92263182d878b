"""The example notebook, run without a person."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLE = Path(__file__).parent.parent / "examples" / "local_reducer.ipynb"
VEGALITE = "application/vnd.vegalite.v5+json"


@pytest.fixture
def executed(tmp_path: Path, environment: dict[str, str]) -> tuple[Any, float]:
    """The notebook after nbclient ran it with its own kernel, and how many seconds that took."""
    notebook = read()
    client = NotebookClient(notebook, timeout=40, resources={"metadata": {"path": str(tmp_path)}})
    started = time.monotonic()
    with client.setup_kernel(env=environment):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    return notebook, time.monotonic() - started


def read() -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call] # nbformat has few annotations


def code_cells(notebook: Any) -> list[Any]:
    """Cells with code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cell_with(notebook: Any, code: str) -> Any:
    """The one code cell that has this in its source."""
    (found,) = [cell for cell in code_cells(notebook) if code in cell.source]
    return found


def test_the_example_is_stored_without_outputs() -> None:
    """In the repository the notebook has no outputs, names its kernel, and teaches between its cells."""
    notebook = read()
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))
    assert notebook.metadata.kernelspec.name == "learning_observer"
    kinds = [cell.cell_type for cell in notebook.cells]
    assert all(kinds[number - 1] == "markdown" for number, kind in enumerate(kinds) if kind == "code")


def test_the_example_runs_without_a_person(executed: tuple[Any, float]) -> None:
    """From top to bottom in less than 20 s: a class types, is counted, asked for, looked up and drawn."""
    notebook, seconds = executed
    assert not [out for cell in code_cells(notebook) for out in cell.outputs if out.output_type == "error"]
    assert seconds < 20

    (picture,) = [
        out for out in cell_with(notebook, "lo.dashboard").outputs if VEGALITE in out.get("data", {})
    ]
    bars = picture.data[VEGALITE]["data"]["values"]
    assert len(bars) == 30
    assert sum(bar["value"] for bar in bars) > 100
    # As saved: a true picture can still be drawn from it, so no placeholder stands in its place.
    assert "image/png" not in picture.data
    assert "sim-01" in picture.data["text/plain"]

    counted = {bar["id"]: bar["value"] for bar in bars}
    asked = cell_with(notebook, "lo.query").outputs[-1].data["text/plain"]
    assert ["tc-testcase-sim-01", str(counted["tc-testcase-sim-01"])] in [
        row.split() for row in asked.splitlines()
    ]
    state = cell_with(notebook, "lo.kvs").outputs[-1].data["text/plain"]
    assert "Internal,__main__.event_count,STUDENT:tc-testcase-sim-01" in state
    assert f"{{'count': {counted['tc-testcase-sim-01']}}}" in state
