"""Blobs: what a client keeps with us for a learner, a source and an activity, such as where it was.

The field's clients send ``save_blob`` and ``fetch_blob`` as events; neither is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lo_kernel.engine.events import Identity
from lo_kernel.engine.pipeline import Pipeline
from lo_kernel.engine.states import decode_state
from lo_kernel.engine.store import PLAIN
from lo_kernel.errors import EventError, LOError

__all__ = ["blob_key", "fetch_blob", "save_blob"]

_encode = msgspec.json.Encoder().encode


def blob_key(identity: Identity, fields: Mapping[str, Any]) -> str:
    """Under which key a blob is kept; raises :class:`~lo_kernel.errors.EventError` where a part is missing.

    >>> blob_key(Identity("u0", "tc-testcase-u0", "tc"), {"source": "a.b", "activity": "essay"})
    'Blob,tc-testcase-u0,a.b,essay'
    """
    source, activity = fields.get("source"), fields.get("activity")
    if not isinstance(source, str) or not isinstance(activity, str):
        raise EventError(
            f"a blob is kept per learner, source and activity: expected both as texts, got {source!r} "
            f"and {activity!r}",
            reason="bad_blob",
        )
    return f"Blob,{identity.safe_user_id},{source},{activity}"


async def save_blob(pipeline: Pipeline, key: str, body: Mapping[str, Any]) -> None:
    """Keep the ``blob`` of a message; it goes to the store with the next commit."""
    if "blob" not in body:
        raise EventError("save_blob: expected a field 'blob'", reason="bad_blob")
    pipeline.plain[key] = text = _encode(body["blob"])
    pipeline.heavy(len(text))
    pipeline.wake()
    if pipeline.full:
        await pipeline.room()


async def fetch_blob(pipeline: Pipeline, key: str) -> Any:
    """What was saved last, be it on its way to the store; ``None`` where nothing was."""
    text = pipeline.plain.get(key)
    try:
        if text is None:
            text = (await pipeline.store.get_many(PLAIN, [key]))[0]
    except LOError as error:
        pipeline.errors.add("store", error)
        raise EventError(
            f"fetch_blob: the store doesn't answer ({error}): ask again later", reason="store"
        ) from error
    return None if text is None else decode_state(text)
