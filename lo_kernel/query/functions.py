"""Functions that queries may call: published by name, sync or async, replaceable."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lo_kernel.errors import QueryError
from lo_kernel.query.builtins import BUILTINS
from lo_kernel.query.naming import Naming
from lo_kernel.query.ports import JSON, Unsubscribe

__all__ = ["Function", "FunctionContext", "Functions", "gave_up", "invoke"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class FunctionContext:
    """What a function gets as ``runtime`` where it has a parameter of that name.

    ``naming`` says which names of learners the answer may hold; ``names`` is whether those of the roster.
    """

    naming: Naming = False

    @property
    def names(self) -> bool:
        """Whether the answer may hold names of the roster."""
        return self.naming is True


@dataclass(frozen=True, slots=True)
class Function:
    """A published function."""

    name: str
    function: Callable[..., Any]
    description: str = ""
    columns: tuple[str, ...] | None = None
    """Columns of the rows it gives, where they are known."""

    @property
    def is_async(self) -> bool:
        """Whether calling it gives something to await."""
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    @property
    def changes_nothing(self) -> bool:
        """Whether it is known to leave alone what it is given, and what it gave."""
        return BUILTINS.get(self.name) is self.function

    @property
    def wants_runtime(self) -> bool:
        """Whether it has a parameter ``runtime``."""
        return "runtime" in self.parameters

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Its parameters, by name."""
        try:
            return dict(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):  # some builtins tell nothing of themselves
            return {}

    def check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
        """What is wrong with these arguments, or ``None``."""
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return None
        given = dict(kwargs)
        if self.wants_runtime:
            given.setdefault("runtime", None)
        try:
            signature.bind(*args, **given)
        except TypeError as error:
            return f"{error}; it takes {signature}"
        return None


class Functions:
    """The published functions, by name; those of :mod:`lo_kernel.query.builtins` are there from the start.

    >>> functions = Functions()
    >>> @functions.publish("my_module.double")
    ... def double(x: int) -> int:
    ...     '''Twice as much.'''
    ...     return 2 * x
    >>> functions.get("my_module.double").description
    'Twice as much.'
    """

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}
        self._given: set[str] = set()  # those that nobody has published in a notebook
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        for name, function in BUILTINS.items():
            self.publish(name, mark=False)(function)

    def publish(
        self,
        name: str,
        *,
        description: str | None = None,
        columns: Sequence[str] | None = None,
        mark: bool = True,
        touch: Callable[[str], object] | None = None,
    ) -> Callable[[F], F]:
        """Publish a function under ``name``; publishing again replaces it, in open queries too.

        The function takes and gives JSON values. An async one may do I/O; a plain one runs on the app's loop,
        unless a ``map`` with ``parallel`` puts it on threads. A parameter named ``runtime`` gets a
        :class:`FunctionContext`. ``mark`` lets :meth:`q.map <lo_kernel.query.language.Q.map>` know the
        function by itself; one that takes no attributes, such as ``len``, by its name alone. With it, one
        in the place of a built-in function is warned of. Whoever isn't on the app's loop gives a ``touch``
        that calls this one's there.
        """
        if not isinstance(name, str) or not name:
            raise QueryError(f"publish: expected a name, as in @lo.publish('my_function'), got {name!r}")

        def decorator(function: F) -> F:
            if not callable(function):
                raise QueryError(f"publish({name!r}): expected a function, got {function!r}")
            text = description if description is not None else inspect.getdoc(function) or ""
            first_line = text.strip().partition("\n")[0]
            known = tuple(columns) if columns is not None else None
            self._functions[name] = Function(name, function, first_line, known)
            if mark:
                if name in self._given:
                    warnings.warn(
                        f"publish({name!r}) replaces the function of this name that is always there, in all "
                        f"queries; take another name, such as 'my_{name.rpartition('.')[2]}', to have both",
                        stacklevel=2,
                    )
                self._given.discard(name)
                with contextlib.suppress(AttributeError, TypeError):  # one of C takes none, nor does a method
                    function.__lo_name__ = name  # type: ignore[attr-defined]  # what q.map reads
            else:
                self._given.add(name)
            (touch or self.touch)(name)
            return function

        return decorator

    def remove(self, name: str) -> None:
        """Take a function away; queries that call it answer with an error."""
        if self._functions.pop(name, None) is not None:
            self.touch(name)

    def get(self, name: str) -> Function:
        """The function of this name; an error that lists what there is otherwise."""
        found = self._functions.get(name)
        if found is None:
            there = ", ".join(sorted(self._functions)) or "none"
            raise QueryError(
                f"there is no published function {name!r}; there are: {there}. "
                "Publish one with @lo.publish(name)"
            )
        return found

    def touch(self, *names: str) -> None:
        """Say that these would now give another answer: open queries that call them run them again."""
        for listener in list(self._listeners):
            listener(frozenset(names))

    def subscribe(self, listener: Callable[[frozenset[str]], None]) -> Unsubscribe:
        """Call ``listener`` with the names of functions whose answers changed."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def __iter__(self) -> Iterator[Function]:
        return iter([self._functions[name] for name in sorted(self._functions)])

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __len__(self) -> int:
        return len(self._functions)

    def __repr__(self) -> str:
        width = max((len(name) for name in self._functions), default=0)
        return "\n".join(f"{f.name:<{width}}  {f.description}".rstrip() for f in self) or "no functions"


async def invoke(
    function: Function, args: Sequence[JSON], kwargs: dict[str, JSON], context: FunctionContext
) -> JSON:
    """Call a published function and await what it gives, where that is to be awaited.

    It raises an ``Exception`` at most: a ``sys.exit()`` in a function is an error of its call.
    """
    if function.wants_runtime and not isinstance(kwargs.get("runtime"), FunctionContext):
        kwargs = {**kwargs, "runtime": context}
    try:
        result = function.function(*args, **kwargs)
        if isinstance(result, Awaitable):
            result = await result
        if hasattr(result, "__aiter__"):
            return [item async for item in result]
        if isinstance(result, tuple | Iterator):
            return list(result)
    except (Exception, GeneratorExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # whoever asked wants no answer any more
        raise gave_up(function.name, error) from error
    return result


def gave_up(name: str, error: BaseException) -> QueryError:
    """What stands in the place of a ``sys.exit()`` in a published function: it ends the call alone.

    >>> print(gave_up("grade", SystemExit("no model")))
    grade: SystemExit: no model
    """
    text = str(error)
    return QueryError(f"{name}: {type(error).__name__}" + (f": {text}" if text else ""))
