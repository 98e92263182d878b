"""Real parts for tests: a kernel process, a Redis server, a browser, and a place of their own for each.

The fixtures in ``conftest.py`` hand these out; tests import the classes for their annotations.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from waiting import until

KERNEL = "learning_observer"
CHROMIUM_ARGS = ("--no-sandbox", "--disable-quic", "--disable-background-networking")

_LOOK = 0.01  # seconds between two looks whether a process is gone
_PORTS_TAKEN = 3  # times that a kernel is started where others take its ports

Message = dict[str, Any]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    "redis-server": ("redis-server", "valkey-server"),
    "tmux": ("tmux",),
}
HOW_TO_GET = {
    "chromium": "apt-get install chromium, or python -m playwright install chromium",
    "redis-server": "apt-get install redis-server",
    "tmux": "apt-get install tmux",
}


def program(name: str) -> str | None:
    """Path of ``chromium``, ``redis-server`` or ``tmux`` on this machine, under any of its names."""
    found = next((path for each in _PROGRAMS[name] if (path := shutil.which(each))), None)
    return found or (_playwrights_chromium() if name == "chromium" else None)


def _playwrights_chromium() -> str | None:
    """The Chromium that `playwright install` fetched, if it did."""
    given = os.environ.get("PLAYWRIGHT_BROWSERS_PATH", "")
    cache = Path(given) if given else Path.home() / ".cache" / "ms-playwright"
    return next((str(path) for path in sorted(cache.glob("chromium-*/chrome-linux*/chrome"))), None)


def isolated_environment(root: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment whose workspace, IPython and Jupyter folders are all below ``root``, and no other's.

    Kernelspecs of the Python environment (``sys.prefix``) are still found; the user's own are not.
    """
    kept = {k: v for k, v in (os.environ if base is None else base).items() if not k.startswith("LO_KERNEL_")}
    for strange in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "JPY_PARENT_PID", "JPY_SESSION_NAME"):
        kept.pop(strange, None)
    return kept | {
        "LO_KERNEL_WORKSPACE": str(root / "workspace"),
        "LO_KERNEL_PORT": "0",
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_STATE_HOME": str(root / "state"),
        "IPYTHONDIR": str(root / "ipython"),
        "JUPYTER_DATA_DIR": str(root / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(root / "jupyter-config"),
        "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def has_ipv6() -> bool:
    """Whether this machine speaks IPv6 with itself."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@dataclass
class Result:
    """What one execution gave: its reply, and its outputs in the order they came."""

    reply: Message
    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> str:
        """``ok``, ``error`` or ``aborted``."""
        return str(self.reply["status"])

    @property
    def text(self) -> str:
        """All of stdout."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """All of stderr."""
        return self._stream("stderr")

    @property
    def value(self) -> str:
        """``text/plain`` of the cell's value; empty where it had none."""
        return next((str(b.get("text/plain", "")) for b in self._bundles("execute_result")), "")

    @property
    def bundles(self) -> list[dict[str, Any]]:
        """The MIME bundles of everything displayed, the cell's value included."""
        return self._bundles("display_data", "update_display_data", "execute_result")

    @property
    def error(self) -> str:
        """The traceback without colours; empty where there was no error."""
        if self.status != "error":
            return ""
        lines = [*self.reply.get("traceback", []), f"{self.reply.get('ename')}: {self.reply.get('evalue')}"]
        return _ANSI.sub("", "\n".join(lines))

    def _stream(self, name: str) -> str:
        return "".join(
            m["content"]["text"]
            for m in self.messages
            if m["msg_type"] == "stream" and m["content"]["name"] == name
        )

    def _bundles(self, *kinds: str) -> list[dict[str, Any]]:
        return [m["content"]["data"] for m in self.messages if m["msg_type"] in kinds]


class RunningKernel:
    """A kernel process and a client of it. Use it from one thread.

    ``environment`` is what the process was started with, ``log`` the file that holds its raw stdout and
    stderr, ``strays`` the IOPub messages that belonged to no execution that was being collected.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str = KERNEL,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        timeout: float = 30.0,
        connection: Mapping[str, Any] | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.environment = isolated_environment(root) | dict(env or {})
        self.workspace = Path(self.environment["LO_KERNEL_WORKSPACE"])
        self.log = root / "kernel.log"
        self.strays: list[Message] = []
        self._timeout = timeout
        runtime = Path(self.environment["JUPYTER_RUNTIME_DIR"])
        runtime.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"kernel_name": name, **(connection or {})}
        for left in reversed(range(_PORTS_TAKEN)):
            options["connection_file"] = str(runtime / f"kernel-{os.getpid()}-{time.monotonic_ns()}.json")
            self._output = self.log.open("wb")
            self.manager = KernelManager(**options)
            try:
                self._start(arguments)
                break
            except BaseException as error:
                self.stop(now=True)
                if connection or not left or not self._lost_its_ports(error):
                    raise

    def _start(self, arguments: Sequence[str]) -> None:
        self.manager.start_kernel(
            env=self.environment,
            extra_arguments=list(arguments),
            stdout=self._output,
            stderr=self._output,
            cwd=str(self.root),
        )
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self._ready()

    def _lost_its_ports(self, error: BaseException) -> bool:
        """Whether another program has taken a port between the choice of it and the kernel's start."""
        answered = isinstance(error, ValueError) and "<IDS|MSG>" in str(error)  # by that one
        return answered or "Address already in use" in self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Process id of the kernel."""
        pid = getattr(self.manager.provisioner, "pid", None)
        assert isinstance(pid, int), "the kernel has no process"
        return pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return bool(self.manager.is_alive())

    def execute(self, code: str, *, timeout: float = 30.0, check: bool = True, **options: Any) -> Result:
        """Run ``code`` and wait for its reply and its last output.

        ``check`` makes an error in the cell an `AssertionError` with the cell's traceback. ``options`` go on
        to `KernelClient.execute` (``silent``, ``store_history``, ``user_expressions``, ...).
        """
        result = self.collect(self.send(code, **options), timeout=timeout)
        if check and result.status != "ok":
            raise AssertionError(f"the cell failed:\n{result.error or result.status}\n{self.tail()}")
        return result

    def send(self, code: str, **options: Any) -> str:
        """Start ``code`` and return its message id, for `collect`; so a test can act while the cell is busy.

        A kernel ignores an interrupt before the cell runs: let the cell print, and wait with `next_message`.
        """
        options.setdefault("allow_stdin", False)
        return str(self.client.execute(code, **options))

    def collect(self, msg_id: str, *, timeout: float = 30.0) -> Result:
        """Wait for the reply and all outputs of an execution that `send` started."""
        deadline = time.monotonic() + timeout
        messages: list[Message] = []
        earlier, self.strays = self.strays, []

        def last(message: Message) -> bool:
            if message["parent_header"].get("msg_id") != msg_id:
                self.strays.append(message)
                return False
            messages.append(message)
            return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")

        if not [message for message in earlier if last(message)]:
            self._read(self.client.get_iopub_msg, last, deadline, "the cell's last output")
        reply = self._read(
            self.client.get_shell_msg,
            lambda message: bool(message["parent_header"].get("msg_id") == msg_id),
            deadline,
            "the cell's reply",
        )
        return Result(reply["content"], messages)

    def next_message(self, accept: Callable[[Message], bool], *, timeout: float = 10.0) -> Message:
        """The first IOPub message not collected yet that ``accept`` takes: an update of a display, ...

        It stays where it is for `collect`, and so do those that were passed over on the way.
        """
        for stray in self.strays:
            if accept(stray):
                return stray

        def keep(message: Message) -> bool:
            self.strays.append(message)
            return accept(message)

        deadline = time.monotonic() + timeout
        return self._read(self.client.get_iopub_msg, keep, deadline, "a message that the test waits for")

    def interrupt(self) -> None:
        """What the stop button does."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        """What the restart button does: the same ports, key and connection file."""
        self.manager.restart_kernel()
        self._ready()

    def stop(self, *, now: bool = False) -> None:
        """End the process (``now``: a kill, which runs no code in it) and the client; twice is harmless."""
        try:
            if self.manager.has_kernel and now:
                self.manager.shutdown_kernel(now=True)
            elif self.manager.has_kernel:  # what `shutdown_kernel` does, which looks ten times a second
                self.manager.interrupt_kernel()
                self.manager.request_shutdown()
                self.manager.finish_shutdown(pollinterval=_LOOK)
                self.manager.cleanup_resources()
        finally:
            if client := getattr(self, "client", None):
                client.stop_channels()
                client.context.destroy(linger=0)
            self.manager.context.destroy(linger=0)
            self._output.close()

    def tail(self, characters: int = 4000) -> str:
        """The end of what the process wrote to its raw stdout and stderr."""
        text = self.log.read_text(errors="replace")[-characters:]
        return f"--- {self.log} ---\n{text}" if text.strip() else "(the process itself wrote nothing)"

    def _ready(self) -> None:
        """Until it answers and its IOPub is heard: `wait_for_ready`, which listens on for 0.2 s."""
        deadline = time.monotonic() + self._timeout
        while True:  # an IOPub that wasn't connected yet has said nothing of the first
            asked = self.client.kernel_info()
            self._read(
                self.client.get_shell_msg,
                lambda message: bool(message["msg_type"] == "kernel_info_reply"),
                deadline,
                "the kernel to answer",
            )
            if self._heard(asked):
                return

    def _heard(self, msg_id: str) -> bool:
        while True:
            try:
                message: Message = self.client.get_iopub_msg(timeout=0.05)
            except Empty:
                return False
            if (
                message["parent_header"].get("msg_id") == msg_id
                and message["msg_type"] == "status"
                and message["content"]["execution_state"] == "idle"
            ):
                return True

    def _read(
        self,
        receive: Callable[..., Message],
        accept: Callable[[Message], bool],
        deadline: float,
        what: str,
    ) -> Message:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"waited in vain for {what}\n{self.tail()}")
            try:
                message = receive(timeout=min(left, 0.5))
            except Empty:
                if not self.alive:
                    raise AssertionError(f"the kernel died; waited for {what}\n{self.tail()}") from None
                continue
            if accept(message):
                return message


@dataclass(frozen=True)
class RedisServer:
    """A redis-server of the tests' own: nothing on disk is kept."""

    port: int

    @property
    def url(self) -> str:
        """Address for a client: database 0."""
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def running_redis(executable: str, folder: Path) -> Iterator[RedisServer]:
    """Start a redis-server on a free port, wait until it answers, and end it."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [executable, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([*command, "--dir", str(folder)], stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: _redis_answers(port) or process.poll() is not None, what="redis-server to answer")
        assert process.poll() is None, (folder / "redis.log").read_text()
        yield RedisServer(port)
    finally:
        process.terminate()
        process.wait(10)


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def python(*arguments: str, env: Mapping[str, str], cwd: Path, timeout: float = 60.0) -> str:
    """Run this Python and return its stdout; where it fails, the `AssertionError` has all that it wrote."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=dict(env),
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
