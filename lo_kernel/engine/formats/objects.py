"""The items of a JSON array, one after another, without holding the whole of it."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from lo_kernel.engine.formats.source import LONGEST
from lo_kernel.engine.halves import mended

__all__ = ["array_items"]

_START: Final = re.compile(r"[\s,\ufeff]*")
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
_ITEM: Final = re.compile(r"\n(\s*)\{")


def array_items(chunks: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    r"""The items of an array with the lines on which they begin; what is no JSON comes as bytes.

    After a damaged item it goes on with the next that begins on a line of its own, as deep as the first.

    >>> list(array_items([b'[{"a":1}, {"a"', b':2},\n3]']))
    [(1, {'a': 1}), (1, {'a': 2}), (2, 3)]
    """
    decode = json.JSONDecoder().raw_decode
    to_text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode  # those are no JSON: see below
    text, at, line, begun, indent = "", 0, 1, False, None
    parts = iter(chunks)
    ended = False
    while True:
        start = _START.match(text, at)
        assert start is not None
        line += text.count("\n", at, start.end())
        if indent is None and begun and start.end() < len(text):
            indent = text[: start.end()][at:].rpartition("\n")[2] if "\n" in text[at : start.end()] else ""
        at = start.end()
        if not begun and text[at : at + 1] == "[":
            begun, at = True, at + 1
            continue
        if begun and text[at : at + 1] == "]":
            return
        item: Any = None
        found = False
        if at < len(text):
            try:
                item, end = decode(text, at)
                # a number may go on in the next chunk
                found = ended or text[end - 1] in '}]"' or text[end:].lstrip()[:1] in (",", "]")
            except json.JSONDecodeError as error:
                if ended or (len(text) - at > LONGEST) or _is_wrong(error, text):
                    end = _next_item(text, error.pos, indent)
                    if end < len(text) or ended:
                        item, found = _bytes_of(text[at:end]), True
            except RecursionError:
                end = _next_item(text, at + 1, indent)
                item, found = _bytes_of(text[at:end]), True
        if found:
            if type(item) is dict:
                record = _bytes_of(text[at:end])
                if not text.isascii() and _NOT_UTF8.search(text, at, end):
                    item = record
                elif (whole := mended(record)) is not None:
                    item = json.loads(whole)
            yield line, item
            line += text.count("\n", at, end)
            at = end
            continue
        if ended:
            return
        chunk = next(parts, None)
        ended = chunk is None
        text, at = text[at:] + to_text(chunk or b"", ended), 0


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_wrong(error: json.JSONDecodeError, text: str) -> bool:
    """Whether what was found is an error for sure, and not the end of what was read so far."""
    return error.pos < len(text) - 16 and not error.msg.startswith("Unterminated string")


def _next_item(text: str, after: int, indent: str | None) -> int:
    for match in _ITEM.finditer(text, after):
        if indent is None or match[1] == indent:
            return match.start()
    return len(text)
