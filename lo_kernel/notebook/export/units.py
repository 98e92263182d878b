"""Statements of cells: which names each binds, needs and changes, and its lines with their comments."""

from __future__ import annotations

import ast
import builtins
import symtable
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from lo_kernel.notebook.export.cells import Cell, Notebook

__all__ = ["MUTATORS", "Unit", "named", "root_name", "units_of"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}

MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem"}
    | {"popleft", "remove", "reverse", "setdefault", "sort", "subtract", "update", "__setitem__"}
)
"""Methods by which a container changes."""


@dataclass(eq=False)
class Unit:
    """One statement at the top level of a cell; ``order`` is its place among all that were executed."""

    cell: Cell
    node: ast.stmt
    order: int
    start: int  # first line of it, comments above and decorators included
    end: int
    text: str
    names: dict[str, int] = field(default_factory=dict)
    """Every name in it, with the first line where it stands."""
    binds: frozenset[str] = frozenset()
    now: frozenset[str] = frozenset()
    """Names that it needs when it runs."""
    later: frozenset[str] = frozenset()
    """Names that what it defines needs when that is called."""
    changes: frozenset[str] = frozenset()
    """Names that it doesn't bind, whose values it changes."""
    hints: frozenset[str] = frozenset()
    """Names in annotations that are texts."""

    @property
    def line(self) -> int:
        """Where its code begins, decorators included."""
        decorators: list[ast.expr] = getattr(self.node, "decorator_list", [])
        return min([self.node.lineno, *(each.lineno for each in decorators)])

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return self.cell.place(self.line)

    def place_of(self, name: str) -> str:
        """Where a name stands in it."""
        return self.cell.place(self.names.get(name, self.line))

    @property
    def is_import(self) -> bool:
        """Whether it is an import and nothing else."""
        return isinstance(self.node, ast.Import | ast.ImportFrom)

    @property
    def is_removal(self) -> bool:
        """Whether it takes names away."""
        return isinstance(self.node, ast.Delete)

    @property
    def star(self) -> str:
        """The module of ``from module import *``; else empty."""
        node = self.node
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and not node.level:
            return node.module or ""
        return ""

    @property
    def is_definition(self) -> bool:
        """Whether it is a function or a class."""
        return isinstance(self.node, (*_FUNCTIONS, ast.ClassDef))

    @property
    def code(self) -> str:
        """Its code without the comments above it, in a form in which equal code is equal text."""
        return ast.dump(self.node)


def units_of(notebook: Notebook) -> list[Unit]:
    """All statements, in the order of the cells."""
    found: list[Unit] = []
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        before = 0  # the last line of the statement before
        body = cell.tree.body
        for place, node in enumerate(body):
            following = body[place + 1].lineno if place + 1 < len(body) else len(lines) + 1
            unit = _unit(cell, lines, node, before, following, len(found))
            before = max(before, unit.end)
            found.append(unit)
    return found


def _unit(cell: Cell, lines: list[str], node: ast.stmt, before: int, following: int, order: int) -> Unit:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    end = node.end_lineno or node.lineno
    shared = first <= before or (following == end) or _after(lines[end - 1], node)
    if shared:  # with another statement on one line: just its own characters
        text = ast.get_source_segment(cell.source, node) or ""
        return named(Unit(cell, node, order, first, end, text))
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try)):
        while end < following - 1 and end < len(lines) and _inner_comment(lines, end, following):
            end += 1
    start = first
    above = list(range(before + 1, first))
    while above and not lines[above[0] - 1].strip():
        above.pop(0)
    if above and all(not lines[line - 1].strip() or lines[line - 1].startswith("#") for line in above):
        start = above[0]
    text = "\n".join(line.rstrip() for line in lines[start - 1 : end])
    return named(Unit(cell, node, order, start, end, text))


def _after(line: str, node: ast.stmt) -> bool:
    """Whether more than a comment stands on a statement's last line, behind it."""
    rest = line.encode()[node.end_col_offset or 0 :].decode(errors="replace").strip()
    return rest.startswith(";") and rest.strip("; ") != "" and not rest.strip("; ").startswith("#")


def _inner_comment(lines: list[str], end: int, following: int) -> bool:
    """Whether the lines behind a block go on with a comment that is indented as a part of it."""
    for line in lines[end : following - 1]:
        if line.strip():
            return line.lstrip().startswith("#") and line[:1] in (" ", "\t")
    return False


