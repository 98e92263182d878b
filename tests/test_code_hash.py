"""What counts as the same code: the content of each constant that a reducer reaches, whatever its class."""

from __future__ import annotations

import array
import asyncio
import collections
import dataclasses
import enum
import fractions
import functools
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from ingest_parts import SOURCE, running
from waiting import auntil

from lo_kernel.engine import codehash
from lo_kernel.engine.codehash import code_hash
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.settings import Settings


class Plain:
    """An object with a field, and with something that has no content."""

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.lock = threading.Lock()


class Slots:
    """The same without a dictionary."""

    __slots__ = ("weight",)

    def __init__(self, weight: int) -> None:
        self.weight = weight


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """A record."""

    weight: int


class Colour(enum.Enum):
    """Names."""

    red = 1
    blue = 2


def numpy_array(weight: int) -> Any:
    """An array."""
    return pytest.importorskip("numpy").array([[weight, 2.5]])


def numpy_objects(weight: int) -> Any:
    """An array of anything."""
    return pytest.importorskip("numpy").array([weight, "a", None], dtype=object)


def frame(weight: int) -> Any:
    """A table."""
    return pytest.importorskip("pandas").DataFrame({"a": [weight, 2], "b": ["x", "y"]})


def series(weight: int) -> Any:
    """A column."""
    return pytest.importorskip("pandas").Series([weight], name="a")


CONSTANTS: list[Callable[[int], Any]] = [
    Plain,
    Slots,
    Weights,
    Colour,
    numpy_array,
    numpy_objects,
    frame,
    series,
    lambda weight: types.SimpleNamespace(weight=weight),
    lambda weight: types.MappingProxyType({"weight": weight}),
    lambda weight: collections.deque([weight]),
    lambda weight: collections.Counter({"a": weight}),
    lambda weight: collections.defaultdict([list, dict][weight - 1]),
    lambda weight: array.array("i", [weight]),
    lambda weight: fractions.Fraction(weight, 3),
    lambda weight: pathlib.Path(str(weight)),
    range,
    lambda weight: {"deep": [Plain(weight)]},
    lambda weight: {Weights(weight), Weights(7)},
    lambda weight: bytearray([weight]),
    lambda weight: Plain(weight).__init__,  # type: ignore[misc]
    lambda weight: functools.partial(max, weight),
    lambda weight: Scope([KeyField.STUDENT, EventField(f"doc{weight}")]),
]


def reaching(constant: Any) -> Any:
    """A reducer that reaches a constant."""
    space = {"weight": constant, "__name__": "__main__"}
    exec("def scaled(event, state):\n    return {'n': [state, weight]}, None\n", space)
    return space["scaled"]


@pytest.mark.parametrize("constant", CONSTANTS)
def test_a_constant_counts_by_its_content(constant: Callable[[int], Any]) -> None:
    """Another value is other code, and an equal one made anew is the same."""
    assert code_hash(reaching(constant(1))) != code_hash(reaching(constant(2)))
    assert code_hash(reaching(constant(1))) == code_hash(reaching(constant(1)))


def test_the_hash_is_the_same_in_another_process() -> None:
    """After a restart the same code goes on: neither addresses nor the order of sets are in the hash."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_code_hash as t\n"
        "print([t.code_hash(t.reaching(make(1))) for make in t.CONSTANTS])\n"
    )
    folder = str(pathlib.Path(__file__).parent)
    found = {
        subprocess.run(
            [sys.executable, "-c", program, folder],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


class Gate(asyncio.Event):
    """A living thing with a number of one's own."""

    number = 1


def used_event() -> Iterator[Any]:
    """An event that is set, and waited for."""
    event = asyncio.Event()
    yield event
    event.set()
    yield event


def used_lock() -> Iterator[Any]:
    """A lock that is held."""
    lock = threading.Lock()
    yield lock
    with lock:
        yield lock


def used_queue() -> Iterator[Any]:
    """A queue in which something waits."""
    waiting: asyncio.Queue[int] = asyncio.Queue()
    yield waiting
    waiting.put_nowait(1)
    yield waiting


def used_task() -> Iterator[Any]:
    """A future, as a task is, that gets done."""
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    yield future
    future.set_result(1)
    yield future
    loop.close()


def used_generator() -> Iterator[Any]:
    """A generator that went on."""
    lines = (line for line in "abc")
    yield lines
    next(lines)
    yield lines


def used_numbers() -> Iterator[Any]:
    """A random generator that was asked."""
    numbers = random.Random(1)
    yield numbers
    numbers.random()
    yield numbers


def used_method() -> Iterator[Any]:
    """The same by its method, as `from random import random` gives it."""
    numbers = random.Random(1)
    yield numbers.random
    numbers.random()
    yield numbers.random


def used_file() -> Iterator[Any]:
    """An open file that was read."""
    with pathlib.Path(__file__).open() as file:
        yield file
        file.readline()
        yield file


def used_socket() -> Iterator[Any]:
    """A socket that is closed."""
    with socket.socket() as sock:
        yield sock
    yield sock


