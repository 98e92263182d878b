"""Boots an aiohttp app on a loop, and ends it again: bind, build, serve, stop.

The port is bound before the app is made, so that whoever builds the app knows its address, and a client
that connects early waits in the backlog instead of being refused. The app runs on the loop that calls
`AppHost.start` (``loop="kernel"``), or on a thread with a loop of its own (``loop="thread"``). `AppHost.stop`
may be called from any loop, any number of times, and ends within `STOP_WITHIN` seconds.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import inspect
import logging
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import LOError, SettingsError
from lo_kernel.settings import Settings

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["STOP_WITHIN", "AppFactory", "AppHost", "bind_first", "port_candidates"]

log = logging.getLogger(__name__)

AppFactory = Callable[[], "web.Application | Awaitable[web.Application]"]

STOP_WITHIN = 1.8
"""Seconds that a stop may take: jupyter_client sends SIGTERM 2.5 s after it asked for the end."""

_REQUESTS_WITHIN = 0.4  # of these, what requests in progress get; the rest is for the app's own clean-up
_SWITCH_INTERVAL = 0.0005  # s; with CPython's 5 ms, each answer beside a busy cell takes 5 to 10 ms


def port_candidates(settings: Settings, *, asked_for: bool, last_port: int | None) -> tuple[int, ...]:
    """The ports to try, best first; after them any free one is taken.

    A port that somebody ``asked_for`` comes first. The default one comes after the workspace's last port,
    so that clients of a workspace find it again where it was.

    >>> port_candidates(Settings(), asked_for=False, last_port=40001)
    (40001, 9999)
    >>> port_candidates(Settings(port=8000), asked_for=True, last_port=40001)
    (8000, 40001)
    >>> port_candidates(Settings(port=0), asked_for=True, last_port=None)
    ()
    """
    wanted = (
        [settings.port, last_port or 0] if asked_for and settings.port else [last_port or 0, settings.port]
    )
    return tuple(dict.fromkeys(port for port in wanted if port))


def bind_first(host: str, ports: Iterable[int]) -> socket.socket:
    """A listening TCP socket on the first of ``ports`` that is free, or else on any free one.

    It listens at once: on Linux two sockets may be bound to one port as long as neither listens. Raises
    `SettingsError` where ``host`` is no address of this machine.
    """
    for port in (*ports, 0):
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise _no_such_host(host, error) from None
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if sys.platform == "win32":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:  # a port whose connections are in TIME_WAIT is free again; on Windows this would share it
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
            bound.setblocking(False)
        except OSError as error:
            bound.close()
            if port and error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                raise _no_such_host(host, error) from None
            raise
        return bound
    raise AssertionError("port 0 is always tried last")


def _no_such_host(host: str, error: Exception) -> SettingsError:
    why = getattr(error, "strerror", None) or str(error)
    return SettingsError(
        f"host: expected an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them, "
        f"got {host!r} ({why})"
    )


class AppHost:
    """Runs one aiohttp application.

    ``factory`` makes it and may be a coroutine function; it is called on the loop that the app will run on,
    after ``on_bind(host, port)``. ``ports`` are tried in order, then any free one is taken.

    >>> from aiohttp import web
    >>> async def demo() -> bool:
    ...     host = AppHost(Settings(port=0), web.Application)
    ...     await host.start()
    ...     served = host.port > 0
    ...     await host.stop()
    ...     return served
    >>> asyncio.run(demo())
    True
    """

    def __init__(
        self,
        settings: Settings,
        factory: AppFactory,
        *,
        ports: Iterable[int] | None = None,
        on_bind: Callable[[str, int], Any] | None = None,
    ) -> None:
        self.settings = settings
        self.port = 0
        self.app: web.Application | None = None
        self._factory = factory
        self._ports = tuple(ports) if ports is not None else (settings.port,)
        self._on_bind = on_bind
        self._runner: web.AppRunner | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: _LoopThread | None = None
        self._lock = threading.Lock()
        self._closing: concurrent.futures.Future[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the app runs on; an `LOError` before `start`."""
        if self._loop is None:
            raise LOError("the app has no loop yet: start() comes first")
        return self._loop

    @property
    def thread_ident(self) -> int | None:
        """Identifier of the app's own thread; None where it has none."""
        return self._thread.ident if self._thread is not None else None

    async def start(self) -> None:
        """Bind, build and serve. Where that fails, everything is undone and the error raised.

        An `LOError` where it takes longer than the setting ``start_within``.
        """
        if self._loop is not None:
            raise LOError("an AppHost is started once; make another one")
        opening: asyncio.Future[None]
        if self.settings.loop == "thread":
            self._thread = _LoopThread()
            self._loop = self._thread.start()
            opening = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._open(), self._loop))
        else:
            self._loop = asyncio.get_running_loop()
            opening = self._loop.create_task(self._open())
        try:
            await asyncio.wait({opening}, timeout=self.settings.start_within or None)
        finally:
            if not opening.done():
                await self._give_up(opening)
        if opening.cancelled():
            raise LOError(
                f"app={self.settings.app!r}: expected it to start within {self.settings.start_within} s "
                "(the setting start_within), and it has not"
            )
        opening.result()

    async def _give_up(self, opening: asyncio.Future[None]) -> None:
        """End a start-up that is under way; one that doesn't let itself be cancelled is left behind."""
        opening.cancel()
        await asyncio.wait({opening}, timeout=STOP_WITHIN)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._socket is not None:
            self._socket.close()

    async def stop(self) -> None:
        """End the app and release the port; awaited from any loop.

        Requests get a moment to finish, then the app's clean-up runs. `TimeoutError` where that takes longer
        than `STOP_WITHIN` seconds: the port is free then too.
        """
        if self._loop is None:
            return
        # shielded: whoever waits may give up, but the stop goes on for the others
        await asyncio.shield(asyncio.wrap_future(self.request_stop()))
        if self._thread is not None:
            self._thread.join()

    def request_stop(self) -> concurrent.futures.Future[None]:
        """Start to stop, from any thread; the future is done when the app's clean-up is."""
        with self._lock:
            if self._closing is None:
                self._closing = asyncio.run_coroutine_threadsafe(self._close(), self.loop)
            return self._closing

    async def _open(self) -> None:
        from aiohttp import web

        try:
            self._socket = bind_first(self.settings.host, self._ports)
            self.port = self._socket.getsockname()[1]
            if self._on_bind is not None:
                self._on_bind(self.settings.host, self.port)
            made = self._factory()
            app: object = await made if inspect.isawaitable(made) else made
            if not isinstance(app, web.Application):
                raise LOError(
                    f"app={self.settings.app!r}: expected an aiohttp.web.Application from the factory, "
                    f"got {type(app).__name__}"
                )
            self.app = app
            # access_log=None: what a request asks for, and of whom, is nobody's log line
            self._runner = web.AppRunner(
                app, handle_signals=False, access_log=None, shutdown_timeout=_REQUESTS_WITHIN
            )
            await self._runner.setup()
            await web.SockSite(self._runner, self._socket).start()
        except (SystemExit, KeyboardInterrupt) as error:  # either would end the loop, and so the kernel
            await self._close()
            raise LOError(
                f"app={self.settings.app!r}: expected an app, and its start-up raised {error!r}"
            ) from error
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        try:
            if self._runner is not None:
                async with asyncio.timeout(STOP_WITHIN):
                    await self._runner.cleanup()
        finally:
            if self._socket is not None:
                self._socket.close()
            with self._lock:
                if self._closing is None:  # a start that failed: there is nothing left to stop
                    self._closing = concurrent.futures.Future()
                    self._closing.set_result(None)
            if self._thread is not None:
                self._thread.end_soon()


class _LoopThread:
    """A daemon thread that runs a new loop, with a short switch interval as long as it does."""

    def __init__(self) -> None:
        self._over = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lo_kernel app", daemon=True)

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def start(self) -> asyncio.AbstractEventLoop:
        self._thread.start()
        return self._loop

    def end_soon(self) -> None:
        """Called on the loop: what is scheduled already still runs."""
        self._over = True
        self._loop.call_soon(self._loop.stop)

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(min(interval, _SWITCH_INTERVAL))
        try:
            asyncio.set_event_loop(self._loop)
            while not self._over:
                try:
                    self._loop.run_forever()
                except BaseException:  # of a task, or an `Interrupted` too late: the others go on
                    log.exception("A task of the app raised what ends a process; the app goes on.")
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            sys.setswitchinterval(interval)
            self._loop.close()
