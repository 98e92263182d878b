"""Stand-ins for packages that only draw pages, while a module is imported that needs them and they lack.

A module of the field imports Dash and its components at the top, beside its reducers. Where these aren't
installed the reducers and queries are of use all the same, so for the time of the import anything can be
taken from such a package, called and put together. What was made of it is never shown. Afterwards the
package is missing again, for everybody.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import FunctionType, ModuleType
from typing import Any, TypeVar

__all__ = ["PAGES", "import_module_of_the_field"]

PAGES = ("dash", "dash_bootstrap_components", "dash_renderjson", "lo_dash_react_components", "plotly")

T = TypeVar("T")


class Placeholder:
    """Anything: gives another one for whatever is asked of it. As a decorator it gives the function back."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and type(args[0]) is FunctionType:
            return args[0]
        return Placeholder(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self.__name__}.{name}")

    def __getitem__(self, key: object) -> Any:
        return Placeholder(self.__name__)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (object,)

    def __add__(self, other: object) -> Any:
        return Placeholder(self.__name__)

    __radd__ = __or__ = __ror__ = __sub__ = __mul__ = __truediv__ = __add__


class PlaceholderModule(ModuleType):
    """A module in which every name is there."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return []
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder(f"{self.__name__}.{name}")


class _StandIns(MetaPathFinder, Loader):
    def __init__(self) -> None:
        self.used: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = fullname.partition(".")[0]
        if top not in PAGES:
            return None
        self.used.add(top)
        return spec_from_loader(fullname, self, is_package=True)

    def missing(self) -> list[str]:
        """Those of the packages it stood in for that aren't installed."""
        others = [finder for finder in sys.meta_path if finder is not self]
        return sorted(
            name for name in self.used if not any(each.find_spec(name, None) is not None for each in others)
        )

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return PlaceholderModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def import_module_of_the_field(load: Callable[[], T], package: str) -> tuple[T, list[str]]:
    """Import a module by ``load()``; gives it, and the packages that something stood in for.

    Where one of those for pages is missing and the others don't get along with its stand-in, the import is
    tried once more with stand-ins for all of them. ``package`` is what is then imported anew.
    """
    before = set(sys.modules)
    with _standing_in(first=False) as stand_ins:
        try:
            return load(), stand_ins.missing()
        except Exception:
            if not stand_ins.used:
                raise
            for name in set(sys.modules) - before:
                if name.partition(".")[0] == package:
                    del sys.modules[name]
    with _standing_in(first=True) as stand_ins:
        return load(), stand_ins.missing()


@contextmanager
def _standing_in(*, first: bool) -> Iterator[_StandIns]:
    """Let stand-ins be found: where nothing else is, or ``first`` of all."""
    stand_ins = _StandIns()
    kept: dict[str, ModuleType] = {}
    if first:
        kept = {name: each for name, each in sys.modules.items() if name.partition(".")[0] in PAGES}
        for name in kept:
            del sys.modules[name]
    sys.meta_path.insert(0 if first else len(sys.meta_path), stand_ins)
    try:
        yield stand_ins
    finally:
        sys.meta_path.remove(stand_ins)
        for name, module in list(sys.modules.items()):
            if isinstance(module, PlaceholderModule):
                del sys.modules[name]
        sys.modules.update(kept)
