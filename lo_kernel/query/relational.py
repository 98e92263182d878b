"""The steps that read states: ``keys`` and ``select``, each row by row where it can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lo_kernel.engine.keys import EventField, KeyField, ScopeField, parse_key, reducer_prefix, state_key
from lo_kernel.errors import QueryError, UnknownReducerError
from lo_kernel.query.dag import Node, Ref
from lo_kernel.query.paths import MISSING, describe, follow
from lo_kernel.query.ports import JSON, Reducers, Registration
from lo_kernel.query.steps import NOTHING, WHOLE, Change, Dirt, Env, Step, difference, shifted
from lo_kernel.query.values import is_error, own, same

__all__ = ["KeysStep", "SelectStep", "dimensions", "find_reducer"]

_CANONICAL = {"STUDENT": "user_id", "TEACHER": "user_id", "CLASS": "class_id", "RESOURCE": "doc_id"}


@dataclass(frozen=True, slots=True)
class Dimension:
    """One field of a scope, and where a ``keys`` node takes its values from."""

    key_name: str
    label: str
    id_name: str
    """Under which name the id stands in a row's provenance."""
    values: JSON = MISSING
    path: str | None = None

    @property
    def given(self) -> bool:
        """Whether the node names values; without, everything in the store is meant."""
        return self.values is not MISSING


def dimensions(node: Node, registration: Registration) -> list[Dimension]:
    """The fields of the reducer's scope as the ``keys`` node gives them, learners first.

    Raises :class:`QueryError` where the node gives a field that the scope doesn't have.
    """
    given: dict[str, tuple[str, JSON, str | None]] = {}
    extra = node.fields.get("scope_fields")
    for name, spec in extra.items() if isinstance(extra, dict) else ():
        values, path = spec, None
        if isinstance(spec, dict):
            path = spec.get("path") or spec.get("value_path")
            values = next((spec[key] for key in ("values", "value", "items", "data") if key in spec), spec)
        given[name.lower()] = (f"scope_fields.{name}", values, path)
    for name, values in node.fields.items():
        if name not in ("function", "scope_fields") and not name.endswith("_path"):
            given[name.lower()] = (name, values, node.fields.get(f"{name}_path"))
    found = []
    for field in sorted(registration.scope, key=_rank):
        label, candidates = _candidates(field)
        id_name = _CANONICAL.get(label) or field.key_name.partition(".")[2]
        match = next((given.pop(name) for name in candidates if name in given), None)
        if match is None:
            found.append(Dimension(field.key_name, label, id_name))
        else:
            found.append(Dimension(field.key_name, label, id_name, match[1], match[2]))
    if given:
        names = ", ".join(where for where, _, _ in given.values())
        scope = ", ".join(registration.scope.names) or "nothing"
        raise QueryError(
            f"node {node.name!r}, field {names!r}: expected fields of the scope of {registration.id}: {scope}"
        )
    return found


def find_reducer(reducers: Reducers, name: str) -> Registration:
    """The reducer that a ``keys`` node names.

    By its id; else as the field names it, ``<module>.<id>`` or ``<module>.<function>``, where a trailing
    ``.module`` or ``.reducers`` of the module is left out. Raises an ``UnknownReducerError`` that lists what
    there is.
    """
    try:
        return reducers.get(name)
    except UnknownReducerError:
        found = [
            one for one in reducers if name in (one.qualname, f"{one.module}.{one.id}", _short_name(one))
        ]
        if len(found) != 1:
            raise
        return found[0]


