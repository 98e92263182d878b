"""``lo-kernel new``: a module of one's own, to begin with."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from lo_kernel.commands.options import OptionParser
from lo_kernel.engine.events import ANY_CONTEXT
from lo_kernel.errors import LOError
from lo_kernel.modules.names import whose_name

__all__ = ["main", "make_module"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel new``."""
    parser = OptionParser("new", "Make a module: reducer, query, dashboard, tests. Then: pip install -e NAME")
    parser.add_argument("name", metavar="NAME", help="its name as a package, such as my_module")
    parser.add_argument("--title", help="what people call it (default: made of the name)")
    parser.add_argument(
        "--context", default=ANY_CONTEXT, help="'source' of its events (default: %(default)s)"
    )
    parser.add_argument("--folder", metavar="DIR", default=".", help="where to put it (default: here)")
    options = parser.parse(arguments)
    folder = make_module(Path(options.folder), options.name, title=options.title, context=options.context)
    print(f"made {folder}\n  pip install -e {folder}\nThe next app that starts has it.")
    return 0


def make_module(where: Path, name: str, *, title: str | None = None, context: str = ANY_CONTEXT) -> Path:
    """Write the module ``name`` into a new folder of that name below ``where``; gives the folder.

    Raises :class:`LOError` where the name can't be one, or the folder is there.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in ("lo_kernel", "learning_observer"):
        raise LOError(
            f"new: expected a name of lower-case letters, digits and '_' that can be imported, such as "
            f"my_module, got {name!r}"
        )
    if taken := whose_name(name):
        raise LOError(f"new: {taken}")
    called = title or name.replace("_", " ").strip().capitalize()
    for what, text in (("title", called), ("context", context)):
        if not text.isprintable() or '"' in text or "\\" in text:
            raise LOError(f"new: {what}: expected a line without quotes and backslashes, got {text!r}")
    folder = where / name
    if folder.exists():
        raise LOError(f"new: {folder} is there already: choose another name, or --folder")
    words = {
        "name": name,
        "dist": name.strip("_").replace("_", "-"),
        "slug": re.sub(r"[^a-z0-9]+", "-", name).strip("-"),
        "title": called,
        "context": context,
    }
    _write(files("lo_kernel") / "templates" / "module", folder, words)
    return folder


def _write(source: Traversable, target: Path, words: dict[str, str]) -> None:
    """Write a folder of the template; ``package`` becomes the module's own."""
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _write(entry, target / (words["name"] if entry.name == "package" else entry.name), words)
        elif entry.name.endswith(".txt"):
            text = entry.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace("{{" + word + "}}", value)
            (target / entry.name.removesuffix(".txt")).write_text(text, encoding="utf-8")
