"""Having the process that owns a workspace do something: it alone writes there, and has all states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

from lo_kernel.app.holding import USER
from lo_kernel.errors import LOError
from lo_kernel.workspace import Owner

__all__ = ["ask_owner"]

_CONNECT = 5.0  # s
_LONGEST = 3600.0  # s without a word: reducers may run over the whole past


async def ask_owner(
    owner: Owner,
    method: str,
    path: str,
    *,
    user: str,
    body: Any = None,
    on_line: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """The answer of the owner's app to a request with the notebook's token, as JSON data.

    ``user`` is who asks, for the record. An answer in lines (JSON, one each) is given line by line to
    ``on_line`` as it comes; the last one is the answer. Raises :class:`LOError`, in words for whoever asked,
    where the owner doesn't answer, or refuses.
    """
    import aiohttp

    headers = {"Authorization": f"Bearer {owner.token}", USER: quote(user)}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_LONGEST)
    who = f"the process {owner.pid}, which owns the workspace and answers at {owner.url},"
    answer: Any = None
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=False) as client,
            client.request(method, owner.url + path, json=body) as response,
        ):
            if response.content_type == "application/jsonl":
                async for line in response.content:
                    answer = msgspec.json.decode(line)
                    if on_line is not None and "error" not in answer:
                        on_line(answer)
            else:
                answer = await response.json(content_type=None)
            if response.status == 200 and "error" not in answer:
                return dict(answer)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, TypeError) as error:
        raise LOError(
            f"{who} does not answer ({type(error).__name__}: {error}). A cell that runs there may hold it: "
            "try again when it is over, do it there, with lo, or end that process first"
        ) from None
    raise LOError(f"{who} refuses: {answer.get('error', answer) if isinstance(answer, dict) else answer}")
