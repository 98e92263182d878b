"""All of the way: from the example notebook to a production page with live data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import nbformat
import pytest
from harness import RunningKernel, isolated_environment
from waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXAMPLE = Path(__file__).parent.parent / "examples" / "local_reducer.ipynb"


def environment_of(folder: Path) -> Path:
    """A virtual environment with what is installed here; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=30)
    site = next(folder.glob("lib/python*/site-packages"))
    outer = [path for path in sys.path if "site-packages" in path]
    (site / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in outer))
    return folder / "bin" / "python"


@contextmanager
def serving(python: Path, root: Path, *options: str) -> Iterator[tuple[str, str, Any]]:
    """``lo-kernel serve`` in an environment: its address, its token, and the process."""
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [str(python), "-m", "lo_kernel", "serve", *options],
            env=isolated_environment(root),
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"(http://[^?]+)\?token=(\S+)", line)
            assert found, line + (root / "server.log").read_text()
            yield found[1], found[2], process
        finally:
            process.terminate()
            process.communicate(timeout=10)


def ask(url: str, token: str = "") -> Any:
    """A page's JSON; for a refusal, its JSON too."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except HTTPError as error:
        return json.load(error)


@pytest.mark.browser
def test_from_the_notebook_to_a_live_page_in_production(
    kernel: RunningKernel, page: Page, tmp_path: Path
) -> None:
    """Two lines in the notebook, two in a terminal: a page with live data in less than 60 s, all for real.

    The server's states for the notebook's events are the notebook's, byte for byte.
    """
    notebook = nbformat.read(EXAMPLE, as_version=4)  # type: ignore[no-untyped-call] # few annotations
    as_it_is, sooner = "seconds=8, speed=5", "seconds=0.8, speed=50"  # as many events
    assert as_it_is in "".join(cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kernel.execute(cell.source.replace(as_it_is, sooner), timeout=40)
    out = tmp_path / "out"
    production = tmp_path / "production"
    production.mkdir()

    since = time.monotonic()
    kernel.execute(f"report = await lo.export('my_module', {str(out)!r})", timeout=50)
    assert "byte for byte" in kernel.execute("report").value

    python = environment_of(production / "venv")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    subprocess.run(
        [*pip, "--no-build-isolation", str(out / "my_module")], check=True, timeout=50, cwd=production
    )
    with serving(python, production, "--modules", "my_module", "--json-logs") as (url, token, process):
        until(lambda: ask(f"{url}health/ready")["status"] == "ready", what="the server is ready")
        (board,) = ask(f"{url}webapi/course_dashboards", token)
        assert (board["url"], board["module"]) == ("/dashboards/event-count", "My module")
        page.goto(f"{url.rstrip('/')}{board['url']}?token={token}")
        typing = [
            str(python),
            "-m",
            "lo_kernel",
            "simulate",
            "--students",
            "3",
            "--seconds",
            "0.5",
            "--seed",
            "3",
        ]
        subprocess.run(typing, check=True, timeout=30, env=isolated_environment(production), cwd=production)
        page.get_by_text("sim-01").first.wait_for(timeout=15_000)
        assert time.monotonic() - since < 60

        # the same events give the same states, byte for byte
        copy = tmp_path / "events.jsonl"
        kernel.execute(
            "import json\n"
            f"with open({str(copy)!r}, 'w') as file:\n"
            "    for event in lo.events.filter():\n"
            "        event.pop('n', None)\n"
            "        file.write(json.dumps(event) + '\\n')"
        )
        fold = (
            "import asyncio, sys\nfrom lo_kernel.engine.fold import fold\n"
            "from lo_kernel.engine.states import encode_state\nfrom my_module.module import REDUCERS\n"
            f"for key, state in sorted(asyncio.run(fold(REDUCERS[0]['function'], {str(copy)!r})).items()):\n"
            "    print(key.split(',')[2], encode_state(state).decode())"
        )
        there = subprocess.run(
            [str(python), "-c", fold], check=True, timeout=30, capture_output=True, text=True, cwd=production
        ).stdout
        here = kernel.execute(
            "from lo_kernel.engine.states import encode_state\n"
            "for key in sorted(await lo.kvs.keys('Internal,__main__.event_count,')):\n"
            "    print(key.split(',')[2], encode_state(await lo.kvs[key]).decode())"
        ).text
        assert there == here
        assert there.count("\n") == 30

        process.terminate()
        assert process.wait(10) == 0
    lines = [
        json.loads(line) for line in (production / "server.log").read_text().splitlines() if line[0] == "{"
    ]
    assert [line["message"].partition(",")[0].partition(" after")[0] for line in lines][
        -1
    ] == "the server has ended"


def test_a_module_that_is_not_installed_stops_the_start(environment: dict[str, str], tmp_path: Path) -> None:
    """A server is not started without a module that it was told to have, or with a setting that isn't one."""
    config = tmp_path / "server.toml"
    config.write_text("[lo_kernel]\nmodules = 'no_such_module'\n")
    command = [sys.executable, "-m", "lo_kernel", "serve", "--config", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "no module 'no_such_module' is installed" in done.stderr
    config.write_text("colour = 'red'\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "there is no setting 'colour'" in done.stderr


def test_a_module_goes_from_a_notebook_into_a_running_server(kernel: RunningKernel, tmp_path: Path) -> None:
    """``lo.inject`` and ``lo-kernel inject`` put the last export into a server, and take it out again."""
    kernel.execute(
        "@lo.reducer('n', null_state={'n': 0})\ndef count(event, state):\n    return {'n': state['n'] + "
        "1}, None"
    )
    kernel.execute(f"report = await lo.export('my_study', {str(tmp_path)!r}, proof=False)")
    server = tmp_path / "server"
    server.mkdir()
    with serving(Path(sys.executable), server, "--allow-inject") as (url, token, _):
        secret = server / "workspace" / "injected" / "token"
        until(secret.exists, what="the server has made its token")
        put = f"await lo.inject({url!r}, token=open({str(secret)!r}).read()"
        assert "'version': '0.1.0'" in kernel.execute(f"{put})").value
        assert ask(f"{url}health/ready")["status"] == "ready"
        assert "my_study.count" in [each["id"] for each in ask(f"{url}admin/status", token)["reducers"]]
        refused = kernel.execute(f"await lo.inject({url!r}, token='guess')", check=False).error
        assert "injected/token. The one that came is unknown here" in refused
        assert "'version': None" in kernel.execute(f"{put}, rollback=True)").value
        command = [sys.executable, "-m", "lo_kernel", "inject", str(tmp_path / "my_study"), url]
        said = subprocess.run(
            [*command, "--token-file", str(secret)], check=True, capture_output=True, text=True, timeout=30
        ).stdout
        assert said.startswith("my_study 0.1.0 is in (")
        journal = "".join(path.read_text() for path in (server / "workspace" / "audit").glob("log-*.jsonl"))
        assert journal.count("module injected") == 2
        assert journal.count("module rolled back") == 1
