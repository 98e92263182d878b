"""Which modules are installed: packages with an entry point in the group ``lo_modules``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from lo_kernel.modules.look import GROUP

__all__ = ["Installed", "installed_modules"]

_NOT_OURS = ("learning_observer",)  # the deployed package's own: here others stand in its place


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point, such as ``my_module = my_module.module`` of the distribution ``my-module`` 1.2."""

    name: str
    value: str
    distribution: str = ""
    version: str = ""

    @property
    def package(self) -> str:
        """The package that the module is in, as in ``my_module`` for ``my_module.module``."""
        return self.value.partition(":")[0].strip().removesuffix(".module")

    def load(self) -> ModuleType:
        """Import it."""
        return import_module(self.value.partition(":")[0].strip())


def installed_modules() -> list[Installed]:
    """The installed modules by name; the deployed system's own core is left out."""
    from importlib.metadata import entry_points

    found: dict[tuple[str, str], Installed] = {}
    for point in entry_points(group=GROUP):
        if point.value.partition(".")[0] in _NOT_OURS:
            continue
        dist = point.dist
        about = (dist.name, dist.version) if dist is not None else ("", "")
        found.setdefault((point.name, point.value), Installed(point.name, point.value, *about))
    return [found[key] for key in sorted(found)]
