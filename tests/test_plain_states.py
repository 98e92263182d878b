"""A state is the same to its reducer after a restart: what comes back as something else is refused."""

import collections
import datetime
import enum
from typing import Any

import pytest

from lo_kernel.engine.states import decode_state, encode_state
from lo_kernel.errors import StateError


class Mark(enum.IntEnum):
    """A number with a name, which it has no more when it comes back."""

    GOOD = 1


class Words(list):  # type: ignore[type-arg]
    """A list with more to it."""


class Name(str):
    """A text with more to it."""

    __slots__ = ()


class Ratio(float):
    """A number with more to it."""


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (collections.Counter("aab"), "Write dict(...)"),
        (collections.defaultdict(int, a=1), "Write dict(...)"),
        (collections.OrderedDict(a=1), "Write dict(...)"),
        (Mark.GOOD, "Write int(...)"),
        (Words(["a"]), "Write list(...)"),
        (Name("a"), "Write str(...)"),
        (Ratio(1.5), "Write float(...)"),
    ],
)
def test_what_looks_plain_and_comes_back_as_something_else_is_refused(value: Any, instead: str) -> None:
    """A Counter counts before a restart and fails after it: that is said at once."""
    for state, path in ((value, r"\$"), ({"in": [value]}, r"\$\.in\[0\]")):
        with pytest.raises(StateError, match=rf"at {path} the state holds") as caught:
            encode_state(state)
        assert str(caught.value).endswith(instead)


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        ({1, 2}, "None. Write list(...)"),
        ((1, 2), "None. Write list(...)"),
        (collections.deque([1]), "None. Write list(...)"),
        (datetime.date(2024, 3, 1), "None. Write it with .isoformat()"),
        (float("nan"), "None"),
        ({1: "a"}, "None"),
        ({True: "a"}, "None"),
    ],
)
def test_an_error_of_a_state_says_what_to_write_where_that_is_plain(value: Any, instead: str) -> None:
    """What to do stands in it, and where nobody can know it, nothing."""
    with pytest.raises(StateError) as caught:
        encode_state({"in": value})
    assert str(caught.value).endswith(instead)


def test_a_value_of_many_lines_is_shown_in_one() -> None:
    """An array or a table doesn't take the message apart."""
    np = pytest.importorskip("numpy")
    with pytest.raises(StateError) as caught:
        encode_state({"in": np.arange(4).reshape(2, 2)})
    assert "array([[0, 1], [2, 3]])" in str(caught.value)
    assert str(caught.value).endswith("Write it with .tolist()")


def test_what_is_plain_goes_on_however_deep() -> None:
    """The check for what isn't plain has no limit of its own."""
    state: Any = {"n": [1, 2.5, True, None, "Zoë", 2**70]}
    for _ in range(150):
        state = {"in": [state]}
    assert decode_state(encode_state(state)) == state
