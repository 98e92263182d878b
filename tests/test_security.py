"""Who gets in: nobody by default, on every route and method, websockets included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from apps import running_app

from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


@asynccontextmanager
async def _app(settings: Settings) -> AsyncIterator[tuple[Runtime, aiohttp.ClientSession]]:
    async with running_app(settings) as runtime, aiohttp.ClientSession(base_url=runtime.url) as client:
        yield runtime, client


async def _status(client: aiohttp.ClientSession, path: str, method: str = "GET", **options: object) -> int:
    async with client.request(method, path, **options) as answer:  # type: ignore[arg-type]
        return answer.status


async def test_every_route_refuses_a_request_without_a_token(settings: Settings) -> None:
    """No route but the server's own health, by whatever method, answers a request that brings no token."""
    async with _app(settings) as (runtime, client):
        routes = {route.resource.canonical for route in _routes(runtime) if route.resource is not None} | {
            "/nothing-here"
        }
        assert {"/", "/wsapi/in/", "/wsapi/communication_protocol"} <= routes
        health = {"/health/live", "/health/ready"}  # what watches a server has no token, and hears of nobody
        assert health <= routes
        for path in routes - health:
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
                assert await _status(client, path, method) == 401, (method, path)


def _routes(runtime: Runtime) -> list[aiohttp.web.AbstractRoute]:
    from lo_kernel.app.application import create_app

    return list(create_app(Runtime(runtime.settings)).router.routes())


@pytest.mark.parametrize("path", ["/wsapi/in/", "/wsapi/communication_protocol"])
async def test_websockets_are_refused_without_a_token(settings: Settings, path: str) -> None:
    """A websocket handshake without a token is answered with 401, before any upgrade."""
    async with _app(settings) as (_, client):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(path)
        assert refused.value.status == 401


async def test_a_token_is_taken_from_query_header_and_subprotocol(settings: Settings) -> None:
    """The same token opens the app in each of the ways that DESIGN names."""
    async with _app(settings) as (runtime, client):
        token = runtime.security.tokens["notebook"]
        assert await _status(client, f"/?token={token}") == 200
        client.cookie_jar.clear()
        assert await _status(client, "/", headers={"Authorization": f"Bearer {token}"}) == 200
        ws = await client.ws_connect("/wsapi/communication_protocol", protocols=[f"lo-token.{token}"])
        assert ws.protocol == f"lo-token.{token}"
        await ws.close()


async def test_a_wrong_token_is_refused_and_not_repeated_in_the_answer(settings: Settings) -> None:
    """A wrong token gives 401 with what to do, and is not echoed."""
    async with _app(settings) as (_, client), client.get("/?token=guess-work") as answer:
        assert answer.status == 401
        text = await answer.text()
        assert "token is needed" in text
        assert "The one that came is unknown here, or has ended" in text
        assert "guess-work" not in text
        async with client.get("/") as answer:
            assert "The one that came" not in await answer.text()


