"""A real JupyterLab in a real browser: the launcher, the card, a chart that grows, and the debugger."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import aiohttp
import nbformat
import pytest
from harness import isolated_environment
from waiting import until

from lo_kernel.app.charts import MIME, Chart, Kind
from lo_kernel.app.grid import Grid, in_panels

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "local_reducer.ipynb"

NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"
IDLE = f'{NOTEBOOK} .jp-Notebook-ExecutionIndicator[data-status="idle"]'
CHART = f"{NOTEBOOK} .jp-RenderedVegaCommon5"
BARS = f'{CHART} [aria-roledescription="bar"]'
ALL_RAN = """selector => {
    const prompts = [...document.querySelectorAll(selector + ' .jp-CodeCell')]
        .filter(cell => cell.querySelector('.cm-content').innerText.trim())
        .map(cell => cell.querySelector('.jp-InputArea-prompt').innerText.trim());
    return prompts.length && prompts.every(text => /^\\[\\d+\\]:$/.test(text));
}"""


DEBUGGED = (
    "def double(x):\n    y = x * 2\n    return y\n\ndouble(21)",
    "@lo.reducer('seen', null_state={'count': 0})\ndef seen(event, state):\n"
    "    n = event['client'].get('n')\n    count = state['count'] + (n is not None)\n"
    "    return {'count': count}, {'count': count}",
    "print(lo.ingest_url)",
    "print((await lo.query('seen'))[0]['count'], 'counted')",
)
SOURCE = "org.mitros.writing_analytics"
SENT = 60  # events


@dataclass(frozen=True)
class Lab:
    """A JupyterLab server: its address with a slash at the end, its token, its folder and environment."""

    url: str
    token: str
    folder: Path
    environment: dict[str, str]

    @property
    def workspace(self) -> Path:
        """That of its kernels; not made yet."""
        return Path(self.environment["LO_KERNEL_WORKSPACE"])

    def address(self, path: str) -> str:
        """Where a browser goes."""
        return f"{self.url}{path}?token={self.token}"

    def ask(self, path: str, method: str = "GET") -> Any:
        """What its REST API answers."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def clear(self) -> None:
        """End its kernels and forget what they, the notebooks and the windows left."""
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")
        for kernel in self.ask("kernels"):
            self.ask(f"kernels/{kernel['id']}", "DELETE")
        names = ("LO_KERNEL_WORKSPACE", "XDG_DATA_HOME", "XDG_STATE_HOME", "IPYTHONDIR")
        windows = Path(self.environment["JUPYTER_CONFIG_DIR"]) / "lab" / "workspaces"
        for left in (*(Path(self.environment[name]) for name in names), windows, self.folder):
            shutil.rmtree(left, ignore_errors=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab server with folders of its own."""
    pytest.importorskip("jupyterlab", reason='JupyterLab is not installed: pip install "lo-kernel[lab]"')
    root = tmp_path_factory.mktemp("lab")
    environment = isolated_environment(root)
    folder, runtime = root / "notebooks", Path(environment["JUPYTER_RUNTIME_DIR"])
    folder.mkdir()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--allow-root"]
    options = [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=", "--ServerApp.answer_yes=True"]
    with (root / "lab.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)

    def described() -> dict[str, Any] | None:
        assert process.poll() is None, (root / "lab.log").read_text()
        for found in runtime.glob("jpserver-*.json"):
            with suppress(ValueError):  # it is being written
                own: dict[str, Any] = json.loads(found.read_text())
                return own
        return None

    try:
        running = until(described, timeout=40, what="JupyterLab to start")
        assert running is not None
        yield Lab(running["url"], running["token"], folder, environment)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def lab(server: Lab) -> Iterator[Lab]:
    """JupyterLab as it is at first: no kernel, no workspace, and the example in its folder."""
    server.folder.mkdir(exist_ok=True)
    shutil.copy(EXAMPLE, server.folder)
    yield server
    server.clear()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose errors fail the test, and which does not ask before it is left."""
    page = browser.new_page(viewport={"width": 1180, "height": 1940}, device_scale_factor=1.25)
    page.on("dialog", lambda dialog: dialog.accept())
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert not errors, errors


def opened(page: Page, address: str, wanted: str) -> None:
    """Go there and wait; a question about news is answered with no."""
    page.goto(address)
    page.wait_for_selector(wanted, timeout=60_000)
    for no in page.locator('.Toastify__toast button:has-text("No")').all():
        no.click()


def wait_for_kernel(page: Page) -> None:
    """Wait until the notebook has its kernel: cells run earlier are dropped, or bring up a question."""
    page.wait_for_selector(f"{NOTEBOOK} .jp-Notebook .jp-Cell")
    page.wait_for_selector('#jp-main-statusbar >> text="Learning Observer | Idle"', timeout=60_000)


def run_all(page: Page) -> None:
    """Choose 'Run all cells' from the menu; does not wait."""
    page.click('.lm-MenuBar-item:has-text("Run")')
    page.click('.lm-Menu-item[data-command="runmenu:run-all"]')


def wait_until_ran(page: Page) -> None:
    """Wait until every cell with code has a number, and the kernel is idle."""
    page.wait_for_function(ALL_RAN, arg=NOTEBOOK, timeout=60_000)
    page.wait_for_selector(IDLE, timeout=60_000, state="attached")


def counts(page: Page) -> dict[str, int]:
    """What the bars say to a screen reader, such as `sim-01: 7`, by learner; those that are drawn."""
    said = page.locator(BARS).evaluate_all(
        "bars => bars.filter(bar => bar.getBoundingClientRect().width > 0)"
        ".map(bar => bar.getAttribute('aria-label'))"
    )
    found = [re.fullmatch(r"(sim-\d\d): ([\d,]+)", each) for each in said]
    return {match[1]: int(match[2].replace(",", "")) for match in found if match}


def write_notebook(path: Path, cells: list[Any]) -> None:
    """A notebook for our kernel."""
    spec = {"name": "learning_observer", "display_name": "Learning Observer", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})  # type: ignore[no-untyped-call]
    nbformat.write(book, path)  # type: ignore[no-untyped-call]


