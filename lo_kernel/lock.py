"""A lock that a process holds on a file, and that its end, of whatever kind, lets go of."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path
from typing import ClassVar

__all__ = ["FileLock"]

_TRIES = 10  # a file may be removed or replaced while it is taken; not so often


class FileLock:
    """A lock on the file ``path``, which is made if missing and never removed (somebody may wait at it).

    It belongs to this object: another one on the same file, in this process or elsewhere, finds it taken. A
    child that is forked doesn't have it: else it would stay taken until the last of them ends.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, two = FileLock(Path(folder) / "lock"), FileLock(Path(folder) / "lock")
    ...     print(one.acquire(), two.acquire())
    ...     one.release()
    ...     print(two.acquire())
    ...     two.release()
    True False
    True
    """

    # what a process holds is its own affair as a whole: a fork doubles all of it, and asks once
    _held: ClassVar[weakref.WeakSet[FileLock]] = weakref.WeakSet()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take it, without waiting; whether it is held now. `OSError` where the file can't be used."""
        for _ in range(_TRIES if self._file is None else 0):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(file)
            except (BlockingIOError, PermissionError):  # taken, as POSIX and as Windows say it
                os.close(file)
                return False
            except BaseException:
                os.close(file)
                raise
            if _is_at(file, self.path):
                self._file = file
                self._held.add(self)
                break
            os.close(file)  # somebody has removed it meanwhile: whoever comes next locks another
        return self._file is not None

    def in_place(self) -> bool:
        """Whether it is held, on the file that others find at its path; takes some microseconds."""
        return self._file is not None and _is_at(self._file, self.path)

    def release(self) -> None:
        """Let it go; twice is harmless."""
        if self._file is not None:
            file, self._file = self._file, None
            self._held.discard(self)
            with contextlib.suppress(OSError):  # closing lets go of it as well
                _unlock(file)
            os.close(file)

    @classmethod
    def _forked(cls) -> None:
        """Close, in a child, what a fork has doubled: to unlock it would take it from the parent."""
        for lock in list(cls._held):
            if lock._file is not None:
                file, lock._file = lock._file, None
                os.close(file)
        cls._held.clear()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

    def _is_at(file: int, path: Path) -> bool:
        return True  # a file that is open can't be removed or replaced there

else:
    import fcntl

    # flock and not lockf: of lockf's locks, a process loses all on a file as soon as it closes any of its
    # descriptors of that file, such as the one by which it looked who owns a workspace
    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)

    def _is_at(file: int, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(file), path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # nobody can tell
            return True

    os.register_at_fork(after_in_child=FileLock._forked)
