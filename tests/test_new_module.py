"""`lo-kernel new`: what it makes is a module that works, here and where only the field's names are."""

from __future__ import annotations

import sys
from pathlib import Path

import aiohttp
import pytest
from apps import running_app
from field_parts import add_metadata, on_path
from harness import python
from ingest_parts import connect, idle, say, who

from lo_kernel.commands.new import make_module
from lo_kernel.errors import LOError
from lo_kernel.settings import Settings

# The names of the deployed system that the seam takes, as far as a module needs them to be imported.
DEPLOYED = {
    "learning_observer/__init__.py": "",
    "learning_observer/communication_protocol/__init__.py": "",
    "learning_observer/communication_protocol/query.py": (
        "def node(*args, **kwargs):\n    return {'args': args, **kwargs}\n"
        "parameter = variable = select = keys = map = node\n"
        "def call(name):\n    return node\n"
    ),
    "learning_observer/communication_protocol/integration.py": (
        "published = {}\n"
        "def publish_function(name):\n    return lambda function: published.setdefault(name, function)\n"
    ),
    "learning_observer/stream_analytics/__init__.py": "",
    "learning_observer/stream_analytics/helpers.py": (
        "class KeyField:\n    STUDENT = 'STUDENT'\n"
        "EventField = Scope = list\n"
        "def kvs_pipeline(**options):\n    return lambda function: ('declared there', function)\n"
        "student_event_reducer = kvs_pipeline\n"
    ),
}


async def test_what_is_made_shows_on_the_home_page(settings: Settings, tmp_path: Path) -> None:
    """Installed, its reducer counts, its query answers and its dashboard is on the home page."""
    folder = make_module(tmp_path, "made_here", title="Made here")
    add_metadata(folder, "made_here", version="0.1.0")
    with on_path(folder):
        async with running_app(settings) as runtime:
            module = runtime.modules["made_here"]
            assert (module.title, module.error, module.problems, module.not_served) == (
                "Made here",
                "",
                [],
                [],
            )
            async with connect(runtime.ingest_url) as ws:
                await say(ws, who("u0"), {"event": "click"}, {"event": "click"}, {"event": "terminate"})
                await ws.receive()
                await ws.receive()
            await idle(runtime)
            (row,) = await runtime.executor.rows("made_here.learners")
            assert (row["student"], row["events"], row["favourite"]) == ("tc-testcase-u0", 3, "click")
            address = f"{runtime.url}home.json?token={runtime.security.tokens['read']}"
            async with aiohttp.ClientSession() as session, session.get(address) as answer:
                home = await answer.json()
    assert [board["url"] for board in home["dashboards"]] == ["dashboards/made-here"]
    assert [each["name"] for each in home["modules"]] == ["made_here"]


def test_its_own_tests_pass(environment: dict[str, str], tmp_path: Path) -> None:
    """The tests that come with it pass, as they are."""
    folder = make_module(tmp_path, "made_here")
    env = {**environment, "PYTHONPATH": str(folder)}
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", env=env, cwd=folder)
    assert "3 passed" in said


def test_it_loads_on_the_deployed_one_too(environment: dict[str, str], tmp_path: Path) -> None:
    """Where the deployed package runs, the seam takes its names, and functions are published there."""
    folder = make_module(tmp_path, "made_here")
    for name, code in DEPLOYED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    code = (
        "import learning_observer, made_here.module as m\n"
        "from learning_observer.communication_protocol.integration import published\n"
        "print(m.REDUCERS[0]['function'][0], *published, m.EXECUTION_DAG['exports']['learners']['returns'])"
    )
    said = python("-c", code, env={**environment, "PYTHONPATH": str(folder)}, cwd=tmp_path)
    assert said.strip() == "declared there made_here.favourite learners"


def test_the_command_says_what_it_made(environment: dict[str, str], tmp_path: Path) -> None:
    """It prints the folder and the line that installs it; title and context are in the module."""
    said = python(
        "-m", "lo_kernel", "new", "reading", "--title", "Reading time", "--context", "org.example.reading",
        env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert said.splitlines()[:2] == ["made reading", "  pip install -e reading"]
    module = (tmp_path / "reading" / "reading" / "module.py").read_text()
    assert 'NAME = "Reading time"' in module
    assert '"context": "org.example.reading"' in module
    left = [path for path in (tmp_path / "reading").rglob("*") if path.is_file() and "{{" in path.read_text()]
    assert not left


@pytest.mark.parametrize("name", ["json", "statistics", "tests", "aiohttp"])
def test_a_name_of_another_is_refused(name: str, tmp_path: Path) -> None:
    """Installed, it would be the other one that is imported."""
    with pytest.raises(LOError, match="choose another name"):
        make_module(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["My", "1st", "a-b", "class", "lo_kernel", "learning_observer", "../x", ""])
def test_a_name_that_cannot_be_imported_is_refused(name: str, tmp_path: Path) -> None:
    """The error says what a name has to be, and nothing is written."""
    with pytest.raises(LOError, match="such as my_module"):
        make_module(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A folder that is there stays as it is; so does the place where a title can't be written."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(LOError, match="is there already"):
        make_module(tmp_path, "mine")
    with pytest.raises(LOError, match="title: expected a line without quotes"):
        make_module(tmp_path, "other", title='a "quoted" one')
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert "mine" not in sys.modules