def test_pick_the_kernel_from_the_launcher(lab: Lab, page: Page) -> None:
    """`Learning Observer` stands in the launcher with its logo; its notebook has `lo`, shown as a card."""
    opened(page, lab.address("lab"), ".jp-Launcher")
    entry = page.locator('.jp-LauncherCard[data-category="Notebook"][title="Learning Observer"]')
    assert str(entry.locator("img").get_attribute("src")).endswith("learning_observer/logo-svg.svg")
    entry.click()
    wait_for_kernel(page)
    page.locator(f"{NOTEBOOK} .jp-Notebook .jp-Cell.jp-mod-active .cm-content").click()
    page.keyboard.insert_text("lo")
    run_all(page)
    wait_until_ran(page)
    card = page.locator(f'{NOTEBOOK} .jp-RenderedHTML:has-text("Learning Observer at http://127.0.0.1:")')
    assert card.get_by_role("link").get_attribute("href")
    line = card.locator("div", has_text="Workspace").last
    line.evaluate("line => line.style.width = '200px'")
    left, right = line.evaluate(
        """line => [...line.children].map(part => {
            const words = document.createRange();
            words.selectNodeContents(part);
            return [...words.getClientRects()].map(({left, right}) => [left, right]);
        })"""
    )
    assert len(right) > 1, "it goes on in another line"
    assert {begins for begins, _ in right} == {right[0][0]}, "which begins where the first does"
    assert left[0][1] < right[0][0]


def test_the_example_grows(lab: Lab, page: Page, pictures: Path) -> None:
    """The example runs in JupyterLab, and the bars under its cell grow in place while the class types."""
    opened(page, lab.address(f"lab/tree/{EXAMPLE.name}"), f"{NOTEBOOK} .jp-Notebook .jp-Cell")
    wait_for_kernel(page)
    page.keyboard.press("Control+b")  # the file browser makes room
    run_all(page)
    page.wait_for_selector(BARS, timeout=30_000)
    output = page.locator(CHART).element_handle()
    first = counts(page)
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerHTML !== before",
        arg=[CHART, page.locator(CHART).inner_html()],
        timeout=30_000,
    )
    until(lambda: sum(counts(page).values()) > sum(first.values()) + 30, timeout=30, what="the bars to grow")
    wait_until_ran(page)
    until(lambda: len(counts(page)) == 30, timeout=10, what="all learners to have a bar")
    last = counts(page)
    assert all(last[learner] >= number for learner, number in first.items())
    assert output.evaluate("node => node.isConnected"), "the output is still the same one"
    take_picture(page, pictures / "notebook.png")


