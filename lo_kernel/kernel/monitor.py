"""The monitor: a thread with a socket of its own on the kernel's IOPub, which sees all that the kernel
publishes.

It is connected before the kernel says its first word. It verifies each message's signature, counts what
belongs to which request, and tells a `Sink` when a request is over.

Each frame that it takes is a chance for another thread to take Python's lock, and a cell that puts out
thousands of messages would lose a quarter of its time to that. So messages gather in ZeroMQ, which drops
none: it takes a few every 50 ms, and the rest of a burst once no cell runs, or once there are many. At the
end it takes what is there still: `Sent` knows how many that is.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
import zmq

from lo_kernel.app.meter import memory

__all__ = ["Monitor", "Outcome", "Sent", "Sink", "set_option"]

_DELIMITER: Final = b"<IDS|MSG>"
_GATHER: Final = 0.05  # s between two looks while messages stream in
_AT_ONCE: Final = 50  # messages that are taken beside a cell
_MANY: Final = 200_000  # messages of a burst that may wait for the cell's end
_MUCH: Final = 256 << 20  # bytes that the process may grow by meanwhile
_REST: Final = 1.0  # s without a message after which what is left over is written
_MOMENT: Final = 20  # ms between two looks at the end
_WELCOME: Final = 2.0  # s that the kernel's side may take to answer a subscription
_SIGNATURES: Final = 20_000
_OUTPUTS: Final = frozenset(
    ("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output")
)


class Sink(Protocol):
    """Who is told what the monitor saw; on the monitor's thread."""

    def outcome(self, outcome: Outcome) -> None:
        """A request is over, or (``late``) something came after its end, or that belongs to none."""

    def state(self, state: str) -> None:
        """The kernel said how it is, for itself: ``starting``, ``restarting``, ``dead``."""

    def gap(self, reason: str, messages: int) -> None:
        """Messages came that can't be counted."""

    def failed(self, error: BaseException, *, ended: bool) -> None:
        """It could not take a message, or (``ended``) takes none any more."""

    def idle(self) -> None:
        """Nothing has come for a while."""

    def busy(self) -> bool:
        """Whether a cell runs."""
        ...


@dataclass(slots=True)
class Outcome:
    """What came of a request: ``outputs`` are counts and bytes by kind, as ``stdout`` or ``text/html``."""

    request: str
    type: str
    began: str = ""
    ended: str = ""
    error: str = ""
    late: bool = False
    outputs: dict[str, list[int]] = field(default_factory=dict)
    contents: list[tuple[str, str]] = field(default_factory=list)
    """Kind and JSON of each output, where they are wanted."""

    @property
    def seconds(self) -> float | None:
        """How long it took, by the kernel's own times; ``None`` where they are not known."""
        try:
            return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)).total_seconds()
        except ValueError:
            return None


class _Header(msgspec.Struct, gc=False):
    msg_type: str
    date: str = ""


class _Parent(msgspec.Struct, gc=False):
    msg_id: str = ""
    msg_type: str = ""


class _Bundle(msgspec.Struct, gc=False):
    data: dict[str, msgspec.Raw] = {}


class _Stream(msgspec.Struct, gc=False):
    name: str = "stdout"


class _Status(msgspec.Struct, gc=False):
    execution_state: str = ""


class _Error(msgspec.Struct, gc=False):
    ename: str = ""


_header = msgspec.json.Decoder(_Header).decode
_parent = msgspec.json.Decoder(_Parent).decode
_bundle = msgspec.json.Decoder(_Bundle).decode
_stream = msgspec.json.Decoder(_Stream).decode
_status = msgspec.json.Decoder(_Status).decode
_error = msgspec.json.Decoder(_Error).decode


class Sent:
    """Counts what the kernel hands to its IOPub socket; ``thread`` is ipykernel's ``IOPubThread``.

    The count begins with the welcome to ``topic``, which only a monitor subscribes to: so the two begin with
    the same message.
    """

    def __init__(self, thread: Any) -> None:
        self.count = 0
        self.topic = b"lo_kernel " + os.urandom(8).hex().encode()
        self._thread = thread
        self._send = thread.socket.send_multipart
        thread.socket.send_multipart = self._counted

    def _counted(self, frames: Sequence[Any], *args: Any, **options: Any) -> Any:
        sent = self._send(frames, *args, **options)
        self.count = 0 if frames[0] == self.topic else self.count + 1
        return sent

    def tell(self, told: Callable[[int], None]) -> None:
        """Say how many there are, as soon as all that was said before is handed over."""
        self._thread.schedule(lambda: told(self.count))

    def waiting(self) -> int:
        """How many wait to be handed over."""
        return len(getattr(self._thread, "_events", ()))