def used_client() -> Iterator[Any]:
    """What a library makes around a loop and its sockets."""
    loop = asyncio.new_event_loop()
    connector = object.__new__(aiohttp.TCPConnector)
    connector.__dict__.update(_loop=loop, _acquired=set(), _closed=True)
    yield connector
    connector.__dict__["_limit"] = 7
    yield connector
    loop.close()


LIVING = [
    used_event,
    used_lock,
    used_queue,
    used_task,
    used_generator,
    used_numbers,
    used_method,
    used_file,
    used_socket,
    used_client,
]


@pytest.mark.parametrize("used", LIVING)
@pytest.mark.parametrize("inside", [False, True])
def test_what_changes_by_itself_counts_by_its_class(used: Callable[[], Iterator[Any]], inside: bool) -> None:
    """A lock, a task, a file, ... doesn't make other code by being used; what lies beside it counts."""

    def around(thing: Any, weight: int = 1) -> Any:
        return types.SimpleNamespace(thing=thing, weight=weight) if inside else thing

    found = [(code_hash(reaching(around(thing))), code_hash(reaching(around(thing, 2)))) for thing in used()]
    assert len(found) == 2
    assert found[0] == found[1]
    assert (found[0][0] != found[0][1]) == inside
    assert found[0][0] != code_hash(reaching(around(7)))


def test_the_code_of_what_changes_by_itself_counts() -> None:
    """Another class of one's own, or another generator's code, is other code."""
    gate, opened = Gate(), Gate()
    opened.set()
    assert code_hash(reaching(gate)) == code_hash(reaching(opened))
    other = type("Gate", (asyncio.Event,), {"number": 2, "__module__": "__main__"})()
    assert code_hash(reaching(gate)) != code_hash(reaching(other))
    assert code_hash(reaching(n for n in (1, 2))) != code_hash(reaching(n + 1 for n in (1, 2)))


def test_a_name_among_living_things_is_data() -> None:
    """A member of an enum counts by its name, in a module of sockets too."""
    assert code_hash(reaching(socket.AF_INET)) != code_hash(reaching(socket.AF_INET6))


def test_too_much_content_counts_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array beyond measure, or too many objects, are never taken for what they were."""
    monkeypatch.setattr(codehash, "_MOST_BYTES", 8)
    large = numpy_array(1)
    assert code_hash(reaching(large)) != code_hash(reaching(large))
    monkeypatch.setattr(codehash, "_MOST_OBJECTS", 10)
    many = [fractions.Fraction(number) for number in range(20)]
    assert code_hash(reaching(many)) != code_hash(reaching(many))


async def test_another_table_of_weights_folds_the_past_anew(settings: Settings) -> None:
    """A cell whose array changed begins anew: states of two tables are never mixed."""
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]

    def weighing(weight: int) -> Any:
        weights = numpy_array(weight)

        def weigh(event: Any, state: Any) -> Any:
            return {"n": state["n"] + int(weights[0, 0])}, None

        return kvs_pipeline({"n": 0}, module_override="t", qualname_override="weigh")(weigh)

    async with running(settings) as runtime:
        for _ in range(5):
            runtime.pipeline.take(sender, {"event": "x"}, b'{"event":"x"}', 1.5)
        for weight in (1, 1000):
            await runtime.add_reducer("weigh", weighing(weight), module="t").ready()
            await auntil(runtime.pipeline.is_idle)
            assert await runtime.registry.read(["Internal,t.weigh,STUDENT:tc-testcase-u0"]) == [
                {"n": 5 * weight}
            ]


_LITERALS = {
    "a generator": "sum(k == {0!r} for k in state)",
    "a list": "[k for k in state if k == {0!r}]",
    "a list of literals": "[{0!r} for k in state]",
    "a set": "{{k for k in state if k == {0!r}}}",
    "a dictionary": "{{{0!r}: k for k in state}}",
    "a lambda": "(lambda: {0!r})()",
    "a lambda's default": "(lambda x={0!r}: x)()",
    "a sort's key": "sorted(state, key=lambda k: k == {0!r})",
    "a nested generator": "[sum(c == {0!r} for c in k) for k in state]",
    "an f-string": "[f'{{k}}{0}' for k in state]",
    "an inner function": "inner({0!r})",
}


@pytest.mark.parametrize("expression", _LITERALS.values(), ids=list(_LITERALS))
def test_a_literal_counts_wherever_it_stands(expression: str) -> None:
    """The first text in a comprehension's code is no docstring: another one is other code."""

    def made(literal: str, doc: str = "What it does.") -> Any:
        space: dict[str, Any] = {}
        body = expression.format(literal)
        source = (
            f'def reducer(event, state):\n    """{doc}"""\n'
            f'    def inner(x):\n        """{doc}"""\n        return x\n    return {body}, state\n'
        )
        exec(source, space)
        return code_hash(space["reducer"])

    assert made("type") == made("type") == made("type", "Something else is said.")
    assert made("type") != made("ty")
