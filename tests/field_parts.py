"""The field's corpus, installed for one test: packages and the metadata that a distribution has."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

FIELD = Path(__file__).parent / "field"
READING = "org.example.reading"


def install(folder: Path, *names: str, version: str = "1.2") -> Path:
    """Put modules of the corpus into a folder as if installed there; gives the folder, for the path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copytree(FIELD / "modules" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        add_metadata(folder, name, version=version)
    return folder


def add_metadata(folder: Path, name: str, value: str = "", version: str = "1.2") -> None:
    """Write what an installer writes of a distribution with one module."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[lo_modules]\n{name} = {value or f'{name}.module'}\n")


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Have a folder on the path; what was imported from it is forgotten afterwards."""
    sys.path.insert(0, str(folder))
    invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(folder) in (getattr(module, "__file__", None) or ""):
                del sys.modules[name]
        invalidate_caches()


DASH = '''
"""As much of Dash as a page needs, without its weight: an application that shows its pages' layouts."""

registry = {}


class html:
    """Elements, as texts."""

    Div = staticmethod(lambda children=(): "<div>" + "".join(map(str, children)) + "</div>")
    H1 = staticmethod(lambda children: f"<h1>{children}</h1>")


page_container = ""


def register_page(module, path, layout, title=None, name=None, description=None):
    registry[path] = (title, layout)


class Dash:
    def __init__(self, name, **options):
        self.options = options

    def server(self, environ, start_response):
        title, layout = registry.get(environ["PATH_INFO"], (None, None))
        if title is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"no page"]
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/html"), ("X-Two", "1"), ("X-Two", "2")])
        return [title.encode(), layout().encode(), environ["QUERY_STRING"].encode(), body]
'''


def add_dash(folder: Path) -> None:
    """Put something like Dash into a folder: the tests' machine has none."""
    (folder / "dash").mkdir(parents=True)
    (folder / "dash" / "__init__.py").write_text(DASH)
