"""Learners who type: who they are, and what each sends when. Pure: no clock, no network, no global chance.

A :class:`Typist` works in three layers, each a generator over the one below:

    the text of an essay  ->  keystrokes (pause, insertion or deletion)  ->  google_docs_save events (delay,
    event)

Commands are those of PROTOCOL.md: ``{"ty": "is", "ibi": n, "s": text}`` inserts before character ``n``, and
``{"ty": "ds", "si": a, "ei": b}`` deletes the characters ``a`` to ``b``; both count from 1 and include their
ends. :func:`apply_commands` replays them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from lo_kernel.app.prose import essay

__all__ = ["STYLES", "Style", "Typist", "apply_commands", "typists"]


@dataclass(frozen=True, slots=True)
class Style:
    """How somebody writes: times in seconds, the others chances from 0 to 1."""

    name: str
    keystroke: float  # between two keys of a word
    pause: float  # now and then between two words
    think: float  # between two sentences
    slip: float  # per key: a wrong one is hit, and taken back a little later
    revise: float  # per sentence: a word is added or replaced afterwards
    away: float  # per pause: it becomes a long one, of a minute or so


STYLES: tuple[Style, ...] = (
    Style("steady", keystroke=0.19, pause=0.9, think=2.2, slip=0.018, revise=0.25, away=0.01),
    Style("fast", keystroke=0.11, pause=0.6, think=1.2, slip=0.030, revise=0.15, away=0.01),
    Style("bursts", keystroke=0.12, pause=2.6, think=5.0, slip=0.022, revise=0.40, away=0.02),
    Style("slow", keystroke=0.42, pause=1.8, think=4.0, slip=0.030, revise=0.20, away=0.02),
    Style("away", keystroke=0.24, pause=2.2, think=7.0, slip=0.015, revise=0.10, away=0.35),
)
_WEIGHTS = (9, 6, 6, 5, 3)  # of thirty learners; steady ones first, so that a class of one is a steady one

_SAVE_AFTER = 1.1  # the editor saves this long after the first unsaved change ...
_SAVE_PAUSE = 0.45  # ... or as soon as nothing was typed for this long

_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo",
    "j": "hk", "k": "jl", "l": "ko", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et",
    "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_FILLERS = ("thing", "good", "stuff", "very", "maybe", "nice")


def apply_commands(text: str, commands: Iterable[Mapping[str, Any]]) -> str:
    """The text after the commands of a ``google_docs_save`` event.

    A command that reaches outside the text raises :class:`ValueError`: the events are not from its beginning.

    >>> apply_commands("", [{"ty": "is", "ibi": 1, "s": "helo"}, {"ty": "is", "ibi": 4, "s": "l"}])
    'hello'
    >>> apply_commands("hello", [{"ty": "ds", "si": 2, "ei": 5}])
    'h'
    """
    for command in commands:
        if command["ty"] == "is":
            at = command["ibi"] - 1
            if not 0 <= at <= len(text):
                raise ValueError(f"expected an insertion at 1 to {len(text) + 1}, got {command!r}")
            text = text[:at] + command["s"] + text[at:]
        elif command["ty"] == "ds":
            first, last = command["si"], command["ei"]
            if not 1 <= first <= last <= len(text):
                raise ValueError(f"expected a deletion within 1 to {len(text)}, got {command!r}")
            text = text[: first - 1] + text[last:]
        else:
            raise ValueError(f"expected a command of type 'is' or 'ds', got {command!r}")
    return text


@dataclass(frozen=True, slots=True)
class Typist:
    """One learner of a simulated class.

    The same seed and number give the same learner: the same essays, slips and pauses.

    >>> learner = Typist(user_id="sim-01", seed="1:0", style=STYLES[0])
    >>> delay, event = next(learner.events())
    >>> event["event"], event["doc_id"], sorted(event["bundles"][0]["commands"][0])
    ('google_docs_save', 'sim-01-essay-1-1', ['ibi', 's', 'ty'])
    """

    user_id: str
    seed: str
    style: Style

    def events(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """Endless pairs of seconds since the pair before, and the event that is due then.

        The event has ``event``, ``doc_id`` and ``bundles``; who sends it adds source, origin and timestamp.
        An essay that is finished is followed by another one in a new document.
        """
        rng = random.Random(self.seed)
        yield_after = rng.uniform(0.1, 1.5)  # learners do not start at the same instant
        for number in count(1):
            doc_id = f"{self.user_id}-essay-{self.seed.partition(':')[0]}-{number}"
            for delay, commands in _saves(_keystrokes(rng, self.style, essay(rng))):
                event = {"event": "google_docs_save", "doc_id": doc_id, "bundles": [{"commands": commands}]}
                yield yield_after + delay, event
                yield_after = 0.0
            yield_after = rng.uniform(2, 6) * self.style.think

    def until(self, seconds: float) -> Iterator[tuple[float, dict[str, Any]]]:
        """The same events, timed from the start, up to ``seconds``."""
        now = 0.0
        for delay, event in self.events():
            now += delay
            if now > seconds:
                return
            yield now, event


def typists(students: int, seed: int, prefix: str = "sim") -> list[Typist]:
    """A class: ``students`` learners of all styles, the same for the same seed; ``prefix`` begins their ids.

    >>> [typist.user_id for typist in typists(3, seed=1)]
    ['sim-01', 'sim-02', 'sim-03']
    """
    width = max(2, len(str(students)))
    rng = random.Random(f"{seed}:styles")
    deck: list[Style] = []
    while len(deck) < students:
        hand = [style for style, weight in zip(STYLES, _WEIGHTS, strict=True) for _ in range(weight)]
        rng.shuffle(hand)
        deck += hand
    # However small the class is, the first ones differ: a chart of five shows what learners are like.
    deck = [*STYLES, *deck][:students]
    return [
        Typist(user_id=f"{prefix}-{number:0{width}d}", seed=f"{seed}:{number}", style=style)
        for number, style in enumerate(deck, 1)
    ]


# A keystroke: seconds since the one before, and the command that it alone would be.
_Key = tuple[float, dict[str, Any]]


def _keystrokes(rng: random.Random, style: Style, pieces: list[str]) -> Iterator[_Key]:
    """Keys that end in exactly the text of ``pieces``, with slips taken back and words revised on the way."""
    end = 0  # length of the text so far; between two sentences the cursor is there
    for piece in pieces:
        draft, revision = _draft(rng, piece) if rng.random() < style.revise else (piece, None)
        yield from _typed(rng, style, draft, end, first_pause=_pause(rng, style, style.think) if end else 0.0)
        if revision is not None:
            at, old, new = revision
            position = end + at
            pause = _pause(rng, style, style.pause) + rng.uniform(0.4, 1.2)  # the cursor goes there first
            for last in range(position + len(old), position, -1):
                yield pause, _delete(last)
                pause = _interval(rng, style) * 0.6
            yield from _typed(rng, style, new, position, first_pause=pause)
        end += len(piece)


def _typed(rng: random.Random, style: Style, text: str, start: int, *, first_pause: float) -> Iterator[_Key]:
    """``text`` typed after the first ``start`` characters of what is there."""
    pause = first_pause
    at = 0
    while at < len(text):
        char = text[at]
        if char.lower() in _NEIGHBOURS and rng.random() < style.slip:
            wrong = rng.choice(_NEIGHBOURS[char.lower()]) + text[at + 1 : at + 1 + rng.randint(0, 3)]
            for offset, slip in enumerate(wrong):
                yield pause, _insert(start + at + offset, slip)
                pause = _interval(rng, style)
            pause += rng.uniform(0.15, 0.6)  # until it is noticed
            for last in range(start + at + len(wrong), start + at, -1):
                yield pause, _delete(last)
                pause = _interval(rng, style) * 0.6
        yield pause, _insert(start + at, char)
        pause = _interval(rng, style)
        at += 1
        if char == " " and rng.random() < 0.18:
            pause += _pause(rng, style, style.pause)


def _draft(rng: random.Random, piece: str) -> tuple[str, tuple[int, str, str] | None]:
    """``piece`` as first written, and what mends it: (offset, what stands there, what belongs there)."""
    words = piece.split(" ")
    middle = [index for index in range(2, len(words) - 1) if words[index].isalpha()]
    if not middle:
        return piece, None
    index = rng.choice(middle)
    offset = len(" ".join(words[:index])) + 1
    word = words[index]
    if rng.random() < 0.4:  # forgotten at first, with the blank after it
        return piece[:offset] + piece[offset + len(word) + 1 :], (offset, "", word + " ")
    filler = rng.choice(_FILLERS)
    return piece[:offset] + filler + piece[offset + len(word) :], (offset, filler, word)


def _interval(rng: random.Random, style: Style) -> float:
    return style.keystroke * math.exp(rng.gauss(0, 0.35))


def _pause(rng: random.Random, style: Style, mean: float) -> float:
    if rng.random() < style.away:
        return rng.uniform(20, 90)
    return mean * rng.expovariate(1.0)


def _insert(before: int, text: str) -> dict[str, Any]:
    return {"ty": "is", "ibi": before + 1, "s": text}


def _delete(position: int) -> dict[str, Any]:
    return {"ty": "ds", "si": position, "ei": position}


def _saves(keys: Iterator[_Key]) -> Iterator[tuple[float, list[dict[str, Any]]]]:
    """Keystrokes gathered as an editor saves them: (seconds since the save before, commands)."""
    now = last_save = opened = 0.0
    commands: list[dict[str, Any]] = []
    for pause, key in keys:
        due = min(opened + _SAVE_AFTER, now + _SAVE_PAUSE)
        if commands and now + pause > due:
            yield due - last_save, commands
            last_save, commands = due, []
        now += pause
        if not commands:
            opened = now
        _append(commands, key)
    if commands:
        yield now + _SAVE_PAUSE - last_save, commands


def _append(commands: list[dict[str, Any]], key: dict[str, Any]) -> None:
    """Add a keystroke; one that goes on where the last command ended makes that one longer."""
    last = commands[-1] if commands else None
    if last is not None and last["ty"] == key["ty"] == "is" and key["ibi"] == last["ibi"] + len(last["s"]):
        last["s"] += key["s"]
    elif last is not None and last["ty"] == key["ty"] == "ds" and key["ei"] == last["si"] - 1:
        last["si"] = key["si"]
    else:
        commands.append(key)
