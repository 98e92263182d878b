"""What can't be shipped although a cell defines it: live objects, closures over them, files, memory."""

from __future__ import annotations

import ast
import inspect
import pickle
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lo_kernel.notebook.export.reach import Problem, Reach, Reached
from lo_kernel.notebook.export.units import MUTATORS, Unit, root_name

__all__ = ["check_memory", "check_source", "plain_text"]

_READERS = (
    "open",
    "read_csv",
    "read_json",
    "read_parquet",
    "read_excel",
    "read_table",
    "read_pickle",
    "loadtxt",
)
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def check_source(reached: Reached, folder: Path | None) -> Iterator[Problem]:
    """Problems that the code itself shows. ``folder`` is where relative paths of files lead."""
    bound = {
        name for unit in reached.units for name in unit.binds if not (unit.is_import or unit.is_definition)
    }
    for unit in reached.units:
        yield from _awaits(unit)
        yield from _files(unit, folder)
        yield from _memory_in_functions(unit, bound)


def _awaits(unit: Unit) -> Iterator[Problem]:
    waiting: list[ast.AST] = [unit.node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += node.decorator_list if not isinstance(node, ast.Lambda) else []
            continue
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield Problem(
                unit.cell.place(node.lineno),
                f"{unit.cell.typed(node.lineno)!r} awaits outside of a function, which a module can't",
                "Write the value itself, or await it in the reducer",
            )
            return
        waiting += ast.iter_child_nodes(node)


def _files(unit: Unit, folder: Path | None) -> Iterator[Problem]:
    readers = {}
    for node in ast.walk(unit.node):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            readers[id(node.args[0])] = called
    for node in ast.walk(unit.node):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        text = node.value
        if (
            not text
            or len(text) > 500
            or "\n" in text
            or "\0" in text
            or "://" in text
            or Path(text).is_absolute()
        ):
            continue
        reads = readers.get(id(node)) in _READERS
        looks = "." in text.strip(".") or "/" in text
        if reads or (looks and ((folder / text) if folder is not None else Path(text)).is_file()):
            yield Problem(
                unit.cell.place(node.lineno),
                f"the file {text!r} lies in the notebook's folder, and isn't there where the module runs",
                "Write what you need of it as a constant, or take the path from a setting of its own",
            )


def _memory_in_functions(unit: Unit, bound: set[str]) -> Iterator[Problem]:
    """Functions that keep something in a variable of the notebook: it is gone with each restart."""
    for function in ast.walk(unit.node):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        own = _local_names(function)
        for node in ast.walk(function):
            name, how = None, "changes"
            if isinstance(node, ast.Global):
                name, how = node.names[0], "assigns"
            elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(
                node.ctx, ast.Store | ast.Del
            ):
                name = root_name(node)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in MUTATORS
            ):
                name = root_name(node.func)
            if name is None or (how == "changes" and (name in own or name not in bound)):
                continue
            line = getattr(node, "lineno", unit.line)
            yield Problem(
                unit.cell.place(line),
                f"{unit.cell.typed(line)!r} {how} {name!r}, which only the memory of one process holds: "
                "it begins anew with each restart",
                "Keep it in the reducer's state; for a cache, use functools.cache",
            )
            break


