"""The steps of a running query: each holds its answer, and can bring it up to date.

``run`` makes the whole answer. ``refresh`` is told what changed (rows of the inputs by position, keys of
states, published functions) and gives back which of its own rows changed, so that one event costs one row
and not a class. A step that has no short way runs as a whole, and then says which rows differ.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from lo_kernel.errors import LOError, StoreError
from lo_kernel.query.dag import Node, Ref
from lo_kernel.query.functions import FunctionContext, Functions, invoke
from lo_kernel.query.ports import JSON, Reducers, StateReader
from lo_kernel.query.values import error_value, is_error, own, same

__all__ = [
    "NOTHING",
    "WHOLE",
    "CallStep",
    "Change",
    "Dirt",
    "Env",
    "ParameterStep",
    "Step",
    "Timing",
    "ValueStep",
    "call_error",
    "difference",
    "may_pass",
]


class Whole(enum.Enum):
    """That an answer changed as a whole."""

    WHOLE = "whole"


WHOLE: Final = Whole.WHOLE
Change: TypeAlias = frozenset[int] | set[int] | Whole
NOTHING: Final[frozenset[int]] = frozenset()


@dataclass(slots=True)
class Env:
    """What the steps of one query share."""

    reader: StateReader
    reducers: Reducers
    functions: Functions
    parameters: Mapping[str, JSON]
    context: FunctionContext
    steps: dict[str, Step] = field(default_factory=dict)

    def resolve(self, value: JSON) -> JSON:
        """``value`` with every reference replaced by that step's answer."""
        if isinstance(value, Ref):
            return self.steps[value.node].value
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        return value


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a step took the last time, and how many rows it has (``None``: no rows)."""

    seconds: float
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Dirt:
    """What changed outside of a query since it was last brought up to date."""

    keys: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    reducers: bool = False
    """Whether a reducer may have been replaced."""


class Step:
    """One node of a query, with its answer."""

    def __init__(self, node: Node, env: Env) -> None:
        self.node = node
        self.env = env
        self.inputs: tuple[str, ...] = tuple(dict.fromkeys(node.inputs.values()))
        self.value: JSON = None
        self.unread = False
        """Whether the answer is an error that may pass by itself, as that of a store that is out of reach."""

    async def run(self) -> None:
        """Make the whole answer; an error on the way becomes the answer."""
        self.unread = False
        failed = self.failed_input()
        if failed is not None:
            self.value = failed
            return
        try:
            self.value = await self.evaluate()
        except Exception as error:  # whatever a published function raises
            self.unread = may_pass(error)
            self.value = self.error(f"{type(error).__name__}: {error}", error)

    async def refresh(self, changes: Mapping[str, Change], dirt: Dirt) -> Change:
        """Bring the answer up to date; which rows of it changed."""
        if not any(changes[name] for name in self.inputs) and not self.is_dirty(dirt):
            return NOTHING
        return await self.again()

    async def again(self) -> Change:
        """Run as a whole; which rows of the answer differ from before."""
        old = self.value
        await self.run()
        return difference(old, self.value)

    async def evaluate(self) -> JSON:
        """The answer, from the answers of the inputs."""
        raise NotImplementedError

    def is_dirty(self, dirt: Dirt) -> bool:
        """Whether something that this step itself reads has changed."""
        return False

    def failed_input(self) -> JSON | None:
        """An error among the inputs, wrapped so that it says through which field it came."""
        for where, name in self.node.inputs.items():
            value = self.env.steps[name].value
            if is_error(value):
                return {
                    "error": value["error"],
                    "function": value["function"],
                    "dispatch": self.node.dispatch,
                    "error_path": [self.node.name, where],
                    "error_provenance": value.get("error_provenance"),
                    "traceback": value.get("traceback", ""),
                }
        return None

    def error(self, message: str, error: BaseException | None = None, **about: JSON) -> dict[str, JSON]:
        """An error of this step, as a value."""
        return error_value(message, self.node.dispatch, error, node=self.node.name, **about)


class ValueStep(Step):
    """A constant, or the answer of another node under a second name."""

    async def evaluate(self) -> JSON:
        """The value, as it stands or of the node it names."""
        value = self.node.fields.get("value")
        found = self.env.resolve(value)
        # A constant is copied: the DAG stays as it is, whoever has the answer.
        return found if isinstance(value, Ref) else own(found)

    async def refresh(self, changes: Mapping[str, Change], dirt: Dirt) -> Change:
        """What changed in the node that it names."""
        if isinstance(self.node.fields.get("value"), Ref):  # the same list: what changed there changed here
            await self.run()
            return changes[self.inputs[0]]
        return await super().refresh(changes, dirt)


class ParameterStep(Step):
    """A parameter's value, or its default."""

    async def evaluate(self) -> JSON:
        """What was given, or the default."""
        name = self.node.fields["parameter_name"]
        if name == "runtime":
            return self.env.context
        if name in self.env.parameters:
            return self.env.parameters[name]
        if self.node.fields.get("required"):
            return self.error(f"parameter {name!r}: expected a value, got none", parameter_name=name)
        return own(self.node.fields.get("default"))


