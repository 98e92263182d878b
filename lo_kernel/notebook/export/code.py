"""The statements of a notebook as a module: imports first, then the rest in order, with comments."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from lo_kernel.notebook.export.reach import Reached
from lo_kernel.notebook.export.seam import through_seam
from lo_kernel.notebook.export.units import Unit

__all__ = ["format_folder", "literal", "module_text"]

_WIDTH = 100


def module_text(docstring: str, reached: Reached, package: str, more: Iterable[str] = ()) -> str:
    """A module of statements; ``more`` are further lines of imports."""
    imports: dict[int, set[str]] = {0: set(), 1: set(), 2: set(), 3: set()}
    seam = set(reached.seam)
    body: list[Unit] = []
    bound = [name for unit in reached.units for name in unit.binds]
    for unit in reached.units:
        used = reached.names[unit]
        if not unit.is_import or any(bound.count(name) > 1 for name in used):
            body.append(unit)
            continue
        here = through_seam(unit, used)
        seam |= here
        for line in _import_lines(unit, used - here):
            imports[_group(line)].add(line)
    for unit, names in reached.stars.items():
        line = f"from {unit.star} import {', '.join(sorted(names))}"
        imports[_group(line)].add(line)
    if seam:
        imports[3].add(f"from {package}.seam import {', '.join(sorted(seam))}")
    for line in more:
        imports[_group(line, package)].add(line)
    parts = [f'"""{docstring}"""']
    parts += ["\n".join(sorted(lines, key=_by_module)) for _, lines in sorted(imports.items()) if lines]
    return "\n\n".join(parts) + _body(body) + "\n"


def _body(units: list[Unit]) -> str:
    text = ""
    before: Unit | None = None
    for unit in units:
        near = before is not None and before.cell is unit.cell and unit.start <= before.end + 1
        apart = unit.is_definition or (before is not None and before.is_definition)
        text += ("\n\n\n" if apart else "\n" if near else "\n\n") + unit.text.rstrip()
        before = unit
    return text


def _import_lines(unit: Unit, used: set[str]) -> list[str]:
    node = unit.node
    if not used:
        return []
    if isinstance(node, ast.Import):
        return [
            f"import {each.name}" + (f" as {each.asname}" if each.asname else "")
            for each in node.names
            if (each.asname or each.name).partition(".")[0] in used
        ]
    assert isinstance(node, ast.ImportFrom)
    names = [
        each.name + (f" as {each.asname}" if each.asname else "")
        for each in node.names
        if (each.asname or each.name) in used
    ]
    return [f"from {'.' * node.level}{node.module or ''} import {', '.join(sorted(names))}"]


def _group(line: str, package: str = "\0") -> int:
    module = line.split()[1].partition(".")[0]
    if module == "__future__":
        return 0
    if module == package:
        return 3
    return 1 if module in sys.stdlib_module_names else 2


def _by_module(line: str) -> tuple[bool, str]:
    return line.startswith("from "), line


def literal(value: object, indent: int = 0) -> str:
    """JSON data as code, broken where a line gets long.

    >>> literal({"a": [1, None], "b": "x"})
    '{"a": [1, None], "b": "x"}'
    """
    short = _short(value)
    if len(short) + indent <= _WIDTH - 8 or not isinstance(value, dict | list) or not value:
        return short
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        lines = [f"{inner}{_short(key)}: {literal(item, indent + 4)},\n" for key, item in value.items()]
        return "{\n" + "".join(lines) + " " * indent + "}"
    return "[\n" + "".join(f"{inner}{literal(item, indent + 4)},\n" for item in value) + " " * indent + "]"


def _short(value: object) -> str:
    if isinstance(value, str):
        text = repr(value)
        return '"' + text[1:-1].replace('"', '\\"').replace("\\'", "'") + '"' if text[0] == "'" else text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_short(key)}: {_short(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_short, value)) + "]"
    return repr(value)


def format_folder(folder: Path) -> bool:
    """Format the modules of a folder with ruff or black, whichever is installed; else they stay as they
    are.
    """
    for tool, arguments in (
        ("ruff", ["format", "--isolated", "--line-length", "100"]),
        ("black", ["-q", "-l", "100"]),
    ):
        if find_spec(tool) is None:
            continue
        done = subprocess.run(
            [sys.executable, "-m", tool, *arguments, str(folder)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode == 0
    return False
