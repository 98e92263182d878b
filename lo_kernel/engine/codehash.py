"""A hash of what a reducer computes: its code, and the helpers and constants that it reaches.

Two definitions with the same hash fold events alike, so states of the one go on under the other.
Comments, layout and where the code stands do not count. A value that can't be named for sure (a live
object, say) counts by its type alone.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["code_hash"]

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis))


def code_hash(function: Callable[..., Any], *more: object) -> str:
    """SHA-256 in hex of a function's code with all that it reaches, and of ``more`` plain values.

    >>> def double(x): return 2 * x
    >>> def again(x): return 2 * x
    >>> again.__name__ = again.__qualname__ = "double"
    >>> code_hash(double) == code_hash(again), code_hash(double) == code_hash(lambda x: 3 * x)
    (True, False)
    """
    walk = _Walk()
    walk.value(function)
    for value in more:
        walk.value(value)
    return walk.digest.hexdigest()


class _Walk:
    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.keep: list[object] = []  # ids stay taken while the walk lasts

    def note(self, *parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode()
            self.digest.update(len(data).to_bytes(8, "little") + data)

    def value(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self.note(type(value).__name__, repr(value))
            return
        if id(value) in self.seen:
            self.note("again", self.seen[id(value)])
            return
        self.seen[id(value)] = len(self.seen)
        self.keep.append(value)
        if isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.note("method")
            self.value(value.__func__)
            self.value(value.__self__)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, types.ModuleType):
            self.note("module", value.__name__, getattr(value, "__version__", ""))
        elif isinstance(value, type):
            self.klass(value)
        elif isinstance(value, list | tuple):
            self.note(type(value).__name__, len(value))
            for item in value:
                self.value(item)
        elif isinstance(value, dict):
            self.note("dict", len(value))
            for key, item in value.items():
                self.value(key)
                self.value(item)
        elif isinstance(value, set | frozenset):
            self.note("set", *sorted(repr(item) for item in value))
        else:
            self.other(value)

    def function(self, function: types.FunctionType) -> None:
        self.note("function", function.__qualname__.rpartition(".")[2])
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        self.code(function.__code__)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:  # a cell that isn't filled yet
                self.note("empty cell")
        names = _attributes(function.__code__)
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):
                if isinstance(cell.cell_contents, types.ModuleType):
                    self.members(cell.cell_contents, names)
        for name in sorted(_globals(function.__code__)):
            if name in function.__globals__:
                self.note("global", name)
                value = function.__globals__[name]
                self.reached(value)
                if isinstance(value, types.ModuleType):
                    self.members(value, names)

    def members(self, module: types.ModuleType, names: set[str]) -> None:
        """What is used of a module that isn't installed."""
        if _is_library(module):
            return
        for name in sorted(names & vars(module).keys()):
            self.note("member", name)
            self.reached(vars(module)[name])

    def reached(self, value: Any) -> None:
        """A global: what comes from an installed module counts by name, what was written here by content."""
        module = getattr(value, "__module__", None)
        if isinstance(value, types.FunctionType | type) and module and _installed(value):
            self.note("installed", module, value.__qualname__)
        else:
            self.value(value)

    def code(self, code: types.CodeType) -> None:
        self.note("code", code.co_argcount, code.co_kwonlyargcount, code.co_flags, code.co_code)
        self.note(*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars)
        for const in code.co_consts[1 if _has_docstring(code) else 0 :]:
            self.value(const)

    def klass(self, klass: type) -> None:
        self.note("class", klass.__qualname__)
        if _installed(klass):
            self.note(klass.__module__)
            return
        for base in klass.__bases__:
            self.value(base)
        for name, member in sorted(vars(klass).items()):
            if name in ("__module__", "__dict__", "__weakref__", "__doc__", "__firstlineno__"):
                continue
            self.note(name)
            if isinstance(member, staticmethod | classmethod):
                member = member.__func__
            elif isinstance(member, property):
                member = [member.fget, member.fset, member.fdel]
            self.value(member)

    def other(self, value: Any) -> None:
        self.note("object", type(value).__module__, type(value).__qualname__)
        if isinstance(value, functools.partial):
            self.value(value.func)
            self.value(value.args)
            self.value(value.keywords)
            return
        if isinstance(value, re.Pattern):
            self.note(value.pattern, value.flags)
            return
        if not _installed(type(value)):
            self.value(type(value))
            if isinstance(fields := getattr(value, "__dict__", None), dict):
                self.value(fields)
            return
        # of a live object its type is all that can be said
        with contextlib.suppress(TypeError, ValueError, RecursionError, msgspec.MsgspecError):
            self.note(msgspec.json.encode(value, order="deterministic"))


def _has_docstring(code: types.CodeType) -> bool:
    flag = getattr(inspect, "CO_HAS_DOCSTRING", None)  # Python 3.13 and later
    if flag is not None:
        return bool(code.co_flags & flag)
    return bool(code.co_consts) and isinstance(code.co_consts[0], str)


def _globals(code: types.CodeType) -> set[str]:
    """Names that code takes from its module, nested functions included."""
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _globals(const)
    return names


def _attributes(code: types.CodeType) -> set[str]:
    """Names that code uses, attributes included, with those of nested functions."""
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _attributes(const)
    return names


def _installed(value: Any) -> bool:
    """Whether a function or class comes from a library: its package lies in site-packages or the like."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or getattr(module, "__name__", "") == "__main__":
        return False
    return _is_library(module)


def _is_library(module: types.ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None) or ""
    if origin in ("built-in", "frozen"):
        return True
    return any(part in origin for part in ("site-packages", "dist-packages")) or origin.startswith(
        (sys.base_prefix, sys.prefix)
    )
