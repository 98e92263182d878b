"""Where the app's log lines go: a file of the workspace, never a cell.

What a task of the app writes to stdout or stderr has no cell that it belongs to: front ends drop it, or put
it under a cell that has nothing to do with it. What a user must see goes to ``lo.errors`` on purpose.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

__all__ = ["log_to"]

# aiohttp's client loggers are left alone: a cell that uses aiohttp itself wants to see those
_LOGGERS = ("lo_kernel", "aiohttp.server", "aiohttp.web", "aiohttp.websocket", "aiohttp.internal")
_KEPT = 1_000_000  # bytes after which the file is put aside, at the next start


def log_to(folder: Path) -> logging.Handler:
    """Send the app's log lines to ``folder/app.log``, which is made when the first one comes.

    Gives the handler; `logging.Handler.close` ends it.
    """
    path = folder / "app.log"
    with contextlib.suppress(OSError):
        if path.stat().st_size > _KEPT:
            path.replace(folder / "app.log.1")
    handler = _LateFileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    logging.getLogger("lo_kernel").setLevel(logging.INFO)
    return handler


class _LateFileHandler(logging.FileHandler):
    """Makes the missing folder with the first line, and goes away from its loggers when it is closed."""

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is None:
            Path(self.baseFilename).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is no reason to write into a cell."""

    def close(self) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)
        super().close()
