"""What an answer says of a join that found nothing: a typing mistake, or values that aren't the same."""

from __future__ import annotations

import pytest
from test_printed_rows import writing

from lo_kernel.query.language import q


@pytest.mark.parametrize(
    ("left_on", "right_on", "note"),
    [
        ("studnet", "user_id", "join: no row of the left has 'studnet'; they have typed, user_id, profile"),
        (
            "user_id",
            "user_idd",
            "join: no row of the right has 'user_idd'; they have user_id, typed, profile",
        ),
        ("user_id", "typed", "join: 'user_id' of the left is 'typed' of the right in no row"),
    ],
)
async def test_a_join_without_a_match_is_said(left_on: str, right_on: str, note: str) -> None:
    """Its rows are those of the left, as if there were no join."""
    parts = writing(3, 3)
    rows = await parts.executor.rows(q.join(q.latest("chars"), q.latest("chars"), left_on, right_on))
    assert [row["typed"] for row in rows] == [0, 1, 2]
    (said,) = rows.notes
    assert said.partition("; they have ")[0] == note.partition("; they have ")[0]
    assert sorted(said.partition("have ")[2].split(", ")) == sorted(note.partition("have ")[2].split(", "))
    assert said in repr(rows)


async def test_a_join_with_a_match_says_nothing() -> None:
    """One is enough: who isn't in a list is no mistake."""
    parts = writing(3, 3)
    assert not (await parts.executor.rows(q.latest("chars"))).notes
    alone = q.call("top")(q.latest("chars"), "typed", 1)
    assert not (await parts.executor.rows(q.join(q.latest("chars"), alone, "user_id", "user_id"))).notes
    nobody = writing(0, 0)
    assert not (await nobody.executor.rows(q.latest("chars"))).notes
