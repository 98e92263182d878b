"""What counts as the same code: the content of each constant that a reducer reaches, whatever its class."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import fractions
import functools
import os
import pathlib
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

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


def test_what_cannot_be_told_counts_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator, or an array beyond measure, is never taken for what it was."""
    lines = (line for line in "ab")
    assert code_hash(reaching(lines)) != code_hash(reaching(lines))
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
