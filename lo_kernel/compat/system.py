"""The smaller modules: ``constants``, ``log_event``, ``paths``, ``prestartup``, ..., and what pages need."""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = [
    "constants", "dash_integration", "dash_wrapper", "downloads", "exceptions", "integrations", "log_event",
    "package", "paths", "prestartup",
]  # fmt: skip


class StartupCheck(LOError):
    """A module's check says that it can't work here."""


class DeployException(LOError):
    """Something is set up wrongly."""


class SuspiciousOperation(LOError):
    """Somebody tries what nobody should."""


class LogLevel(enum.Enum):
    """How much is logged."""

    NONE = "NONE"
    SIMPLE = "SIMPLE"
    EXTENDED = "EXTENDED"


class LogDestination(enum.Enum):
    """Where to."""

    CONSOLE = "CONSOLE"
    FILE = "FILE"


def package(field: Field) -> dict[str, Any]:
    """``learning_observer`` itself, and packages in it that only hold others."""
    return {}


def constants(field: Field) -> dict[str, Any]:
    """``constants``."""
    return {
        "AUTH_HEADERS": "auth_headers",
        "IMPERSONATING_AS": "impersonating_as",
        "USER": "user",
        "USER_ID": "user_id",
    }


def exceptions(field: Field) -> dict[str, Any]:
    """``exceptions``."""
    return {"DeployException": DeployException, "SuspiciousOperation": SuspiciousOperation}


def integrations(field: Field) -> dict[str, Any]:
    """``integrations``: no other system is connected."""
    return {"INTEGRATIONS": {}}


def log_event(field: Field) -> dict[str, Any]:
    """``log_event``: what is said goes to this process's log."""
    log = logging.getLogger("lo_kernel.modules")

    def debug_log(*parts: Any) -> None:
        """Log at the level DEBUG."""
        log.debug("%s", " ".join(map(str, parts)))

    return {
        "DEBUG_LOG_LEVEL": LogLevel.NONE,
        "LogDestination": LogDestination,
        "LogLevel": LogLevel,
        "debug_log": debug_log,
    }


def paths(field: Field) -> dict[str, Any]:
    """``paths``: places for a module's own files, in the workspace."""
    root = field.runtime.workspace.path / "modules"

    def place(name: str) -> Callable[..., str]:
        def path(filename: str | None = None) -> str:
            """The folder, which is made if it isn't there, or a file in it."""
            folder = root / name if name else root
            folder.mkdir(parents=True, exist_ok=True)
            return str(folder / filename if filename else folder)

        return path

    return {
        "PYTHON_EXECUTABLE": sys.executable,
        "base_path": place(""),
        "data": place("data"),
        "logs": place("logs"),
    }


def prestartup(field: Field) -> dict[str, Any]:
    """``prestartup``: checks of a module run once it is loaded; one that fails is named."""

    def register(check: Callable[[], Any]) -> Callable[[], Any]:
        """Run a function of no arguments once the module is loaded."""
        field.checks.append(check)
        return check

    return {
        "StartupCheck": StartupCheck,
        "register_init_function": register,
        "register_startup_check": register,
    }


def downloads(field: Field) -> dict[str, Any]:
    """``downloads``: names of what pages would load from elsewhere. Nothing is fetched here."""

    def find(name: str) -> dict[str, Any]:
        if not name.isupper() or name.startswith("_"):
            raise AttributeError(name)
        return {"name": name, "url": "", "hash": None}

    return {"__getattr__": find}


def dash_integration(field: Field) -> dict[str, Any]:
    """``dash_integration``: addresses."""
    return {
        "get_app": lambda: None,
        "static_url": lambda filename: f"/static/{filename}",
        "thirdparty_url": lambda filename: f"/static/3rd_party/{filename}",
    }


def dash_wrapper(field: Field) -> dict[str, Any]:
    """``dash_wrapper``: Dash itself; pages are registered by the app."""
    dash = import_module("dash")

    def find(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(dash, name)

    return {
        "__getattr__": find,
        "__all__": [each for each in dir(dash) if not each.startswith("_")],
        "register_page": lambda *args, **kwargs: None,
    }
