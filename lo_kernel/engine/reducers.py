"""Reducers: how they are declared, and what a registration of one knows.

A reducer is ``async def reducer(event, state) -> (internal, external)`` (a plain ``def`` does too). The
decorators mark it with its scope and null state and give it back unchanged, so that it can be called
and tested as the function it is. Names and meaning are those of the deployed Learning Observer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lo_kernel.engine.keys import KeyField, Scope
from lo_kernel.errors import ReducerError

__all__ = [
    "STUDENT_SCOPE",
    "Declaration",
    "Reducer",
    "check_reducer",
    "declaration_of",
    "kvs_pipeline",
    "not_a_pair",
    "student_event_reducer",
]

Reducer = Callable[[dict[str, Any], Any], Any]
F = TypeVar("F", bound=Reducer)

STUDENT_SCOPE = Scope([KeyField.STUDENT])
_MARK = "__lo_declaration__"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a decorator says of a reducer."""

    scope: Scope
    null_state: Any
    module: str
    qualname: str

    @property
    def key_name(self) -> str:
        """The middle part of its states' keys: ``<module>.<function>``."""
        return f"{self.module}.{self.qualname}"


def kvs_pipeline(
    null_state: Any = None,
    scope: Scope | None = None,
    module_override: str | None = None,
    qualname_override: str | None = None,
) -> Callable[[F], F]:
    """Declare a reducer: what its state is at first, and what a state belongs to.

    ``scope`` is a :class:`Scope` of :class:`KeyField` and :class:`EventField`, by default the learner.
    The overrides replace module and function name in the states' keys.

    >>> @kvs_pipeline(null_state={"n": 0}, module_override="my_module")
    ... async def count(event, state):
    ...     state["n"] += 1
    ...     return state, state
    >>> declaration_of(count).key_name
    'my_module.count'
    """
    if callable(null_state):
        raise ReducerError(
            "the decorator needs parentheses: write @kvs_pipeline() or @student_event_reducer(...) "
            f"above {getattr(null_state, '__name__', null_state)!r}"
        )
    declared = STUDENT_SCOPE if scope is None else Scope(scope)

    def declare(function: F) -> F:
        check_reducer(function)
        declaration = Declaration(
            declared,
            null_state,
            module_override or function.__module__,
            qualname_override or function.__qualname__,
        )
        setattr(function, _MARK, declaration)
        return function

    return declare


def student_event_reducer(
    null_state: Any = None,
    scope: Scope | None = None,
    module_override: str | None = None,
    qualname_override: str | None = None,
) -> Callable[[F], F]:
    """Declare a reducer with one state per learner; see :func:`kvs_pipeline`.

    >>> @student_event_reducer(null_state={"count": 0})
    ... async def event_count(event, state):
    ...     return {"count": state["count"] + 1}, None
    >>> declaration_of(event_count).scope
    Scope(STUDENT)
    """
    return kvs_pipeline(null_state, scope or STUDENT_SCOPE, module_override, qualname_override)


def check_reducer(function: object) -> None:
    """Raise :class:`ReducerError` where something can't be called as a reducer."""
    if not callable(function):
        raise ReducerError(
            f"a reducer is a function (event, state) -> (internal, external), got {function!r} "
            f"({type(function).__name__})"
        )
    try:
        inspect.signature(function).bind({}, None)
    except TypeError:
        raise ReducerError(
            f"a reducer takes two arguments, (event, state); {getattr(function, '__name__', function)} is "
            f"declared as {inspect.signature(function)}"
        ) from None
    except ValueError:
        pass  # a built-in without a signature: the first event will tell


def declaration_of(function: Reducer) -> Declaration:
    """What a reducer declares; an undecorated one has a state per learner, ``None`` at first."""
    declared = getattr(function, _MARK, None)
    if isinstance(declared, Declaration):
        return declared
    return Declaration(
        STUDENT_SCOPE,
        None,
        getattr(function, "__module__", None) or "__main__",
        getattr(function, "__qualname__", None) or type(function).__qualname__,
    )


def not_a_pair(result: Any) -> ReducerError:
    """What is wrong with an answer that is no pair.

    >>> raise not_a_pair({"n": 1})
    Traceback (most recent call last):
        ...
    lo_kernel.errors.ReducerError: a reducer returns a pair (internal state, external state), got dict: \
{'n': 1}. Write: return state, state
    """
    return ReducerError(
        "a reducer returns a pair (internal state, external state), "
        f"got {type(result).__name__}: {str(result)[:80]}. Write: return state, state"
    )
