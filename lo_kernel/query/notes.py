"""What a reader of an answer has to know, and its values don't say: under the table, in a notebook.

Over the wire nothing of it is sent: the same answer there is the values alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lo_kernel.errors import UnknownReducerError
from lo_kernel.query.builtins import BUILTINS
from lo_kernel.query.dag import Ref
from lo_kernel.query.joining import JoinStep
from lo_kernel.query.paths import MISSING, follow
from lo_kernel.query.ports import JSON
from lo_kernel.query.relational import SelectStep, find_reducer
from lo_kernel.query.steps import CallStep
from lo_kernel.query.values import is_error

if TYPE_CHECKING:
    from lo_kernel.query.executor import Running

__all__ = ["notes_of", "without_state"]

_WHY: Final = {
    "failed": "no state: {} failed at their events (see lo.errors), so their rows are its null state",
    "kept": "no state: {} kept nothing of their events, so their rows are its null state",
    "none": "no events for {} here: their rows are its null state",
    "": "no state of {} here: their rows are its null state",
}
_HIDDEN: Final = ("provenance", "user_id", "profile")


def notes_of(running: Running) -> list[str]:
    """Notes on a query that has run.

    Whose rows are a null state, because no event came; which paths are in no row; what a join found no match
    for; and which rows a function left out since they are errors.
    """
    found: list[str] = []
    for step in running.steps:
        if isinstance(step, SelectStep):
            found.extend(_null_states(step))
        elif isinstance(step, CallStep):
            found.extend(_left_out(step))
        elif isinstance(step, JoinStep):
            found.extend(_unmatched(step))
    return list(dict.fromkeys(found))


def without_state(running: Running, answer: JSON) -> frozenset[int]:
    """Places of the rows that are a null state, since the store has none for them."""
    keys = {key for step in running.steps if isinstance(step, SelectStep) for key in step.stateless}
    if not keys or not isinstance(answer, list):
        return frozenset()
    return frozenset(place for place, row in enumerate(answer) if _key_of(row) in keys)


def _key_of(row: JSON) -> JSON:
    """The key of the state that a row is of; ``None`` where it is of none."""
    here = row.get("provenance") if isinstance(row, dict) else None
    for _ in range(32):  # a map over a map over a select
        if not isinstance(here, dict) or "key" in here:
            break
        here = here.get("provenance")
    key = here.get("key") if isinstance(here, dict) else None
    return key if isinstance(key, str) else None


def _null_states(step: SelectStep) -> Iterator[str]:
    keys = step.node.fields["keys"]
    if not step.stateless or not isinstance(keys, Ref) or not isinstance(step.value, list):
        return
    reducer = step.env.steps[keys.node].node.fields.get("function")
    if reducer is None:
        return
    try:
        why_stateless = find_reducer(step.env.reducers, reducer).why_stateless
    except UnknownReducerError:  # removed just now
        return
    counts = dict.fromkeys(_WHY, 0)
    for key in step.stateless:
        counts[why_stateless(key)] += len(step.places.get(key, ()))
    notes = [
        f"{count:,} of {len(step.value):,} have {_WHY[why].format(repr(reducer))}"
        for why, count in counts.items()
        if count
    ]
    if notes and sum(counts.values()) < len(step.value):
        notes[-1] += f"; lo.q.select(lo.q.keys({reducer!r}), lo.q.ALL) leaves them out"
    yield from notes


def _left_out(step: CallStep) -> Iterator[str]:
    name = step.node.fields["function_name"]
    function = BUILTINS.get(name)
    if function is None or step.env.functions.get(name).function is not function:
        return
    args = [step.env.resolve(value) for value in step.node.fields.get("args") or ()]
    kwargs = {key: step.env.resolve(value) for key, value in (step.node.fields.get("kwargs") or {}).items()}
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return  # the call says so
    rows = given.get("rows", given.get("objects"))
    if not isinstance(rows, list) or not rows:
        return
    good = [row for row in rows if not is_error(row)]
    wrong = [row for row in rows if is_error(row)]
    for path in dict.fromkeys(_paths(given)):
        values = [follow(row, path) for row in good]
        if values and all(value is MISSING for value in values):
            yield f"{name}: no row has {path!r}; they have {_fields(good, _HIDDEN)}"
        wrong += [value for value in values if is_error(value)]
    if wrong:
        yield f"{name}: {len(wrong):,} of {len(rows):,} rows don't count, for an error: {wrong[0]['error']}"


def _unmatched(step: JoinStep) -> Iterator[str]:
    if step.matched or not isinstance(step.value, list):
        return
    paths = step.node.fields["left_on"], step.node.fields["right_on"]
    sides = [[row for row in side if not is_error(row)] for side in step.sides()]
    if not all(sides):
        return
    wrong = [
        f"join: no row of the {name} has {path!r}; they have {_fields(rows, ('provenance',))}"
        for name, path, rows in zip(("left", "right"), paths, sides, strict=True)
        if all(follow(row, path) is MISSING for row in rows)
    ]
    yield from wrong or [f"join: {paths[0]!r} of the left is {paths[1]!r} of the right in no row"]


def _fields(rows: list[JSON], hidden: tuple[str, ...]) -> str:
    names = dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row)
    return ", ".join(key for key in names if key not in hidden) or "no fields"


def _paths(given: dict[str, JSON]) -> Iterator[str]:
    by = given.get("by")
    for path in (given.get("path"), given.get("value_path"), *(by if isinstance(by, list) else [by])):
        if isinstance(path, str) and path:
            yield path
    aggregates = given.get("aggregates")
    for each in aggregates.values() if isinstance(aggregates, dict) else ():
        if isinstance(each, list) and len(each) == 2 and isinstance(each[1], str):
            yield each[1]
