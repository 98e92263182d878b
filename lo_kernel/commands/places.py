"""Where a command works: a workspace that is there."""

from __future__ import annotations

from pathlib import Path

from lo_kernel.commands.options import OptionParser
from lo_kernel.settings import Settings

__all__ = ["existing_workspace"]

_NAMED = 10


def existing_workspace(parser: OptionParser, settings: Settings) -> Path:
    """The workspace's folder; exit code 2 where there is none: a mistyped name is not to make one."""
    path = settings.workspace_path
    if not path.is_dir():
        others = sorted(each.name for each in path.parent.glob("*/") if (each / "secrets.json").exists())
        known = f"; there are: {', '.join(others[:_NAMED])}" if others else ""
        parser.error(f"there is no workspace {settings.workspace!r} ({path}){known}")
    return path