class KeysStep(Step):
    """Keys of states: ``{"key", "provenance", "default"}``, one for each row of the values given."""

    def __init__(self, node: Node, env: Env) -> None:
        super().__init__(node, env)
        self._known: tuple[Any, ...] | None = None
        self._dimensions: list[Dimension] = []
        self._qualname = ""
        self._existing: dict[str, dict[str, str]] = {}
        self._by_given: dict[tuple[str | None, ...], list[dict[str, str]]] = {}
        self._default: JSON = None
        self._side_by_side = False
        self._given_dimensions: list[Dimension] = []
        self.students: set[str] = set()
        """Safe ids of everyone whose keys were made, since they were last made as a whole."""
        self.prefix = ""
        """What the keys start with that this step lists from the store; empty where it lists none."""

    async def evaluate(self) -> JSON:
        """All keys."""
        self.students = set()
        registration = find_reducer(self.env.reducers, self.node.fields["function"])
        self._qualname = registration.qualname
        self._known = _signature(registration)
        self._dimensions = dimensions(self.node, registration)
        self._given_dimensions = [one for one in self._dimensions if one.given]
        self._default = own(registration.default)  # a function may change what it is given
        direct = {one.values.node for one in self._dimensions if isinstance(one.values, Ref)}
        self._side_by_side = direct == set(self.inputs)
        missing = [one for one in self._dimensions if not one.given]
        self.prefix = reducer_prefix(registration.qualname) if missing else ""
        if not missing:
            return self._items()
        self._existing = {}
        self._by_given = {}
        for key in sorted(await self.env.reader.keys(self.prefix)):
            self._learn(key)
        return self._listed()

    async def refresh(self, changes: Mapping[str, Change], dirt: Dirt) -> Change:
        """Bring the keys of changed rows, and those that are new in the store, up to date."""
        if dirt.reducers and not self._is_known():
            await self.run()
            return WHOLE
        change = shifted(changes[name] for name in self.inputs)
        if self.prefix:
            if dirt.reducers:  # keys may be gone: somebody was erased, or other code makes fewer
                return await self.again()
            new = sorted(
                key for key in dirt.keys if key.startswith(self.prefix) and key not in self._existing
            )
            if not change and not new:
                return NOTHING
            if change is WHOLE or not isinstance(self.value, list):
                return await self.again()
            added = [self._learn(key) for key in new]
            if not change and not any(added):
                return NOTHING
            before = self.value
            self.value = self._listed()
            return difference(before, self.value)
        if not change:
            return NOTHING
        if change is WHOLE or not self._side_by_side or not isinstance(self.value, list):
            return await self.again()
        rows = list(self._zip())
        if len(rows) < len(self.value):
            return await self.again()
        changed = {place for place in change if place < len(rows)} | set(range(len(self.value), len(rows)))
        self.value.extend([None] * (len(rows) - len(self.value)))
        for place in changed:
            self.value[place] = self._item(rows[place])
        return changed

    def is_dirty(self, dirt: Dirt) -> bool:
        """Whether a reducer may have been replaced."""
        return dirt.reducers

    def _is_known(self) -> bool:
        """Whether the reducer is there, and makes the keys that it made."""
        try:
            return self._known == _signature(find_reducer(self.env.reducers, self.node.fields["function"]))
        except UnknownReducerError:
            return False

    def _zip(self) -> Iterator[tuple[JSON, ...]]:
        """The given values side by side; one that is no list goes with every row."""
        columns = [self.env.resolve(one.values) for one in self._dimensions if one.given]
        lists = [column for column in columns if isinstance(column, list)]
        length = min((len(column) for column in lists), default=1)
        if not columns:
            return iter([()])
        return zip(*(c[:length] if isinstance(c, list) else [c] * length for c in columns), strict=True)

    def _items(self) -> list[JSON]:
        """One item for each row of values; of plain rows with one id each, the usual case, at once."""
        if len(self._given_dimensions) != 1:
            return [self._item(row) for row in self._zip()]
        one = self._given_dimensions[0]
        rows, path = self.env.resolve(one.values), one.path
        if not isinstance(rows, list) or not path or "." in path:
            return [self._item(row) for row in self._zip()]
        start = state_key("Internal", self._qualname, {one.key_name: ""})
        label, id_name, default = one.label, one.id_name, self._default
        items: list[JSON] = []
        for row in rows:
            value = row.get(path) if type(row) is dict else None
            if type(value) is not str or not value or "provenance" in row or "error" in row:
                items.append(self._item((row,)))
                continue
            entry = {"value": row, path: value}
            entry[id_name] = value
            items.append({"key": start + value, "provenance": {label: entry}, "default": default})
            if label == "STUDENT":
                self.students.add(value)
        return items

    def _item(self, row: tuple[JSON, ...]) -> dict[str, JSON]:
        values, provenance, wrong = self._given(row)
        if wrong is not None:
            return {**wrong, "provenance": provenance}
        key = None
        if None not in values.values():
            key = state_key("Internal", self._qualname, values)  # type: ignore[arg-type]
        return {"key": key, "provenance": provenance, "default": self._default}

    def _given(
        self, row: tuple[JSON, ...]
    ) -> tuple[dict[str, str | None], dict[str, JSON], dict[str, JSON] | None]:
        values: dict[str, str | None] = {}
        provenance: dict[str, JSON] = {}
        wrong = None
        for one, item in zip(self._given_dimensions, row, strict=True):
            value = follow(item, one.path)
            if is_error(item) or is_error(value):
                wrong = dict(item if is_error(item) else value)
            elif value is MISSING or isinstance(value, dict | list):
                came = describe(item) if value is MISSING else describe(value)
                wrong = self.error(
                    f"node {self.node.name!r}, field '{_field(one)}_path': expected an id at {one.path!r}, "
                    f"got {came}",
                    path=one.path,
                )
            else:
                values[one.key_name] = None if value is None or value == "" else str(value)
            came_from = item.get("provenance") if isinstance(item, dict) else None
            entry = dict(came_from) if isinstance(came_from, dict) else {"value": item}
            identifier = values.get(one.key_name)
            if one.path:
                entry[one.path] = identifier
            entry[one.id_name] = identifier
            provenance[one.label] = entry
            if identifier is not None and one.label == "STUDENT":
                self.students.add(identifier)
        return values, provenance, wrong

    def _learn(self, key: str) -> bool:
        """Take note of a key that is in the store; whether it is one of ours."""
        parsed = parse_key(key)
        names = {one.key_name for one in self._dimensions}
        if parsed is None or set(parsed.values) != names:
            return False
        self._existing[key] = parsed.values
        given = tuple(parsed.values[one.key_name] for one in self._dimensions if one.given)
        self._by_given.setdefault(given, []).append(parsed.values)
        return True

    def _listed(self) -> list[JSON]:
        """One item for each key in the store that goes with the values given."""
        items: list[JSON] = []
        for row in self._zip():
            values, provenance, wrong = self._given(row)
            if wrong is not None:
                items.append({**wrong, "provenance": provenance})
                continue
            given = tuple(values[one.key_name] for one in self._dimensions if one.given)
            for found in self._by_given.get(given, ()):
                whole = dict(provenance)
                for one in self._dimensions:
                    if not one.given:
                        name, value = one.id_name, found[one.key_name]
                        if one.label == "STUDENT":
                            self.students.add(value)
                        whole[one.label] = {"value": {name: value}, name: value}
                key = state_key("Internal", self._qualname, found)
                items.append({"key": key, "provenance": whole, "default": self._default})
        return items


