"""``settings``, and ``pmss`` where that package isn't installed: what modules may be told."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import SettingsError

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["pmss", "pmsstypes", "settings"]

RunModes = enum.Enum("RunModes", "DEV DEPLOY INTERACTIVE")


class _Cascade:
    """``pmss_settings``: each setting is a function of where it is wanted."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def of(types: Any = (), **attributes: Any) -> Any:
            """The setting, for a module where ``types`` names one."""
            return self._field.setting(types[-1] if types else "", name)

        return of


def settings(field: Field) -> dict[str, Any]:
    """``settings``."""

    def load_settings(config: Mapping[str, Any] | str) -> dict[str, Any]:
        """Take settings from a mapping, or from a JSON file (YAML where PyYAML is installed)."""
        found = dict(config) if isinstance(config, Mapping) else _read(Path(config))
        field.settings.clear()
        field.settings.update(found)
        return field.settings

    def feature_flag(flag: str) -> Any:
        """What ``feature_flags`` has of this name; ``None`` where it is off."""
        flags = field.settings.get("feature_flags") or {}
        value = flags.get(flag)
        return True if flag in flags and value is None else (value or None)

    def initialized() -> bool:
        """They are, always."""
        return True

    def init_pmss_settings(ruleset_paths: Any = None) -> _Cascade:
        """Give what every setting is asked of."""
        return cascade

    cascade = _Cascade(field)
    return {
        "RUN_MODE": RunModes.INTERACTIVE,
        "RUN_MODES": RunModes,
        "SettingsException": SettingsError,
        "feature_flag": feature_flag,
        "init_pmss_settings": init_pmss_settings,
        "initialized": initialized,
        "load_settings": load_settings,
        "module_setting": lambda module_name, setting=None, default=None: field.setting(
            module_name, setting, default
        ),
        "pmss_settings": cascade,
        "settings": field.settings,
    }


class _Types:
    """``pmsstypes.TYPES``: a type's name."""

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


def pmss(field: Field) -> dict[str, Any]:
    """What modules use of ``pmss`` when they are loaded: which settings they have, and the defaults."""

    def register_field(name: str, type: Any = None, *args: Any, default: Any = None, **about: Any) -> None:
        """Note a setting's default."""
        field.defaults[name] = default

    def nothing(*args: Any, **kwargs: Any) -> None:
        """Note nothing: values are taken as they are given."""

    return {
        "TYPES": _Types(),
        "parser": nothing,
        "register_attribute": nothing,
        "register_class": nothing,
        "register_field": register_field,
    }


def pmsstypes(field: Field) -> dict[str, Any]:
    """``pmss.pmsstypes``."""
    return {"TYPES": _Types(), "parser": pmss(field)["parser"]}


def _read(path: Path) -> dict[str, Any]:
    import json

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            import yaml  # type: ignore[import-untyped,unused-ignore]

            return dict(yaml.safe_load(text) or {})
        return dict(json.loads(text))
    except (OSError, ImportError, ValueError, TypeError) as error:
        raise SettingsError(f"settings: expected a file of JSON or YAML, got {path}: {error}") from error
