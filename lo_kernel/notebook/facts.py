"""The facts that the card of ``lo`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lo_kernel.runtime import Runtime

__all__ = ["facts_text"]


def facts_text(runtime: Runtime) -> str:
    """A few plain lines."""
    return f"Learning Observer at {runtime.url}, {runtime.archive.last} events"
