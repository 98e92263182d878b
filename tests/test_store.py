"""Stores: one set of promises, held by memory, SQLite and a real Redis; then what each has of its own."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from harness import RedisServer, program, running_redis
from waiting import auntil

from lo_kernel.engine.errorlog import ErrorLog
from lo_kernel.engine.store import PLAIN, Commit, ReducerRow, Store, open_store
from lo_kernel.engine.store import sqlite as sqlite_module
from lo_kernel.engine.store.sqlite import SqliteStore
from lo_kernel.errors import MissingExtraError, SettingsError, StoreError

OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """`async with opening() as store`: an empty store of each kind, opened, and closed at the end."""
    kind = request.param
    address = request.getfixturevalue("redis_url") if kind == "redis" else kind

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = open_store(address, str(tmp_path))
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    return opened


def row(
    generation: int, *, id: str = "r", key_name: str = "m.f", position: int = 1, **more: Any
) -> ReducerRow:
    """What is stored of a reducer."""
    return ReducerRow(
        id=id, key_name=key_name, context="c", scope=["STUDENT"], code="x", generation=generation,
        position=position, **more,
    )  # fmt: skip


def key(who: object, name: str = "m.f") -> str:
    """The key of a state."""
    return f"Internal,{name},STUDENT:{who}"


async def test_what_is_committed_is_there(opening: Any) -> None:
    """States come back by key in the order asked for, byte for byte, `None` where there is none."""
    async with opening() as store:
        assert await store.get_many(1, []) == []
        assert await store.get_many(1, ["a"]) == [None]
        await store.commit([Commit(1, {"b": b'{"x": 1}', "a": b'"\xc3\xa9\\u0000"'})])
        assert await store.get_many(1, ["a", "none", "b", "a"]) == [
            b'"\xc3\xa9\\u0000"',
            None,
            b'{"x": 1}',
            b'"\xc3\xa9\\u0000"',
        ]
        await store.commit([Commit(1, {"a": b"2"})])
        assert await store.get_many(1, ["a"]) == [b"2"]
        assert await store.get_many(2, ["a"]) == [None]
        assert isinstance(store.size(), int)


async def test_generations_are_apart(opening: Any) -> None:
    """The same key has a value of its own in each generation, the plain and the negative ones too."""
    async with opening() as store:
        for generation in (PLAIN, -1, -2, 7, 12):
            await store.commit([Commit(generation, {"k": b"%d" % generation})])
        for generation in (PLAIN, -1, -2, 7, 12):
            assert await store.get_many(generation, ["k"]) == [b"%d" % generation]
            assert await store.keys(generation) == ["k"]
        assert await store.generations() == [-2, -1, 0, 7, 12]
        await store.remove(7)
        assert await store.generations() == [-2, -1, 0, 12]
        assert await store.get_many(7, ["k"]) == [None]
        await store.commit([Commit(9, row=row(9))])
        assert await store.generations() == [-2, -1, 0, 9, 12]


STRANGE = [
    "", "a", "a*", "a?", "a[b]", "a\\", "a\nb", "a\0b", "a\0", "a b", "é", "\U0001f600",
    "\uffff", "\U0010ffff",
    'quote"', "x" * 5000, "Internal,m.f,EventField.doc_id:a,b:c,STUDENT:tc-u0",
]  # fmt: skip


async def test_any_text_is_a_key(opening: Any) -> None:
    """Keys with wildcards, breaks, quotes, NUL and any letter are themselves, and no other."""
    async with opening() as store:
        states = {name: msgspec.json.encode(place) for place, name in enumerate(STRANGE)}
        await store.commit([Commit(3, states)])
        assert await store.get_many(3, STRANGE) == list(states.values())
        for name, text in states.items():
            assert await store.get_many(3, [name]) == [text]
        assert sorted(await store.keys(3)) == sorted(STRANGE)
        await store.remove(3, ["a\0b", "a*"])
        assert sorted(await store.keys(3)) == sorted(set(STRANGE) - {"a\0b", "a*"})
        assert await store.get_many(3, ["a", "a\0"]) == [states["a"], states["a\0"]]


async def test_keys_are_listed_by_their_beginning(opening: Any) -> None:
    """`keys` gives those that start with a text, all of it literally, sorted."""
    async with opening() as store:
        names = ["b", "a1", "a2", "a*1", "a%", "a_b", "ab", "A1"]
        await store.commit([Commit(1, dict.fromkeys(names, b"0"))])
        assert await store.keys(1, "a") == sorted(name for name in names if name.startswith("a"))
        assert await store.keys(1, "a*") == ["a*1"]
        assert await store.keys(1, "a_") == ["a_b"]
        assert await store.keys(1, "c") == []
        assert await store.keys(1) == sorted(names)


async def test_many_states_at_once(opening: Any) -> None:
    """Twelve thousand states in one commit are there, are listed, and are removed."""
    async with opening() as store:
        states = {key(f"u{number:05}"): b'{"n":%d}' % number for number in range(12_000)}
        await store.commit([Commit(1, states, row(1)), Commit(-1, {"other": b"1"})])
        assert await store.keys(1, "Internal,m.f,") == sorted(states)
        assert await store.get_many(1, list(states)) == list(states.values())
        assert await store.get_many(-1, ["other"]) == [b"1"]
        await store.remove(1)
        assert await store.keys(1) == []
        assert await store.get_many(1, [key("u00017")]) == [None]


async def test_rows_are_kept_by_id(opening: Any) -> None:
    """A row is replaced by the next of its id, and comes back whole."""
    async with opening() as store:
        await store.commit([Commit(1, {}, row(1)), Commit(2, {}, row(2, id="s", key_name="m.g"))])
        newer = row(1, position=9, ahead={key("a"): 12}, null_state=msgspec.Raw(b'{"n":0}'))
        await store.commit([Commit(1, {"k": b"1"}, newer)])
        found = {each.id: each for each in await store.rows()}
        assert set(found) == {"r", "s"}
        assert (found["r"].position, found["r"].ahead) == (9, {key("a"): 12})
        assert bytes(found["r"].null_state) == b'{"n":0}'
        await store.remove_row("r")
        assert [each.id for each in await store.rows()] == ["s"]
        await store.remove_row("never")


async def test_a_generation_becomes_visible_as_a_whole(opening: Any) -> None:
    """A shadow is filled, a row names it, the old one goes: each can be read by its number."""
    async with opening() as store:
        old = {key(f"u{number}"): b"1" for number in range(50)}
        await store.commit([Commit(1, old, row(1))])
        new = {key(f"u{number}"): b"2" for number in range(25, 75)}
        await store.commit([Commit(2, new)])
        assert await store.get_many(1, [key("u30")]) == [b"1"]
        assert await store.get_many(2, [key("u30")]) == [b"2"]
        await store.commit([Commit(2, {key("u30"): b"3"}, row(2, position=5))])
        assert await store.get_many(1, [key("u30"), key("u10")]) == [b"1", b"1"]
        assert await store.get_many(2, [key("u30"), key("u10"), key("u74")]) == [b"3", None, b"2"]
        await store.remove(1)
        assert await store.keys(2) == sorted(new)
        assert await store.get_many(2, [key("u30"), key("u40")]) == [b"3", b"2"]
        await store.commit([Commit(2, {key("u31"): b"4"}, row(2, position=6))])
        assert await store.get_many(2, [key("u31")]) == [b"4"]


async def test_two_reducers_on_the_same_keys_stay_apart(opening: Any) -> None:
    """A paused reducer and a new one may have the same keys: each generation keeps its own values."""
    async with opening() as store:
        await store.commit([Commit(1, {key("a"): b"1"}, row(1, id="old"))])
        await store.commit([Commit(2, {key("a"): b"2"}, row(2, id="new"))])
        assert await store.get_many(1, [key("a")]) == [b"1"]
        assert await store.get_many(2, [key("a")]) == [b"2"]
        await store.remove_row("new")
        await store.remove(2)
        assert await store.get_many(1, [key("a")]) == [b"1"]
        assert await store.get_many(2, [key("a")]) == [None]


async def test_what_is_closed_is_kept(opening: Any) -> None:
    """After closing and opening, everything is there; a store in memory has nothing to keep."""
    async with opening() as store:
        if store.name == "memory":
            return
        await store.commit([Commit(1, {key("a"): b"1"}, row(1)), Commit(2, {key("a"): b"2"})])
        await store.commit([Commit(PLAIN, {"own": b"3"})])
    async with opening() as store:
        assert await store.get_many(1, [key("a")]) == [b"1"]
        assert await store.get_many(2, [key("a")]) == [b"2"]
        assert await store.get_many(PLAIN, ["own"]) == [b"3"]
        assert [each.generation for each in await store.rows()] == [1]


async def test_a_closed_store_says_so(opening: Any) -> None:
    """Using a store that isn't open is a StoreError, whatever is asked of it."""
    async with opening() as store:
        pass
    if store.name == "memory":
        return
    for asking in (
        store.get_many(1, ["a"]), store.keys(1), store.rows(), store.generations(), store.remove(1),
        store.commit([Commit(1, {"a": b"1"})]), store.remove_row("x"), store.remove(1, ["a"]),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="not open"):
            await asking


