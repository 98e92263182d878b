"""A workspace: the folder of one set of events, states and tokens, which one process owns at a time.

owner.lock      held by the owner
owner.json      who owns it, and where its app answers (0600)
secrets.json    the tokens of its kinds of client, and the last port (0600): they outlive a process,
                so that clients come back after a restart
archive/ rejected/ states.sqlite logs/ ...
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Any

import msgspec

from lo_kernel.errors import LOError, WorkspaceError
from lo_kernel.lock import FileLock

__all__ = ["TOKEN_KINDS", "Owner", "Workspace", "check_out", "write_out", "write_private"]

TOKEN_KINDS = ("notebook", "ingest", "read")
"""Who a token is for: the notebook and its owner (everything), a source of events, a page that reads."""


_PROBING = 0.1  # seconds that somebody who looks may hold the lock
_TAKEN = 0.5  # seconds in which a start waits for that, where several look
_FIRST_TOKENS = 2.0  # seconds that a new workspace's owner may take to make its tokens


class Owner(msgspec.Struct):
    """Who owns a workspace: a process, and where its app answers; ``since`` in seconds since 1970 (UTC)."""

    pid: int
    url: str
    since: float
    token: str = ""
    ingest_url: str = ""


class _Secrets(msgspec.Struct):
    tokens: dict[str, str] = {}
    last_port: int = 0
    extra: dict[str, Any] = {}


def write_private(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write a file that its user alone can read, whole or not at all.

    Not ``lasting``: it tells of a running process, and need not outlive a power cut.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_out(path: Path) -> Path:
    """A file that somebody asks for, ``~`` filled in; ``LOError`` where it can't be one."""
    path = path.expanduser()
    if path.is_dir():
        raise LOError(f"{path} is a folder: expected the name of a file")
    if not path.parent.is_dir():
        raise LOError(f"{path} can't be written: the folder {path.parent} is not there")
    return path


def write_out(path: Path, data: bytes) -> None:
    """Write a file that was asked for, and that its user alone can read; ``LOError`` where that fails."""
    path = check_out(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)
            file.write(data)
    except OSError as error:
        raise LOError(f"{path} can't be written: {error}") from error


