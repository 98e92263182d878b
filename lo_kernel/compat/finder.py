"""Finds ``learning_observer.*`` on ``sys.meta_path`` and gives modules of names that stand on a running app.

The app sets it up when it starts and takes it away when it ends; importing ``lo_kernel`` does neither. While
it is there it comes before the deployed package, so that there are never two stores side by side. A module
of names is made when it is first imported. What isn't covered is an :class:`ImportError` that says so.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import LOError

if TYPE_CHECKING:
    from lo_kernel.compat.field import Field

__all__ = ["COVERED", "PACKAGE", "AliasModule", "Aliases", "is_alias"]

PACKAGE = "learning_observer"

_PROTOCOL = f"{PACKAGE}.communication_protocol"
_STREAM = f"{PACKAGE}.stream_analytics"

COVERED = {
    PACKAGE: ("system", "package"),
    f"{PACKAGE}.adapters": ("reducing", "adapters"),
    f"{PACKAGE}.adapters.adapter": ("reducing", "adapter"),
    f"{PACKAGE}.cache": ("storing", "cache"),
    _PROTOCOL: ("system", "package"),
    f"{_PROTOCOL}.exception": ("querying", "exception"),
    f"{_PROTOCOL}.executor": ("querying", "executor"),
    f"{_PROTOCOL}.integration": ("querying", "integration"),
    f"{_PROTOCOL}.query": ("querying", "query"),
    f"{_PROTOCOL}.util": ("querying", "util"),
    f"{PACKAGE}.constants": ("system", "constants"),
    f"{PACKAGE}.dash_integration": ("system", "dash_integration"),
    f"{PACKAGE}.dash_wrapper": ("system", "dash_wrapper"),
    f"{PACKAGE}.downloads": ("system", "downloads"),
    f"{PACKAGE}.exceptions": ("system", "exceptions"),
    f"{PACKAGE}.incoming_student_event": ("replaying", "incoming_student_event"),
    f"{PACKAGE}.integrations": ("system", "integrations"),
    f"{PACKAGE}.interactive_development": ("loading", "interactive_development"),
    f"{PACKAGE}.kvs": ("storing", "kvs"),
    f"{PACKAGE}.log_event": ("system", "log_event"),
    f"{PACKAGE}.module_loader": ("loading", "module_loader"),
    f"{PACKAGE}.offline": ("replaying", "offline"),
    f"{PACKAGE}.paths": ("system", "paths"),
    f"{PACKAGE}.prestartup": ("system", "prestartup"),
    f"{PACKAGE}.queries": ("querying", "queries"),
    f"{PACKAGE}.rosters": ("querying", "rosters"),
    f"{PACKAGE}.runtime": ("querying", "runtime"),
    f"{PACKAGE}.settings": ("configuring", "settings"),
    _STREAM: ("reducing", "stream_analytics"),
    f"{_STREAM}.fields": ("reducing", "fields"),
    f"{_STREAM}.helpers": ("reducing", "helpers"),
    f"{_STREAM}.time_on_task": ("reducing", "time_on_task"),
    f"{PACKAGE}.util": ("utilities", "util"),
    "pmss": ("configuring", "pmss"),
    "pmss.pmsstypes": ("configuring", "pmsstypes"),
}
"""What is covered: by name, the module of this package that makes it, and the function in that."""

ASK = (
    "docs/compatibility.md lists what is covered; for what is missing, ask in the issues of lo_kernel. With "
    "app='learning_observer' the deployed package itself answers"
)


class AliasModule(ModuleType):
    """A module of names. ``__lo_kernel__`` tells it from the deployed package's."""

    __lo_kernel__: Aliases

    def __getattr__(self, name: str) -> Any:
        """A module below this one, imported now; the field's own code leaves out many of its imports."""
        if f"{self.__name__}.{name}" in COVERED:
            return import_module(f"{self.__name__}.{name}")
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        raise AttributeError(_not_covered(f"{self.__name__}.{name}"), name=name, obj=self)


class Aliases(MetaPathFinder, Loader):
    """The finder of one app."""

    def __init__(self, field: Field) -> None:
        self.field = field

    def install(self) -> None:
        """Take the place of the deployed package, for all imports from now on.

        Raises :class:`~lo_kernel.errors.LOError` where that one is imported already: it has a store of its
        own, and whoever imported it would go on with that.
        """
        before = sys.modules.get(PACKAGE)
        if before is not None and not is_alias(before):
            raise LOError(
                "the deployed package 'learning_observer' was imported before the app started, and has a "
                "store of its own: the aliases are left out. Import it after the start, or choose "
                "app='learning_observer'"
            )
        for each in [finder for finder in sys.meta_path if isinstance(finder, Aliases)]:
            each.remove()  # of two apps in a process the newer one answers
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Leave the place; the modules that were made go, too."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name, module in list(sys.modules.items()):
            if is_alias(module) and module.__dict__["__lo_kernel__"] is self:
                del sys.modules[name]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module of names; ``None`` for what is none of the field's."""
        top = fullname.partition(".")[0]
        if top == "pmss":  # it is a package of its own: where it is installed, it is what is meant
            if fullname not in COVERED or self._elsewhere("pmss"):
                return None
        elif top != PACKAGE:
            return None
        elif fullname not in COVERED:
            raise ImportError(_not_covered(fullname), name=fullname)
        return spec_from_loader(fullname, self, origin="lo_kernel", is_package=True)

    def _elsewhere(self, name: str) -> bool:
        others = (finder for finder in sys.meta_path if not isinstance(finder, Aliases))
        return any(finder.find_spec(name, None) is not None for finder in others)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return AliasModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Give it its names."""
        module.__dict__["__lo_kernel__"] = self
        where, name = COVERED[module.__name__]
        made = getattr(import_module(f"lo_kernel.compat.{where}"), name)(self.field)
        module.__dict__.update(made)


def is_alias(module: object) -> bool:
    """Whether a module is one of names, and not the deployed package's."""
    return isinstance(module, AliasModule)


def _not_covered(fullname: str) -> str:
    parent, _, name = fullname.rpartition(".")
    there = sorted(each.rpartition(".")[2] for each in COVERED if each.rpartition(".")[0] == parent)
    module = sys.modules.get(parent)
    if is_alias(module):
        there = sorted({*there, *(each for each in vars(module) if not each.startswith("_"))})
    has = f"; of {parent} there are: {', '.join(there)}" if there else ""
    return f"{fullname}: lo_kernel has no {name!r} in the place of the deployed one's{has}. {ASK}"
