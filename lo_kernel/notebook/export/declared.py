"""What cells say about reducers, functions and dashboards: decorators and calls of ``lo``.

``@lo.reducer(...)`` registers and declares in one line. In a package the declaration stays, as the field's
own decorator, and the registration goes to ``REDUCERS``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from lo_kernel.notebook.export.units import Unit, named

__all__ = ["DECLARING", "Said", "calls_of_lo", "declaring", "rewritten"]

DECLARING = ("kvs_pipeline", "student_event_reducer")
_KEPT = ("null_state", "scope")  # of a registration's arguments, those that a declaration has


@dataclass
class Said:
    """A registration as the code has it: ``kind`` is ``reducer``, ``publish``, ``add_reducer`` or
    ``dashboard``.
    """

    kind: str
    unit: Unit
    arguments: list[ast.expr] = field(default_factory=list)
    options: dict[str, ast.expr] = field(default_factory=dict)
    function: str = ""

    def argument(self, place: int, name: str) -> ast.expr | None:
        """An argument by its place or its name."""
        return self.arguments[place] if len(self.arguments) > place else self.options.get(name)


def rewritten(unit: Unit) -> tuple[Unit, list[Said]]:
    """A function without its decorators of ``lo``, and what those said; any other statement as it is."""
    node = unit.node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return unit, []
    said = [_said(unit, each, node.name) for each in node.decorator_list]
    found = [(decorator, each) for decorator, each in zip(node.decorator_list, said, strict=True) if each]
    if not found:
        return unit, []
    declared = any(_called(each) in DECLARING for each in node.decorator_list)
    lines = unit.text.splitlines()
    for decorator, each in reversed(found):
        first, last = decorator.lineno - unit.start, (decorator.end_lineno or decorator.lineno) - unit.start
        new = [] if each.kind == "publish" or declared else [_declaration(unit, each)]
        lines[first : last + 1] = [line for text in new for line in text.splitlines()]
    text = "\n".join(lines)
    changed = replace(unit, text=text, names=dict(unit.names), node=_parsed(text, node))
    return named(changed), [each for _, each in found]


def declaring(unit: Unit, scope: str) -> Unit:
    """A function that declares nothing, with a declaration of its scope (code, empty for a learner's)."""
    node = unit.node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return unit
    if any(_called(each) in DECLARING for each in node.decorator_list):
        return unit
    lines = unit.text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith(("@", "def ", "async ")))
    lines.insert(first, f"@kvs_pipeline(scope={scope})" if scope else "@student_event_reducer()")
    text = "\n".join(lines)
    return named(replace(unit, text=text, names=dict(unit.names), node=_parsed(text, node)))


def calls_of_lo(units: list[Unit]) -> Iterator[Said]:
    """Calls at the top level: ``lo.add_reducer``, ``add_reducer_to_lo``, ``lo.dashboard``,
    ``lo.publish(...)(f)``.
    """
    for unit in units:
        if unit.is_definition or unit.is_import:
            continue
        for node in ast.walk(unit.node):
            if not isinstance(node, ast.Call):
                continue
            name = _called(node)
            if name == "add_reducer_to_lo" or (name in ("add_reducer", "dashboard") and _of_lo(node.func)):
                kind = "dashboard" if name == "dashboard" else "add_reducer"
                options = {each.arg: each.value for each in node.keywords if each.arg}
                said = Said(kind, unit, list(node.args), options)
                function = said.argument(1, "reducer")
                said.function = function.id if isinstance(function, ast.Name) else ""
                yield said
            elif (
                isinstance(node.func, ast.Call)
                and _of_lo(node.func.func)
                and _called(node.func) == "publish"
                and node.args
                and isinstance(node.args[0], ast.Name)
            ):
                yield Said("publish", unit, list(node.func.args), {}, node.args[0].id)


def _parsed(text: str, old: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    """A statement from its new text; its lines are counted as in the cell where they are the same."""
    node = ast.parse(text).body[0]
    ast.increment_lineno(node, old.lineno - node.lineno)
    return node


def _said(unit: Unit, decorator: ast.expr, function: str) -> Said | None:
    if not isinstance(decorator, ast.Call) or not _of_lo(decorator.func):
        return None
    kind = _called(decorator)
    if kind not in ("reducer", "publish"):
        return None
    options = {each.arg: each.value for each in decorator.keywords if each.arg}
    return Said(kind, unit, list(decorator.args), options, function)


def _declaration(unit: Unit, said: Said) -> str:
    given = {
        name: ast.get_source_segment(unit.cell.source, value)
        for name, value in said.options.items()
        if name in _KEPT
    }
    arguments = ", ".join(f"{name}={text}" for name, text in given.items())
    return f"@{'kvs_pipeline' if 'scope' in given else 'student_event_reducer'}({arguments})"


def _called(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _of_lo(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lo"