class Workspace:
    """The folder ``path``; nothing is written before :meth:`open`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, two = Workspace(Path(folder) / "w"), Workspace(Path(folder) / "w")
    ...     one.open(), two.open(), one.tokens == two.tokens
    ...     one.close(), two.close()
    (True, False, True)
    (None, None)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = False  # whether this process owns it
        self.locked_again = 0  # how often the lock's file was gone, and nobody had taken it
        self._lock: FileLock | None = None
        self._announced = b""
        self._secrets = _Secrets()

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.path.name

    def open(self) -> bool:
        """Make the folder and try to own it; ``False`` where another process does (this one follows).

        Raises :class:`WorkspaceError` where the folder can't be used.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.owner = self._acquire(_TAKEN)
            self._secrets = self._shared_secrets()
        except OSError as error:
            self.close()
            raise WorkspaceError(
                f"the workspace {self.path} can't be used: {error}. Choose another with LO_KERNEL_WORKSPACE, "
                "or make its folder writable"
            ) from error
        except BaseException:
            self.close()
            raise
        return self.owner

    def _acquire(self, within: float) -> bool:
        lock = FileLock(self.path / "owner.lock")
        deadline = time.monotonic() + within
        while not lock.acquire():
            # those who only look whether it is owned hold it for moments, and may do so often
            if time.monotonic() >= deadline or self._file_owner() is not None:
                return False
            time.sleep(0.001)
        self._lock, self._announced = lock, b""
        (self.path / "owner.json").unlink(missing_ok=True)  # of one that was killed
        return True

    def _shared_secrets(self) -> _Secrets:
        """The tokens; the owner makes them where there are none, others wait for it to."""
        deadline = time.monotonic() + _FIRST_TOKENS
        while True:
            found = self._read_secrets()
            if not set(TOKEN_KINDS) - set(found.tokens):
                return found
            if self.owner or time.monotonic() >= deadline:
                break
            time.sleep(0.01)
        for kind in TOKEN_KINDS:
            found.tokens.setdefault(kind, secrets.token_urlsafe(24))
        self._secrets = found
        self._write_secrets()
        return found

    def own(self) -> bool:
        """Take over a workspace that this process follows; whether it is the owner now."""
        if not self.owner:
            self.owner = self._acquire(_PROBING)  # an app is at work here meanwhile
        return self.owner

    def still_owned(self) -> bool:
        """Whether this process owns it still: somebody may have removed the lock, and another taken it.

        Where nobody has, it is locked again. Takes some microseconds as a rule.
        """
        if not self.owner or self._lock is None:
            return False
        if not self._lock.in_place():
            self.owner = self._own_again(self._lock)
        return self.owner

    def _own_again(self, lock: FileLock) -> bool:
        removed = not lock.path.exists()
        again = FileLock(lock.path)
        deadline = time.monotonic() + _PROBING
        try:
            while not again.acquire():
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.01)  # somebody may only have looked
        except OSError:  # nor can anybody else take it
            return True
        if not removed and self._announced and self._file_text() != self._announced:
            again.release()  # there was another owner meanwhile
            return False
        lock.release()
        self._lock = again
        self.locked_again += 1
        if self._announced:
            with contextlib.suppress(OSError):
                write_private(self.path / "owner.json", self._announced, lasting=False)
        return True

    def disown(self) -> None:
        """Let it go again, and follow."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self.owner = False

    def is_owned(self) -> bool:
        """Whether a process owns it now, this one or another; by the lock, which no dead process holds."""
        if self.owner:
            return True
        probe = FileLock(self.path / "owner.lock")
        try:
            if not probe.acquire():
                return True
        except OSError:
            return self._file_owner() is not None
        probe.release()
        return False

    def close(self) -> None:
        """Let go of it."""
        if self.owner and self._lock is not None and self._lock.in_place():
            (self.path / "owner.json").unlink(missing_ok=True)
        self.disown()

    # -- tokens and the last port --------------------------------------------------------------

    @property
    def tokens(self) -> dict[str, str]:
        """The token of each kind of client."""
        return dict(self._secrets.tokens)

    @property
    def last_port(self) -> int | None:
        """The port of the last owner's app, where there was one."""
        return self._read_secrets().last_port or None

    def _read_secrets(self) -> _Secrets:
        try:
            return msgspec.json.decode((self.path / "secrets.json").read_bytes(), type=_Secrets)
        except FileNotFoundError:
            return _Secrets()
        except (OSError, msgspec.MsgspecError) as error:
            raise WorkspaceError(
                f"{self.path / 'secrets.json'} can't be read: {error}. Move it away to have new tokens made "
                "(sources of events then need the new address)"
            ) from error

    def _write_secrets(self) -> None:
        write_private(self.path / "secrets.json", msgspec.json.encode(self._secrets))

    # -- the owner -----------------------------------------------------------------------------

    def announce(self, url: str, port: int, ingest_url: str) -> None:
        """Tell other processes where the owner's app answers; only by the owner."""
        owner = Owner(os.getpid(), url, time.time(), self._secrets.tokens["notebook"], ingest_url)
        self._announced = msgspec.json.encode(owner)
        write_private(self.path / "owner.json", self._announced, lasting=False)
        if self._secrets.last_port != port:
            self._secrets.last_port = port
            self._write_secrets()

    def find_owner(self) -> Owner | None:
        """Who owns it now; ``None`` where nobody does, whatever a file says that a killed process left."""
        owner = self._file_owner()
        if owner is None or (owner.pid != os.getpid() and not self.is_owned()):
            return None
        return owner

    def _file_text(self) -> bytes:
        try:
            return (self.path / "owner.json").read_bytes()
        except OSError:
            return b""

    def _file_owner(self) -> Owner | None:
        try:
            owner = msgspec.json.decode(self._file_text(), type=Owner)
        except msgspec.MsgspecError:
            return None
        return owner if _alive(owner.pid) else None


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
