"""Boots the app of the deployed Learning Observer, where that is installed, inside a kernel.

Its own ``learning_observer.main`` can't be imported for that: it reads the arguments of the process and
starts a server. So its parts are asked in the order in which it would ask them, and what they do that has no
place in a kernel is kept from them: they can't read stdin (there is nobody to answer), can't end the process,
and download nothing. What is missing ends in an `LOError` that names it.

Its configuration file is the one where it looks itself, or ``learning_observer/creds.yaml`` in the workspace.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from lo_kernel.engine.errorlog import ErrorLog
    from lo_kernel.settings import Settings

__all__ = ["create_app"]

_PACKAGE = "learning_observer"
# Of its start-up checks, the one that fetches files of pages from other sites, and the one that knows a
# single place for the configuration file, which is found already.
_LEFT_OUT = ("download_3rd_party_static", "validate_config_file")
_SAID = 2000  # characters of what it printed that go into an error


def create_app(settings: Settings, errors: ErrorLog) -> Any:
    """Its aiohttp application; what can be done without, such as files of its pages, is noted in ``errors``.

    Raises `LOError` that names what is missing: the package, one that it needs, its configuration file, or
    what its start-up checks complain of.
    """
    if find_spec(_PACKAGE) is None:
        raise LOError(
            "app='learning_observer': the deployed Learning Observer is not installed in this Python "
            f"({sys.executable}): install its package learning_observer with pip, or use app='embedded'"
        )
    with _contained():
        return _create(settings, errors)


def _create(settings: Settings, errors: ErrorLog) -> Any:
    _stand_in_for_main()
    its = _part("settings")
    config = _config_file(settings)
    its.init_pmss_settings([str(config)])
    its.load_settings(str(config))
    checks = _part("prestartup")
    _part("module_loader").load_modules()
    checks.preimport()
    _leave_out_downloads(checks, errors)
    checks.startup_checks_and_init()
    _part("stream_analytics").init()
    web = importlib.import_module("aiohttp.web")
    helpers, app = _part("webapp_helpers"), web.Application()
    _part("routes").add_routes(app)
    helpers.setup_cors(app)
    helpers.setup_session_storage(app)
    helpers.setup_middlewares(app)
    sys.modules[f"{_PACKAGE}.main"].app = app  # type: ignore[attr-defined]
    return app


def _part(name: str) -> Any:
    return importlib.import_module(f"{_PACKAGE}.{name}")


def _stand_in_for_main() -> None:
    """Its Dash pages look whether ``learning_observer.main`` is loaded, to know that they are in a server."""
    name = f"{_PACKAGE}.main"
    if name not in sys.modules:
        importlib.import_module(_PACKAGE)
        modules: dict[str, Any] = sys.modules
        modules[name] = types.ModuleType(name, "Stands in for the module that would start a server.")


def _config_file(settings: Settings) -> Path:
    spec = find_spec(_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    places = (
        Path(spec.origin).parent.parent / "creds.yaml",
        settings.workspace_path / _PACKAGE / "creds.yaml",
    )
    for place in places:
        if place.is_file():
            return place
    raise LOError(
        "app='learning_observer': its configuration file creds.yaml is missing; looked for "
        + " and ".join(map(str, places))
        + ". Its own package brings examples to start from: "
        + ", ".join(str(each) for each in sorted(Path(spec.origin).parent.glob("creds.yaml.*")))
    )


def _leave_out_downloads(checks: Any, errors: ErrorLog) -> None:
    """Take out the check that fetches missing files of pages, and say which ones are missing."""
    checks.STARTUP_CHECKS[:] = [each for each in checks.STARTUP_CHECKS if each.__name__ not in _LEFT_OUT]
    paths, wanted = _part("paths"), _part("module_loader").third_party()
    missing = sorted(name for name in wanted if not Path(paths.third_party(name)).is_file())
    if missing:
        errors.add(
            "learning_observer",
            f"files that its pages take from other sites are missing, and a kernel downloads nothing: "
            f"{', '.join(missing)}. Starting its own server once fetches them",
            kind="MissingFiles",
        )


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Whatever is printed is kept for an error; reading stdin fails; an exit is an error."""
    said, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO()  # empty: who asks a question gets EOFError, and never waits
    try:
        with contextlib.redirect_stdout(said):
            yield
    except LOError:
        raise
    except ModuleNotFoundError as error:
        raise LOError(
            f"app='learning_observer': it needs the module {error.name!r}, which is not installed in this "
            "Python: install what the requirements.txt of its repository lists"
        ) from error
    except (SystemExit, EOFError) as end:
        asked = "asked a question on stdin" if isinstance(end, EOFError) else "ended its start-up"
        raise LOError(f"app='learning_observer': it {asked}. It said:\n{said.getvalue()[-_SAID:]}") from end
    except Exception as error:
        if not said.getvalue().strip():
            raise
        raise LOError(
            f"app='learning_observer': {type(error).__name__}: {error}. It said:\n{said.getvalue()[-_SAID:]}"
        ) from error
    finally:
        sys.stdin = stdin
