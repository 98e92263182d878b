"""Fixtures of all tests, and what the run says about itself at its end.

A test may be a coroutine function: it runs on a new loop, to its end. Every test has a workspace and Jupyter
folders of its own. What a machine lacks (Chromium, redis-server) is named at the end, with how to get it;
with ``CI=true`` it fails the run, because a test that never runs holds nothing. What a machine can't be given
(IPv6) is named, too, and fails no run.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
from harness import (
    CHROMIUM_ARGS,
    HOW_TO_GET,
    KERNEL,
    RedisServer,
    RunningKernel,
    has_ipv6,
    isolated_environment,
    program,
    running_redis,
)

from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Browser as AsyncBrowser
    from playwright.sync_api import Browser, Page

T = TypeVar("T")

_NEEDS = {"browser": "chromium", "redis": "redis-server"}
_GIVEN = {"ipv6": (has_ipv6, "this machine has no IPv6")}  # or not: nothing can be installed for it
_LIMIT = (
    50.0  # seconds that a coroutine may take: a little under pytest's own limit, whose traceback says less
)


class Run(Protocol):
    """The `run` fixture: `run(coroutine, timeout=50)`."""

    def __call__(self, work: Coroutine[Any, Any, T], *, timeout: float = _LIMIT) -> T:
        """Run ``work`` on a new loop and give its result; `TimeoutError` after ``timeout`` seconds."""


class StartKernel(Protocol):
    """The `start_kernel` fixture: a new kernel process with each call."""

    def __call__(
        self,
        *,
        name: str = KERNEL,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        workspace: Path | None = None,
        timeout: float = 30.0,
    ) -> RunningKernel:
        """Start one; ``workspace`` None gives it one of its own."""


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _need(name: str) -> str:
    found = program(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {HOW_TO_GET[name]}")
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--soak` lets the tests run that take minutes; `--pictures` renews those of README and docs."""
    parser.addoption("--soak", action="store_true", help="run the tests that take minutes, too")
    parser.addoption("--pictures", action="store_true", help="take the pictures in docs/images anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `--soak`, tests marked so are not part of the run (and so not left out of it)."""
    if config.getoption("--soak"):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function as a test."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out whose program this machine lacks, before any of its fixtures cost time."""
    for marker, name in _NEEDS.items():
        if item.get_closest_marker(marker):
            _need(name)
    for marker, (given, without) in _GIVEN.items():
        if item.get_closest_marker(marker) and not given():
            pytest.skip(without)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, a run that left something out has failed."""
    lacks = {reason for reason, can_be_had in _left_out(session.config) if can_be_had}
    if lacks and _in_ci() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left out, and how to get it."""
    left_out = _left_out(config)
    if not left_out:
        return
    failed = _in_ci() and any(can_be_had for _, can_be_had in left_out)
    terminalreporter.section(
        "left out" + (", which fails the run because CI is set" if failed else ""), red=failed
    )
    for (reason, can_be_had), count in sorted(left_out.items()):
        note = "" if can_be_had else " (which fails no run)"
        terminalreporter.write_line(f"{count} test{'s'[: count > 1]}: {reason}{note}")


def _left_out(config: pytest.Config) -> dict[tuple[str, bool], int]:
    """How many tests were left out, by the reason and whether something can be done about it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    counts: dict[tuple[str, bool], int] = {}
    for report in reporter.stats.get("skipped", []) if reporter is not None else []:
        if hasattr(report, "context"):  # of a subtest: the test itself has run
            continue
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        left_out = reason, reason not in {without for _, without in _GIVEN.values()}
        counts[left_out] = counts.get(left_out, 0) + 1
    return counts


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of this test: every folder of ours, IPython's and Jupyter's below ``tmp_path``."""
    values = isolated_environment(tmp_path)
    for name in set(os.environ) - set(values):
        monkeypatch.delenv(name)
    for name, value in values.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Folder for screenshots: docs/images with `--pictures`, otherwise one that nobody keeps."""
    if not request.config.getoption("--pictures"):
        return tmp_path
    folder = Path(__file__).parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Folder for a workspace; not made yet."""
    return tmp_path / "workspace"


@pytest.fixture
def settings(workspace: Path) -> Settings:
    """Settings for an app in this process: own workspace, any free port, states in memory."""
    return Settings(workspace=str(workspace), port=0, store="memory")


@pytest.fixture
def run() -> Run:
    """Run a coroutine to its end, with a time limit, from a plain test."""

    def run_now(work: Coroutine[Any, Any, T], *, timeout: float = _LIMIT) -> T:
        async def limited() -> T:
            return await asyncio.wait_for(work, timeout)

        return asyncio.run(limited())

    return run_now


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[StartKernel]:
    """Start kernel processes: `start_kernel(name=, env=, arguments=, workspace=)`. They end with the test."""
    started: list[RunningKernel] = []

    def start(
        *,
        name: str = KERNEL,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        workspace: Path | None = None,
        timeout: float = 30.0,
    ) -> RunningKernel:
        own = {"LO_KERNEL_WORKSPACE": str(workspace)} if workspace is not None else {}
        root = tmp_path / f"kernel-{len(started)}"
        started.append(
            RunningKernel(root, name=name, env=own | dict(env or {}), arguments=arguments, timeout=timeout)
        )
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def kernel(start_kernel: StartKernel) -> RunningKernel:
    """One kernel process with a workspace of its own."""
    return start_kernel()


@pytest.fixture(scope="module")
def shared_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKernel]:
    """One kernel process for all tests of a module that leave it as they found it."""
    running = RunningKernel(tmp_path_factory.mktemp("kernel"))
    yield running
    running.stop()


@pytest.fixture
def chromium() -> str:
    """Path of a Chromium; without one the test is left out."""
    return _need("chromium")


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium, for plain tests (a coroutine test takes `open_browser`)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Page:
    """A page of a fresh browser."""
    return browser.new_page(viewport={"width": 1300, "height": 850})


@pytest.fixture
def open_browser(chromium: str) -> Callable[[], AbstractAsyncContextManager[AsyncBrowser]]:
    """For coroutine tests: `async with open_browser() as browser` gives a headless Chromium on their loop."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncBrowser]:
        from playwright.async_api import async_playwright

        async with async_playwright() as playwright:
            running = await playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
            yield running
            await running.close()

    return opened


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(_need("redis-server"), tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis: RedisServer) -> RedisServer:
    """A real redis-server, empty at the start of each test: `.url`, `.port`."""
    from redis import Redis

    with Redis(port=_redis.port) as client:
        client.flushall()
    return _redis


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Address of `redis_server`, as the setting `store` takes it."""
    return redis_server.url
