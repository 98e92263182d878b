"""One trait per setting, so that ``LOKernel.port`` works wherever IPython takes configuration.

Precedence: command line, then configuration file, then ``LO_KERNEL_*`` variable, then default. The traits,
their defaults and their help texts are made from the fields of `Settings`: there is one list of settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from traitlets import Bool, HasTraits, Int, TraitType, Unicode
from traitlets.config import Config, Configurable

from lo_kernel.errors import LOError
from lo_kernel.settings import Settings, env_name, nearest, unknown_variables

__all__ = ["SettingsTraits", "settings_of", "unknown_settings"]

_KINDS: Mapping[type, Any] = {str: Unicode, int: Int, bool: Bool}


def _trait(spec: Field[Any]) -> TraitType[Any, Any]:
    help_text = f"{spec.metadata['help']} (variable: {env_name(spec.name)})"
    trait: TraitType[Any, Any] = _KINDS[type(spec.default)](spec.default, help=help_text)
    return trait.tag(config=True)


def _environment_default(spec: Field[Any]) -> Any:
    def default(self: HasTraits) -> Any:
        try:
            return getattr(Settings.from_env(os.environ), spec.name)
        except LOError:  # said where the settings are used, not where a trait is looked at
            return spec.default

    return default


if TYPE_CHECKING:

    class SettingsTraits(HasTraits):
        """A configurable trait for each field of `Settings`."""

else:
    SettingsTraits = type(HasTraits)(
        "SettingsTraits",
        (HasTraits,),
        {"__doc__": "A configurable trait for each field of `Settings`.", "__module__": __name__}
        | {spec.name: _trait(spec) for spec in fields(Settings)}
        | {f"_{spec.name}_default": _environment_default(spec) for spec in fields(Settings)},
    )


def settings_of(traits: SettingsTraits) -> tuple[Settings, frozenset[str]]:
    """The settings that hold for ``traits``, and the names of those that somebody asked for.

    Raises `SettingsError` where a value, from wherever it came, can't be used.
    """
    names = [spec.name for spec in fields(Settings)]
    # the defaults are dynamic, so a trait has a value only where configuration gave it one
    configured = {name: getattr(traits, name) for name in names if traits.trait_has_value(name)}
    asked_for = frozenset(configured) | {name for name in names if env_name(name) in os.environ}
    return Settings.from_env(os.environ, **configured), asked_for


def unknown_settings(traits: Configurable) -> list[str]:
    """A line for each setting, in the environment or in configuration, that doesn't exist."""
    section, known = traits.config.get("LOKernel", {}), traits.trait_names(config=True)
    unknown = [name for name in section if name not in known and not isinstance(section[name], Config)]
    settings = [spec.name for spec in fields(Settings)]
    return unknown_variables(os.environ) + [
        f"LOKernel.{name} is no setting: {nearest(name, settings)}" for name in unknown
    ]
