"""Fields of a state that are called as the roster's are."""

from __future__ import annotations

from query_parts import Parts, Reducer

from lo_kernel.query.language import q


async def test_a_states_own_profile_is_in_its_row() -> None:
    """What a reducer keeps under ``profile`` or ``user_id`` is answered; what the roster says stays out."""
    parts = Parts(Reducer("a"), people=1)
    parts.set("a", "tc-u0", {"profile": {"level": 3}, "user_id": "peer", "n": 1})
    assert await parts.executor.rows(q.select(q.keys("a"), q.ALL)) == [
        {"student": "tc-u0", "profile": {"level": 3}, "user_id": "peer", "n": 1}
    ]
    assert await parts.executor.rows(q.latest("a")) == [{"student": "tc-u0", "n": 1}]
    assert await parts.executor.rows(q.roster()) == [{"student": "tc-u0"}]