def test_every_kind_of_panel_is_drawn_in_a_grid(lab: Lab, page: Page) -> None:
    """JupyterLab's own Vega draws each kind beside each other one, for few learners and for many."""
    learners = [
        {
            "student": f"tc-testcase-s{n}",
            "n": n,
            "word": "ab"[n % 2],
            "said": f"It was {n}",
            "recent": {"start": 1_700_000_000, "step": 60, "values": [n, 2, 3]},
        }
        for n in range(70)
    ]
    fields = {"categories": "word", "text": "said", "line": "recent", "heatmap": "recent", "auto": "n"}
    charts = [Chart(kind, kind, fields.get(kind, "n")) for kind in get_args(Kind)]
    charts += [
        Chart("fallen back", "line", None),
        Chart("mistaken", field="nobody"),
        Chart("own", template={"mark": "bar", "encoding": {"x": {"field": "n", "type": "quantitative"}}}),
    ]
    outputs = []
    for rows in (learners, learners[:9], []):
        short = [{**row, "recent": None} for row in rows]
        answers = [short if chart.title == "fallen back" else rows for chart in charts]
        spec = Grid("All", tuple(charts)).spec(in_panels(answers))
        outputs.append(nbformat.v4.new_output("display_data", {MIME: spec}))  # type: ignore[no-untyped-call]
    cell = nbformat.v4.new_code_cell("lo", outputs=outputs)  # type: ignore[no-untyped-call]
    write_notebook(lab.folder / "kinds.ipynb", [cell])
    opened(page, lab.address("lab/tree/kinds.ipynb"), f"{NOTEBOOK} .jp-Notebook .jp-Cell")
    drawn = page.locator(f"{CHART} svg.marks")
    until(lambda: drawn.count() == len(outputs), timeout=20, what="all grids to be drawn")
    for grid in drawn.all():
        titles = grid.locator(".role-title-text text").all_text_contents()
        assert sorted(titles) == sorted(["All", *(chart.title for chart in charts)])


def take_picture(page: Page, path: Path) -> None:
    """The README's picture, which `make pictures` keeps: from the reducer's code to the answer of a query."""
    page.locator(".jp-CodeCell:has-text('student_event_reducer(')").evaluate("node => node.scrollIntoView()")
    page.mouse.move(5, 600)
    page.screenshot(path=path)


class Debugging:
    """JupyterLab's debugger on the notebook that is open, by its buttons."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.click('.lm-TabBar-tab[data-id="jp-debugger-sidebar"]')
        until(self._on, timeout=60, what="the debugger to be on")

    def _on(self) -> bool:
        """Whether it is on; where a click came before the notebook heard of its kernel, it clicks again."""
        bug = self.page.locator(f"{NOTEBOOK} .jp-DebuggerBugButton")
        if bug.get_attribute("aria-pressed") != "true":
            bug.click()
        from playwright.sync_api import TimeoutError as TookTooLong

        with suppress(TookTooLong):
            self.page.wait_for_selector(f"{NOTEBOOK} .cm-gutter.cm-breakpoint-gutter", timeout=10_000)
            return True
        return False

    def cell(self, number: int) -> Locator:
        """A code cell, from 0."""
        return self.page.locator(f"{NOTEBOOK} .jp-CodeCell").nth(number)

    def toggle(self, number: int, line: int) -> None:
        """Click into the gutter of a cell, beside a line (from 1); a breakpoint comes or goes."""
        points = self.page.locator(".jp-DebuggerBreakpoint")
        before = points.count()
        # the first element of a gutter is a hidden one, which gives it its width
        self.cell(number).locator(".cm-gutter.cm-breakpoint-gutter .cm-gutterElement").nth(line).click()
        until(lambda: points.count() != before, what="the list of breakpoints to change")

    def run(self, number: int) -> None:
        """Run a cell; does not wait."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def stopped(self) -> tuple[list[str], str]:
        """Wait until it shows where it stopped: the frames, innermost first, and the line that is marked."""
        self.page.wait_for_selector(".jp-DebuggerCallstackFrame", timeout=20_000)
        marked = self.page.locator(f"{NOTEBOOK} .jp-DebuggerEditor-highlight")
        marked.wait_for()
        frames = self.page.locator(".jp-DebuggerCallstackFrame").all_inner_texts()
        return [frame.replace("\n", " ") for frame in frames], marked.inner_text().strip()

    def variable(self, name: str) -> str:
        """What the panel shows of a variable: its value, or of what kind it is."""
        label = self.page.locator(".jp-DebuggerVariables-name", has_text=re.compile(f"^{name}$"))
        return label.locator("+ .jp-DebuggerVariables-detail").inner_text(timeout=10_000)

    def go_on(self) -> None:
        """Press 'Continue', and wait until it did."""
        frame = self.page.locator(".jp-DebuggerCallstackFrame").first.element_handle()
        self.page.click('jp-button[data-command="debugger:continue"]')
        frame.wait_for_element_state("hidden")

    def ran(self, number: int) -> str:
        """Wait until a cell is done; what stands below it."""
        done = self.cell(number).locator(".jp-InputArea-prompt", has_text=re.compile(r"^\[\d+\]:"))
        done.wait_for(timeout=30_000)
        self.page.wait_for_selector(IDLE, state="attached")
        return "\n".join(self.cell(number).locator(".jp-OutputArea-output").all_inner_texts())


