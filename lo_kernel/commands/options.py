"""Options as people type them: what was wrong and what exists, on stderr, and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from lo_kernel.errors import SettingsError
from lo_kernel.settings import Settings, env_name, unknown_variables

__all__ = ["OptionParser", "add_settings", "settings_from", "settings_help", "split_at_dashes"]

_WORDS = {str: "TEXT", int: "NUMBER", bool: ""}


class OptionParser(argparse.ArgumentParser):
    """An `argparse` parser without abbreviations, whose complaint names what exists."""

    def __init__(self, command: str, description: str, **options: Any) -> None:
        super().__init__(
            prog=f"lo-kernel {command}".strip(), description=description, allow_abbrev=False, **options
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed ``arguments``; with one that doesn't exist, the process ends here with exit code 2."""
        found, unknown = self.parse_known_args(arguments)
        if unknown:
            kind = "option" if unknown[0].startswith("-") else "argument"
            self.error(f"unknown {kind} {unknown[0]!r}")
        return found

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and what exists; exit code 2."""
        exists = sorted({each for action in self._actions for each in action.option_strings if each != "-h"})
        lines = [f"{self.prog}: {message}", f"options: {', '.join(exists)}" if exists else "no options", ""]
        print("\n".join(lines) + f"{self.prog} --help explains them", file=sys.stderr)
        raise SystemExit(2)


def split_at_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """What comes before the first ``--``, and what comes after it; None where there is none.

    >>> split_at_dashes(["--port", "0", "--", "--pdb"])
    (['--port', '0'], ['--pdb'])
    >>> split_at_dashes(["--port", "0"])
    (['--port', '0'], None)
    """
    if "--" not in arguments:
        return list(arguments), None
    at = list(arguments).index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def add_settings(parser: argparse.ArgumentParser, only: Sequence[str] = ()) -> None:
    """Give ``parser`` an option for each setting, or for those named."""
    for spec in fields(Settings):
        if only and spec.name not in only:
            continue
        name, kind = "--" + spec.name.replace("_", "-"), type(spec.default)
        options: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": spec.metadata["help"],
            "dest": spec.name,
        }
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, **options)
        else:
            parser.add_argument(name, type=kind, metavar=_WORDS[kind], **options)


def settings_from(
    parser: OptionParser, options: argparse.Namespace, **overrides: Any
) -> tuple[Settings, frozenset[str]]:
    """The settings that hold, from options and environment, and the names of those that were asked for.

    A value that can't be used ends the process with exit code 2; a variable that is no setting is named.
    """
    for line in unknown_variables(os.environ):
        print(f"{parser.prog}: {line}", file=sys.stderr)
    names = {spec.name for spec in fields(Settings)}
    given = {name: value for name, value in vars(options).items() if name in names} | overrides
    try:
        settings = Settings.from_env(os.environ, **given)
    except SettingsError as error:
        parser.error(str(error))
    return settings, frozenset(given) | {name for name in names if env_name(name) in os.environ}


def settings_help(width: int = 79) -> str:
    """The settings' options with their defaults, as lines of a help text."""
    options = []
    for spec in fields(Settings):
        name = spec.name.replace("_", "-")
        if isinstance(spec.default, bool):
            options.append(f"--[no-]{name}" if spec.default else f"--{name}")
        else:
            default = f" [{spec.default}]" if spec.default else ""
            options.append(f"--{name} {_WORDS[type(spec.default)]}{default}")
    held_together = ", ".join(option.replace(" ", "\0") for option in options)
    lines = textwrap.wrap(
        held_together, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return "\n".join(lines).replace("\0", " ")
