"""``lo`` where the embedded app doesn't run: another one does, or none came up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from lo_kernel.notebook.audit_view import AuditView
    from lo_kernel.notebook.errors_view import Errors
    from lo_kernel.notebook.observer import LearningObserver

__all__ = ["LimitedObserver", "NotThereError"]

_ALWAYS: Final = ("errors", "audit")


class NotThereError(LOError, AttributeError):
    """Something of ``lo`` that the app which runs has no counterpart for."""


class LimitedObserver:
    """A ``lo`` whose ``errors`` and ``audit`` work, and ``url`` and ``port`` where an app answers.

    Everything else would look into stores and archives that nobody has opened; it says what it needs.
    """

    def __init__(self, lo: LearningObserver, *, failed: bool) -> None:
        self._lo = lo
        self._failed = failed

    @property
    def errors(self) -> Errors:
        """What went wrong in the background."""
        return self._lo.errors

    @property
    def audit(self) -> AuditView:
        """The record of what ran here, and what came of it."""
        return self._lo.audit

    def _take_notices(self) -> list[str]:
        return self._lo._take_notices()

    def _close(self) -> None:
        self._lo._close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        if not self._failed and name in ("url", "port"):
            return getattr(self._lo, name)
        if not (hasattr(type(self._lo), name) or name in vars(self._lo)):
            raise AttributeError(f"lo has no attribute {name!r}")
        app = self._lo._runtime.settings.app
        if self._failed:
            raise NotThereError(f"lo.{name} needs the app, and it did not start: lo.errors says why")
        here = ", ".join(f"lo.{each}" for each in ("url", "port", *_ALWAYS))
        raise NotThereError(
            f"lo.{name} needs app='embedded', and this kernel runs {app!r}. Here work: {here}"
        )

    def __dir__(self) -> list[str]:
        return sorted([*_ALWAYS, *(() if self._failed else ("url", "port"))])

    def __repr__(self) -> str:
        if self._failed:
            return "Learning Observer: the app did not start; lo.errors says why"
        settings = self._lo._runtime.settings
        return f"{settings.app} at {self._lo.url}\n  loop  {settings.loop}\n  lo    {', '.join(dir(self))}"