async def test_readers_beside_a_commit_see_all_or_nothing(opening: Any) -> None:
    """While large commits go on, nobody sees a part of one."""
    async with opening() as store:
        names = [key(number) for number in range(2500)]
        await store.commit([Commit(1, dict.fromkeys(names, b"0"), row(1))])
        ended = asyncio.Event()
        seen: list[set[bytes | None]] = []

        async def read() -> None:
            while not ended.is_set():
                seen.append(set(await store.get_many(1, names[:1] + names[-1:])))
                await asyncio.sleep(0)

        reader = asyncio.create_task(read())
        for number in range(1, 8):
            await store.commit([Commit(1, dict.fromkeys(names, b"%d" % number), row(1, position=number))])
            await asyncio.sleep(0)
        ended.set()
        await reader
        assert len(seen) > 3
        assert all(len(values) == 1 for values in seen)


async def test_commits_and_removals_may_come_at_once(opening: Any) -> None:
    """Commits, removals and readers beside each other leave what each of them did."""
    async with opening() as store:
        await store.commit([Commit(1, {key(number): b"1" for number in range(3000)})])
        await asyncio.gather(
            store.remove(1),
            *(store.commit([Commit(2, {key(number): b"%d" % number})]) for number in range(60)),
            store.remove_row("none"),
            store.keys(1),
        )
        assert await store.keys(1) == []
        assert len(await store.keys(2)) == 60


