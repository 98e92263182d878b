"""Which app a kernel or a server boots: its own, or any `aiohttp.web.Application` that a factory gives."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lo_kernel.errors import SettingsError

if TYPE_CHECKING:
    from lo_kernel.kernel.host import AppFactory
    from lo_kernel.runtime import Runtime
    from lo_kernel.settings import Settings

__all__ = ["app_factory", "check_app"]

_DEPLOYED = "lo_kernel.upstream.boot"  # right of this room, and imported only where it was asked for


def app_factory(settings: Settings, runtime: Runtime) -> AppFactory:
    """What makes the app that ``settings.app`` names; `SettingsError` where there is none such.

    ``embedded`` is the app of this package around ``runtime``, ``learning_observer`` the deployed system's.
    ``package.module:factory`` is called without arguments and gives an `aiohttp.web.Application`, at once or
    awaited.
    """
    if settings.app == "embedded":

        def embedded() -> object:
            from lo_kernel.app.application import create_app

            return create_app(runtime)

        return embedded  # type: ignore[return-value] # create_app's module is imported when it is called
    if settings.app == "learning_observer":

        def deployed() -> object:
            return import_module(_DEPLOYED).create_app(settings, runtime.errors)

        return deployed  # type: ignore[return-value] # what that system's own parts make, seen by AppHost
    return _imported(settings.app)


def check_app(settings: Settings) -> None:
    """Raise `SettingsError` where ``settings.app`` names what isn't there; its module is imported."""
    if ":" in settings.app:
        _imported(settings.app)


def _imported(where: str) -> AppFactory:
    module_name, _, path = where.partition(":")
    expected = "expected package.module:factory"
    try:
        found: object = import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"app={where!r}: {expected}, and there is no module {error.name!r}") from error
    except SystemExit as error:
        raise SettingsError(f"app={where!r}: {expected}, and {module_name} raised {error!r}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise SettingsError(f"app={where!r}: {expected}, and {module_name} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise SettingsError(f"app={where!r}: {expected}, and {path!r} can't be called")
    factory: AppFactory = found
    return factory