class SelectStep(Step):
    """States, one row for each key; rows whose key changed are read again, and no others."""

    def __init__(self, node: Node, env: Env) -> None:
        super().__init__(node, env)
        self.places: dict[str, list[int]] = {}
        """Where in the answer the state of a key stands."""
        self.stateless: set[str] = set()
        """Keys under which there is no state: their rows are the reducer's default."""
        self._keys: list[str | None] = []

    async def evaluate(self) -> JSON:
        """All rows."""
        self.places = {}
        self.stateless = set()
        self._keys = []
        items = self.env.resolve(self.node.fields["keys"])
        if not isinstance(items, list):
            return self.error(
                f"node {self.node.name!r}, field 'keys': expected the keys of a 'keys' node, "
                f"got {describe(items)}"
            )
        wrong = next(
            (item for item in items if not isinstance(item, dict) or not ("key" in item or is_error(item))),
            None,
        )
        if wrong is not None:
            return self.error(
                f"node {self.node.name!r}, field 'keys': expected items with 'key', got {describe(wrong)}"
            )
        self._keys = [item.get("key") for item in items]
        for place, name in enumerate(self._keys):
            if name is not None:
                self.places.setdefault(name, []).append(place)
        states = await self._read(list(self.places))
        fields = self.env.resolve(self.node.fields.get("fields"))
        return [self._row(item, states.get(item.get("key")), fields) for item in items]

    async def refresh(self, changes: Mapping[str, Change], dirt: Dirt) -> Change:
        """Read again what changed."""
        keys = self.node.fields["keys"]
        change = shifted(changes[name] for name in self.inputs)
        direct = isinstance(keys, Ref) and not any(changes[name] for name in self.inputs if name != keys.node)
        if change is WHOLE or not direct or not isinstance(self.value, list):
            if change or not dirt.keys.isdisjoint(self.places):
                return await self.again()
            return NOTHING
        items = self.env.steps[keys.node].value
        for place in sorted(change):
            self._place(place, items[place].get("key"))
        touched = set(change)
        if len(dirt.keys) < len(self.places):
            for key in dirt.keys:
                touched.update(self.places.get(key, ()))
        else:
            for key, places in self.places.items():
                if key in dirt.keys:
                    touched.update(places)
        if not touched:
            return NOTHING
        states = await self._read(
            list(dict.fromkeys(name for p in touched if (name := self._keys[p]) is not None))
        )
        fields = self.env.resolve(self.node.fields.get("fields"))
        changed = set()
        for place in touched:
            row = self._row(items[place], states.get(self._keys[place]), fields)
            if not same(row, self.value[place]):
                self.value[place] = row
                changed.add(place)
        return changed

    def _place(self, place: int, key: str | None) -> None:
        if place < len(self._keys):
            old = self._keys[place]
            if old == key:
                return
            if old is not None:
                others = [other for other in self.places[old] if other != place]
                if others:
                    self.places[old] = others
                else:
                    del self.places[old]
            self._keys[place] = key
        else:
            self._keys.append(key)
            self.value.append(None)
        if key is not None:
            self.places.setdefault(key, []).append(place)

    async def _read(self, keys: list[str]) -> dict[str | None, JSON]:
        if not keys:
            return {}
        states: dict[str | None, JSON] = dict(zip(keys, await self.env.reader.read(keys), strict=True))
        self.stateless.difference_update(keys)
        self.stateless.update(key for key in keys if states[key] is None)
        return states

    def _row(self, item: dict[str, JSON], state: JSON, fields: JSON) -> dict[str, JSON]:
        if "key" not in item:  # an error in its place
            return item
        provenance = {"key": item["key"], "provenance": item["provenance"]}
        row: dict[str, JSON] = {"provenance": provenance}
        known = state if state is not None else own(item.get("default"))
        if fields == "All":
            if isinstance(known, dict):
                row.update(known)
                row["provenance"] = provenance
            elif known is not None:
                row["value"] = known
            return row
        if not isinstance(fields, dict):
            return row
        for path, name in fields.items():
            value = follow(known, path)
            if value is MISSING:
                value = None
                if state is not None:
                    value = self.error(
                        f"node {self.node.name!r}, field 'fields': expected {path!r} in the state, "
                        f"got {describe(state)}",
                        key=item["key"],
                        path=path,
                    )
            row[name] = value
        return row


