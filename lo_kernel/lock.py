"""A lock that a process holds on a file, and that its end, of whatever kind, lets go of."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["FileLock"]


class FileLock:
    """A lock on the file ``path``, which is made if missing and never removed (somebody may wait at it).

    It belongs to this object: another one on the same file, in this process or elsewhere, finds it taken.

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

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take it, without waiting; whether it is held now. `OSError` where the file can't be used."""
        if self._file is not None:
            return True
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):  # taken, as POSIX and as Windows say it
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let it go; twice is harmless."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # closing lets go of it as well
                _unlock(file)
            os.close(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    # flock and not lockf: of lockf's locks, a process loses all on a file as soon as it closes any of its
    # descriptors of that file, such as the one by which it looked who owns a workspace
    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
