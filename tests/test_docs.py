"""The documentation is whole, is true, and names everything that is public.

Its examples are run in a real kernel, page by page: each block marked ``python`` is a cell, and a block
marked ``text`` right after it is what the cell shows (``...`` stands for anything). Blocks marked ``py`` are
not run.
"""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, get_args
from urllib.parse import unquote, urlsplit

import pytest
from conftest import StartKernel
from harness import Result, RunningKernel
from waiting import until

import lo_kernel
from lo_kernel.app.charts import Kind
from lo_kernel.settings import Settings, env_name

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = ROOT / "README.md"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LO_NAME = re.compile(r"(?<![\w.`/-])lo((?:\.[a-z_]+)+)")
_COMMAND = re.compile(r"(?:\blo-kernel|python -m lo_kernel|python lo_kernel/)((?: +[^\s`#|]+)*)")
_LOOSE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Example:
    """A cell of a page, the line it stands on, and what it shows (None: the page doesn't say)."""

    line: int
    code: str
    shows: str | None


class Links(HTMLParser):
    """What a built page refers to, and the places in it that can be referred to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.needs: list[str] = []
        self.places: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag refers to."""
        given = {name: value or "" for name, value in attrs}
        if given.get("id"):
            self.places.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif "src" in given:
            self.needs.append(given["src"])
        elif tag == "link":
            self.needs.append(given.get("href", ""))


@cache
def hook() -> ModuleType:
    """The module that fills in what pages take from the code."""
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "_hooks" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def text_of(page: Path) -> str:
    """A page's Markdown, with what it takes from the code."""
    filled = hook().fill(page.read_text(encoding="utf-8"))
    assert isinstance(filled, str)
    return filled


def written(page: Path) -> str:
    """A page's Markdown as a person wrote it."""
    return page.read_text(encoding="utf-8")


def code_of(page: Path) -> Iterator[str]:
    """Everything on a page that is marked as code."""
    source = written(page)
    for _, block in _BLOCK.findall(source):
        yield block
    yield from _SPAN.findall(_BLOCK.sub("", source))


def examples_of(page: Path) -> list[Example]:
    """The cells of a page, in order."""
    source = written(page)
    blocks = list(_BLOCK.finditer(source))
    found = []
    for place, block in enumerate(blocks):
        if block[1] != "python":
            continue
        after = blocks[place + 1] if place + 1 < len(blocks) else None
        told = after if after and not source[block.end() : after.start()].strip() else None
        shows = told[2] if told is not None and told[1] == "text" else None
        found.append(Example(source.count("\n", 0, block.start()) + 2, block[2], shows))
    return found


def shown(result: Result) -> str:
    """What a reader sees of a cell, without charts: what it printed, and its value or its error."""
    if result.status == "error":
        return f"{result.text}{result.error.splitlines()[-1]}\n"
    return f"{result.text}{result.value}\n"


def options_of(command: str) -> set[str]:
    """The options that the help of a command names."""
    helped = hook().help_of(*([command] if command else []))
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", helped.replace("--[no-]", "--no-")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as built."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    said = built.stdout + built.stderr
    assert built.returncode == 0, said
    assert "WARNING" not in said, said
    return folder


def test_every_page_is_built(site: Path) -> None:
    """The site builds without a warning, and has every page."""
    assert {page.with_suffix(".html").name for page in PAGES} <= {path.name for path in site.glob("*.html")}


def test_links_lead_somewhere(site: Path) -> None:
    """Each link inside the documentation leads to a page that is there, and to a place on it."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.glob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.needs):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not link or path.name in ("404.html", "search.html"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                broken.append(f"{path.name}: {link} (no such place)")
    assert not broken


def test_pages_need_no_network(site: Path) -> None:
    """No page loads a script, a style or a picture from elsewhere."""
    loaded = {need for path in site.rglob("*.html") for need in Links(path.read_text(encoding="utf-8")).needs}
    assert not [need for need in loaded if urlsplit(need).netloc]


def test_names_of_lo_are_documented() -> None:
    """Every public name of `lo` has a heading on its page, with its docstring below it."""
    page = written(DOCS / "lo.md")
    missing = [
        name
        for name in hook().names_of_lo()
        if f"### lo.{name}\n\n<!-- from the code: lo.{name} -->\n" not in page
    ]
    assert not missing, f"docs/lo.md: add '### lo.NAME' and the comment that fills it in for {missing}"


def test_settings_are_documented() -> None:
    """The settings page names every setting, its option and its variable, and how to use it."""
    page = text_of(DOCS / "settings.md")
    for spec in fields(Settings):
        assert f"| `{spec.name}` |" in page
        assert f"`{env_name(spec.name)}`" in page
        assert spec.metadata["help"] in page


def test_commands_are_documented() -> None:
    """Every command has its help on the settings page and a place on the page about launching."""
    reference, launching = text_of(DOCS / "settings.md"), written(DOCS / "launching.md")
    for command in hook().command_names():
        assert f"### `lo-kernel {command}`" in reference
        assert re.search(rf"`lo-kernel {command}\b", launching), f"docs/launching.md: lo-kernel {command}"


def test_public_names_of_the_package_are_documented() -> None:
    """Everything that `lo_kernel` offers stands on the settings page's list."""
    page = written(DOCS / "settings.md")
    assert not [name for name in lo_kernel.__all__ if f"`lo_kernel.{name}`" not in page]


