"""The cells of a notebook as Python: those that this session executed, or those of a file."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lo_kernel.errors import ExportError

__all__ = ["Cell", "Notebook", "read_history", "read_notebook"]

_MAGIC = re.compile(r"\s*[%!]|.*\?\s*$|\s*\w[\w, ]*=\s*[%!]")
_MEASURING = ("time", "capture", "prun", "memit")
"""Cell magics around plain Python: it is the cell's own code that runs, in the notebook's namespace."""


@dataclass(frozen=True)
class Cell:
    """A cell: as it was typed, and its Python with the same number of lines before each statement."""

    notebook: str
    label: str
    raw: str
    tree: ast.Module
    source: str
    offset: int = 0  # lines of `raw` before the first of `source`
    language: str = ""  # the cell magic of a cell that isn't Python

    def place(self, line: int) -> str:
        """Where a line of :attr:`source` is, for a person.

        >>> Cell("n.ipynb", "3", "x", ast.parse("x"), "x").place(1)
        'n.ipynb: cell 3, line 1'
        """
        return f"{self.notebook}: cell {self.label}, line {line + self.offset}"

    def typed(self, line: int) -> str:
        """A line of :attr:`source` as it was typed."""
        lines = self.raw.splitlines()
        at = line + self.offset - 1
        return lines[at].strip() if at < len(lines) else ""


@dataclass
class Notebook:
    """Cells in the order that counts; ``notes`` is what a person should know about that order."""

    name: str
    cells: list[Cell]
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None


def read_history(sources: Sequence[str], name: str = "notebook") -> Notebook:
    """The cells that a session executed; ``sources[n]`` is what ran as ``In [n]``.

    >>> [cell.label for cell in read_history(["", "x = 1", "", "x +"]).cells]
    ['[1]']
    """
    made = (_cell(name, f"[{number}]", raw) for number, raw in enumerate(sources) if raw.strip())
    return Notebook(name, [cell for cell in made if cell is not None])


def read_notebook(path: Path) -> Notebook:
    """The code cells of a file, in its order; ``notes`` say where the session that saved it went another way.

    Raises :class:`ExportError` where the file is no notebook.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = [cell for cell in data["cells"] if cell["cell_type"] == "code"]
    except OSError as error:
        raise ExportError(f"{path} can't be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: expected a Jupyter notebook (.ipynb, format 4): {error!r}") from None
    numbers = {id(cell): number for number, cell in enumerate(data["cells"], 1)}
    cells: list[Cell] = []
    ran: list[tuple[int, Cell]] = []
    notes = []
    for each in found:
        raw = each["source"] if isinstance(each["source"], str) else "".join(each["source"])
        if not raw.strip():
            continue
        cell = _cell(path.name, str(numbers[id(each)]), raw)
        if cell is None:
            notes.append(f"{path.name}: cell {numbers[id(each)]} isn't Python that can be read: left out")
            continue
        cells.append(cell)
        count = each.get("execution_count")
        if isinstance(count, int):
            ran.append((count, cell))
    notes += _differences(cells, [cell for _, cell in sorted(ran, key=lambda pair: pair[0])])
    return Notebook(path.name, cells, notes, path.resolve().parent)


def _differences(by_file: list[Cell], by_session: list[Cell]) -> list[str]:
    """Names whose last definition is another one in the order of the session, with both places."""
    if not by_session:
        return []
    file, session = _last_bound(by_file), _last_bound(by_session)
    notes = []
    for name, cell in file.items():
        other = session.get(name)
        if other is None:
            notes.append(
                f"{name!r}: cell {cell.label} defines it, and was not executed in the session that saved "
                "the file"
            )
        elif other is not cell:
            notes.append(
                f"{name!r}: the file's last definition is in cell {cell.label}; the session that saved it "
                f"executed cell {other.label} last"
            )
    return notes


def _last_bound(cells: Iterable[Cell]) -> dict[str, Cell]:
    bound: dict[str, Cell] = {}
    for cell in cells:
        for node in cell.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound[node.name] = cell
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                bound.update((each.id, cell) for each in targets if isinstance(each, ast.Name))
    return bound


def _cell(notebook: str, label: str, raw: str) -> Cell | None:
    """A cell as Python; ``None`` where it can't be parsed (then it never ran either)."""
    offset = len(raw) - len(raw.lstrip("\n \t\r"))
    offset = raw[:offset].count("\n")
    text = raw.lstrip("\r\n")
    language = ""
    if text.lstrip().startswith("%%"):
        magic, _, body = text.lstrip().partition("\n")
        name = magic[2:].split(" ")[0].strip()
        if name not in _MEASURING:
            return Cell(notebook, label, raw, ast.Module([], []), "", 0, name)
        text, offset = body, offset + 1
        blank = len(text) - len(text.lstrip("\n"))
        text, offset = text[blank:], offset + blank
    source = _transformed(text)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    return Cell(notebook, label, raw, tree, source, offset, language)


def _transformed(text: str) -> str:
    """IPython's own notation as the calls that it stands for; plain Python as it is."""
    if not any(_MAGIC.match(line) for line in text.splitlines()) and not text.startswith((" ", "\t", ">>>")):
        return text if text.endswith("\n") else text + "\n"
    from IPython.core.inputtransformer2 import TransformerManager

    manager: Any = TransformerManager()  # type: ignore[no-untyped-call]
    return str(manager.transform_cell(text))