def _signature(registration: Registration) -> tuple[Any, ...]:
    return registration.id, registration.qualname, registration.scope, registration.default


def _short_name(registration: Registration) -> str:
    module, _, function = registration.qualname.rpartition(".")
    return f"{module.removesuffix('.module').removesuffix('.reducers')}.{function}"


def _rank(field: ScopeField) -> tuple[int, str]:
    order = [KeyField.CLASS, KeyField.TEACHER, KeyField.STUDENT, KeyField.RESOURCE]
    return (order.index(field) if isinstance(field, KeyField) else 9, field.key_name)


def _candidates(field: ScopeField) -> tuple[str, list[str]]:
    """How a field is called in provenance, and how a ``keys`` node may call it (lower case)."""
    if isinstance(field, EventField):
        names = [f"eventfield.{field.event}".lower(), field.event.lower()]
        if field.event == "doc_id":
            return "RESOURCE", ["resources", *names, "resource"]
        return field.key_name, [*names, f"{field.event.lower()}s"]
    name = field.value.lower()
    plural = "classes" if field is KeyField.CLASS else f"{name}s"
    return field.value, [plural, name, f"keyfield.{name}"]


def _field(one: Dimension) -> str:
    return {"STUDENT": "STUDENTS", "RESOURCE": "RESOURCES", "CLASS": "CLASSES", "TEACHER": "TEACHERS"}.get(
        one.label, one.label
    )
