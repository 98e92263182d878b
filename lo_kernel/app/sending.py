"""Sending a module to a server that takes it: the other end of :mod:`lo_kernel.app.inject`."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from lo_kernel.app.packing import pack
from lo_kernel.errors import InjectError

__all__ = ["check_target", "send"]

_LOCAL = ("localhost", "127.0.0.1", "::1")
_SECONDS = 600.0  # that a server may take: reducers go through its past first


def check_target(url: str, token: str) -> str:
    """The address without its end; :class:`InjectError` where code or token would travel in the open."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InjectError(f"expected the address of a server, such as https://host:9999, got {url!r}")
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise InjectError(f"{url}: code goes over TLS or to this machine only: use https://")
    if not token:
        raise InjectError(
            "expected token=..., the server's token of the kind 'inject': it lies in its workspace, in "
            "injected/token"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


async def send(
    url: str, token: str, module: Path | str, *, migrate: str = "restream", rollback: bool = False
) -> dict[str, Any]:
    """Put a module into a server, or roll it back (then ``module`` may be its name); the server's answer.

    Raises :class:`InjectError` with what the server says.
    """
    import aiohttp

    base = check_target(url, token)
    headers = {"Authorization": f"Bearer {token}", "X-LO-User": quote(_user())}
    name, data = await asyncio.to_thread(_packed, module, rollback)
    if data:
        headers["X-Content-SHA256"] = hashlib.sha256(data).hexdigest()
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=False) as client,
            client.request(
                "DELETE" if rollback else "POST",
                f"{base}/inject/{quote(name)}",
                params={} if rollback else {"migrate": migrate},
                data=None if rollback else io.BytesIO(data),
                allow_redirects=False,
            ) as response,
        ):
            answer = await response.json(content_type=None)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise InjectError(f"{url}: {type(error).__name__}: {error}") from None
    if status != 200 or not isinstance(answer, dict):
        said = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise InjectError(f"{url} refuses ({status}): {said}")
    return answer


def _packed(module: Path | str, rollback: bool) -> tuple[str, bytes]:
    """Name and packed form of a module; to roll back, the name will do."""
    if rollback and not Path(module, "pyproject.toml").is_file():
        return Path(module).name, b""
    return pack(Path(module))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
