"""A store in Redis (or Valkey), whose keys and values the field's own tools read.

===============================  ==============================================================
``Internal,module.fn,STUDENT:x``  a visible state, as the deployed Learning Observer has it: JSON text
``lo_kernel:state:<g>:<key>``     the same of a generation that is not visible
``lo_kernel:keys:<g>``            set: the keys of a generation
``lo_kernel:rows``                hash: the reducers' rows by id
``lo_kernel:plain``               hash: which generation has the plain keys, by ``module.fn``
``lo_kernel:workspace``           whose database this is
``lo_kernel:where``               where that workspace is, for people
``lo_kernel:mark``                who opened it last, and how many writes it has had since
===============================  ==============================================================

A commit is one script on the server, which is atomic as MULTI is, and can look before it writes: a database
that was emptied, is another workspace's, or has come back with an older dump, is not written to. For that,
each write has a number. One whose answer was lost may have been done or not: the next write goes on from
either. A write that arrives late, after a newer one, does nothing.

What is in an older dump is as good as what was in the database then, positions included: the next start goes
on from there. So the workspace knows by which names it opened databases, all of them its own; a name that it
doesn't know is that of a copy of it, whose states these are now.

A generation becomes visible by the commit whose row names it: the same script renames its states to their
plain keys, and those of the generation before out of the way. So every reader sees the old or the new, and
never a mixture.

``?prefix=`` in the address goes before all of these names, so that several workspaces share a database.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from lo_kernel.engine.store.base import PLAIN, Commit, ReducerRow
from lo_kernel.errors import MissingExtraError, SettingsError, StoreAwayError, StoreError

__all__ = ["RedisStore"]

T = TypeVar("T")

_SLICE: Final = 1000  # keys a round trip: about 2 ms of the loop
_TIMEOUT: Final = 5.0  # seconds until a server counts as gone
_OWN: Final = "lo_kernel:"
_ID_FILE: Final = "store.id"
_AWAY: Final = "Events go on being archived, and states catch up when it answers again"
_MISSING: Final = "LO_MISSING"  # a script's error where the database isn't ours any more
_OLDER: Final = "LO_OLDER"  # and where it lacks what it had, or somebody else has opened it
_OPENED: Final = 1000  # names by which this workspace opened databases that are kept

# Each script begins so. KEYS: guard, mark. ARGV: workspace id, name it was opened by, number of the last
# write that is known to be done, and of this one.
_LOOK: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return redis.error_reply('LO_MISSING') end
local opened, number = string.match(redis.call('GET', KEYS[2]) or '', '^(%x+):(%d+)$')
if opened ~= ARGV[2] or tonumber(number) < tonumber(ARGV[3]) then return redis.error_reply('LO_OLDER') end
local done = tonumber(number) >= tonumber(ARGV[4])
local function mark() redis.call('SET', KEYS[2], ARGV[2] .. ':' .. ARGV[4]) end
"""

