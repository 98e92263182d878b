r"""Half characters: ``"\ud83d"`` without the ``"\ude00"`` that belongs to it.

A character beyond the first 65,536 (an emoji, say) is two units in the texts of a browser, and a log of
keystrokes may catch one of them alone. ``JSON.stringify`` writes it as an escape that stands for no
character, so most readers of JSON refuse the whole text, our own and that of an archive's line among them.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["mended"]

# a pair; a half; any other escape, so that a backslash before "\\ud83d" is seen for what it is
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def mended(text: bytes) -> bytes | None:
    r"""A JSON text with U+FFFD in the place of each half character; ``None`` where it has none.

    >>> mended(rb'{"key": "\ud83d", "text": "\ud83d\ude00 \\ud83d"}').decode()
    '{"key": "\\ufffd", "text": "\\ud83d\\ude00 \\\\ud83d"}'
    >>> mended(b'{"key": "a"}') is None
    True
    """
    if b"\\ud" not in text and b"\\uD" not in text:
        return None
    whole = _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], text)
    return whole if whole != text else None