def named(unit: Unit) -> Unit:
    """Find out, in place, what a statement binds, needs and changes."""
    node = unit.node
    if unit.is_import:
        assert isinstance(node, ast.Import | ast.ImportFrom)
        names = [(each.asname or each.name).partition(".")[0] for each in node.names]
        unit.binds = frozenset(name for name in names if name != "*")
        unit.names = dict.fromkeys(unit.binds, node.lineno)
        return unit
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            unit.names.setdefault(each.id, each.lineno)
    table = symtable.symtable(_alone(unit), "cell", "exec")
    bound: set[str] = set()
    now: set[str] = set()
    later: set[str] = set()
    for symbol in table.get_symbols():
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            bound.add(symbol.get_name())
        if symbol.is_referenced():
            now.add(symbol.get_name())
    for child in table.get_children():
        _collect(child, now, later, called=False)
    for each in _top_level(node):
        if isinstance(each, ast.NamedExpr):  # one in a comprehension binds a name outside of it
            bound.add(each.target.id)
            now.discard(each.target.id)
    if isinstance(node, ast.Delete):
        bound |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        now -= bound
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        now.add(node.target.id)
    elif bound and not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        now -= {name for name in bound if _bound_before_use(node, name)}
    unit.binds = frozenset(bound - {"__annotations__"})
    unit.now = frozenset(now - _BUILTINS)
    unit.later = frozenset(later - _BUILTINS)
    unit.changes = frozenset(_changed(node)) - unit.binds
    unit.hints = frozenset(_hints(node)) - _BUILTINS
    return unit


def _alone(unit: Unit) -> str:
    """The statement's own code, so that a symbol table can be made of it."""
    return ast.unparse(unit.node) if unit.text[:1] in (" ", "\t") else textwrap.dedent(unit.text) + "\n"


def _collect(table: symtable.SymbolTable, now: set[str], later: set[str], *, called: bool) -> None:
    """Global names of an inner scope: of a function's body for later, of a class's body or the like for
    now.
    """
    kind = str(table.get_type())
    comprehension = table.get_name() in ("listcomp", "setcomp", "dictcomp", "genexpr")
    inside = called or (kind.endswith("function") and not comprehension)
    for symbol in table.get_symbols():
        if symbol.is_global() and (symbol.is_referenced() or symbol.is_declared_global()):
            (later if inside else now).add(symbol.get_name())
    for child in table.get_children():
        _collect(child, now, later, called=inside)


def _bound_before_use(node: ast.stmt, name: str) -> bool:
    """Whether a compound statement binds a name at a line before it uses it."""
    first_use = first_bound = None
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and each.id == name:
            if isinstance(each.ctx, ast.Store):
                first_bound = min(first_bound or each.lineno, each.lineno)
            else:
                first_use = min(first_use or each.lineno, each.lineno)
        elif (isinstance(each, (*_FUNCTIONS, ast.ClassDef)) and each.name == name) or isinstance(
            each, ast.Import | ast.ImportFrom | ast.ExceptHandler
        ):
            first_bound = min(first_bound or each.lineno, each.lineno)
    return first_use is None or (first_bound is not None and first_bound <= first_use)


def _top_level(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is in it, without the bodies of functions."""
    yield node
    if isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _top_level(child)


def root_name(node: ast.AST) -> str | None:
    """The name at the start of ``name.a["b"].c``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _changed(node: ast.stmt) -> Iterator[str]:
    for each in _top_level(node):
        if isinstance(each, ast.Attribute | ast.Subscript) and isinstance(each.ctx, ast.Store | ast.Del):
            if name := root_name(each):
                yield name
        elif (
            isinstance(each, ast.Call)
            and isinstance(each.func, ast.Attribute)
            and each.func.attr in MUTATORS
            and (name := root_name(each.func))
        ):
            yield name


def _hints(node: ast.stmt) -> Iterator[str]:
    for each in ast.walk(node):
        annotations: list[ast.expr | None] = []
        if isinstance(each, _FUNCTIONS):
            annotations.append(each.returns)
        elif isinstance(each, ast.arg | ast.AnnAssign):
            annotations.append(each.annotation)
        for annotation in annotations:
            for part in ast.walk(annotation) if annotation is not None else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    try:
                        parsed = ast.parse(part.value, mode="eval")
                    except SyntaxError:
                        continue
                    yield from (name.id for name in ast.walk(parsed) if isinstance(name, ast.Name))
                elif isinstance(part, ast.Name):
                    yield part.id