# KEYS: and rows, plain, prefix+"lo_kernel:". ARGV: and prefix, number of commits, and of each: generation,
# key name, row id and row ("" for none), stage key, number of states, states.
_COMMIT: Final = (
    f"""{_LOOK}
if done then return 1 end
"""
    + """
local own, prefix = KEYS[5], ARGV[5]
local function name(generation, plain, key)
  if plain then return prefix .. key end
  return own .. 'state:' .. generation .. ':' .. key
end
local where = {}
local pairs_of_plain = redis.call('HGETALL', KEYS[4])
for i = 1, #pairs_of_plain, 2 do where[pairs_of_plain[i + 1]] = true end
where['0'] = true
local function move(generation, to_plain)
  local keys = redis.call('SMEMBERS', own .. 'keys:' .. generation)
  for _, key in ipairs(keys) do
    local from = name(generation, not to_plain, key)
    if redis.call('EXISTS', from) == 1 then redis.call('RENAME', from, name(generation, to_plain, key)) end
  end
  where[generation] = to_plain
end
local function put(generation, states, first, last)
  local at = first
  while at <= last do
    local values, members = {}, {}
    local stop = math.min(at + 1999, last)
    for i = at, stop, 2 do
      values[#values + 1] = name(generation, where[generation], states[i])
      values[#values + 1] = states[i + 1]
      members[#members + 1] = states[i]
    end
    redis.call('MSET', unpack(values))
    redis.call('SADD', own .. 'keys:' .. generation, unpack(members))
    at = stop + 1
  end
end
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local generation, key_name, id, row = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local stage, count = ARGV[at + 4], tonumber(ARGV[at + 5])
  at = at + 6
  if stage ~= '' then
    local staged = redis.call('LRANGE', stage, 0, -1)
    put(generation, staged, 1, #staged)
    redis.call('UNLINK', stage)
  end
  put(generation, ARGV, at, at + 2 * count - 1)
  at = at + 2 * count
  if id ~= '' then
    redis.call('HSET', KEYS[3], id, row)
    if tonumber(generation) > 0 then
      local before = redis.call('HGET', KEYS[4], key_name)
      if before ~= generation then
        if before then move(before, false) end
        if where[generation] ~= true then move(generation, true) end
        redis.call('HSET', KEYS[4], key_name, generation)
      end
    end
  end
end
mark()
return 1
"""
)

# KEYS: and own. ARGV: and prefix, generation, keys (none: a slice)
_REMOVE: Final = (
    f"""{_LOOK}
local own, prefix, generation = KEYS[3], ARGV[5], ARGV[6]
"""
    + """
local set = own .. 'keys:' .. generation
if done then return redis.call('SCARD', set) end
local keys = {}
local plain, named = generation == '0', redis.call('HGETALL', own .. 'plain')
for i = 2, #named, 2 do plain = plain or named[i] == generation end
if #ARGV > 6 then for i = 7, #ARGV do keys[#keys + 1] = ARGV[i] end
else keys = redis.call('SRANDMEMBER', set, 1000) end
for _, key in ipairs(keys) do
  if plain then redis.call('UNLINK', prefix .. key)
  else redis.call('UNLINK', own .. 'state:' .. generation .. ':' .. key) end
  redis.call('SREM', set, key)
end
if #ARGV == 6 and redis.call('SCARD', set) == 0 and plain and generation ~= '0' then
  for i = 1, #named, 2 do
    if named[i + 1] == generation then redis.call('HDEL', own .. 'plain', named[i]) end
  end
end
mark()
return redis.call('SCARD', set)
"""
)

# KEYS: and rows. ARGV: and row id
_REMOVE_ROW: Final = f"""{_LOOK}
if not done then redis.call('HDEL', KEYS[3], ARGV[5]) mark() end
return 1
"""


