"""What modules answer requests with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lo_kernel.modules.contents import View

__all__ = ["Served"]


class Served:
    """What modules answer to requests with; the routes look it up here."""

    def __init__(self) -> None:
        self.views: dict[tuple[str, str, str], View] = {}
        self.ajax: dict[tuple[str, str], Callable[[Any], Any]] = {}
        self.folders: dict[str, Path] = {}
        self.dash: Callable[..., Any] | None = None
