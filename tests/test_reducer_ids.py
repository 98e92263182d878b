"""Reducers whose ids are names that a module's own queries use."""

from __future__ import annotations

from itertools import permutations

import pytest
from query_parts import Parts, Reducer

IDS = ("a", "a_join_roster", "a_export", "roster", "learning_observer.roster")


@pytest.mark.parametrize("order", [IDS, IDS[::-1], *permutations(["roster", "roster_", "b"])])
async def test_each_reducer_answers_by_its_id(order: tuple[str, ...]) -> None:
    """Whatever ids the reducers of a module have, in whatever order they come, each answers with its own."""
    parts = Parts(*(Reducer(each, default={"whose": each}) for each in order), people=1)
    for each in order:
        parts.catalog.add_reducer(parts.reducers.get(each), "m")
    for each in order:
        for name in (each, f"m.{each}"):
            assert await parts.executor.rows(name) == [{"student": "tc-u0", "whose": each}]
    for each in order:
        parts.catalog.remove_reducer(each, "m")
    assert not len(parts.catalog)
