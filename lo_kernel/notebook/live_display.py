"""A chart under a cell that changes in place while its answer does.

The cell that shows it publishes one `display_data`, which already holds the answer as it is. From then on a
task on the app's loop sends `update_display_data` with the same display id, and with the header of that cell
as its parent, so that it neither matters which cell ran last nor which thread the app lives on.

What was measured in front ends, and decides what is in the bundles:

- JupyterLab draws a PNG itself for each update without one, and writes it into the document. So an update
  carries a small placeholder while the chart is live, and the last one doesn't, which leaves a true picture.
- `text/html` would outrank the chart in JupyterLab. A console prints `text/plain` of the first bundle and
  ignores updates; a PNG in the first one would start an image viewer.
- An executor without a person (nbclient) only takes outputs of the cell that runs: `settled` sends under it.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from lo_kernel.app.chart_data import Row
from lo_kernel.app.charts import MIME, Spec
from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import DashboardError

__all__ = [
    "Checked",
    "Drawn",
    "KernelScreen",
    "LiveDisplay",
    "LiveDisplays",
    "LiveSource",
    "Screen",
    "check_now",
]

Bundle = dict[str, Any]

INTERVAL = 0.5  # seconds between two updates, at least
IDLE = 3600.0  # seconds without a change after which a chart stops by itself
_PATIENCE = 2.0  # seconds that a cell waits for the first answer of an app on another thread
_FRESH = 1.0  # seconds for which a checked answer is shown as it is


class Checked(NamedTuple):
    """An answer that can be drawn, None where it takes longer, and when that was on the monotonic clock."""

    rows: list[dict[str, Any]] | None
    when: float


class LiveSource(Protocol):
    """Where a live display gets its answer from: a query that goes on."""

    async def rows(self) -> list[dict[str, Any]]:
        """The answer as it is now; runs on the app's loop."""

    async def now(self) -> list[dict[str, Any]]:
        """The same for a cell that holds the loop: one step gives it, unless it has to be waited for."""

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call ``callback`` on the app's loop when the answer may have changed; returns what ends it."""