class RedisStore:
    """States in a Redis database; see the module for how. ``folder`` is the workspace's."""

    name = "redis"

    def __init__(self, address: str, folder: str) -> None:
        try:
            import redis.asyncio  # noqa: F401 - asked for here, so that what is missing is said at once
        except ImportError:
            raise MissingExtraError("redis", "the Redis store") from None
        self.address, self.prefix = _split(address)
        self.shown = _without_password(self.address)
        self._own = f"{self.prefix}{_OWN}"
        self._guard = f"{self._own}workspace"
        self._mark = f"{self._own}mark"
        self._id_path = Path(folder) / _ID_FILE
        self._folder = folder
        self._id = ""
        self._opened = ""  # the name by which this one opened the database
        self._number = 0  # of the last write
        self._done = 0  # and of the last one that is known to be done
        self._writing = asyncio.Lock()  # one write at a time, by number
        self._client: Any = None
        self._plain: dict[str, int] = {}  # generation by key name, as far as it has the plain keys
        self._scripts: dict[str, Any] = {}

    # -- opening -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and see that the database is this workspace's; :class:`StoreError` where it isn't."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        try:
            self._client = Redis.from_url(
                self.address,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError, RedisError) as error:
            raise SettingsError(f"store: {self.shown} can't be used as an address: {error}") from None
        self._scripts = {text: self._client.register_script(text) for text in (_COMMIT, _REMOVE, _REMOVE_ROW)}
        try:
            await self._claim(*self._known())
            await self._tidy()
        except BaseException:
            await self.close()
            raise

    def _known(self) -> tuple[str, list[str]]:
        """The workspace's id, and the names by which it opened databases."""
        try:
            name, *opened = self._id_path.read_text().split()
        except (FileNotFoundError, ValueError):
            name, opened = secrets.token_hex(16), []
            self._write_known(name, opened)
        return name, opened

    def _write_known(self, name: str, opened: list[str]) -> None:
        from lo_kernel.workspace import write_private

        self._id_path.parent.mkdir(parents=True, exist_ok=True)
        write_private(self._id_path, "\n".join([name, *opened[-_OPENED:]]).encode())

    async def _claim(self, name: str, opened: list[str]) -> None:
        """Make the database this workspace's, or see that it is; not that of a copy of it, nor as a copy."""

        async def look() -> list[str]:
            await self._client.set(self._guard, name, nx=True)
            found = await self._client.mget([self._guard, self._mark, f"{self._own}where"])
            return [(each or b"").decode(errors="replace") for each in found]

        guard, mark, whose = await self._asked("opening", look())
        away = "use another database number, or put ?prefix=NAME: behind the address"
        gone = f"delete the key {self._guard!r} and all others there"
        if guard != name:
            raise StoreError(
                f"the database {self.shown} holds the states of another workspace ({whose or 'not known'}): "
                f"{away}. Where that workspace is gone for good, {gone}"
            )
        before = mark.partition(":")[0]
        if before and before not in opened:
            raise StoreError(
                f"the database {self.shown} holds the states of a copy of this workspace, which opened it "
                f"last ({whose}): {away}, and states are made anew from the archive. Where the copy is gone "
                f"for good, {gone}"
            )
        if original := _original(whose, self._id_path):
            raise StoreError(
                f"this workspace, {self._folder}, is a copy of {original}, whose states the database "
                f"{self.shown} holds: {away}, and states are made anew from the archive. Where this one is "
                "to take the place of the other, move the other one away first"
            )
        self._id, self._opened, self._number, self._done = name, secrets.token_hex(8), 0, 0
        self._write_known(name, [*opened, self._opened])
        where = json.dumps({"folder": self._folder, "host": socket.gethostname()})
        put = {self._mark: f"{self._opened}:0", f"{self._own}where": where}
        await self._asked("opening", self._client.mset(put))

    async def _tidy(self) -> None:
        """Learn which generations have the plain keys; drop what an interrupted commit left."""

        async def learn() -> dict[bytes, bytes]:
            async for key in self._client.scan_iter(match=f"{_escaped(self._own)}stage:*", count=_SLICE):
                await self._client.unlink(key)
            found: dict[bytes, bytes] = await self._client.hgetall(f"{self._own}plain")
            return found

        found = await self._asked("opening", learn())
        self._plain = {name.decode(): int(generation) for name, generation in found.items()}

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    # -- asking --------------------------------------------------------------------------------

    async def _asked(self, doing: str, asking: Awaitable[T]) -> T:
        from redis.exceptions import AuthenticationError, AuthorizationError, RedisError
        from redis.exceptions import ConnectionError as NotThere
        from redis.exceptions import TimeoutError as TooSlow

        try:
            return await asking
        except (TimeoutError, RedisError, OSError) as error:
            if _MISSING in str(error):
                raise self._lost(doing) from None
            if _OLDER in str(error):
                raise self._went_back(doing) from None
            away = isinstance(error, TimeoutError | OSError | NotThere | TooSlow)
            if not away or isinstance(error, AuthenticationError | AuthorizationError):
                raise StoreError(f"{doing}: Redis at {self.shown} says '{error}'") from error
            raise StoreAwayError(f"{doing}: Redis at {self.shown} says '{error}'. {_AWAY}") from error

    def _lost(self, doing: str) -> StoreError:
        return StoreError(
            f"{doing}: the database {self.shown} isn't this workspace's any more: it was emptied, or another "
            "has taken it. Restart, and states are made anew from the archive"
        )

    def _went_back(self, doing: str) -> StoreError:
        return StoreError(
            f"{doing}: the database {self.shown} lacks what was written to it: Redis came back with an older "
            "dump (see its settings 'appendonly' and 'save'), or a copy of this workspace has opened it. "
            "Nothing more is written there, events go on being archived. Restart, and states go on from what "
            "it has, and catch up"
        )

    def _ready(self, doing: str) -> Any:
        if self._client is None:
            raise StoreAwayError(f"{doing}: the store {self.shown} is not open yet. {_AWAY}")
        return self._client

    def _names(self, generation: int, keys: Sequence[str]) -> list[str]:
        if generation == PLAIN:
            return [self.prefix + key for key in keys]
        hidden = f"{self._own}state:{generation}:"
        owner = next((name for name, each in self._plain.items() if each == generation), None)
        if owner is None:
            return [hidden + key for key in keys]
        starts = (f"Internal,{owner},", f"External,{owner},")
        return [(self.prefix if key.startswith(starts) else hidden) + key for key in keys]

    async def get_many(self, generation: int, keys: Sequence[str]) -> list[bytes | None]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        client = self._ready("reading states")
        found: list[bytes | None] = []
        for start in range(0, len(keys), _SLICE):
            names = self._names(generation, keys[start : start + _SLICE])
            done = self._done
            guard, mark, *texts = await self._asked(
                "reading states", client.mget([self._guard, self._mark, *names])
            )
            if guard is None or guard.decode() != self._id:
                raise self._lost("reading states")
            opened, _, number = (mark or b"").decode().partition(":")
            if opened != self._opened or int(number) < done:
                raise self._went_back("reading states")
            found += texts
        return found

    async def keys(self, generation: int, prefix: str = "") -> list[str]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        client = self._ready("listing keys")

        async def listed() -> set[str]:
            found: set[str] = set()
            match = f"{_escaped(prefix)}*" if prefix else None
            async for key in client.sscan_iter(f"{self._own}keys:{generation}", match=match, count=_SLICE):
                found.add(key.decode("utf-8", "surrogatepass"))
            return found

        return sorted(await self._asked("listing keys", listed()))

    async def rows(self) -> list[ReducerRow]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        client = self._ready("reading reducers")
        texts = await self._asked("reading reducers", client.hvals(f"{self._own}rows"))
        rows = [msgspec.json.decode(text, type=ReducerRow) for text in texts]
        return sorted(rows, key=lambda row: row.id)

    async def generations(self) -> list[int]:
        """See :class:`~lo_kernel.engine.store.Store`."""
        client = self._ready("reading generations")
        start = f"{self._own}keys:"

        async def listed() -> set[int]:
            found = set()
            async for key in client.scan_iter(match=f"{_escaped(start)}*", count=_SLICE):
                found.add(int(key.decode()[len(start) :]))
            return found

        found = await self._asked("reading generations", listed())
        return sorted(found | {row.generation for row in await self.rows()})

    def size(self) -> int:
        """Not known."""
        return 0

    # -- writing -------------------------------------------------------------------------------

    async def _write(self, script: str, keys: list[str], arguments: list[Any]) -> int:
        """Run a script that writes; only with ``_writing`` held."""
        self._number += 1
        number = self._number
        known = [self._id, self._opened, self._done, number]
        found: int = await self._scripts[script](
            keys=[self._guard, self._mark, *keys], args=[*known, *arguments]
        )
        self._done = number
        return found

    async def commit(self, commits: Sequence[Commit]) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        self._ready("writing states")
        async with self._writing:
            await self._asked("writing states", self._commit(commits))
        for commit in commits:
            if commit.row is not None and commit.generation > PLAIN:
                self._plain[commit.row.key_name] = commit.generation

    async def _commit(self, commits: Sequence[Commit]) -> None:
        arguments: list[Any] = [self.prefix, len(commits)]
        whole = sum(len(commit.states) for commit in commits) <= _SLICE
        stage = f"{self._own}stage:{secrets.token_hex(8)}:"
        stages: list[str] = []
        try:
            for number, commit in enumerate(commits):
                row = commit.row
                name = ""
                if not whole and commit.states:
                    name = f"{stage}{number}"
                    stages.append(name)
                    await self._stage(name, commit)
                arguments += [
                    commit.generation,
                    row.key_name if row is not None else "",
                    row.id if row is not None else "",
                    msgspec.json.encode(row) if row is not None else "",
                    name,
                    len(commit.states) if whole else 0,
                ]
                if whole:
                    for key, text in commit.states.items():
                        arguments += (key, text)
            await self._write(_COMMIT, [f"{self._own}rows", f"{self._own}plain", self._own], arguments)
        except BaseException:
            if stages and self._client is not None:
                from contextlib import suppress

                with suppress(Exception):  # what is left is dropped at the next start
                    await self._client.unlink(*stages)
            raise

    async def _stage(self, name: str, commit: Commit) -> None:
        """Send many states in slices, to be taken by the commit at once."""
        part: list[Any] = []
        for key, text in commit.states.items():
            part += (key, text)
            if len(part) >= 2 * _SLICE:
                await self._client.rpush(name, *part)
                part = []
        if part:
            await self._client.rpush(name, *part)

    async def remove(self, generation: int, keys: Sequence[str] | None = None) -> None:
        """See :class:`~lo_kernel.engine.store.Store`; a whole generation goes in slices."""
        self._ready("deleting states")
        arguments: list[Any] = [self.prefix, generation]

        async def slice_of(part: Sequence[str]) -> int:
            async with self._writing:
                writing = self._write(_REMOVE, [self._own], [*arguments, *part])
                return await self._asked("deleting states", writing)

        if keys is not None:
            for start in range(0, len(keys), _SLICE):
                await slice_of(keys[start : start + _SLICE])
            return
        while await slice_of(()):
            pass
        self._plain = {name: each for name, each in self._plain.items() if each != generation}

    async def remove_row(self, reducer_id: str) -> None:
        """See :class:`~lo_kernel.engine.store.Store`."""
        self._ready("deleting a reducer")
        async with self._writing:
            writing = self._write(_REMOVE_ROW, [f"{self._own}rows"], [reducer_id])
            await self._asked("deleting a reducer", writing)