def _local_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    arguments = function.args
    own = {
        each.arg
        for each in (
            *arguments.posonlyargs,
            *arguments.args,
            *arguments.kwonlyargs,
            arguments.vararg,
            arguments.kwarg,
        )
        if each is not None
    }
    declared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
    stored = {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return (own | stored) - declared


# -- what the session holds --------------------------------------------------------------------


def check_memory(reach: Reach, reached: Reached, memory: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems that only the live values show: another function than the cell's, live objects."""
    for unit in reached.units:
        if unit.is_import:
            continue
        for name in sorted(reached.names[unit]):
            if name not in memory or reach.binder(name) is not unit:
                continue
            value = memory[name]
            if isinstance(unit.node, ast.FunctionDef | ast.AsyncFunctionDef):
                function = inspect.unwrap(value) if callable(value) else value
                if isinstance(function, types.FunctionType) and not _is_of(function, unit):
                    yield Problem(
                        unit.place,
                        f"the {name!r} in memory isn't the one that this cell defines",
                        "Run the cell again, and export then",
                    )
                    continue
            if problem := _live(value):
                what, out = problem
                yield Problem(unit.place, f"{name!r} {what}", out)


def _is_of(function: types.FunctionType, unit: Unit) -> bool:
    if function.__name__ != getattr(unit.node, "name", None):
        return True  # a decorator put another one in its place
    try:
        made = compile(ast.Module([unit.node], []), "cell", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return True
    found = next(
        (
            const
            for const in made.co_consts
            if isinstance(const, types.CodeType) and const.co_name == function.__name__
        ),
        None,
    )
    return found is None or _same_code(found, function.__code__)


def _same_code(one: types.CodeType, other: types.CodeType) -> bool:
    if one.co_code != other.co_code or one.co_names != other.co_names or one.co_varnames != other.co_varnames:
        return False
    if len(one.co_consts) != len(other.co_consts):
        return False
    return all(
        _same_code(a, b)
        if isinstance(a, types.CodeType) and isinstance(b, types.CodeType)
        else repr(a) == repr(b)
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )


def _live(value: Any, depth: int = 0) -> tuple[str, str] | None:
    """What is wrong with a value that a module would have to make again."""
    out = "Make it inside of the function, or hand over plain data instead"
    if isinstance(value, (types.ModuleType, type, *_PLAIN)):
        return None
    if isinstance(value, types.FunctionType):
        function = inspect.unwrap(value)
        for name, cell in zip(
            function.__code__.co_freevars, getattr(function, "__closure__", None) or (), strict=False
        ):
            try:
                held = cell.cell_contents
            except ValueError:
                continue
            if held is value or held is function or depth > 5:
                continue
            if _live(held, depth + 1):
                kind = type(held).__name__
                return f"closes over {name!r}, a live object ({kind})", out
        return None
    try:
        pickle.dumps(value)
    except Exception:
        if _callable_parts(value):
            return None
        return f"is a live object ({type(value).__module__}.{type(value).__qualname__})", out
    return None


def _callable_parts(value: Any) -> bool:
    """Whether it is a container whose parts can be made again: functions can, although they can't be
    pickled.
    """
    parts: Any = None
    if isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif isinstance(value, dict):
        parts = [*value, *value.values()]
    elif callable(value):
        return hasattr(value, "__wrapped__") or isinstance(
            value, types.MethodType | types.BuiltinFunctionType
        )
    return parts is not None and not any(_live(part, 1) for part in parts)


def plain_text(value: Any, depth: int = 0) -> str | None:
    """A text that is the same for equal plain values; ``None`` for what isn't plain data.

    >>> plain_text({"b": [1, (2.0, None)], "a": {3}})
    "{'b': [1, (2.0, None)], 'a': {3}}"
    >>> plain_text(print) is None
    True
    """
    if depth > 50:
        return None
    if type(value) in _PLAIN:
        return repr(value)
    parts: list[str | None]
    if type(value) in (list, tuple):
        parts = [plain_text(item, depth + 1) for item in value]
        ends = "[]" if type(value) is list else "()"
    elif type(value) in (set, frozenset):
        known = [plain_text(item, depth + 1) for item in value]
        parts, ends = [*sorted(each for each in known if each is not None)], "{}"
        parts += [None] if None in known else []
    elif type(value) is dict:
        parts, ends = [], "{}"
        for key, item in value.items():
            pair = plain_text(key, depth + 1), plain_text(item, depth + 1)
            parts.append(None if None in pair else f"{pair[0]}: {pair[1]}")
    else:
        return None
    if any(part is None for part in parts):
        return None
    return ends[0] + ", ".join(part for part in parts if part is not None) + ends[1]
