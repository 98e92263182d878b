"""Fields of a scope: what counts as one, and where its value comes from."""

from __future__ import annotations

from typing import Any

import pytest

from lo_kernel.engine.keys import EventField, KeyField, getter
from lo_kernel.errors import ReducerError


@pytest.mark.parametrize("name", ["", 5, None, ["doc_id"]])
def test_a_field_has_a_name(name: Any) -> None:
    """A name that is none is refused where it is written."""
    with pytest.raises(ReducerError, match="expected the name of a field"):
        EventField(name)


@pytest.mark.parametrize(
    ("client", "value"),
    [
        ({"class_id": "a", "course_id": "b"}, "a"),
        ({"class_id": None, "course_id": "b"}, "b"),
        ({"class_id": {}, "course_id": 7}, "7"),
        ({"course_id": "b"}, "b"),
        ({"class_id": "", "course_id": "b"}, ""),
        ({"class_id": None}, None),
    ],
)
def test_the_next_field_stands_in(client: dict[str, Any], value: str | None) -> None:
    """Where `class_id` says nothing, `course_id` does, as the docs have it."""
    assert getter(KeyField.CLASS)("tc-u0", client) == value