class Drawn(Protocol):
    """A chart, or several in one: rows in, a specification or a text out."""

    def spec(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> Spec:
        """The Vega-Lite specification."""

    def text(self, rows: Sequence[Row], *, subtitle: str | Sequence[str] = "") -> str:
        """The same as text."""

    def counted(self, rows: Sequence[Row]) -> str:
        """How much there is, in words."""

    def problem(self, rows: Sequence[Row]) -> str:
        """Why these rows can't be drawn; empty where they can."""


class Screen(Protocol):
    """What a chart is shown on: the outputs of a notebook's cells."""

    def cell(self) -> Any:
        """The cell that runs now, as `update` takes it."""

    def show(self, bundle: Bundle, display_id: str) -> None:
        """Put a new output under the cell that runs now."""

    def update(self, bundle: Bundle, display_id: str, cell: Any) -> None:
        """Replace what the outputs with this id hold; ``cell`` is the parent. Safe from any thread."""


class KernelScreen:
    """The outputs of a kernel's front ends."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def cell(self) -> Any:
        """The request whose code runs now."""
        return self._kernel.get_parent("shell")

    def show(self, bundle: Bundle, display_id: str) -> None:
        """Publish `display_data` the ordinary way: after what the cell printed, and seen by `%%capture`."""
        self._kernel.shell.display_pub.publish(bundle, {}, transient={"display_id": display_id})

    def update(self, bundle: Bundle, display_id: str, cell: Any) -> None:
        """Send `update_display_data` for ``cell``, whichever ran since."""
        # Not `display_pub.publish`: its parent is the thread's, which for the app's own thread is the cell
        # that ran last; and front ends route an update by its parent first.
        self._kernel.session.send(
            self._kernel.iopub_socket,
            "update_display_data",
            {"data": bundle, "metadata": {}, "transient": {"display_id": display_id}},
            parent=cell,
            ident=b"display_data",
        )


class LiveDisplay:
    """A live chart. It is shown as the last value of a cell, or where :meth:`show` is called.

    It changes at most twice a second, and only when its answer did, until its cell runs again,
    :meth:`stop`, or an hour without a change. ``await chart.settled()`` waits until it shows the answer of
    now.
    """

    def __init__(
        self,
        displays: LiveDisplays,
        chart_id: str,
        chart: Drawn,
        source: LiveSource,
        *,
        address: str = "",
        checked: Checked | None = None,
        interval: float = INTERVAL,
        idle: float = IDLE,
    ) -> None:
        self.id = chart_id
        self.chart = chart
        self.address = address
        self.updates = 0  # sent so far, the first display not counted
        self._displays = displays
        self._screen = displays.screen
        self._bridge = displays.bridge
        self._source = source
        self._checked = checked  # for the first display
        self._interval = interval
        self._idle = idle
        self._cell: Any = None
        self._display_id = ""
        self._rows: list[dict[str, Any]] | None = None  # as shown; None: no answer yet
        self._problem = ""  # why the last answer failed
        self._publisher: object | None = None
        self._task: object = None  # held, because a loop holds its tasks only weakly
        self._sent = 0.0  # when, on the monotonic clock
        self._one_at_a_time = asyncio.Lock()
        # Sending happens on the app's loop and, for the last update, on whatever thread calls `stop`.
        self._sending = threading.Lock()
        self._live = False
        self._changed = asyncio.Event()
        self._placeholder_shown = False

    @property
    def live(self) -> bool:
        """Whether it still changes."""
        return self._live

    def show(self) -> None:
        """Show it under the cell that runs now, with the answer as it is now, and keep it up to date.

        Wherever else a chart of this id was shown, this one takes over. An answer that can't be had raises
        here, in the cell, and so does a ``field`` that isn't one of its columns.
        """
        checked, self._checked = self._checked, None
        if checked is None or time.monotonic() - checked.when > _FRESH:
            checked = check_now(self._bridge, self.chart, self._source)
        rows = checked.rows
        cell = self._screen.cell()
        self._displays.take_over(self, cell)
        with self._sending:
            if cell != self._cell:  # an output of its own, so that an older one can stay as it was
                self._display_id = self._displays.display_id(self.id)
            self._cell = cell
            self._rows = rows
            self._problem = ""
            self._live = True
            self._placeholder_shown = False
            self._screen.show(self._bundle(placeholder=False), self._display_id)
            publisher = self._publisher = object()
        self._task = self._bridge.start(self._publish(publisher))

    def stop(self, reason: str = "stopped") -> None:
        """Stop changing, and leave a true picture in the notebook. Safe from any thread."""
        with self._sending:
            if not self._live:
                return
            self._end()
            self._send(reason=reason, placeholder=False)

    async def settled(self, timeout: float = 60.0) -> None:
        """Wait until it shows the answer of now, as a picture to be saved; shows it first where it isn't yet.

        For notebooks that run without a person: only what is sent while a cell runs gets into the document.
        ``timeout`` is in seconds; after it, :class:`TimeoutError`.
        """
        if self._cell is None:
            self.show()
        cell = self._screen.cell()
        await self._bridge.run(asyncio.wait_for(self._refresh(cell=cell, settle=True), timeout))

    def give_way(self, cell: Any) -> None:
        """Stop: a chart of the same id is shown in ``cell`` from now on. An output elsewhere says so."""
        with self._sending:
            if self._live and cell != self._cell:
                self._send(reason="replaced by a newer one", placeholder=False)
            self._end()

    def _ipython_display_(self) -> None:
        self.show()

    def __repr__(self) -> str:
        return f"<chart {self.id}: {'live' if self._live else 'not live'}, {self.updates} updates>"

    async def _publish(self, me: object) -> None:
        """Update while live, on the app's loop."""
        last_change = time.monotonic()
        try:
            unsubscribe = self._source.subscribe(self._changed.set)
        except Exception as error:
            self._displays.report(self.id, error)
            self.stop(f"stopped: {error}")
            return
        self._changed.set()  # what happened between the first display and now
        try:
            while self._publisher is me:
                try:
                    async with asyncio.timeout(max(0.0, last_change + self._idle - time.monotonic())):
                        await self._changed.wait()
                except TimeoutError:
                    self.stop(f"stopped: no change for {_duration(self._idle)}")
                    return
                if await self._refresh(me=me):
                    last_change = time.monotonic()
        finally:
            unsubscribe()

    async def _refresh(self, *, me: object | None = None, cell: Any = None, settle: bool = False) -> bool:
        """Ask for the answer, and send an update if it changed; says whether it did.

        With ``settle`` an update without placeholder is sent also where the last one had it.
        """
        async with self._one_at_a_time:
            await asyncio.sleep(self._sent + self._interval - time.monotonic())
            self._changed.clear()
            rows, problem = self._rows, ""
            try:
                rows = await self._source.rows()
            except Exception as error:
                # The chart goes on: what broke may be mended by the next cell. What was shown stays.
                problem = f"{type(error).__name__}: {error}"
                self._displays.report(self.id, error)
            with self._sending:
                if not self._live or (me is not None and self._publisher is not me):
                    return False
                changed = rows != self._rows or problem != self._problem
                drawn, self._rows, self._problem = self._rows, rows, problem
                if not changed and not (settle and self._placeholder_shown):
                    return False
                try:
                    self._send(placeholder=not settle, cell=cell)
                except Exception as error:
                    # The same where an answer can't be drawn, as by a specification of one's own.
                    self._rows, self._problem = drawn, f"{type(error).__name__}: {error}"
                    self._displays.report(self.id, error)
                    self._send(placeholder=not settle, cell=cell)
                return changed

    def _end(self) -> None:
        self._live = False
        self._publisher = None
        with suppress(RuntimeError):  # the loop is closed, and the publisher gone with it
            self._bridge.call_soon(self._changed.set)  # wakes the publisher, which sees that it is over

    def _send(self, *, placeholder: bool, cell: Any = None, reason: str = "") -> None:
        self._sent = time.monotonic()
        self._placeholder_shown = placeholder
        bundle = self._bundle(placeholder=placeholder, reason=reason)
        self._screen.update(bundle, self._display_id, cell if cell is not None else self._cell)
        self.updates += 1

    def _bundle(self, *, placeholder: bool, reason: str = "") -> Bundle:
        rows: list[Row] = list(self._rows or [])
        # Only what stays true: a reload of the browser, a restart of the kernel and the document keep this.
        now = time.strftime("%H:%M:%S")
        state = f"{reason} at {now}" if reason else f"as of {now}"
        lines = [" · ".join(filter(None, [self.chart.counted(rows), state, self.address]))]
        if self._problem:
            lines.append(f"the answer failed: {' '.join(self._problem.split())[:100]}")
        bundle: Bundle = {
            MIME: self.chart.spec(rows, subtitle=lines),
            "text/plain": self.chart.text(rows, subtitle=lines),
        }
        if placeholder:
            bundle["image/png"] = _PLACEHOLDER
        return bundle


class LiveDisplays:
    """The live charts of one notebook: one publisher per id.

    ``on_error`` is told about an answer that failed in the background: the chart's id and the exception.
    """

    def __init__(
        self,
        screen: Screen,
        bridge: LoopBridge,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self.screen = screen
        self.bridge = bridge
        self._on_error = on_error
        self._shown: dict[str, LiveDisplay] = {}
        self._outputs = 0

    def make(
        self,
        chart_id: str,
        chart: Drawn,
        source: LiveSource,
        *,
        address: str = "",
        checked: Checked | None = None,
    ) -> LiveDisplay:
        """A chart, not shown yet.

        ``chart_id`` is the same each time its cell runs; ``address`` is that of its page. Shown at once, it
        has the answer that was ``checked``, without asking for it again.
        """
        return LiveDisplay(self, chart_id, chart, source, address=address, checked=checked)

    @property
    def shown(self) -> Mapping[str, LiveDisplay]:
        """By id, what was shown last."""
        return dict(self._shown)

    def display_id(self, chart_id: str) -> str:
        """The id of a new output."""
        self._outputs += 1
        return f"lo-chart-{chart_id}-{self._outputs}"

    def take_over(self, display: LiveDisplay, cell: Any) -> None:
        """Make ``display`` the one of its id, shown in ``cell``."""
        before = self._shown.get(display.id)
        if before is not None:
            before.give_way(cell)
        self._shown[display.id] = display

    def report(self, chart_id: str, error: Exception) -> None:
        """Pass on that an answer failed."""
        if self._on_error is not None:
            self._on_error(chart_id, error)

    def close(self) -> None:
        """Stop all charts, each with a true picture: the kernel ends."""
        for display in self._shown.values():
            display.stop("stopped with its kernel")


def check_now(bridge: LoopBridge, chart: Drawn, source: LiveSource) -> Checked:
    """The answer, where it is there within two seconds; on the app's own loop, where it needs no waiting.

    Raises why it can't be had, and :class:`DashboardError` where it can't be drawn as ``chart``.
    """
    rows: list[dict[str, Any]] | None
    if bridge.on_loop:
        rows = _at_once(source.now())
    else:
        try:
            rows = bridge.run_sync(asyncio.wait_for(source.rows(), _PATIENCE))
        except TimeoutError:
            rows = None
    if problem := chart.problem(rows or []):
        raise DashboardError(problem)
    return Checked(rows, time.monotonic())


def _at_once(work: Coroutine[Any, Any, list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
    """The result of a coroutine that doesn't have to wait for anything, else None.

    A cell that isn't async runs on the loop and holds it, so nothing can be awaited there. But what is in
    memory is there without waiting, and one step of the coroutine gives it.
    """
    try:
        work.send(None)
    except StopIteration as finished:
        rows: list[dict[str, Any]] = finished.value
        return rows
    work.close()
    return None


def _duration(seconds: float) -> str:
    return "an hour" if seconds == 3600 else f"{seconds:g} s"


def _placeholder_png() -> str:
    """One transparent pixel, as base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 6, 0, 0, 0)
    pixel = zlib.compress(b"\0\0\0\0\0")
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode("ascii")


_PLACEHOLDER = _placeholder_png()
