"""A hash of what a reducer computes: its code, and the helpers and constants that it reaches.

Two definitions with the same hash fold events alike, so states of the one go on under the other.
Comments, layout and where the code stands do not count.

A constant counts by its content: that is what :mod:`pickle` would write of it, whatever its class (an
array, a table, an object of one's own). What is no data, and changes by itself (a lock, a task, a file, a
connection, a generator), counts by its class: else the same code would be other code at each look. Too much
content makes a hash that no other is equal to: it is better to fold again than to mix the states of two
codes.
"""

from __future__ import annotations

import contextlib
import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import secrets
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["code_hash"]

_PLAIN: Final = frozenset({str, int, float, complex, bool, type(None), type(Ellipsis), type(NotImplemented)})
_MOST_BYTES: Final = 64 << 20  # of one array: 0.1 s
_MOST_OBJECTS: Final = 100_000  # of other classes: 1 s
# Modules whose objects are no data. An object of a library that has one of the first kind in it is a
# connection or the like, all of it; one that has a lock or a random generator in it may be a model.
_OPEN: Final = frozenset(
    {"_asyncio", "_io", "_socket", "_ssl", "asyncio", "io", "select", "selectors", "socket", "ssl"}
)
_MOVING: Final = frozenset(
    {"_contextvars", "_queue", "_random", "_thread", "concurrent", "contextvars", "multiprocessing"}
    | {"queue", "random", "sqlite3", "subprocess", "threading", "numpy.random"}
)
_HOLDERS: Final = frozenset({"builtins", "collections", "functools", "types"})  # of what is put into them
_DESCRIPTORS: Final = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.MethodWrapperType,
)


class _Unsure(Exception):
    """There is no telling whether a value is what it was."""


def code_hash(function: Callable[..., Any], *more: object) -> str:
    """SHA-256 in hex of a function's code with all that it reaches, and of ``more`` plain values.

    >>> def double(x): return 2 * x
    >>> def again(x): return 2 * x
    >>> again.__name__ = again.__qualname__ = "double"
    >>> code_hash(double) == code_hash(again), code_hash(double) == code_hash(lambda x: 3 * x)
    (True, False)
    """
    walk = _Walk()
    try:
        walk.value(function)
        for value in more:
            walk.value(value)
    except (_Unsure, RecursionError):
        return secrets.token_hex(32)
    return walk.digest.hexdigest()


class _Walk:
    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.keep: list[object] = []  # ids stay taken while the walk lasts
        self.objects = 0
        self.open = 0  # loops, sockets, files and the like that were met

    def note(self, *parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode()
            self.digest.update(len(data).to_bytes(8, "little") + data)

    def value(self, value: Any) -> None:
        kind = type(value)
        if kind in _PLAIN:
            self.note(kind.__name__, repr(value))
            return
        if kind is bytes or kind is bytearray:
            self.note(kind.__name__, bytes(value))
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
        elif isinstance(value, list | tuple | dict | set | frozenset):
            self.collection(value)
        elif isinstance(value, staticmethod | classmethod):
            self.note(kind.__name__)
            self.value(value.__func__)
        elif isinstance(value, property):
            self.value([value.fget, value.fset, value.fdel])
        else:
            self.other(value)

    def collection(self, value: Any) -> None:
        self.kind_of(value)
        self.note(len(value))
        if isinstance(value, dict):
            self.value(getattr(value, "default_factory", None))
            for key, item in value.items():
                self.value(key)
                self.value(item)
        elif isinstance(value, set | frozenset):
            for item in sorted(map(self.alone, value)):
                self.note(item)
        else:
            for item in value:
                self.value(item)

    def alone(self, value: Any) -> bytes:
        """The digest of a value by itself."""
        walk = _Walk()
        walk.objects = self.objects
        walk.value(value)
        self.objects = walk.objects
        self.open += walk.open
        self.keep += walk.keep
        return walk.digest.digest()

    def kind_of(self, value: Any) -> None:
        """The class of a value: of one that was written here, what is in it."""
        kind = type(value)
        self.note("object", kind.__module__, kind.__qualname__)
        if not _installed(kind):
            self.value(kind)

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
                try:
                    self.reached(value)
                except _Unsure:
                    if not _installed(function):  # else the package's version tells
                        raise
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
            if name.startswith("__pydantic_") and name != "__pydantic_fields__":  # it has addresses in it
                continue
            self.note(name)
            try:
                self.value(member)
            except _Unsure:
                if not name.startswith("_"):  # else it is machinery, as of an abstract class
                    raise

    def other(self, value: Any) -> None:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        ours = kind.__module__.startswith("lo_kernel.") and kind.__module__ != "lo_kernel.engine.keys"
        if ours or isinstance(value, (*_DESCRIPTORS, weakref.ref)):
            self.note("object", name, getattr(value, "__name__", ""))
        elif _lives(value):
            self.open += _is_of(kind, _OPEN)
            self.kind_of(value)
            for name in ("gi_code", "cr_code", "ag_code"):
                self.value(getattr(value, name, None))
        elif isinstance(value, types.MappingProxyType):
            self.note(name)
            self.value(dict(value))
        elif isinstance(value, functools.cached_property):
            self.note(name)
            self.value(value.func)
        elif callable(value) and hasattr(value, "__wrapped__"):  # such as one with a cache
            self.kind_of(value)
            self.reached(value.__wrapped__)
        else:
            self.content(value)

    def content(self, value: Any) -> None:
        """What a value would be made again from; of a library's connection or the like, its class."""
        self.objects += 1
        size = getattr(value, "nbytes", 0)
        if self.objects > _MOST_OBJECTS or (isinstance(size, int) and size > _MOST_BYTES):
            raise _Unsure
        self.kind_of(value)
        before, known, opened = self.digest.copy(), len(self.seen), self.open
        self.parts(value)
        kind = type(value)
        if self.open > opened and kind.__module__ not in _HOLDERS and _installed(kind):
            self.digest = before
            while len(self.seen) > known:
                self.seen.popitem()

    def parts(self, value: Any) -> None:
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            parts: Any = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except Exception:
            fields = getattr(value, "__dict__", None)
            if isinstance(fields, dict) and not _installed(type(value)):
                self.value(fields)
            return
        if isinstance(parts, str):  # something that has a name
            self.note("named", getattr(value, "__module__", ""), parts)
            return
        make, arguments, state, *items = (*parts, None, None, None)[:5]
        self.reached(make)
        for argument in arguments or ():
            self.reached(argument)
        self.value(state)
        for some in items:
            self.value(None if some is None else list(some))


def _lives(value: Any) -> bool:
    """Whether a value is no data: its state is where it is just now, and not what somebody wrote."""
    if isinstance(value, enum.Enum):
        return False
    if isinstance(value, Iterator | types.CoroutineType | types.AsyncGeneratorType):
        return True
    return _is_of(type(value), _OPEN | _MOVING)


def _is_of(kind: type, modules: frozenset[str]) -> bool:
    """Whether a class, or one that it is made from, is of some modules."""
    names = (each.__module__.split(".") for each in kind.__mro__)
    return any(name[0] in modules or ".".join(name[:2]) in modules for name in names)


def _has_docstring(code: types.CodeType) -> bool:
    flag = getattr(inspect, "CO_HAS_DOCSTRING", None)  # Python 3.13 and later
    if flag is not None:
        return bool(code.co_flags & flag)
    if code.co_name.startswith("<"):  # a comprehension or a lambda: its first constant is one that it uses
        return False
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