def test_chart_kinds_are_documented() -> None:
    """Every kind of chart is explained."""
    page = written(DOCS / "dashboards.md")
    assert not [kind for kind in get_args(Kind) if f'`"{kind}"`' not in page]


def test_what_a_client_is_told_is_documented() -> None:
    """Every reason for which the app refuses an event is explained."""
    source = "".join(
        (ROOT / "lo_kernel" / path).read_text(encoding="utf-8")
        for path in ("app/ingest.py", "engine/events.py")
    )
    page = written(DOCS / "events.md")
    reasons = set(re.findall(r'reason="(\w+)"', source))
    assert reasons
    assert not [reason for reason in sorted(reasons) if f"`{reason}`" not in page]


def test_links_of_the_readme_lead_somewhere() -> None:
    """Each file that the README refers to is there."""
    found = re.findall(r"\]\(([^)#]+)", written(README))
    assert not [link for link in found if "://" not in link and not (ROOT / link).exists()]


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_names_that_a_page_mentions_exist(page: Path) -> None:
    """Each name of `lo`, command, option, setting and variable that a page mentions is there."""
    lo, commands = hook().an_observer(), hook().command_names()
    variables = {env_name(spec.name) for spec in fields(Settings)}
    wrong = []
    for code in code_of(page):
        for found in _LO_NAME.finditer(code):
            here = lo
            for name in found[1].split(".")[1:]:
                if not hasattr(here, name):
                    wrong.append(found[0])
                    break
                here = getattr(here, name)
        wrong += [name for name in re.findall(r"\bLO_KERNEL_[A-Z_]+", code) if name not in variables]
        wrong += [
            name
            for name in re.findall(r"\bLOKernel\.([a-z_]+)", code)
            if name not in {spec.name for spec in fields(Settings)}
        ]
        for found in _COMMAND.finditer(code):
            words = found[1].split(" -- ")[0].split()
            command = words[0] if words and words[0][0].islower() else ""
            if command and command not in commands:
                wrong.append(found[0])
                continue
            options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            wrong += [f"{found[0]} ({option})" for option in options - options_of(command)]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json_on_a_page_is_json(page: Path) -> None:
    """Each block of JSON can be read as JSON, so that it can be copied."""
    for kind, block in _BLOCK.findall(written(page)):
        if kind == "json":
            json.loads(block)


@pytest.mark.parametrize(
    ("page", "loop"),
    [(page, "kernel") for page in PAGES if examples_of(page)] + [(DOCS / "lo.md", "thread")],
    ids=lambda each: getattr(each, "name", each),
)
def test_examples_are_true(page: Path, loop: str, start_kernel: StartKernel) -> None:
    """Each example on a page runs in a kernel, from top to bottom, and shows what the page says."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    check = doctest.OutputChecker()
    for example in examples_of(page):
        result = kernel.execute(example.code, check=False, timeout=30)
        where = f"{page.name}, line {example.line}"
        if example.shows is None:
            assert result.status == "ok", f"{where}\n{result.error}"
        else:
            got = shown(result)
            assert check.check_output(example.shows, got, _LOOSE), (
                f"{where} shows\n{got}\nand the page says\n{example.shows}"
            )


@pytest.fixture
def other_origin(tmp_path: Path) -> Iterator[str]:
    """Address of an empty page that another server on this machine serves."""
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html><title>quiz</title>", encoding="utf-8")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "page"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.browser
def test_javascript_client_is_heard(page: Page, other_origin: str, shared_kernel: RunningKernel) -> None:
    """The client in JavaScript sends an event from a page of another origin, and the app takes it."""
    (snippet,) = (block for kind, block in _BLOCK.findall(written(DOCS / "events.md")) if kind == "js")
    address = shared_kernel.execute("print(lo.ingest_url)").text.strip()
    page.goto(other_origin)
    page.evaluate(f"(address) => {{ {snippet} }}", address)
    count = "len(lo.events.filter(learner='tc-testcase-grace', event='answer'))"
    until(lambda: shared_kernel.execute(count).value == "1", timeout=10, what="the event is there")