def _original(whose: str, path: Path) -> str:
    """The folder of which the one with the id file ``path`` is a copy, by what is said of a database."""
    try:
        said = json.loads(whose)
        other = Path(said["folder"]) / _ID_FILE
        if said["host"] != socket.gethostname() or other.samefile(path):
            return ""
        return str(said["folder"]) if other.read_text().split()[:1] == path.read_text().split()[:1] else ""
    except (OSError, ValueError, LookupError, TypeError):  # it was moved, or nobody here can tell
        return ""


def _split(address: str) -> tuple[str, str]:
    """An address without our own ``prefix``, and that.

    >>> _split("redis://localhost:6379/0?prefix=school:&protocol=3")
    ('redis://localhost:6379/0?protocol=3', 'school:')
    """
    parts = urlsplit(address)
    query = parse_qsl(parts.query, keep_blank_values=True)
    prefix = next((value for name, value in query if name == "prefix"), "")
    rest = urlencode([(name, value) for name, value in query if name != "prefix"])
    return urlunsplit(parts._replace(query=rest)), prefix


def _without_password(address: str) -> str:
    """An address as it may be shown.

    >>> _without_password("redis://user:secret@localhost:6379/0")
    'redis://localhost:6379/0'
    """
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _escaped(text: str) -> str:
    r"""A text for MATCH, where ``*?[]\`` have a meaning.

    >>> _escaped("a*b")
    'a\\*b'
    """
    return "".join("\\" + each if each in "*?[]\\^" else each for each in text)
