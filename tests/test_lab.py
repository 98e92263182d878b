"""A real JupyterLab in a real browser: the launcher, the card, and a chart that grows under its cell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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


@dataclass(frozen=True)
class Lab:
    """A JupyterLab server: its address with a slash at the end, its token, and its folder."""

    url: str
    token: str
    folder: Path

    def address(self, path: str) -> str:
        """Where a browser goes."""
        return f"{self.url}{path}?token={self.token}"


@pytest.fixture
def lab(tmp_path: Path, environment: dict[str, str]) -> Iterator[Lab]:
    """A JupyterLab server with folders of its own, which holds the example."""
    pytest.importorskip("jupyterlab", reason='JupyterLab is not installed: pip install "lo-kernel[lab]"')
    folder, runtime = tmp_path / "notebooks", Path(environment["JUPYTER_RUNTIME_DIR"])
    folder.mkdir()
    shutil.copy(EXAMPLE, folder)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--allow-root"]
    options = [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=", "--ServerApp.answer_yes=True"]
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)

    def server() -> dict[str, Any] | None:
        assert process.poll() is None, (tmp_path / "lab.log").read_text()
        for found in runtime.glob("jpserver-*.json"):
            with suppress(ValueError):  # it is being written
                described: dict[str, Any] = json.loads(found.read_text())
                return described
        return None

    try:
        running = until(server, timeout=40, what="JupyterLab to start")
        assert running is not None
        yield Lab(running["url"], running["token"], folder)
    finally:
        process.terminate()
        process.wait(20)


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


def take_picture(page: Page, path: Path) -> None:
    """The README's picture, which `make pictures` keeps: from the reducer's code to the answer of a query."""
    page.locator(".jp-CodeCell:has-text('student_event_reducer(')").evaluate("node => node.scrollIntoView()")
    page.mouse.move(5, 600)
    page.screenshot(path=path)
