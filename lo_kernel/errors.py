"""Everything that lo_kernel raises on purpose.

    LOError
    ├── SettingsError        a setting, an option or an environment variable that can't be used
    ├── KernelSpecError      a kernelspec that can't be written, removed or found
    ├── WorkspaceError       the folder that holds events and states can't be used
    ├── NotOwnerError        the workspace belongs to another process, which alone may do this
    ├── EventError           a frame or a record that is no event (it is kept, under ``rejected/``)
    ├── ArchiveError         a part of the archive that can't be read or written
    ├── StoreError           the key-value store refused or is out of reach
    │   └── StoreAwayError   it doesn't answer now, and may later
    ├── ReducerError         a reducer that can't be registered, or that broke its contract
    │   ├── UnknownReducerError
    │   └── StateError       a state that isn't JSON; names the path inside the state
    ├── QueryError           a query that can't be run; names node and field
    │   └── UnknownQueryError
    ├── DashboardError       a dashboard that can't be made or shown
    │   └── UnknownDashboardError
    ├── ExportError          something of a notebook that can't be shipped; names cell, line and a way out
    ├── InjectError          a module that can't be put into a server, or taken out of it
    ├── AccessError          a token that is missing or not good enough
    └── MissingExtraError    an optional dependency that isn't installed; names the pip command

Each message says what was expected, what came, and what to do.
"""

from __future__ import annotations

__all__ = [
    "AccessError",
    "ArchiveError",
    "DashboardError",
    "EventError",
    "ExportError",
    "InjectError",
    "KernelSpecError",
    "LOError",
    "MissingExtraError",
    "NotOwnerError",
    "QueryError",
    "ReducerError",
    "SettingsError",
    "StateError",
    "StoreAwayError",
    "StoreError",
    "UnknownDashboardError",
    "UnknownQueryError",
    "UnknownReducerError",
    "WorkspaceError",
]


class LOError(Exception):
    """The root of all errors that lo_kernel raises on purpose."""


class SettingsError(LOError):
    """A setting, an option or an environment variable that can't be used."""


class KernelSpecError(LOError):
    """A kernelspec that can't be written, removed or found."""


class WorkspaceError(LOError):
    """The folder that holds events and states can't be used."""


class NotOwnerError(LOError):
    """The workspace belongs to another process, which alone may do this."""


class EventError(LOError):
    """A frame or a record that is no event."""

    def __init__(self, message: str, *, reason: str = "not_an_event") -> None:
        super().__init__(message)
        self.reason = reason


class ArchiveError(LOError):
    """A part of the archive that can't be read or written."""


class StoreError(LOError):
    """The key-value store refused, or is out of reach."""


class StoreAwayError(StoreError):
    """The key-value store doesn't answer now, and may later."""


class ReducerError(LOError):
    """A reducer that can't be registered, or that broke its contract."""


class UnknownReducerError(ReducerError):
    """No reducer is registered under this id."""


class StateError(ReducerError):
    """A state that isn't JSON data.

    ``path`` is where in the state the trouble is, such as ``$.words[3]``.
    """

    def __init__(self, message: str, *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class QueryError(LOError):
    """A query that can't be run; the message names the node and the field."""


class UnknownQueryError(QueryError):
    """No query of this name is there."""


class DashboardError(LOError):
    """A dashboard that can't be made or shown."""


class UnknownDashboardError(DashboardError):
    """There is no dashboard of this id; the message lists what there is."""


class ExportError(LOError):
    """Something of a notebook that can't be shipped; the message names cell, line and a way out."""


class InjectError(LOError):
    """A module that can't be put into a running server, or taken out of it."""


class AccessError(LOError):
    """A token that is missing, or not good enough for what was asked."""


class MissingExtraError(LOError):
    """An optional dependency that isn't installed.

    >>> print(MissingExtraError("redis", "the Redis store"))
    the Redis store needs the extra 'redis', which is not installed: pip install "lo-kernel[redis]"
    """

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed: pip install \"lo-kernel[{extra}]\""
        )
        self.extra = extra
