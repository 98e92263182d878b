"""What a server in production is started with besides: a file of settings, log lines for machines."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from lo_kernel.commands.options import OptionParser
from lo_kernel.settings import Settings, env_name

__all__ = ["JsonLines", "add_production", "check_modules", "log_lines", "token_path", "use_file"]


def add_production(parser: OptionParser) -> None:
    """The options."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings from a TOML file; options and environment win"
    )
    parser.add_argument("--json-logs", action="store_true", help="log lines as JSON, on stderr, too")


def use_file(parser: OptionParser, options: argparse.Namespace) -> None:
    """Put the settings of the file where neither an option nor the environment says something.

    The file has the settings' own names at its top, or in a table ``[lo_kernel]``.
    """
    if options.config is None:
        return
    try:
        found = tomllib.loads(options.config.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"--config: {options.config} can't be read: {error.strerror or error}")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        parser.error(f"--config: {options.config}: expected TOML: {error}")
    found = found.get("lo_kernel", found)
    kinds = {spec.name: type(spec.default) for spec in fields(Settings)}
    for name, value in found.items():
        if name not in kinds:
            parser.error(
                f"--config: {options.config}: there is no setting {name!r}; there are: {', '.join(kinds)}"
            )
        if type(value) is not kinds[name]:
            parser.error(
                f"--config: {options.config}: {name}: expected {kinds[name].__name__}, got {value!r}"
            )
        if not hasattr(options, name) and env_name(name) not in os.environ:
            setattr(options, name, value)


def check_modules(parser: OptionParser, settings: Settings) -> None:
    """End the process where a module is wanted that isn't installed: nobody should find that out later."""
    wanted = [name.strip() for name in settings.modules.split(",") if name.strip()]
    if not wanted:
        return
    from lo_kernel.modules.entry_points import installed_modules

    installed = installed_modules()
    there = {each.name for each in installed} | {each.package for each in installed}
    absent = [name for name in wanted if name not in there]
    if absent:
        known = ", ".join(sorted(there)) or "none"
        parser.error(f"--modules: no module {absent[0]!r} is installed; there are: {known}")


def token_path(settings: Settings) -> Path:
    """Where the token lies by which modules may be put in."""
    return settings.workspace_path / "injected" / "token"


class JsonLines(logging.Formatter):
    """A log line as a JSON object: time (seconds since 1970, UTC), level, logger, message, error.

    >>> line = JsonLines().format(logging.LogRecord("lo_kernel", 20, "", 1, "hello %s", ("x",), None))
    >>> json.loads(line)["message"]
    'hello x'
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


@contextlib.contextmanager
def log_lines(wanted: bool) -> Iterator[None]:
    """While the app runs, its log lines on stderr as JSON; with the start and the end of the server."""
    if not wanted:
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in ("lo_kernel", "aiohttp")]
    for logger in loggers:
        logger.addHandler(handler)
    own, since = logging.getLogger("lo_kernel"), time.monotonic()
    own.setLevel(logging.INFO)
    own.info("the server starts, process %d", os.getpid())
    try:
        yield
    finally:
        own.info("the server has ended after %.1f s", time.monotonic() - since)
        for logger in loggers:
            logger.removeHandler(handler)
