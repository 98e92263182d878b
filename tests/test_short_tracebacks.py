"""What a cell shows of an error: the user's own lines, and what was wrong."""

from __future__ import annotations

import os

import pytest
from harness import RunningKernel


def _shown(kernel: RunningKernel, code: str) -> str:
    return kernel.execute(code, check=False).error


def test_a_wrong_argument_shows_the_users_lines_alone(shared_kernel: RunningKernel) -> None:
    """Of the package's frames none is shown, but by `%tb`; errors of the user's own are as always."""
    shared_kernel.execute("def mine():\n    lo.dashboard('nope')")
    for code in ("mine()", "await lo.query('nope')", "lo.simulate(students=-1)"):
        shown = _shown(shared_kernel, code)
        assert "/lo_kernel/" not in shown, shown
        assert code in shown
    shown = _shown(shared_kernel, "mine()")
    assert "----> 2     lo.dashboard('nope')" in shown
    assert "UnknownQueryError: there is no query 'nope'" in shown
    full = shared_kernel.execute("%tb").messages
    (whole,) = [each["content"]["traceback"] for each in full if each["msg_type"] == "error"]
    assert "catalog.py" in "".join(whole)
    shown = _shown(shared_kernel, "import json\njson.loads('{')")
    assert "decoder.py" in shown
    shown = _shown(shared_kernel, "try:\n    1 / 0\nexcept ZeroDivisionError:\n    mine()")
    assert "ZeroDivisionError" in shown, "what came before it is the user's"


@pytest.mark.parametrize("cell", ["1 +", "  x = 1\n y = 2", "def f():\nreturn 1", "'abc", "await = 3"])
def test_what_is_no_python_shows_its_line_alone(shared_kernel: RunningKernel, cell: str) -> None:
    """No line of what reads a cell stands above the one that is wrong; as in any kernel."""
    shown = _shown(shared_kernel, cell)
    assert shown.lstrip().startswith("Cell In["), shown
    assert "Error: " in shown
    assert "File " not in shown, shown
    assert "compile" in _shown(shared_kernel, "compile('1 +', 'x', 'exec')"), "which a cell that runs has"


def test_a_cell_that_would_wait_for_itself_is_told_to_await(shared_kernel: RunningKernel) -> None:
    """`job.result()` on the kernel's own loop raises at once, and says what to write."""
    line = "lo.simulate(students=1, seconds=0.1).result()"
    shown = _shown(shared_kernel, line)
    assert "LOError: the job runs on this very loop, where job.result() would wait forever" in shown
    assert "write 'await job' instead" in shown
    assert "/lo_kernel/" not in shown, shown
    assert line in shown


CHOOSER = """
import json
def chosen(event):
    return inner(event)
def inner(event):
    return {}
"""


def test_an_error_of_a_function_that_a_verb_called_shows_the_users_lines(
    shared_kernel: RunningKernel,
) -> None:
    """The package's lines around a `where` are left out; what the function itself called is shown."""
    shared_kernel.execute("typed = await lo.simulate(students=1, seconds=0.2, speed=10)")
    for fails, error, last in (
        ("event['nope']", "KeyError: 'nope'", "inner"),
        ("int('x')", "ValueError: invalid literal", "inner"),
        ("json.loads('{')", "JSONDecodeError: Expecting", "JSONDecoder.raw_decode"),
    ):
        shared_kernel.execute(CHOOSER.format(fails))
        for verb in ("lo.events.filter(where=chosen)", "await lo.events.read(where=chosen)"):
            shown = _shown(shared_kernel, verb)
            assert f"----> 1 {verb}" in shown
            assert f"in {last}(" in shown, shown
            assert "in chosen(event)" in shown, shown
            assert error in shown
            assert "/lo_kernel/" not in shown, shown
    full = shared_kernel.execute("%tb").messages
    (whole,) = [each["content"]["traceback"] for each in full if each["msg_type"] == "error"]
    assert "events.py" in "".join(whole)
    assert "ZeroDivisionError" in _shown(shared_kernel, "1 / 0")


A_VERB = """
from lo_kernel.errors import LOError
def a_verb():
    try:
        {}['inside']
    except KeyError as error:
        raise LOError('there is none') from error
"""
TOOLS = """
def outer():
    inner()
def inner():
    raise ValueError(1)
"""


def _define(kernel: RunningKernel, code: str, end: str) -> None:
    """Run code as if it were that of a file whose path begins as the package's folder."""
    path = f"__import__('lo_kernel').__path__[0] + {end!r}"
    kernel.execute(f"exec(compile({code!r}, {path}, 'exec'))")


def test_what_was_caught_in_the_package_is_not_shown(shared_kernel: RunningKernel) -> None:
    """An error of which it makes another one is said by that one."""
    _define(shared_kernel, A_VERB, f"{os.sep}a_verb.py")
    shown = _shown(shared_kernel, "a_verb()")
    assert "LOError: there is none" in shown
    assert "KeyError" not in shown, shown


def test_a_package_beside_it_is_the_users(shared_kernel: RunningKernel) -> None:
    """All frames of one are shown whose name only begins as this one's."""
    _define(shared_kernel, TOOLS, "_tools.py")
    shown = _shown(shared_kernel, "outer()")
    assert shown.count("lo_kernel_tools.py") == 2, shown


def test_an_error_of_a_reducer_names_its_cell(shared_kernel: RunningKernel) -> None:
    """`lo.errors` shows where in the notebook it was raised; those of a removed reducer are marked so."""
    shared_kernel.execute("@lo.reducer('bad', null_state=0)\ndef bad(event, state):\n    return {}['x']")
    shared_kernel.execute("typed = await lo.simulate(students=1, seconds=1, speed=5)")
    shown = shared_kernel.execute("lo.errors[-1]").value
    lines = shown.splitlines()
    assert lines[0].startswith("reducer 'bad': KeyError: 'x'")
    assert lines[1].startswith("event: {'client': {'event': 'test_framework_fake_identity'")
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[3].startswith("  Cell In["), shown
    assert lines[3].endswith("], line 3, in bad"), shown
    assert "it failed at" in shared_kernel.execute("lo.reducers").value
    shared_kernel.execute("await lo.reducers.remove('bad')")
    assert "reducer 'bad' (removed): KeyError" in shared_kernel.execute("lo.errors").value


def test_a_cell_that_was_stopped_shows_where_it_waited(shared_kernel: RunningKernel) -> None:
    """The stop button is how one ends a watch: it shows the line of the cell, and nothing of the package."""
    shared_kernel.execute(
        "@lo.reducer('watched', null_state=0)\ndef watched(event, state):\n    return 1, None"
    )
    stop = "import asyncio\nasyncio.get_running_loop().call_later(0.2, asyncio.current_task().cancel)\n"
    for line in (
        "async for rows in lo.watch('watched'):",
        "async for row in lo.watch(lo.q.latest('watched')):",
    ):
        shown = _shown(shared_kernel, f"{stop}{line}\n    pass")
        assert f"----> 3 {line}" in shown
        assert "CancelledError" in shown
        assert "/lo_kernel/" not in shown, shown
    shown = _shown(shared_kernel, f"{stop}await asyncio.sleep(60)")
    assert "in sleep" in shown, "what isn't waiting for this package is shown as always"
