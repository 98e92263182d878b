"""Paths into values whose keys hold dots, as names of files do."""

from __future__ import annotations

from typing import Any

import pytest

from lo_kernel.query.paths import MISSING, follow, follower


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ({"docs": {"essay.txt": {"words": 3}}}, "docs.essay.txt.words", 3),
        ({"a.b": {"c": 1}}, "a.b.c", 1),
        ({"a": {"x": 1}, "a.b": 2}, "a.b", 2),
        ({"a": {"b": {"x": 1}}, "a.b": {"c": 2}}, "a.b.c", 2),
        ({"a": {"b": 1}, "a.b": 2}, "a.b", 1),
        ({"a": None, "a.b": None}, "a.b", None),
        ([{"v1.2": [5]}], "0.v1.2.0", 5),
        ({"a": {"b": {}}}, "a.b.c", MISSING),
        ({"a": "text"}, "a.b", MISSING),
        ([1], "9" * 5000, MISSING),
    ],
)
def test_a_key_with_dots_is_found_wherever_it_stands(value: Any, path: str, found: Any) -> None:
    """The first parts that lead to the end are taken, the shortest keys before others."""
    assert follow(value, path) is found or follow(value, path) == found
    assert follower(path)(value) is found or follower(path)(value) == found
