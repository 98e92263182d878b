"""``lo.export`` in a real kernel: the package, its proof, exporting again, and what never gets into place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import RunningKernel, python

CELLS = (
    "from lo_kernel import student_event_reducer\nfrom lo_kernel.jupyter_helpers import add_reducer_to_lo",
    "STEP = 1  # at a time",
    "@student_event_reducer(null_state={'count': 0})\nasync def event_count(event, state):\n"
    "    state = {'count': state['count'] + STEP}\n    return state, state\n\n\n"
    "add_reducer_to_lo('event_count', event_count)",
    "@lo.reducer('kinds', null_state={'kinds': []})\ndef kind_names(event, state):\n"
    "    state['kinds'] = sorted({*state['kinds'], event['client']['event']})\n    return state, state",
    "chart = lo.dashboard('event_count', title='Counts')",
    "done = await lo.simulate(students=4, seconds=0.5, speed=40, seed=7)",
)


def start(kernel: RunningKernel) -> None:
    """Run the notebook."""
    for cell in CELLS:
        kernel.execute(cell)


def listing(folder: Path) -> list[str]:
    """Files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_export_is_proved_updated_and_never_half_written(kernel: RunningKernel, tmp_path: Path) -> None:
    """A package is made, proved and shown; again it is updated with a diff; what fails leaves it as it
    was.
    """
    start(kernel)
    out = tmp_path / "out"
    export = f"await lo.export('my_module', {str(out)!r}"
    shown = kernel.execute(f"{export})", timeout=50).value
    assert "my_module 0.1.0" in shown
    assert "2 tests passed there, 6 states equal byte for byte" in shown
    project = out / "my_module"
    assert listing(project) == [
        "README.md",
        "my_module/__init__.py",
        "my_module/dashboards/counts.json",
        "my_module/module.py",
        "my_module/queries.py",
        "my_module/reducers.py",
        "my_module/seam.py",
        "pyproject.toml",
        "tests/sample.jsonl",
        "tests/states.jsonl",
        "tests/test_reducers.py",
    ]
    readme = (project / "README.md").read_text()
    assert "| `event_count` | `reducers.py` | notebook: cell [3], line 1 |" in readme
    sample = (project / "tests/sample.jsonl").read_text()
    assert "sim-01" not in sample
    assert len({json.loads(line)["client"]["auth"]["safe_user_id"] for line in sample.splitlines()}) == 3

    before = {name: (project / name).read_bytes() for name in listing(project)}
    (project / "NOTES.md").write_text("mine")

    # what the cells can't say, what a proof finds out, and what can't be folded twice: nothing is written
    kernel.execute("STEP = __import__('threading').Lock()")
    assert "'STEP' is a live object" in kernel.execute(f"{export}, proof=False)", check=False).error
    kernel.execute("STEP = {'a': 1}\ndef alter(table): table['a'] = 2")
    kernel.execute("alter(STEP)")
    refused = kernel.execute(f"{export})", check=False, timeout=50).error
    assert "'STEP' is {'a': 2} in this notebook's memory, and {'a': 1} by the cells" in refused
    kernel.execute("import random\nSTEP = 1")
    kernel.execute(CELLS[2].replace("+ STEP", "+ random.random()"))
    refused = kernel.execute(f"{export}, proof=False)", check=False).error
    assert "gives other states for the same events each time" in refused
    assert {name: (project / name).read_bytes() for name in before} == before
    assert [path.name for path in out.iterdir()] == ["my_module"]

    kernel.execute("STEP = 2  # more")
    kernel.execute(CELLS[2])
    shown = kernel.execute(f"{export}, proof=False)").value
    assert "my_module 0.1.1" in shown
    assert "-STEP = 1  # at a time\n" in shown
    assert "+STEP = 2  # more\n" in shown
    assert (project / "NOTES.md").read_text() == "mine"

    (project / "my_module" / "reducers.py").write_text("# better")
    refused = kernel.execute(f"{export}, proof=False)", check=False).error
    assert "my_module/reducers.py changed by hand since the last export" in refused
    kernel.execute(f"{export}, proof=False, overwrite=True)")
    assert "STEP = 2" in (project / "my_module" / "reducers.py").read_text()

    # back into a notebook: the same events give the same states, byte for byte
    kernel.execute(
        f"import sys; sys.path.insert(0, {str(project)!r})\nfrom my_module.module import REDUCERS\n"
        "for entry in REDUCERS:\n    await lo.add_reducer(entry['id'], entry['function'])"
    )
    compare = (
        "from lo_kernel.engine.states import encode_state\n"
        "async def states(prefix):\n"
        "    keys = await lo.kvs.keys(f'Internal,{prefix},')\n"
        "    return {key.split(',')[2]: encode_state(await lo.kvs[key]) for key in keys}\n"
        "pairs = [('event_count', 'event_count'), ('kind_names', 'kind_names')]\n"
        "[(await states(f'__main__.{a}') == await states(f'my_module.reducers.{b}'), len(await "
        "states(f'__main__.{a}')))"
        " for a, b in pairs]"
    )
    assert kernel.execute(compare).value == "[(True, 4), (True, 4)]"