@contextmanager
def a_learner(url: str) -> Iterator[None]:
    """A learner who types `SENT` events into the app, and is done at the end."""
    about = {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": "u0"}

    async def type_in() -> None:
        patient = aiohttp.ClientWSTimeout(ws_close=30.0)
        async with aiohttp.ClientSession() as session, session.ws_connect(url, timeout=patient) as ws:
            await ws.send_json(about)
            for n in range(SENT):
                await ws.send_json({"event": "keystroke", "source": SOURCE, "n": n})
                await asyncio.sleep(0.01)

    typing = threading.Thread(target=lambda: asyncio.run(type_in()))
    typing.start()
    try:
        yield
    finally:
        typing.join(30)
        assert not typing.is_alive()


@pytest.mark.parametrize("loop", ["kernel", pytest.param("thread", marks=pytest.mark.soak)])
def test_the_debugger_stops_in_a_cell_and_in_a_reducer(
    lab: Lab, page: Page, loop: str, tmp_path: Path
) -> None:
    """By the buttons of JupyterLab: it stops at the line, shows values, goes on, and no event is lost."""
    lab.workspace.mkdir()
    (lab.workspace / "loop").write_text(loop)  # as `%lo loop` does
    cells = [nbformat.v4.new_code_cell(each) for each in DEBUGGED]  # type: ignore[no-untyped-call]
    write_notebook(lab.folder / "debug.ipynb", cells)
    page.set_viewport_size({"width": 1400, "height": 900})
    opened(page, lab.address("lab/tree/debug.ipynb"), f"{NOTEBOOK} .jp-Notebook .jp-Cell")
    wait_for_kernel(page)
    debugger = Debugging(page)

    debugger.toggle(0, line=3)
    debugger.run(0)
    frames, line = debugger.stopped()
    assert [frame.split()[0] for frame in frames] == ["double", "<module>"], "and none of the kernel's own"
    assert line == "return y"
    assert (debugger.variable("x"), debugger.variable("y")) == ("21", "42")
    page.screenshot(path=tmp_path / f"cell-{loop}.png")
    debugger.go_on()
    assert "42" in debugger.ran(0)

    debugger.toggle(1, line=5)
    debugger.run(1)
    debugger.ran(1)
    debugger.run(2)
    url = debugger.ran(2).strip()
    with a_learner(url):
        frames, line = debugger.stopped()
        assert [frame.split()[0] for frame in frames] == ["seen"]
        assert line == "return {'count': count}, {'count': count}"
        assert debugger.variable("event") == "dict"
        assert debugger.variable("count") in ("0", "1")
        page.screenshot(path=tmp_path / f"reducer-{loop}.png")
        debugger.toggle(1, line=5)
        debugger.go_on()
    debugger.run(3)
    until(lambda: "counted" in debugger.ran(3), what="the app to answer")
    assert f"{SENT} counted" in debugger.ran(3)
