"""What Redis holds is this workspace's, whole and in order: lost answers, late writes, and copies."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import RedisServer
from test_store import key, row

from lo_kernel.engine.store import Commit, open_store
from lo_kernel.engine.store.redis import RedisStore
from lo_kernel.errors import StoreAwayError, StoreError

pytestmark = pytest.mark.redis


class Wire:
    """A way to a server that may lose answers: the server has done what was asked, and nobody hears of it."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.lose = 0  # so many answers to scripts
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's bytes both ways."""
        there, back = await asyncio.open_connection("127.0.0.1", self.to)

        async def ask() -> None:
            while data := await reader.read(1 << 16):
                asked.append(b"EVALSHA" in data)
                back.write(data)
            back.close()

        asked: list[bool] = []
        task = asyncio.create_task(ask())
        self._tasks.add(task)
        while data := await there.read(1 << 16):
            if self.lose and asked and asked[-1]:
                self.lose -= 1
                break
            writer.write(data)
        task.cancel()
        for each in (writer, back):
            each.close()


@contextlib.asynccontextmanager
async def wired(server: RedisServer) -> AsyncIterator[Wire]:
    """A wire to a server."""
    wire = Wire(server.port)
    listening = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.port = listening.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listening.close()


async def opened(address: str, folder: Path) -> RedisStore:
    """A store of the workspace in a folder."""
    store = open_store(address, str(folder))
    assert isinstance(store, RedisStore)
    await store.open()
    return store


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_commit_whose_answer_is_lost_is_no_difference(
    redis_server: RedisServer, tmp_path: Path, lost: int
) -> None:
    """It is asked once more, with nothing done twice; where that is lost too, the next commit goes on."""
    async with wired(redis_server) as wire:
        store = await opened(f"redis://127.0.0.1:{wire.port}/0", tmp_path)
        await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
        wire.lose = lost
        second = store.commit([Commit(1, {key("a"): b"2"}, row(1, position=2))])
        if lost == 1:
            await second
        else:
            with pytest.raises(StoreAwayError):
                await second
        assert not wire.lose
        assert await store.get_many(1, [key("a")]) == [b"2"]
        await store.commit([Commit(1, {key("a"): b"3"}, row(1, position=3))])
        assert await store.get_many(1, [key("a")]) == [b"3"]
        await store.close()


async def test_a_write_that_arrives_late_does_nothing(redis_url: str, tmp_path: Path) -> None:
    """One that a server took up long after its client gave it up takes no newer state back."""
    store = await opened(redis_url, tmp_path)
    for number in (1, 2):
        await store.commit([Commit(1, {key("a"): b"%d" % number}, row(1, position=number))])
    store._number = store._done = 0
    await store.commit([Commit(1, {key("a"): b"1"}, row(1, position=1))])
    assert await store.get_many(1, [key("a")]) == [b"2"]
    assert [each.position for each in await store.rows()] == [2]
    await store.close()


async def test_commits_and_removals_at_once_all_take_place(redis_url: str, tmp_path: Path) -> None:
    """None of them is taken for a late one."""
    store = await opened(redis_url, tmp_path)
    names = [key(number) for number in range(3000)]
    await store.commit([Commit(1, dict.fromkeys(names, b"1"), row(1))])
    commits = [store.commit([Commit(2, {name: b"2"}, row(2))]) for name in names[:50]]
    await asyncio.gather(*commits, store.remove(1))
    assert await store.keys(1) == []
    assert await store.get_many(2, names[:50]) == [b"2"] * 50
    await store.remove_row("r")
    await store.close()


async def test_a_copy_of_a_workspace_leaves_its_states_alone(redis_url: str, tmp_path: Path) -> None:
    """It is refused, with what to do; under a prefix of its own it goes on, and so does the original."""
    store = await opened(redis_url, tmp_path / "one")
    await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
    await store.close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(StoreError, match=r"two, is a copy of .*one, .*\?prefix=NAME:"):
        await opened(redis_url, tmp_path / "two")
    copy = await opened(redis_url + "?prefix=two:", tmp_path / "two")
    assert await copy.rows() == []
    await copy.close()
    again = await opened(redis_url, tmp_path / "one")
    assert await again.get_many(1, [key("a")]) == [b"1"]
    await again.close()


async def test_a_workspace_that_was_moved_goes_on_with_its_states(redis_url: str, tmp_path: Path) -> None:
    """Its old folder is gone, so it is no copy."""
    for name, after in (("one", "two"), ("two", "three")):
        store = await opened(redis_url, tmp_path / name)
        await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
        await store.close()
        (tmp_path / name).rename(tmp_path / after)
    store = await opened(redis_url, tmp_path / "three")
    assert await store.get_many(1, [key("a")]) == [b"1"]
    await store.close()


async def test_of_copies_on_two_machines_one_has_the_states(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can see whether it was moved: the one that opens them next has them, and the other doesn't."""
    store = await opened(redis_url, tmp_path / "one")
    await store.commit([Commit(1, {key("a"): b"1"}, row(1))])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "elsewhere")
        copy = await opened(redis_url, tmp_path / "two")
    assert await copy.get_many(1, [key("a")]) == [b"1"]
    await copy.commit([Commit(1, {key("a"): b"2"}, row(1, position=2))])
    with pytest.raises(StoreError, match="a copy of this workspace has opened it"):
        await store.commit([Commit(1, {key("a"): b"3"}, row(1, position=2))])
    with pytest.raises(StoreError, match="a copy of this workspace has opened it"):
        await store.get_many(1, [key("a")])
    await store.close()
    with pytest.raises(StoreError, match=r"a copy of this workspace, which opened it last .*elsewhere"):
        await opened(redis_url, tmp_path / "one")
    assert await copy.get_many(1, [key("a")]) == [b"2"]
    await copy.close()