@pytest.mark.parametrize("verb", ["commit", "get_many", "keys", "remove", "remove_row"])
async def test_what_no_store_can_write_harms_nothing_else(opening: Any, verb: str) -> None:
    """Half of a character in a key is an error of that call, and the next commit and reading work."""
    half = "half \ud83d"
    async with opening() as store:
        await store.commit([Commit(PLAIN, {"a": b"1", "b": b"1"})])
        calls = {
            "commit": lambda: store.commit([Commit(PLAIN, {"a": b"0"}), Commit(PLAIN, {half: b"0"})]),
            "get_many": lambda: store.get_many(PLAIN, ["a", half]),
            "keys": lambda: store.keys(PLAIN, half),
            "remove": lambda: store.remove(PLAIN, ["a", half]),
            "remove_row": lambda: store.remove_row(half),
        }
        if store.name == "memory":  # holds any text
            await calls[verb]()
        else:
            with pytest.raises(UnicodeEncodeError):
                await calls[verb]()
            assert await store.get_many(PLAIN, ["a", "b"]) == [b"1", b"1"]
        await store.commit([Commit(PLAIN, {"b": b"2"})])
        assert await store.get_many(PLAIN, ["b"]) == [b"2"]


async def test_any_sequence_is_what_a_dictionary_says(opening: Any) -> None:
    """Random commits, swaps and removals: the store answers as plain dictionaries would."""
    chance = random.Random(11)
    states: dict[int, dict[str, bytes]] = {}
    rows: dict[str, ReducerRow] = {}
    async with opening() as store:
        for step in range(150):
            generation = chance.choice([-1, 1, 2, 3, 4])  # states' keys are never in the plain one
            part = {key(chance.randrange(6), chance.choice(["m.f", "m.g"])): b"%d" % step for _ in range(3)}
            what = chance.random()
            if what < 0.5:
                await store.commit([Commit(generation, part)])
                states.setdefault(generation, {}).update(part)
            elif what < 0.8 and generation > 0:
                name = chance.choice(["f", "g"])
                part = {key(chance.randrange(6), f"m.{name}"): b"%d" % step}
                own = row(generation * 2 + (name == "g") + 100, id=name, key_name=f"m.{name}", position=step)
                await store.commit([Commit(own.generation, part, own)])
                states.setdefault(own.generation, {}).update(part)
                rows[name] = own
            elif what < 0.9:
                await store.remove(generation)
                states.pop(generation, None)
            else:
                await store.remove(generation, list(part))
                for name in part:
                    states.get(generation, {}).pop(name, None)
            for number, expected in states.items():
                names = [key(who, name) for who in range(6) for name in ("m.f", "m.g")]
                assert await store.get_many(number, names) == [expected.get(name) for name in names], step
                assert await store.keys(number) == sorted(expected)
            assert {each.id: each.position for each in await store.rows()} == {
                name: each.position for name, each in rows.items()
            }


