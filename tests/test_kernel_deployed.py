"""`app="learning_observer"`: what that system's traps do to a kernel, and what of `lo` works there."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest
from conftest import StartKernel
from deployed_stand_in import write_stand_in
from harness import RunningKernel

from lo_kernel.kernel.audit.reading import AuditReader

APP = {"LO_KERNEL_APP": "learning_observer"}


@pytest.fixture
def deployed(tmp_path: Path, workspace: Path) -> dict[str, str]:
    """The environment of a kernel that has the stand-in, and its configuration in the workspace."""
    write_stand_in(tmp_path / "site")
    config = workspace / "learning_observer" / "creds.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("aio: {}\n")
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    return APP | {"PYTHONPATH": path}


def why(kernel: RunningKernel) -> str:
    """What the first cell says besides its value, in a kernel that works."""
    first = kernel.execute("1 + 1")
    assert first.value == "2"
    return first.stderr


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_it_is_booted_and_lo_speaks_to_it(
    start_kernel: StartKernel, deployed: dict[str, str], workspace: Path, loop: str
) -> None:
    """Its app answers; store, reducers and queries are its own; no names; the rest says what it needs."""
    kernel = start_kernel(env=deployed | {"LO_KERNEL_LOOP": loop}, workspace=workspace)
    url = kernel.execute("print(lo.url)").text.strip()
    with urllib.request.urlopen(url, timeout=5) as page:
        assert page.read() == b"deployed"
    assert kernel.execute("await lo.kvs.set('a', [1]); print(await lo.kvs['a'])").text == "[1]\n"
    added = kernel.execute(
        "from lo_kernel import student_event_reducer\n"
        "from lo_kernel.jupyter_helpers import add_reducer_to_lo\n"
        "@student_event_reducer(null_state={'count': 0}, module_override='nb')\n"
        "def seen(event, state):\n"
        "    return {'count': state['count'] + 1}, None\n"
        "for again in range(2):\n"
        "    done = await add_reducer_to_lo('seen', seen)\n"
        "step = await lo.reducers['seen']['function']({})\n"
        "print(done, list(lo.reducers), await step({}, None), step.__module__)"
    ).text
    assert "no archive" in added
    assert "['seen'] ({'count': 1}, None) nb" in added
    deeds = [each for each in AuditReader(workspace).events() if each["kind"] == "act"]
    assert [(each["what"], each["name"]) for each in deeds] == [("value set", ""), *[("reducer", "seen")] * 2]
    rows = kernel.execute("print(await lo.query('jupyter-helper.seen', course_id=3))").text
    assert rows == "[{'user_id': 'tc-ann', 'count': 3}]\n"
    assert "no such course" in kernel.execute("await lo.query('seen', course_id=0)", check=False).error
    assert "embedded" in kernel.execute("lo.events", check=False).error
    assert "jupyter-helper.seen" in kernel.execute("lo.query('nothing')", check=False).error
    assert "d3.js" in kernel.execute("print(lo.errors)").text
    assert "tc-ann" not in kernel.execute("print(lo.audit)").error


@pytest.mark.parametrize(
    ("trap", "what"),
    [
        ("stdin", "asked a question on stdin. It said:\nShould I clone it?"),
        ("exit", "ended its start-up. It said:\nPlease set a session secret"),
        ("module", "needs the module 'tsvx_that_is_not_there'"),
    ],
)
def test_its_traps_leave_a_kernel(
    start_kernel: StartKernel, deployed: dict[str, str], workspace: Path, trap: str, what: str
) -> None:
    """A question, an exit or a missing package at its start is an error that says so; cells run."""
    assert what in why(start_kernel(env=deployed | {"TRAP": trap}, workspace=workspace))


def test_a_missing_configuration_is_named(
    start_kernel: StartKernel, deployed: dict[str, str], workspace: Path
) -> None:
    """Without creds.yaml the error names both places where it is looked for."""
    config = workspace / "learning_observer" / "creds.yaml"
    config.unlink()
    said = why(start_kernel(env=deployed, workspace=workspace))
    assert "creds.yaml is missing" in said
    assert str(config) in said


def test_where_it_is_not_installed_it_says_so(start_kernel: StartKernel) -> None:
    """The error names the package, and the kernel works without an app."""
    assert "not installed in this Python" in why(start_kernel(env=APP))
