"""Cards of `lo`, jobs and errors: what they say, and that nothing in them gets loose."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.notebook.cards import (
    AppFacts,
    ReducerFacts,
    errors_html,
    errors_text,
    job_html,
    job_text,
    observer_html,
    observer_text,
)

VOID = {"br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a card, its text, and where it points to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It closes the one that was opened last."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data


@dataclass
class Work:
    """A job as a card sees one."""

    name: str = "replay of log.gz"
    done: int = 0
    total: int = 0
    note: str = ""
    status: str = "running"
    seconds: float = 1.5
    error: BaseException | None = None


def facts(text: str = "x", number: int = 3) -> AppFacts:
    """Facts with the same text everywhere."""
    reducer = ReducerFacts(
        id=text, context=text, status=text, events=number, errors=number, behind=number, last_error=text
    )
    return AppFacts(
        url=text,
        link=text,
        loop=text,
        store=text,
        workspace=text,
        owner=text,
        events=number,
        learners=number,
        connections=number,
        reducers=[reducer],
        errors=[text],
    )


@given(text=st.text() | st.sampled_from(['"><script>alert(1)</script>', "</details><img src=x>", "'&<"]))
def test_no_text_becomes_markup(text: str) -> None:
    """Whatever ids, messages and tracebacks hold, the elements are those of the card, well nested."""
    log = ErrorLog()
    log.add(text, ValueError(text))
    failed = Work(name=text, note=text, status="failed", error=ValueError(text))
    for made, plain in [
        (observer_html(facts(text)), observer_html(facts())),
        (job_html(failed), job_html(Work(name="x", note="x", status="failed", error=ValueError("x")))),
    ]:
        if text.strip():
            assert Page(made).tags == Page(plain).tags
    assert set(Page(errors_html(log)).tags) <= {"div", "details", "summary", "span", "b", "pre"}


def test_nothing_comes_from_elsewhere() -> None:
    """A card loads nothing: no script, style sheet, image or frame; its one link is the app's address."""
    card = facts("http://127.0.0.1:9999/")
    page = Page(observer_html(card) + job_html(Work(total=4)) + errors_html([]))
    assert not {"script", "style", "link", "img", "iframe"} & set(page.tags)
    assert [value for name, value in page.attributes if name in ("href", "src")] == ["http://127.0.0.1:9999/"]
    assert "url(" not in "".join(value or "" for _, value in page.attributes)


def test_the_card_of_one_who_follows_counts_no_sources() -> None:
    """They are connected to the owner: "no source connected" would be untrue."""
    told = AppFacts(url="http://127.0.0.1:9999/", owner="another process", events=5, connections=None)
    for card in (observer_text(told), Page(observer_html(told)).text):
        assert "5 so far, from 0 learners" in card
        assert "connected" not in card


def test_the_card_of_lo() -> None:
    """It says where the app answers, whose the workspace is, what came in, and what fails, in both forms."""
    told = AppFacts(
        url="http://127.0.0.1:9999/",
        workspace="default",
        events=1234,
        learners=1,
        connections=2,
        reducers=[ReducerFacts(id="count", context="src", status="live", events=1200, errors=3, behind=34)],
        errors=["reducer 'count': KeyError: 'doc_id'"],
    )
    for card in (observer_text(told), Page(observer_html(told)).text):
        for part in (
            "http://127.0.0.1:9999/",
            "default, owned by this notebook",
            "1,234 so far, from 1 learner",
        ):
            assert part in card
        for part in (
            "2 sources connected",
            "count",
            "1,200",
            "live, 34 events behind",
            "KeyError",
            "lo.errors",
        ):
            assert part in card


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (Work(), "replay of log.gz: running, 1.5 s"),
        (Work(done=5, total=20), "replay of log.gz: running, 5 of 20 (25%), 1.5 s"),
        (Work(done=5000, note="events"), "replay of log.gz: running, 5,000 events, 1.5 s"),
        (Work(status="done", seconds=61), "replay of log.gz: done, 1 min 01 s"),
        (
            Work(status="failed", error=OSError("gone\naway")),
            "replay of log.gz: failed, OSError: gone away, 1.5 s",
        ),
    ],
)
def test_a_job_says_how_far_it_is(job: Work, line: str) -> None:
    """Status, progress, error and time are in one line, and in a card with a bar while it runs."""
    assert job_text(job) == line
    page = Page(job_html(job))
    assert ("progress" in page.tags) == (job.status == "running")
    assert (("max", "20") in page.attributes) == (job.total == 20)


def test_errors_unfold_to_their_tracebacks() -> None:
    """Each entry is a line with place, kind, message and count, and holds its traceback."""
    log = ErrorLog()
    for _ in range(2):
        try:
            raise KeyError("doc_id")
        except KeyError as error:
            log.add("reducer 'count'", error)
    log.add("source", "a frame of 20 MiB", kind="TooLarge")
    for text in (errors_text(log), Page(errors_html(log)).text):
        for part in ("reducer 'count'", "KeyError: 'doc_id'", "(2 times)", "Traceback", "TooLarge", "20 MiB"):
            assert part in text
        for line in log[0].traceback.splitlines():  # each says where, the last one only what is known
            assert line in text
    assert Page(errors_html(log)).tags.count("details") == 1
    log.add("source", "a frame of 30 MiB", kind="TooLarge")
    for text in (errors_text(log), Page(errors_html(log)).text):
        for part in ("(2 times, 1 with another message)", "in 1 of 2, such as:", "    a frame of 30 MiB"):
            assert part in text
    assert errors_text([]) == "nothing went wrong so far"
    assert "Nothing went wrong" in errors_html([])