# -- addresses ---------------------------------------------------------------------------------


def test_an_address_that_is_none_is_refused() -> None:
    """What can't be an address is a SettingsError that names what can."""
    with pytest.raises(SettingsError, match="expected 'sqlite', 'memory' or a redis://"):
        open_store("mongo", "")


def test_without_the_extra_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where redis isn't installed, the error says what to type."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "lo-kernel\[redis\]"'):
        open_store("redis://127.0.0.1/0", str(tmp_path))


# -- SQLite ------------------------------------------------------------------------------------


def set_aside(folder: Path) -> list[Path]:
    """The database files that were set aside, without what SQLite has beside each."""
    return [each for each in folder.glob("*.damaged-*") if each.name[-1].isdigit()]


@pytest.mark.parametrize("how", ["noise", "page", "note"])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, how: str) -> None:
    """A file that is no database, or a broken one, is kept under another name, reported, and begun anew."""
    path = tmp_path / "states.sqlite"
    store = SqliteStore(path)
    await store.open()
    await store.commit([Commit(1, {key(number): b"1" * 500 for number in range(2000)}, row(1))])
    await store.close()
    data = bytearray(path.read_bytes())
    if how == "noise":
        data[:] = b"no database " * 1000
    elif how == "page":
        data[4096:] = b"\xff" * (len(data) - 4096)
    else:
        path.with_name("states.sqlite.damaged").touch()
    path.write_bytes(data)
    errors = ErrorLog()
    again = open_store("sqlite", str(tmp_path), errors)
    await again.open()
    assert await again.rows() == []
    await again.commit([Commit(1, {key("a"): b"2"})])
    assert [entry.kind for entry in errors] == ["DamagedStore"]
    assert "through the archive again" in errors[0].message
    (aside,) = set_aside(tmp_path)
    assert aside.name in errors[0].message
    assert aside.read_bytes()[4096:] == bytes(data[4096:])
    await again.close()


async def test_damage_that_shows_later_is_said_and_noted(tmp_path: Path) -> None:
    """A page that breaks while the store is in use gives a StoreError, and the next start sets it aside."""
    path = tmp_path / "states.sqlite"
    store = SqliteStore(path)
    await store.open()
    await store.commit([Commit(1, {key(number): b"1" * 900 for number in range(5000)}, row(1))])
    await store.close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 409_600] = b"\xff" * 409_600
    path.write_bytes(data)
    store = SqliteStore(path)
    await store.open()
    with pytest.raises(StoreError, match="after a restart it is set aside"):
        await store.get_many(1, [key(number) for number in range(5000)])
    await store.close()
    errors = ErrorLog()
    again = open_store("sqlite", str(tmp_path), errors)
    await again.open()
    assert [entry.kind for entry in errors] == ["DamagedStore"]
    await again.close()


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a version to come is left as it is."""
    path = tmp_path / "states.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StoreError, match="newer lo_kernel"):
        await SqliteStore(path).open()


async def test_the_log_is_copied_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a flow of commits the write-ahead log stays small, and no commit holds the loop for it."""
    monkeypatch.setattr(sqlite_module, "_CHECKPOINT_BYTES", 1 << 20)
    store = SqliteStore(tmp_path / "states.sqlite")
    await store.open()
    loops: list[float] = []

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            loops.append(time.perf_counter() - last)
            last = time.perf_counter()

    task = asyncio.create_task(beat())
    for number in range(150):
        states = {
            key((number * 500 + place) % 4000): b'"%d%b"' % (number, b"x" * 300) for place in range(500)
        }
        await store.commit([Commit(1, states, row(1, position=number))])
        await asyncio.sleep(0)
    task.cancel()
    await auntil(lambda: store._checkpoint is None or store._checkpoint.done())
    assert (tmp_path / "states.sqlite-wal").stat().st_size < 12 << 20
    assert sorted(loops)[int(len(loops) * 0.98)] < 0.03
    await store.close()
    again = SqliteStore(tmp_path / "states.sqlite")
    await again.open()
    assert len(await again.keys(1)) == 4000
    await again.close()


