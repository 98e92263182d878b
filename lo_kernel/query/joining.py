"""The ``join`` step: rows of the left with what matches on the right, row by row where it can."""

from __future__ import annotations

from collections.abc import Mapping

from lo_kernel.query.dag import Node, Ref
from lo_kernel.query.paths import MISSING, describe, follower
from lo_kernel.query.ports import JSON
from lo_kernel.query.steps import NOTHING, WHOLE, Change, Dirt, Env, Step
from lo_kernel.query.values import same

__all__ = ["JoinStep"]


class JoinStep(Step):
    """Rows of the left with what matches on the right."""

    def __init__(self, node: Node, env: Env) -> None:
        super().__init__(node, env)
        self._left_ids: list[JSON] = []
        self._left_places: dict[JSON, set[int]] | None = None  # made when the right side first changes
        self._right_ids: list[JSON] = []
        self._right_place: dict[JSON, int] = {}

    @property
    def matched(self) -> bool:
        """Whether any row of the left has one on the right."""
        return any(key is not MISSING and key in self._right_place for key in self._left_ids)

    async def evaluate(self) -> JSON:
        """All rows, joined."""
        left, right = self.sides()
        for name, side in (("left", left), ("right", right)):
            if not isinstance(side, list):
                return self.error(
                    f"node {self.node.name!r}, field {name!r}: expected rows, got {describe(side)}"
                )
        self._right_ids = _join_ids(right, self.node.fields["right_on"])
        self._right_place = {key: place for place, key in enumerate(self._right_ids) if key is not MISSING}
        self._left_ids = _join_ids(left, self.node.fields["left_on"])
        self._left_places = None
        return [self._joined(place, left, right) for place in range(len(left))]

    async def refresh(self, changes: Mapping[str, Change], dirt: Dirt) -> Change:
        """Join again the rows that changed on either side."""
        left_ref, right_ref = self.node.fields["left"], self.node.fields["right"]
        if not any(changes[name] for name in self.inputs):
            return NOTHING
        if (
            not isinstance(left_ref, Ref)
            or not isinstance(right_ref, Ref)
            or not isinstance(self.value, list)
        ):
            return await self.again()
        left_change, right_change = changes[left_ref.node], changes[right_ref.node]
        if left_change is WHOLE or right_change is WHOLE or self.failed_input() is not None:
            return await self.again()
        left, right = self.sides()
        touched: set[int] = set()
        for place in sorted(right_change):
            key = _join_id(right[place], self.node.fields["right_on"])
            if place >= len(self._right_ids):
                self._right_ids.append(key)
                if key is not MISSING:
                    self._right_place[key] = place
            elif key != self._right_ids[place]:
                return await self.again()
            if key is not MISSING:
                touched |= self._places_of(key)
        for place in sorted(left_change):
            self._index_left(place, left[place])
            if place >= len(self.value):
                self.value.append(None)
        touched |= left_change
        changed = set()
        for place in touched:
            row = self._joined(place, left, right)
            if not same(row, self.value[place]):
                self.value[place] = row
                changed.add(place)
        return changed

    def sides(self) -> tuple[JSON, JSON]:
        """What is joined: the rows of the left and those of the right."""
        return self.env.resolve(self.node.fields["left"]), self.env.resolve(self.node.fields["right"])

    def _index_left(self, place: int, row: JSON) -> None:
        key = _join_id(row, self.node.fields["left_on"])
        if place < len(self._left_ids):
            old = self._left_ids[place]
            if old is not MISSING and self._left_places is not None:
                self._left_places[old].discard(place)
            self._left_ids[place] = key
        else:
            self._left_ids.append(key)
        if key is not MISSING and self._left_places is not None:
            self._left_places.setdefault(key, set()).add(place)

    def _places_of(self, key: JSON) -> set[int]:
        """Where rows of the left are matched by ``key``."""
        if self._left_places is None:
            self._left_places = {}
            for place, known in enumerate(self._left_ids):
                if known is not MISSING:
                    self._left_places.setdefault(known, set()).add(place)
        return self._left_places.get(key, set())

    def _joined(self, place: int, left: list[JSON], right: list[JSON]) -> JSON:
        row = left[place]
        key = self._left_ids[place]
        if key is MISSING or key not in self._right_place:
            return row
        match = right[self._right_place[key]]
        if not match:
            return row
        joined = {**row, **match}
        if "provenance" in row:  # the row stays the left one's: whose it is does not change
            joined["provenance"] = row["provenance"]
        return joined


def _join_id(row: JSON, path: str) -> JSON:
    """What a row is matched by; :data:`MISSING` where it has nothing that could be."""
    return _join_ids([row], path)[0]


def _join_ids(rows: list[JSON], path: str) -> list[JSON]:
    """What each row is matched by."""
    find = follower(path)
    keys: list[JSON] = []
    for row in rows:
        key = find(row) if isinstance(row, dict) else MISSING
        keys.append(MISSING if isinstance(key, (dict, list)) else key)
    return keys
