"""The modules that were loaded: ``lo.modules``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lo_kernel.modules.served import Served

if TYPE_CHECKING:
    from lo_kernel.modules.module import Module

__all__ = ["Modules"]


class Modules(Mapping[str, "Module"]):
    """Installed LO modules by name, with version, reducers, queries and dashboards, and what went wrong.

    They are loaded when the app starts: every package with an entry point in the group ``lo_modules``.
    """

    def __init__(self) -> None:
        self._modules: dict[str, Module] = {}
        self.served = Served()
        """What they answer requests with: the app's."""
        self.checks: list[Callable[[], Any]] = []
        """What one wants run once it is imported."""

    def add(self, module: Module) -> None:
        """List a module."""
        self._modules[module.name] = module

    def remove(self, name: str) -> None:
        """List a module no more."""
        del self._modules[name]

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __repr__(self) -> str:
        if not self:
            return "no modules are installed; 'lo-kernel new my_module' makes one"
        return "\n".join(map(repr, self.values()))

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(repr(self))}</pre>"
