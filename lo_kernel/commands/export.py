"""``lo-kernel export``: a notebook file as an installable module."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from lo_kernel.commands.options import OptionParser
from lo_kernel.notebook.export.file import FileExport

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel export NOTEBOOK NAME``."""
    parser = OptionParser(
        "export",
        "A notebook's reducers, queries and dashboards as an installable module, in the order of the file. "
        "Only what reducers reach is run.",
    )
    parser.add_argument("notebook", type=Path, help="the notebook, such as study.ipynb")
    parser.add_argument("name", help="name of the package, such as my_module")
    parser.add_argument("--path", type=Path, default=Path(), help="folder that the package goes to [here]")
    parser.add_argument(
        "--reducer", action="append", default=[], metavar="ID", help="this one only; may be repeated"
    )
    parser.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that holds a query; may be repeated",
    )
    parser.add_argument(
        "--events", type=Path, metavar="FILE", help="events to take a sample from [made-up ones]"
    )
    parser.add_argument("--sample", type=int, default=150, metavar="N", help="how many of them [150]")
    parser.add_argument(
        "--proof", choices=("venv", "index", "none"), default="venv", help="how the package is proved [venv]"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="give up changes made to the package by hand"
    )
    options = parser.parse(arguments)
    work = FileExport(
        options.notebook,
        options.name,
        options.path,
        reducers=options.reducer,
        queries=options.query,
        proof={"none": False}.get(options.proof, options.proof),
        overwrite=options.overwrite,
    )
    report = asyncio.run(work.go(options.events, options.sample, _say))
    print(report)
    return 0


def _say(done: int, what: str) -> None:
    if sys.stderr.isatty():
        print(f"  {what} ...", file=sys.stderr)
