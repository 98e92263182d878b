"""One Dash application for the Dash pages of all modules, at ``/<module>/dash/<page>/``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["make_dash"]


def make_dash(pages: Sequence[tuple[str, Mapping[str, Any]]], assets: Path) -> Callable[..., Any]:
    """A WSGI application of ``(module, page)``; a page is an entry of the module's ``DASH_PAGES``.

    ``assets`` is a folder for the files that the pages bring, as ``<module>_<file>``; it is made anew.
    """
    dash = import_module("dash")
    _collect(pages, assets)
    app = dash.Dash(
        "lo_kernel",
        use_pages=True,
        pages_folder="",
        assets_folder=str(assets),
        assets_url_path="dash/assets",
        external_stylesheets=_addresses(pages, "CSS"),
        external_scripts=_addresses(pages, "SCRIPTS"),
        suppress_callback_exceptions=True,
        update_title=None,
    )
    app.layout = dash.html.Div([dash.page_container])
    for module, page in pages:
        dash.register_page(
            page["MODULE"].__name__,
            path=f"/{module}/dash/{page['SUBPATH'].strip('/')}/",
            layout=page["LAYOUT"],
            title=page.get("TITLE"),
            name=page.get("TITLE"),
            description=page.get("DESCRIPTION"),
        )
    server: Callable[..., Any] = app.server
    return server


def _addresses(pages: Sequence[tuple[str, Mapping[str, Any]]], what: str) -> list[str]:
    """Files that pages ask for; those that the deployed system would have downloaded aren't there."""
    named = dict.fromkeys(address for _, page in pages for address in page.get(what) or ())
    return [address for address in named if not address.startswith("/static/")]


def _collect(pages: Sequence[tuple[str, Mapping[str, Any]]], assets: Path) -> None:
    shutil.rmtree(assets, ignore_errors=True)
    assets.mkdir(parents=True)
    for module, page in pages:
        top = import_module(module.partition(".")[0])
        folder = Path(top.__file__ or "").parent / page["ASSETS"] if page.get("ASSETS") else None
        for file in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
            if file.is_file():
                shutil.copyfile(file, assets / f"{module}_{file.name}")