def test_a_folder_of_somebody_else_is_left_alone(shared_kernel: RunningKernel, tmp_path: Path) -> None:
    """An export goes to no folder that something else made, and says so at once."""
    shared_kernel.execute("@lo.reducer()\ndef nothing(event, state):\n    return state, state")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pyproject.toml").write_text("[project]\nname = 'mine'\n")
    error = shared_kernel.execute(f"lo.export('mine', {str(tmp_path)!r})", check=False).error
    assert "was not made by an export" in error
    assert listing(tmp_path / "mine") == ["pyproject.toml"]


def test_what_is_still_being_exported_is_not_injected(shared_kernel: RunningKernel, tmp_path: Path) -> None:
    """`lo.inject` asks to await the export, also of one that is made anew; then it finds the folder."""
    shared_kernel.execute("@lo.reducer()\ndef nothing(event, state):\n    return state, state")
    sent = "lo.inject('http://127.0.0.1:1', token='t'{})"
    export = f"job = lo.export('soon_there', {str(tmp_path)!r}, proof=False)\n"
    for _ in range(2):
        error = shared_kernel.execute(export + sent.format(""), check=False).error
        assert f"{tmp_path / 'soon_there'}: its export is still running; await it first" in error
        shared_kernel.execute("report = await job")
    elsewhere = f", module={str(tmp_path / 'nothing')!r}"
    assert "got nothing there" in shared_kernel.execute(sent.format(elsewhere), check=False).error
    error = shared_kernel.execute(f"await {sent.format('')}", check=False).error
    assert "Cannot connect to host 127.0.0.1:1" in error


def test_the_command_exports_a_file(environment: dict[str, str], tmp_path: Path) -> None:
    """``lo-kernel export`` takes the file's order, and says where the saved session went another way."""
    cells = [
        (2, "STEP = 1"),
        (1, "STEP = 2"),
        (3, "@lo.reducer('n', null_state={'n': 0})\ndef count(event, state):\n"
            "    state['n'] += STEP\n    return state, state"),
        (4, "mine = lo.q.latest('n')\nlo.dashboard([mine, count], title='Mine')\nrows = await lo.query(q)"),
        (5, "late = lo.dashboard(rows)"),
    ]  # fmt: skip
    notebook = {
        "cells": [
            {"cell_type": "code", "source": text, "execution_count": n, "metadata": {}, "outputs": []}
            for n, text in cells
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "study.ipynb").write_text(json.dumps(notebook))
    said = python(
        "-m", "lo_kernel", "export", "study.ipynb", "study", "--query", "mine", "--proof", "none",
        env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert "last definition is in cell 2; the session that saved it executed cell 1 last" in said
    assert "cell 5, line 1: this dashboard can't be read without running the notebook" in said
    assert "queries: study.count, study.mine\ndashboards: mine\n" in said
    assert "STEP = 2" in (tmp_path / "study/study/reducers.py").read_text()
    board = json.loads((tmp_path / "study/study/dashboards/mine.json").read_text())
    assert [panel["query"] for panel in board["panels"]] == ["study.mine", "study.count"]


@pytest.mark.parametrize("arguments", [["nothing.ipynb", "x"], ["nothing.ipynb", "x", "--proof", "maybe"]])
def test_the_command_says_what_is_wrong(
    arguments: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """A file that isn't there, or an option that isn't one, ends it with a message."""
    with pytest.raises(AssertionError, match=r"ended with [12]"):
        python("-m", "lo_kernel", "export", *arguments, env=environment, cwd=tmp_path)