class Monitor:
    """Sees everything on one IOPub channel.

    ``endpoint`` is its address, ``key`` the connection's (empty: nothing is signed), ``curve`` the pair of
    public and secret key where the connection is encrypted. ``sent`` counts on the kernel's side. With
    ``contents`` the outputs themselves are kept.
    """

    def __init__(
        self,
        endpoint: str,
        key: bytes,
        *,
        sent: Sent,
        scheme: str = "hmac-sha256",
        curve: tuple[bytes, bytes] | None = None,
        contents: bool = False,
    ) -> None:
        self.seen = 0
        self.contents = contents
        self.failure = ""
        self._key = key
        self._digest = scheme.rpartition("-")[2]
        self._open: dict[str, Outcome] = {}
        self._late: dict[str, Outcome] = {}
        self._signatures: dict[bytes, None] = {}
        self._parent_frame, self._parent_read = b"", _Parent()
        self._sink: Sink | None = None
        self._sent = sent
        self._all: int | None = None  # how many there are at the end
        self._until = 0.0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        # the rest waits on the kernel's side, which is told to drop nothing (`LOKernelApp.init_iopub`):
        # there it costs neither copies nor the network
        self._socket.rcvhwm = 200
        self._socket.rcvbuf = 65_536
        self._socket.linger = 0
        if curve is not None:
            # the options are per socket; the address below that tells of the end is inside this process
            self._socket.curve_publickey, self._socket.curve_secretkey = curve
            self._socket.curve_serverkey = curve[0]
        self._socket.subscribe(b"")
        self._socket.connect(endpoint)
        self._bell = self._context.socket(zmq.PAIR)
        self._bell.bind("inproc://end")
        self._ear = self._context.socket(zmq.PAIR)
        self._ear.connect("inproc://end")
        self._thread = threading.Thread(target=self._run, name="lo_kernel monitor", daemon=True)
        # a debugger must not stop in it, nor trace it
        self._thread.pydev_do_not_trace = True  # type: ignore[attr-defined]
        self._thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]

    def connected(self, timeout: float = _WELCOME) -> bool:
        """Wait until the kernel's side knows of the subscription: from then on nothing is missed."""
        until = time.monotonic() + timeout
        if not self._socket.poll(int(timeout * 1000)):
            return False
        self._socket.subscribe(self._sent.topic)
        while self._socket.poll(max(0, int((until - time.monotonic()) * 1000))):
            if self._socket.recv_multipart()[0] == self._sent.topic:  # those before it are welcomes, too
                return True
        return False

    def report_to(self, sink: Sink) -> None:
        """Begin to listen, and say who is told. What came since it was connected waits in ZeroMQ.

        A thread that starts while others import waits for its turn, and whoever starts it with it: so not
        before there is something to tell.
        """
        self._sink = sink
        self._thread.start()

    def stop(self, within: float = 0.5) -> int:
        """Take what is there still, tell the sink, and end; how many messages it has not seen.

        The kernel's thread for IOPub must run still, as it hands over the rest. ``within`` so many seconds,
        or a tenth more; a second call does nothing.
        """
        if self._context.closed or self._bell.closed:
            return 0
        asked = self._thread.is_alive()
        if asked:
            self._until = time.monotonic() + within
            self._sent.tell(self._told)
            self._bell.send(b"")
            self._thread.join(within + 0.1)
        self._bell.close(0)
        if not self._thread.is_alive():  # a socket is closed by the thread that uses it
            self._socket.close(0)
            self._ear.close(0)
            self._context.term()
        # where it was not told, what it asked waits with the rest
        there = self._sent.count + self._sent.waiting() - asked if self._all is None else self._all
        return max(0, there - self.seen)

    def _told(self, count: int) -> None:
        self._all = count

    @property
    def alive(self) -> bool:
        """Whether it listens."""
        return self._thread.is_alive()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._listen()
                return
            except zmq.ZMQError as error:  # the socket itself is broken
                self._failed(error, ended=True)
                return
            except Exception as error:  # one message was too much for it: the others are not
                self._failed(error, ended=False)

    def _failed(self, error: BaseException, *, ended: bool) -> None:
        self.failure = f"{type(error).__name__}: {error}"
        if self._sink is not None:
            with contextlib.suppress(Exception):  # who is told may fail; it goes on
                self._sink.failed(error, ended=ended)

    def _listen(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._ear, zmq.POLLIN)
        rested = True
        while True:
            events = dict(poller.poll(None if rested else int(_REST * 1000)))
            # a look at every single message would take the GIL from the cell that sends it: they gather
            over = self._ear in events or bool(self._ear.poll(int(_GATHER * 1000) if events else 0))
            if over:
                self._finish()
                self._flush()
                return
            taken = self._drain()
            if taken == _AT_ONCE:
                self._burst()
            if taken:
                rested = False
            elif not events and not rested:
                rested = True
                self._flush()
                if self._sink is not None:
                    self._sink.idle()

    def _finish(self) -> None:
        """Take the rest, which waits on the kernel's side: nothing here says only that this end is empty."""
        while time.monotonic() < self._until:
            if not self._drain():
                if self._all is not None and self.seen >= self._all:
                    return
                self._socket.poll(_MOMENT)

    def _burst(self) -> None:
        """Take what has gathered: at once where no cell runs, else when it is over, or much is there."""
        sink, before = self._sink, memory()
        assert sink is not None
        while not self._ear.poll(0):
            behind = self._sent.count - self.seen
            if not sink.busy() or behind > _MANY or memory() - before > _MUCH:
                if self._drain() < _AT_ONCE:
                    return
            else:
                self._ear.poll(int(_GATHER * 1000))

    def _drain(self) -> int:
        receive, take, block = self._socket.recv_multipart, self._take, zmq.NOBLOCK
        taken = 0
        try:
            while taken < _AT_ONCE:
                take(receive(block))
                taken += 1
        except zmq.Again:
            pass
        return taken

    def _flush(self) -> None:
        """Say what came late, or belongs to no request."""
        if self._sink is not None:
            late, self._late = self._late, {}
            for outcome in late.values():
                outcome.late = True
                self._sink.outcome(outcome)

    # -- messages ------------------------------------------------------------------------------

    def _take(self, frames: list[bytes]) -> bool:
        self.seen += 1
        try:
            at = frames.index(_DELIMITER)
            signature, header, parent, metadata, content = frames[at + 1 : at + 6]
        except ValueError:
            self._bad("no message of the protocol")
            return False
        if self._key:
            good = hmac.digest(self._key, header + parent + metadata + content, self._digest).hex().encode()
            if good != signature or signature in self._signatures:
                self._bad("a signature that is wrong or was used before")
                return False
            self._signatures[signature] = None
            if len(self._signatures) > _SIGNATURES:
                for old in list(self._signatures)[: _SIGNATURES // 2]:
                    del self._signatures[old]
        about = _header(header)
        if parent != self._parent_frame:
            self._parent_frame, self._parent_read = parent, _parent(parent)
        request = self._parent_read
        kind = about.msg_type
        if kind == "status":
            self._status(request, about, content)
        elif kind in _OUTPUTS:
            self._output(request, kind, content, sum(map(len, frames[at + 6 :])))
        return True

    def _bad(self, reason: str) -> None:
        if self._sink is not None:
            self._sink.gap(reason, 1)

    def _status(self, request: _Parent, about: _Header, content: bytes) -> None:
        state = _status(content).execution_state
        if state == "busy":
            self._open[request.msg_id] = Outcome(request.msg_id, request.msg_type, began=about.date)
        elif state == "idle":
            outcome = self._open.pop(request.msg_id, None)
            if outcome is not None and self._sink is not None:
                outcome.ended = about.date
                self._sink.outcome(outcome)
        elif self._sink is not None:
            self._sink.state(state)

    def _output(self, request: _Parent, kind: str, content: bytes, buffers: int) -> None:
        outcome = self._open.get(request.msg_id)
        if outcome is None:
            outcome = self._late.get(request.msg_id)
            if outcome is None:
                outcome = self._late[request.msg_id] = Outcome(request.msg_id, request.msg_type)
        outputs = outcome.outputs
        if kind == "stream":
            _add(outputs, _stream(content).name, len(content))
        elif kind == "error":
            outcome.error = _error(content).ename
            _add(outputs, "error", len(content))
        elif kind == "clear_output":
            _add(outputs, kind, 0)
        else:
            for mime, data in _bundle(content).data.items():
                _add(outputs, mime, len(data) + buffers)
        if self.contents and kind != "clear_output":
            outcome.contents.append((kind, content.decode("utf-8", "replace")))


def _add(outputs: dict[str, list[int]], kind: str, size: int) -> None:
    count = outputs.get(kind)
    if count is None:
        outputs[kind] = [1, size]
    else:
        count[0] += 1
        count[1] += size


def set_option(socket: Any, option: int, value: int, on_thread: Callable[[Callable[[], None]], None]) -> bool:
    """Set an option of the kernel's socket, on the thread that it belongs to; whether that was done."""
    done = threading.Event()

    def set_there() -> None:
        if socket.getsockopt(zmq.TYPE) == zmq.XPUB or option != zmq.XPUB_VERBOSE:
            socket.setsockopt(option, value)
        done.set()

    on_thread(set_there)
    return done.wait(_WELCOME)
