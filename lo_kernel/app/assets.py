"""Scripts and styles of the pages: shipped with the package, compressed, addressed by their content.

``static/<digest>/<name>``: the digest is of the content, so a browser may keep a file for good. Own files
share one digest, because their imports are relative; each file in ``vendor/`` has its own. They hold no data
of anybody, and are the only thing that is served without a token: a page inside another page gets no cookie.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aiohttp import web

from lo_kernel.app.security import takes

__all__ = ["Asset", "Assets"]

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """One file, as it is sent."""

    name: str
    digest: str
    compressed: bytes
    size: int
    """Bytes before compression."""

    @property
    def path(self) -> str:
        """Its address below the app's own."""
        return f"static/{self.digest}/{self.name}"

    @property
    def content_type(self) -> str:
        """Its media type."""
        return _TYPES[Path(self.name).suffix]

    @cached_property
    def plain(self) -> bytes:
        """The content, for a client that takes no gzip."""
        return gzip.decompress(self.compressed)


class Assets:
    """The files by name; read when they are first asked for.

    >>> assets = Assets()
    >>> asset = assets["vega.min.js"]
    >>> asset.path.startswith("static/"), asset.content_type, len(asset.compressed) < asset.size
    (True, 'text/javascript', True)
    """

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._folder = folder

    @cached_property
    def _by_name(self) -> dict[str, Asset]:
        own = {
            path.name: path.read_bytes() for path in sorted(self._folder.iterdir()) if path.suffix in _TYPES
        }
        together = hashlib.sha256(b"".join(name.encode() + data for name, data in own.items())).hexdigest()
        found = {
            name: Asset(name, together[:16], gzip.compress(data, 9, mtime=0), len(data))
            for name, data in own.items()
        }
        for path in sorted((self._folder / "vendor").glob("*.gz")):
            data = path.read_bytes()
            size = int.from_bytes(data[-4:], "little")  # gzip's last field (RFC 1952, ISIZE)
            name = path.name.removesuffix(".gz")
            found[name] = Asset(name, hashlib.sha256(data).hexdigest()[:16], data, size)
        return found

    def __getitem__(self, name: str) -> Asset:
        return self._by_name[name]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._by_name)

    def __iter__(self) -> Iterator[Asset]:
        return iter(self._by_name.values())

    def text(self, name: str) -> str:
        """A page's own HTML, with places to fill in."""
        return (self._folder / name).read_text(encoding="utf-8")

    def routes(self) -> list[web.RouteDef]:
        """The route of all of them."""

        @takes("anyone")
        async def static(request: web.Request) -> web.StreamResponse:
            asset = self._by_name.get(request.match_info["name"])
            if asset is None or asset.digest != request.match_info["digest"]:
                raise web.HTTPNotFound(text="there is no such file; reload the page that asks for it")
            headers = {"Cache-Control": _FOR_GOOD, "Vary": "Accept-Encoding"}
            body = asset.compressed
            if "gzip" in request.headers.get("Accept-Encoding", ""):
                headers["Content-Encoding"] = "gzip"
            else:
                body = asset.plain
            return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)

        return [web.get("/static/{digest}/{name}", static)]
