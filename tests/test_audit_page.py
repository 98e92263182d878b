"""The record as a page, in a real browser: it stands by itself, and a parent can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CHROMIUM_ARGS
from page_parts import barriers
from playwright.async_api import async_playwright

from lo_kernel.kernel.audit.log import AuditLog
from lo_kernel.kernel.audit.page import to_html
from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.recorder import Recorder
from lo_kernel.kernel.audit.verify import verify

LONG = "x = 1\n" + "a_name_without_any_space_in_it_" * 20 + " = await lo.query('words', student='tc-ben')"


@pytest.fixture
def told(workspace: Path, tmp_path: Path) -> Iterator[Recorder]:
    """A record of two analyses, a page, a reveal and an erasure."""
    log = AuditLog(workspace, state=tmp_path / "state")
    log.open()
    recorder = Recorder(log)
    recorder.write("run", {"role": "kernel", "user": {"name": "grace", "from": "system"}, "pid": 1})
    for number, code in enumerate((LONG, "<script>document.title = 'gone'</script>", "1 + 1")):
        header = {"msg_id": f"m{number}", "session": "s"}
        token = recorder.begin("execute", header, {"silent": False, "history": True}, {"code": code})
        if number < 2:
            recorder.record("query", "jupyter-helper: words", ["tc-ada", "tc-ben"])
        recorder.end(token)
    with recorder.on_behalf("read", "/dashboards/class"):
        recorder.record("query", "my_module: words", ["tc-ada"])
    recorder.act("reveal", learners=["tc-ada"], texts={"reason": "consent forms"})
    recorder.act("erase", events=3, asked={"user": "alan", "at": "command line"})
    yield recorder
    log.close()


def page_of(told: Recorder, student: str | None = None) -> str:
    """The record as a page."""
    reader = AuditReader(told.log.workspace)
    return to_html(
        reader.events(student=student),
        workspace="study",
        verdict=verify(told.log.workspace, state=told.log.state),
        student=student,
        others=reader.aliases.table().values(),
    )


def test_a_page_for_a_parent_names_no_other_learner(told: Recorder) -> None:
    """Ids of others are left out of the code that is shown; in the record's own page they stand."""
    assert "tc-ben" in page_of(told)
    theirs = page_of(told, "tc-ada")
    assert "tc-ben" not in theirs
    assert "(another learner)" in theirs
    assert "<strong>2</strong>analyses have read it" in theirs


def test_deeds_are_told_in_words(told: Recorder) -> None:
    """Who asked for names and why, and who had a learner erased from where."""
    page = page_of(told)
    assert "Asked for the learners' names" in page.replace("&#x27;", "'")
    assert "Reason: consent forms" in page
    assert "Erased a learner" in page
    assert "by alan, command line" in page


def test_texts_that_were_deleted_are_told(told: Recorder) -> None:
    """A deletion that is on record doesn't break it, and the page doesn't claim that all is there."""
    assert "left out of it" not in page_of(told)
    told.forget("tc-ben")
    page = page_of(told)
    assert "This record is as it was written." in page
    assert "left out of it" in page
    assert "1 text of it deleted, on record" in page


def test_a_record_that_was_changed_says_so_on_top(told: Recorder) -> None:
    """In place of the good word stands what is wrong."""
    (path,) = told.log.folder.glob("log-*")
    path.write_bytes(path.read_bytes().replace(b"my_module", b"no_module"))
    page = page_of(told)
    assert "This record is not as it was written" in page
    assert "is as it was written." not in page


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_needs_nothing_else_and_fits_a_phone(
    told: Recorder, chromium: str, tmp_path: Path, scheme: str
) -> None:
    """No request, no script, nothing wider than the screen, contrast for everyone, by day and by night."""
    path = tmp_path / "record.html"
    path.write_text(page_of(told), encoding="utf-8")
    asked: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        window = await browser.new_context(
            viewport={"width": 360, "height": 740},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        page = await window.new_page()
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(path.as_uri())
        for each in await page.locator("summary").all():
            await each.click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await page.title() == "How learners' data was used"
        shown = await page.locator("body").inner_text()
        assert "This record is as it was written" in shown
        assert "Read data of 2 learners: the answer of the query words" in shown
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 26)"}[scheme]
        assert await barriers(page) == []
        assert asked == [path.as_uri()]
        await browser.close()