class CallStep(Step):
    """A call of a published function.

    It may change what it is given, and go on changing what it gave: neither is the query's own.
    """

    async def evaluate(self) -> JSON:
        """What the function gives."""
        name = self.node.fields["function_name"]
        function = self.env.functions.get(name)
        args = [self.env.resolve(value) for value in self.node.fields.get("args") or ()]
        kwargs = {
            key: self.env.resolve(value) for key, value in (self.node.fields.get("kwargs") or {}).items()
        }
        try:
            if function.changes_nothing:
                return await invoke(function, args, kwargs, self.env.context)
            return own(await invoke(function, own(args), own(kwargs), self.env.context))
        except Exception as error:
            return error_value(
                call_error(name, error),
                "call",
                error,
                node=self.node.name,
                function_name=name,
            )

    def is_dirty(self, dirt: Dirt) -> bool:
        """Whether the function now gives something else."""
        return self.node.fields["function_name"] in dirt.functions


def may_pass(error: Exception) -> bool:
    """Whether trying again later may help: nothing of ours that says what is wrong with the query."""
    return isinstance(error, StoreError) or not isinstance(error, LOError)


def call_error(name: str, error: Exception) -> str:
    """What a published function raised, for whoever asked; one of our own says by itself what it is.

    >>> call_error("top", LOError("top: n: expected how many rows, got -1"))
    'top: n: expected how many rows, got -1'
    >>> call_error("grade", ValueError("no"))
    'grade: ValueError: no'
    """
    text = str(error)
    if isinstance(error, LOError):
        return text if text.startswith(f"{name}:") else f"{name}: {text}"
    return f"{name}: {type(error).__name__}: {text}"


def difference(old: JSON, new: JSON) -> Change:
    """Which rows of ``new`` differ from ``old``; :data:`WHOLE` where they can't be told apart by position.

    >>> sorted(difference([1, 2], [1, 3, 4]))
    [1, 2]
    >>> difference([1, 2], [1])
    <Whole.WHOLE: 'whole'>
    """
    if isinstance(old, list) and isinstance(new, list):
        if len(new) < len(old):
            return WHOLE
        rows = {place for place, (was, now) in enumerate(zip(old, new, strict=False)) if not same(was, now)}
        rows.update(range(len(old), len(new)))
        return rows
    return NOTHING if type(old) is type(new) and same(old, new) else WHOLE


def shifted(changes: Iterable[Change]) -> Change:
    """Several changes of lists that go side by side, as one."""
    rows: set[int] = set()
    for change in changes:
        if change is WHOLE:
            return WHOLE
        rows |= change
    return rows
