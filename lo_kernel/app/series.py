"""Numbers over time inside one value, in the forms in which states hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Series", "series_of"]

Series = list[tuple[float, float]]

_TIMES: Final = ("t", "time", "timestamp", "ts")
_MILLISECONDS: Final = 100_000_000_000  # above, a time can't be meant in seconds: that would be the year 5138
_EARLIEST: Final = 100_000_000  # seconds since 1970: below, a number is hardly a moment


def series_of(value: Any) -> Series | None:
    """``(time, number)`` pairs where ``value`` is a series, else ``None``; times in seconds since 1970 (UTC).

    Four forms are known: ``{"start": t, "step": s, "values": [...]}`` (the smallest), ``{t: number}``,
    ``[[t, number], ...]`` and ``[{"t": t, "n": number}, ...]`` (``time``, ``timestamp`` or ``ts`` do too).
    Times may be in milliseconds.

    >>> series_of({"start": 1_700_000_000, "step": 60, "values": [1, 4]})
    [(1700000000.0, 1.0), (1700000060.0, 4.0)]
    >>> series_of({"1700000000": 2}) == series_of([[1_700_000_000_000, 2]])
    True
    >>> series_of({"count": 2}) is None
    True
    """
    pairs: list[tuple[Any, Any]]
    if isinstance(value, Mapping):
        if value.keys() == {"start", "step", "values"} and isinstance(value["values"], list):
            start, step = _number(value["start"]), _number(value["step"])
            if start is None or not step:
                return None
            pairs = [(start + place * step, number) for place, number in enumerate(value["values"])]
        else:
            pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [_pair(item) for item in value]
    else:
        return None
    found = [(_moment(time), _number(number)) for time, number in pairs]
    whole = [(time, number) for time, number in found if time is not None and number is not None]
    return whole if whole and len(whole) == len(found) else None


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, list | tuple) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping) and len(item) == 2:
        for name in _TIMES:
            if name in item:
                (other,) = (value for key, value in item.items() if key != name)
                return item[name], other
    return None, None


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300:
        return None
    return float(value) if value == value else None


def _moment(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    time = _number(value)
    if time is None or not time >= _EARLIEST:
        return None
    return time / 1000 if time > _MILLISECONDS else time
