"""Clients that people use, each the real one, with this kernel behind it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pexpect
import pytest
from harness import KERNEL, RunningKernel, python
from nbclient import NotebookClient
from waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

_PLAIN = ("--simple-prompt", "--no-confirm-exit")

COUNTS = """\
@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    return ({"count": state["count"] + 1},) * 2
await lo.simulate(students=3, seconds=0.25, speed=40, seed=1)
rows = await lo.query("seen")
print(len(rows), "learners,", sum(row["count"] for row in rows) == len(lo.events))
"""


def notebook(*cells: str, **metadata: Any) -> Any:
    """A notebook for this kernel; the first cell's metadata are ``metadata``."""
    nodes = [nbformat.v4.new_code_cell(cell) for cell in cells]  # type: ignore[no-untyped-call]
    nodes[0].metadata.update(metadata)
    spec = {"name": KERNEL, "display_name": "Learning Observer", "language": "python"}
    return nbformat.v4.new_notebook(cells=nodes, metadata={"kernelspec": spec})  # type: ignore[no-untyped-call]


def printed(cell: Any) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def processes_left(runtime: Path) -> list[Path]:
    """What kernels left in the runtime folder."""
    return [*runtime.glob("lo-kernel-*.json"), *runtime.glob("kernel-*.json")]


def test_nbclient(environment: dict[str, str], tmp_path: Path) -> None:
    """nbclient, with the arguments that it appends, runs a class in a cell and leaves nothing behind."""
    book = notebook(COUNTS, "lo.port > 0")
    NotebookClient(book, timeout=40, resources={"metadata": {"path": str(tmp_path)}}).execute(env=environment)
    assert printed(book.cells[0]) == "3 learners, True\n"
    assert book.cells[1].outputs[-1].data["text/plain"] == "True"
    assert not processes_left(Path(environment["JUPYTER_RUNTIME_DIR"]))


def test_papermill(environment: dict[str, str], tmp_path: Path) -> None:
    """papermill puts its parameters into a cell of its own and runs the notebook."""
    pytest.importorskip("papermill", reason="papermill is not installed: pip install papermill")
    source, target = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(notebook("students = 1", "print(students, lo.port > 0)", tags=["parameters"]), source)  # type: ignore[no-untyped-call]
    python("-m", "papermill", str(source), str(target), "-p", "students", "4", env=environment, cwd=tmp_path)
    book = nbformat.read(target, as_version=4)  # type: ignore[no-untyped-call]
    assert printed(book.cells[-1]) == "4 True\n"


def test_jupyter_run(environment: dict[str, str], tmp_path: Path) -> None:
    """`jupyter run` runs a script in the kernel and prints what it prints."""
    script = tmp_path / "script.py"
    script.write_text(COUNTS)
    text = python("-m", "jupyter", "run", f"--kernel={KERNEL}", str(script), env=environment, cwd=tmp_path)
    assert "3 learners, True" in text


def test_a_console_joins_a_running_kernel(kernel: RunningKernel) -> None:
    """`jupyter console --existing FILE` sees the names of another client's kernel, and leaves it running."""
    kernel.execute("mine = 6 * 7")
    console: Any = pexpect.spawn(
        sys.executable,
        ["-m", "jupyter_console", "--existing", kernel.manager.connection_file, *_PLAIN],
        env=os.environ | {"TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"},
        encoding="utf-8",
        timeout=25,
        dimensions=(50, 200),
    )
    try:
        console.expect(r"In \[\d+\]:")
        console.sendline("print('seen', mine, lo.port > 0)")
        console.expect("seen 42 True")
        console.expect(r"In \[\d+\]:")
        console.sendline("quit(keep_kernel=True)")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)
    assert kernel.execute("mine").value == "42"


@pytest.mark.browser
@pytest.mark.timeout(120)
def test_notebook_7(environment: dict[str, str], tmp_path: Path, page: Page) -> None:
    """In a real Notebook 7 in a real browser the card shows, and its address answers."""
    pytest.importorskip("notebook", reason='Notebook 7 is not installed: pip install "lo-kernel[lab]"')
    folder, log = tmp_path / "notebooks", tmp_path / "notebook.log"
    folder.mkdir()
    nbformat.write(notebook("lo", "print('port', lo.port)"), folder / "here.ipynb")  # type: ignore[no-untyped-call]
    for server in _notebook_server(folder, log, environment):
        page.goto(f"{server['url']}notebooks/here.ipynb?token={server['token']}")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)
        until(lambda: _runs_both(page), timeout=60, what="the notebook to run its cells")
        card = page.locator('.jp-RenderedHTML:has-text("Learning Observer at http://127.0.0.1:")')
        assert card.get_by_role("link").first.get_attribute("href")
        output = page.locator(".jp-OutputArea-output", has_text=re.compile(r"^port \d+"))
        assert int(output.inner_text(timeout=30_000).split()[-1]) > 0


def _runs_both(page: Page) -> bool:
    """Run the two cells; a notebook that has no kernel yet drops them, and their prompts stay empty."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].slice(0, 2)"
    ran = prompts + ".every(each => /\\[(\\*|\\d+)\\]/.test(each.innerText))"
    try:
        page.wait_for_function(ran, timeout=2_000)
    except PlaywrightTimeout:
        return False
    return True


def _notebook_server(folder: Path, log: Path, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    runtime = Path(environment["JUPYTER_RUNTIME_DIR"])
    command = [sys.executable, "-m", "notebook", "--no-browser", "--port=0", "--allow-root"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={folder}", "--ServerApp.answer_yes=True"],
            env=environment,
            stdout=output,
            stderr=output,
        )

    def server() -> dict[str, Any] | None:
        assert process.poll() is None, log.read_text()
        for found in runtime.glob("jpserver-*.json"):
            with suppress(ValueError):  # it is being written
                described: dict[str, Any] = json.loads(found.read_text())
                return described
        return None

    try:
        running = until(server, timeout=40, what="Notebook to start")
        assert running is not None
        yield running
    finally:
        process.terminate()
        process.wait(20)


_QT = """
import sys
from qtpy import QtCore, QtWidgets
from qtconsole.manager import QtKernelManager
from qtconsole.rich_jupyter_widget import RichJupyterWidget
app = QtWidgets.QApplication([])
manager = QtKernelManager(kernel_name={kernel!r})
manager.start_kernel()
client = manager.client()
client.start_channels()
widget = RichJupyterWidget()
widget.kernel_manager, widget.kernel_client = manager, client
def look():
    if "the app answers at http://127" in text() and "In [1]" in text() and not asked:
        asked.append(1)
        widget.execute("print('port' + 's', lo.port > 0)")
    if "ports True" in text() and "In [2]" in text():
        app.quit()
def text():
    return widget._control.toPlainText()
asked = []
timer = QtCore.QTimer()
timer.timeout.connect(look)
timer.start(50)
QtCore.QTimer.singleShot(40000, app.quit)
app.exec()
print(text())
client.stop_channels()
manager.shutdown_kernel()
"""


@pytest.mark.soak
def test_qtconsole(environment: dict[str, str], tmp_path: Path) -> None:
    """Qt's console, offscreen, shows the kernel's banner and runs a line (`pip install qtconsole PyQt6`)."""
    pytest.importorskip("qtconsole", reason="qtconsole is not installed: pip install qtconsole PyQt6")
    text = python(
        "-c", _QT.format(kernel=KERNEL), env=environment | {"QT_QPA_PLATFORM": "offscreen"}, cwd=tmp_path
    )
    assert "ports True" in text