async def test_another_program_at_the_file_is_an_error_that_passes(tmp_path: Path) -> None:
    """While somebody else has the file locked a commit is a StoreError, soon; afterwards it goes on."""
    path = tmp_path / "states.sqlite"
    store = SqliteStore(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.perf_counter()
    with pytest.raises(StoreError, match="locked"):
        await store.commit([Commit(1, {"a": b"1"})])
    assert time.perf_counter() - began < 0.5
    other.execute("ROLLBACK")
    other.close()
    await store.commit([Commit(1, {"a": b"1"})])
    assert await store.get_many(1, ["a"]) == [b"1"]
    await store.close()


async def test_a_cancelled_commit_leaves_nothing(tmp_path: Path) -> None:
    """A commit that is cancelled half way is as if it had not been."""
    store = SqliteStore(tmp_path / "states.sqlite")
    await store.open()
    task = asyncio.create_task(
        store.commit([Commit(1, {key(number): b"1" for number in range(5000)}, row(1))])
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.keys(1) == []
    await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
    assert await store.keys(1) == [key("a")]
    await store.close()


def start(*command: str) -> subprocess.Popen[bytes]:
    """A process beside the test."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


# -- Redis -------------------------------------------------------------------------------------


@pytest.mark.redis
async def test_redis_has_the_keys_that_the_field_reads(redis_url: str, tmp_path: Path) -> None:
    """Visible states lie under the field's own keys as JSON text; a shadow isn't seen until it is whole."""
    from redis.asyncio import Redis

    client = Redis.from_url(redis_url, decode_responses=True)
    store = open_store(redis_url, str(tmp_path))
    await store.open()
    await store.commit([Commit(1, {key("tc-u0"): b'{"n":1}', key("tc-u1"): b'{"n":1}'}, row(1))])
    await store.commit([Commit(-1, {"tc-u0": b"{}"}), Commit(PLAIN, {"Blob,a": b"1"})])
    assert json.loads(str(await client.get(key("tc-u0")))) == {"n": 1}
    assert sorted(await client.keys("Internal,*")) == [key("tc-u0"), key("tc-u1")]
    await store.commit([Commit(2, {key("tc-u0"): b'{"n":2}', key("tc-u2"): b'{"n":2}'})])
    assert await client.get(key("tc-u0")) == '{"n":1}'
    assert sorted(await client.keys("Internal,*")) == [key("tc-u0"), key("tc-u1")]
    await store.commit([Commit(2, {}, row(2))])
    assert sorted(await client.keys("Internal,*")) == [key("tc-u0"), key("tc-u2")]
    assert await client.get(key("tc-u0")) == '{"n":2}'
    assert await client.get("Blob,a") == "1"
    await store.remove(1)
    await store.remove(2)
    assert await client.keys("*Internal,*") == []
    await store.close()
    await client.aclose()


@pytest.mark.redis
async def test_a_swap_is_one_change_for_every_reader(redis_url: str, tmp_path: Path) -> None:
    """Others that read the plain keys while a generation is swapped see the old or the new, never both."""
    from redis.asyncio import Redis

    client = Redis.from_url(redis_url)
    store = open_store(redis_url, str(tmp_path))
    await store.open()
    names = [key(number) for number in range(3000)]
    await store.commit([Commit(1, dict.fromkeys(names, b"1"), row(1))])
    ended = asyncio.Event()
    seen: list[frozenset[Any]] = []

    async def read() -> None:
        while not ended.is_set():
            seen.append(frozenset(await client.mget(names[::100])))

    reader = asyncio.create_task(read())
    for generation in range(2, 8):
        await store.commit([Commit(generation, dict.fromkeys(names, b"%d" % generation))])
        await store.commit([Commit(generation, {}, row(generation))])
        await store.remove(generation - 1)
    ended.set()
    await reader
    assert {len(values) for values in seen} == {1}
    assert None not in frozenset().union(*seen)
    await store.close()
    await client.aclose()


@pytest.mark.redis
async def test_two_workspaces_do_not_share_a_database(redis_url: str, tmp_path: Path) -> None:
    """A database of another workspace is refused, with what to do; a prefix makes room for both."""
    one = open_store(redis_url, str(tmp_path / "one"))
    await one.open()
    await one.commit([Commit(1, {key("a"): b"1"}, row(1))])
    with pytest.raises(StoreError, match=r"another workspace \(.*one.*\?prefix=NAME:"):
        await open_store(redis_url, str(tmp_path / "two")).open()
    two = open_store(redis_url + "?prefix=two:", str(tmp_path / "two"))
    await two.open()
    await two.commit([Commit(1, {key("a"): b"2"}, row(1))])
    assert await one.get_many(1, [key("a")]) == [b"1"]
    assert await two.get_many(1, [key("a")]) == [b"2"]
    await one.close()
    await two.close()


@pytest.mark.redis
async def test_an_emptied_database_is_not_written_to(redis_server: RedisServer, tmp_path: Path) -> None:
    """Where somebody flushed the database, reads and commits say so, and no part of a state is written."""
    from redis.asyncio import Redis

    store = open_store(redis_server.url, str(tmp_path))
    await store.open()
    await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    with pytest.raises(StoreError, match="was emptied"):
        await store.get_many(1, [key("a")])
    with pytest.raises(StoreError, match="was emptied"):
        await store.commit([Commit(1, {key("b"): b"1"}, row(1, position=2))])
    with pytest.raises(StoreError, match="was emptied"):
        await store.remove(1)
    assert await client.keys("*") == []
    await store.close()
    again = open_store(redis_server.url, str(tmp_path))
    await again.open()
    assert await again.rows() == []
    await again.close()
    await client.aclose()


@pytest.mark.redis
async def test_a_connection_that_is_lost_comes_back(tmp_path: Path) -> None:
    """While the server is gone everything is a StoreError; when it is back, the same store goes on."""
    executable = program("redis-server")
    assert executable is not None
    with running_redis(executable, tmp_path / "redis") as server:
        from redis import Redis

        store = open_store(server.url, str(tmp_path))
        await store.open()
        await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
        with Redis(port=server.port) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await store.commit([Commit(1, {key("a"): b"2"}, row(1, position=2))])
        assert await store.get_many(1, [key("a")]) == [b"2"]
        with Redis(port=server.port) as client:
            client.save()
    with pytest.raises(StoreError, match="catch up when it answers again"):
        await store.commit([Commit(1, {key("a"): b"3"}, row(1, position=3))])
    with pytest.raises(StoreError):
        await store.get_many(1, [key("a")])
    again = start(
        executable, "--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(tmp_path / "redis")
    )
    try:

        async def committed() -> bool:
            try:
                await store.commit([Commit(1, {key("a"): b"3"}, row(1, position=3))])
            except StoreError:
                return False
            return True

        asking: Any = committed
        await auntil(asking)
        assert await store.get_many(1, [key("a")]) == [b"3"]
        assert [each.position for each in await store.rows()] == [3]
    finally:
        await store.close()
        again.terminate()
        again.wait(10)


@pytest.mark.redis
async def test_what_an_interrupted_commit_staged_is_dropped(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large commit that is cancelled half way leaves nothing, and what a crash left is dropped."""
    from redis.asyncio import Redis

    from lo_kernel.engine.store.redis import RedisStore

    client = Redis.from_url(redis_url)
    store = open_store(redis_url, str(tmp_path))
    await store.open()
    staged = asyncio.Event()
    stage = RedisStore._stage

    async def hanging(self: RedisStore, name: str, commit: Commit) -> None:
        await stage(self, name, commit)
        staged.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(RedisStore, "_stage", hanging)
    task = asyncio.create_task(store.commit([Commit(1, {key(n): b"1" for n in range(2000)}, row(1))]))
    await staged.wait()
    assert await client.keys("lo_kernel:stage:*")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await client.keys("lo_kernel:stage:*") == []
    await store.close()
    await client.rpush("lo_kernel:stage:crashed:0", "k", "1")
    again = open_store(redis_url, str(tmp_path))
    await again.open()
    assert await again.generations() == []
    assert await client.keys("lo_kernel:stage:*") == []
    await again.close()
    await client.aclose()


@pytest.mark.redis
def test_a_server_that_is_not_there_is_a_store_error(tmp_path: Path, run: Any) -> None:
    """Opening without a server says so, without the password."""
    store = open_store("redis://user:secret@127.0.0.1:1/0", str(tmp_path))
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/0") as caught:
        run(store.open())
    assert "secret" not in str(caught.value)