async def test_a_token_that_is_no_text_is_a_wrong_one(settings: Settings) -> None:
    """Bytes in a header that can't be read as text are refused like any other token, without a traceback."""
    async with running_app(settings) as runtime:
        reader, writer = await asyncio.open_connection("127.0.0.1", runtime.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        assert b" 401 " in await reader.readline()
        writer.close()


async def test_a_browser_that_came_with_a_token_goes_on_by_cookie(settings: Settings) -> None:
    """A page opened with a token sets a cookie, named after the port, good for the page's own requests."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with running_app(settings) as runtime, aiohttp.ClientSession(runtime.url, cookie_jar=jar) as client:
        assert await _status(client, f"/?token={runtime.security.tokens['read']}") == 200
        (cookie,) = jar
        assert cookie.key == f"lo_kernel_{runtime.port}"
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        assert await _status(client, "/") == 200
        elsewhere = {"Origin": "http://evil.example"}
        assert await _status(client, "/", headers=elsewhere) == 403
        own = {"Origin": runtime.url.rstrip("/")}
        ws = await client.ws_connect("/wsapi/communication_protocol", headers=own)
        await ws.close()
        for headers in ({}, elsewhere):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect("/wsapi/communication_protocol", headers=headers)
            assert refused.value.status == 403


async def test_a_request_with_its_own_token_may_come_from_anywhere(settings: Settings) -> None:
    """A browser extension, whose Origin is its own, gets in with the token in the address."""
    async with _app(settings) as (runtime, client):
        ws = await client.ws_connect(runtime.ingest_url, headers={"Origin": "chrome-extension://abc"})
        await ws.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9999", "127.0.0.1.evil.example", "[bad"])
async def test_a_foreign_host_name_is_refused_even_with_a_token(settings: Settings, host: str) -> None:
    """A page that points a name of its own at this machine is turned away, whatever it brings."""
    async with _app(settings) as (runtime, client):
        token = runtime.security.tokens["notebook"]
        assert await _status(client, f"/?token={token}", headers={"Host": host}) == 403


async def test_an_allowed_host_name_is_let_in(workspace: object) -> None:
    """The setting allowed_hosts adds names, with any port."""
    settings = Settings(workspace=str(workspace), port=0, store="memory", allowed_hosts="lo.school.example")
    async with _app(settings) as (runtime, client):
        token = runtime.security.tokens["notebook"]
        headers = {"Host": "lo.school.example:8443"}
        assert await _status(client, f"/?token={token}", headers=headers) == 200


async def test_each_kind_of_token_opens_its_own_doors_only(settings: Settings) -> None:
    """A source's token sends events and reads nothing; a reader's token reads and sends none."""
    async with _app(settings) as (runtime, client):
        tokens = runtime.security.tokens
        assert await _status(client, f"/?token={tokens['ingest']}") == 403
        assert await _status(client, f"/wsapi/communication_protocol?token={tokens['ingest']}") == 403
        assert await _status(client, f"/wsapi/in/?token={tokens['read']}") == 403
        client.cookie_jar.clear()
        for kind, path in [("ingest", "/wsapi/in/"), ("read", "/wsapi/communication_protocol")]:
            ws = await client.ws_connect(f"{path}?token={tokens[kind]}")
            await ws.close()


async def test_a_ticket_ends_by_itself(settings: Settings) -> None:
    """A link shown in a notebook carries a ticket that reads, and that ends."""
    async with _app(settings) as (runtime, client):
        ticket = runtime.security.ticket()
        assert await _status(client, f"/?token={ticket}") == 200
        client.cookie_jar.clear()
        spent = runtime.security.ticket(seconds=0)
        assert await _status(client, f"/?token={spent}") == 401


def test_a_ticket_costs_the_same_however_many_live(settings: Settings) -> None:
    """Links of a long day add up: one more takes no look at the others, and those that ended are dropped."""
    security = Runtime(settings).security
    began = time.process_time()
    tickets = [security.ticket("embed", seconds=0 if number % 2 else 60) for number in range(20_000)]
    assert time.process_time() - began < 2  # a look at all of them each time takes some ten
    assert [security.kind_of(each) for each in tickets[-4:]] == ["embed", None, "embed", None]
    security.ticket()
    assert len(security._tickets) == 10_001


async def test_tokens_outlive_a_restart_and_are_private(settings: Settings) -> None:
    """Clients come back after a restart with the token they had; only its user can read the file."""
    async with running_app(settings) as runtime:
        before, ingest = runtime.security.tokens, runtime.ingest_url
        for name in ("secrets.json", "owner.json"):
            assert (runtime.workspace.path / name).stat().st_mode & 0o777 == 0o600
    async with running_app(settings) as runtime:
        assert runtime.security.tokens == before
        assert runtime.ingest_url.partition("?")[2] == ingest.partition("?")[2]
