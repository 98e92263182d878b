"""Which distributions the code needs, and in which versions they are in use."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec

from lo_kernel.notebook.export.reach import Problem
from lo_kernel.notebook.export.units import Unit

__all__ = ["requirements"]

_HOST = ("learning_observer", "writing_observer")  # is there where such an import makes sense


def requirements(
    units: Iterable[Unit], imported: dict[Unit, set[str]], own: str
) -> tuple[dict[str, str], list[Problem]]:
    """Requirements by distribution, such as ``{"numpy": "numpy>=2.1"}``, and imports that nothing provides.

    ``imported`` says which names of an import are used.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    distributions: dict[str, list[str]] = {}
    for unit in units:
        for module, line, maybe in _modules(unit, imported.get(unit)):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top in _HOST or top == own:
                continue
            distributions = distributions or dict(metadata.packages_distributions())
            names = distributions.get(top)
            if not names:
                spec = _spec(top)
                if maybe:
                    continue
                what = (
                    f"the module {top!r} is a file in the notebook's folder, not an installed package"
                    if spec is not None
                    else f"the module {top!r} is not installed"
                )
                out = (
                    "Paste what you need of it into a cell, or make a package of it and install that"
                    if spec is not None
                    else f"Install it first: pip install {top}"
                )
                problems.append(Problem(unit.cell.place(line), what, out))
                continue
            name = _best(names, top)
            found[name] = f"{name}>={metadata.version(name).partition('+')[0]}"
    return dict(sorted(found.items())), problems


def _best(names: list[str], top: str) -> str:
    alike = [name for name in names if name.lower().replace("-", "_") == top.lower()]
    return (alike or sorted(names))[0]


def _spec(top: str) -> object:
    try:
        return find_spec(top)
    except (ImportError, ValueError):
        return None


def _modules(unit: Unit, names: set[str] | None) -> Iterator[tuple[str, int, bool]]:
    """Modules that a statement imports, where, and whether it gets on without them (``except
    ImportError``).
    """
    from lo_kernel.notebook.export.seam import through_seam

    optional = {
        id(each) for node in ast.walk(unit.node) if isinstance(node, ast.Try) for each in ast.walk(node)
    }
    for node in ast.walk(unit.node):
        maybe = id(node) in optional
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (
                    names is None
                    or not unit.is_import
                    or (alias.asname or alias.name).partition(".")[0] in names
                ):
                    yield alias.name, node.lineno, maybe
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if unit.is_import and names is not None:
                left = names - through_seam(unit, names)
                if not left and not unit.star:
                    continue
            yield node.module, node.lineno, maybe
