"""Settings: one frozen dataclass, from the environment or from keyword arguments.

The kernel makes a trait of each field (``LOKernel.port``), the command line and the docs are made
from the same list, and nothing else in the package reads the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lo_kernel.errors import SettingsError

__all__ = ["ENV_PREFIX", "Settings", "env_name", "http_address", "nearest", "unknown_variables"]

ENV_PREFIX = "LO_KERNEL_"
_FACTORY = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


def env_name(name: str) -> str:
    """The environment variable of a setting.

    >>> env_name("port")
    'LO_KERNEL_PORT'
    """
    return ENV_PREFIX + name.upper()


def nearest(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant by ``name``, as the end of a sentence.

    >>> nearest("prot", ["host", "port"])
    'did you mean port?'
    >>> nearest("xyz", ["host", "port"])
    'there are host, port'
    """
    from difflib import get_close_matches

    names = list(known)
    close = get_close_matches(name, names, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that looks like a setting and is none.

    >>> unknown_variables({"LO_KERNEL_PROT": "0", "LO_KERNEL_PORT": "0"})
    ['LO_KERNEL_PROT is no setting: did you mean LO_KERNEL_PORT?']
    """
    known = [env_name(spec.name) for spec in fields(Settings)]
    unknown = [name for name in environ if name.startswith(ENV_PREFIX) and name not in known]
    return [f"{name} is no setting: {nearest(name, known)}" for name in unknown]


def http_address(host: str, port: int) -> str:
    """Where an app that listens on ``host`` answers on this machine.

    >>> http_address("0.0.0.0", 9999), http_address("::1", 9999)
    ('http://127.0.0.1:9999/', 'http://[::1]:9999/')
    """
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}/" if ":" in here else f"http://{here}:{port}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a kernel or a server is started with.

    >>> Settings.from_env({"LO_KERNEL_PORT": "0"}, store="memory").port
    0
    >>> Settings(port=-1)
    Traceback (most recent call last):
        ...
    lo_kernel.errors.SettingsError: port: expected a number from 0 (any free port) to 65535, got -1
    """

    host: str = _setting("127.0.0.1", "Address that the app listens on.")
    port: int = _setting(9999, "Port of the app; where it is taken, a free one. 0: any free one.")
    workspace: str = _setting(
        "default",
        "Workspace that holds events, states and tokens: a name, or an absolute path.",
    )
    store: str = _setting("sqlite", "Where states live: sqlite, memory or redis://HOST:PORT/DB.")
    app: str = _setting(
        "embedded",
        "App that is booted: embedded, learning_observer (the deployed one) or package.module:factory.",
    )
    loop: str = _setting(
        "kernel",
        "Loop the app runs on: kernel (cells can await anything) or thread (answers while a cell is busy).",
    )
    start_within: int = _setting(
        30, "Seconds that the app may take to start, after which it is given up; 0: any time."
    )
    allowed_hosts: str = _setting(
        "", "Host names, besides this machine's own, under which the app may be asked; separated by commas."
    )
    public_url: str = _setting("", "Address under which a browser reaches the app, where it isn't found out.")
    roster: str = _setting("", "File of courses and learners (CSV, TSV or JSON); empty: everyone seen.")
    modules: str = _setting("", "Installed modules that the app loads, with commas between; empty: all.")
    allow_inject: bool = _setting(False, "Whether modules may be put into the running app.")
    audit_outputs: bool = _setting(
        False, "Whether the record keeps what cells put out, and not only kinds and sizes."
    )
    audit_days: int = _setting(0, "Days after which the record's oldest part is deleted; 0: never.")
    guests: bool = _setting(
        True, "Whether events of a client that never says who it is are taken, as a guest's."
    )

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise SettingsError(f"host: expected an address such as 127.0.0.1, got {self.host!r}")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port: expected a number from 0 (any free port) to 65535, got {self.port!r}")
        if self.start_within < 0:
            raise SettingsError(f"start_within: expected seconds, or 0 (any time), got {self.start_within!r}")
        if self.audit_days < 0:
            raise SettingsError(f"audit_days: expected days, or 0 (never), got {self.audit_days!r}")
        if self.loop not in ("kernel", "thread"):
            raise SettingsError(f"loop: expected 'kernel' or 'thread', got {self.loop!r}")
        if self.store not in ("sqlite", "memory") and not self.store.startswith(
            ("redis://", "rediss://", "unix://")
        ):
            raise SettingsError(
                f"store: expected 'sqlite', 'memory' or a redis:// address, got {self.store!r}"
            )
        if self.app not in ("embedded", "learning_observer") and not _FACTORY.fullmatch(self.app):
            raise SettingsError(
                f"app: expected 'embedded', 'learning_observer' or 'package.module:factory', got {self.app!r}"
            )
        if not Path(self.workspace).is_absolute() and not _NAME.fullmatch(self.workspace):
            raise SettingsError(
                "workspace: expected a name of letters, digits, '.', '_' and '-', or an absolute path, "
                f"got {self.workspace!r}"
            )

    @property
    def workspace_path(self) -> Path:
        """Folder of the workspace: below the user's data folder, or where the setting says."""
        path = Path(self.workspace)
        if path.is_absolute():
            return path
        import platformdirs

        return platformdirs.user_data_path("lo_kernel", appauthor=False) / "workspaces" / self.workspace

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: Any) -> Settings:
        """Settings from ``LO_KERNEL_*`` variables; ``overrides`` win.

        Raises :class:`SettingsError` where a value can't be used; the message names the variable.
        """
        values: dict[str, Any] = {}
        for spec in fields(cls):
            name = env_name(spec.name)
            if name in environ and spec.name not in overrides:
                values[spec.name] = _parse(name, environ[name], type(spec.default))
        return cls(**(values | overrides))


def _parse(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise SettingsError(f"{name}: expected true or false, got {text!r}")
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{name}: expected {kind.__name__}, got {text!r}") from None
