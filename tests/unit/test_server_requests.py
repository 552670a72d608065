"""What a stranger, a replay or a hostile body gets: the documented problem, and nothing changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bittensor import http_auth

from iota.client.orchestrator import OrchestratorClient, UntrustedAnswer
from iota.http.server import ConnectionLimits
from iota.identity.http_auth import SIGNATURE_HEADER, verify_response
from iota.identity.keys import Hotkey
from iota.objects import BaseKey
from iota.protocol.events import LoadBase
from iota.protocol.messages import PROTOCOL_VERSION, LeaveRequest, Method, ObjectRequest, Role
from iota.protocol.problems import TYPE_PREFIX, Problem, ProblemType
from tests.support.hostile_http import hostile
from tests.support.orchestrators import (
    ORCHESTRATOR,
    Running,
    join_request,
    node,
    orchestrator,
    raw,
    signed,
    until,
)

STRANGER = Hotkey.from_seed(b"s" * 32)
JOIN = join_request().model_dump_json().encode()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal") as running:
        yield running


async def refused(
    running: Running, type: ProblemType, path: str, body: bytes, **request: Any
) -> dict[str, Any]:
    """Send it, and check that this problem came and the journal did not grow."""
    before = [e for e in running.journal.replay() if e.kind != "tick"]
    status, document, headers = await raw(running, path, body, **request)
    assert document["type"] == TYPE_PREFIX + type, document
    assert status == document["status"] == Problem(type, "").status
    assert headers["Content-Type"].startswith("application/problem+json")
    assert document["title"]
    assert document["detail"]
    assert [e for e in running.journal.replay() if e.kind != "tick"] == before
    return document


async def test_an_unsigned_request_is_refused(running: Running) -> None:
    await refused(running, ProblemType.UNSIGNED, "/v1/join", JOIN)


async def test_an_empty_signature_is_refused(running: Running) -> None:
    headers = signed(STRANGER, "/v1/join", JOIN) | {"X-Bittensor-Signature": ""}
    status, document, _ = await raw(running, "/v1/join", JOIN, headers=headers)
    assert status in (400, 401)
    assert document["type"].removeprefix(TYPE_PREFIX) in {"unsigned", "malformed-auth", "bad-signature"}
    assert not running.coordinator.members


async def test_a_malformed_nonce_is_refused(running: Running) -> None:
    headers = signed(STRANGER, "/v1/join", JOIN) | {"X-Bittensor-Nonce": "soon"}
    await refused(running, ProblemType.MALFORMED_AUTH, "/v1/join", JOIN, headers=headers)


async def test_a_replayed_request_is_refused_the_second_time(running: Running) -> None:
    headers = signed(STRANGER, "/v1/join", JOIN)
    status, _, _ = await raw(running, "/v1/join", JOIN, headers=headers)
    assert status == 200
    await refused(running, ProblemType.REPLAYED, "/v1/join", JOIN, headers=headers)


async def test_a_request_for_another_receiver_is_refused(running: Running) -> None:
    headers = signed(STRANGER, "/v1/join", JOIN, receiver=STRANGER.ss58)
    await refused(running, ProblemType.WRONG_RECEIVER, "/v1/join", JOIN, headers=headers)


async def test_a_signature_over_another_path_is_refused(running: Running) -> None:
    headers = signed(STRANGER, "/v1/leave", JOIN)
    await refused(running, ProblemType.BAD_SIGNATURE, "/v1/join", JOIN, headers=headers)


async def test_a_signature_over_another_body_is_refused(running: Running) -> None:
    headers = signed(STRANGER, "/v1/join", b"{}")
    await refused(running, ProblemType.BAD_SIGNATURE, "/v1/join", JOIN, headers=headers)


async def test_a_late_request_is_refused_with_the_offset(running: Running) -> None:
    headers = http_auth.sign(
        STRANGER.keypair,
        method="POST",
        path="/v1/join",
        body=JOIN,
        receiver_ss58=ORCHESTRATOR.ss58,
        nonce_ns=time.time_ns() - 60 * 10**9,
    )
    document = await refused(running, ProblemType.STALE, "/v1/join", JOIN, headers=dict(headers))
    assert -61 < document["offset_s"] < -59


async def test_a_hotkey_that_is_not_admitted_is_refused_in_a_signed_answer(running: Running) -> None:
    running.members.only = set()
    headers = signed(STRANGER, "/v1/join", JOIN)
    await refused(running, ProblemType.NOT_A_MEMBER, "/v1/join", JOIN, headers=headers)
    headers = signed(STRANGER, "/v1/join", JOIN)
    status, document, answer = await raw(running, "/v1/join", JOIN, headers=headers)
    nonce = int(headers.get("X-Bittensor-Nonce") or headers["x-bittensor-nonce"])
    signature = headers.get("X-Bittensor-Signature") or headers["x-bittensor-signature"]
    assert verify_response(
        ORCHESTRATOR.ss58,
        nonce,
        status,
        json.dumps(document).encode(),
        answer[SIGNATURE_HEADER],
        request_signature=signature,
    )


@pytest.mark.parametrize("path", ["/v1/exchange", "/v1/leave", "/v1/objects"])
async def test_a_hotkey_that_has_not_joined_is_told_to_join(running: Running, path: str) -> None:
    body = {
        "/v1/exchange": b'{"cursor":0}',
        "/v1/leave": LeaveRequest().model_dump_json().encode(),
        "/v1/objects": ObjectRequest(method=Method.GET, key="a").model_dump_json().encode(),
    }[path]
    headers = signed(STRANGER, path, body)
    await refused(running, ProblemType.NOT_JOINED, path, body, headers=headers)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"role":"king"}',
        b"[" * 50_000,
        JOIN[:-1] + b',"extra":1}',
        b"\xff\xfe",
        b'{"role":NaN}',
    ],
)
async def test_a_malformed_body_is_refused_with_the_field(running: Running, body: bytes) -> None:
    headers = signed(STRANGER, "/v1/join", body)
    document = await refused(running, ProblemType.MALFORMED_BODY, "/v1/join", body, headers=headers)
    assert document["errors"]


async def test_an_oversized_body_is_refused_before_it_is_read(running: Running) -> None:
    body = b" " * (64 * 1024 + 1)
    await refused(
        running, ProblemType.TOO_LARGE, "/v1/join", body, headers=signed(STRANGER, "/v1/join", body)
    )


async def test_an_oversized_body_without_a_length_is_refused(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(80):
        writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
    async with asyncio.timeout(5):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_no_version_in_common_names_both_sides_and_the_upgrade(running: Running) -> None:
    body = join_request(versions=(0,)).model_dump_json().encode()
    headers = signed(STRANGER, "/v1/join", body)
    document = await refused(running, ProblemType.VERSION_MISMATCH, "/v1/join", body, headers=headers)
    assert document["orchestrator_versions"] == [PROTOCOL_VERSION]
    assert document["node_versions"] == [0]
    assert "upgrade the node" in document["detail"]


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(running: Running) -> None:
    await refused(running, ProblemType.NOT_FOUND, "/v2/join", b"")
    await refused(running, ProblemType.WRONG_METHOD, "/v1/join", b"", method="DELETE")


async def test_a_hotkey_that_floods_is_limited_and_told_when_to_return(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", hotkey_rate=0.5, hotkey_burst=2) as running:
        for _ in range(2):
            await raw(running, "/v1/leave", b"{}", headers=signed(STRANGER, "/v1/leave", b"{}"))
        headers = signed(STRANGER, "/v1/leave", b"{}")
        status, document, answer = await raw(running, "/v1/leave", b"{}", headers=headers)
        assert (status, document["type"]) == (429, TYPE_PREFIX + "rate-limited")
        assert 1 <= int(answer["Retry-After"]) <= 2


async def test_joins_beyond_the_rate_give_no_entry_whatever_they_say(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", join_rate=0.01, join_burst=2) as running:
        for _ in range(2):
            status, _, _ = await raw(running, "/v1/join", JOIN, headers=signed(STRANGER, "/v1/join", JOIN))
            assert status == 200
        for addresses in ((), ("10.0.0.1:1",)):
            body = join_request().model_copy(update={"addresses": addresses}).model_dump_json().encode()
            headers = signed(STRANGER, "/v1/join", body)
            await refused(running, ProblemType.RATE_LIMITED, "/v1/join", body, headers=headers)


async def test_a_connection_that_dribbles_its_headers_is_closed(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", connections=ConnectionLimits(header_s=0.2)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(b"POST /v1/join HTTP/1.1\r\nHo")
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):  # closed or reset, but ended
                assert await reader.read() == b""
        writer.close()


async def test_a_body_that_dribbles_is_given_up(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", body_s=0.2) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_nobody_else_is_delayed_by_strangers(running: Running) -> None:
    """While many connections dribble and many forged requests arrive, a member is served as before."""
    port = int(running.url.rpartition(":")[2])
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
    for _, writer in slow:
        writer.write(b"POST /v1/exchange HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")

    async def forge() -> None:
        while True:
            await raw(running, "/v1/join", JOIN, headers=signed(STRANGER, "/v1/leave", JOIN))

    flood = asyncio.create_task(forge())
    times, key = [], str(BaseKey(running.spec.id, 0, 0, 0))
    async with node(running, b"a") as member:
        for _ in range(30):
            begun = time.perf_counter()
            await member.client.objects(ObjectRequest(method=Method.GET, key=key))
            times.append(time.perf_counter() - begun)
    flood.cancel()
    for _, writer in slow:
        writer.close()
    assert sorted(times)[len(times) * 9 // 10] < 0.25


async def test_a_role_that_the_chain_does_not_give_cannot_be_joined(running: Running) -> None:
    async with node(running, b"a") as member:
        with pytest.raises(Problem) as caught:
            await member.client.join(join_request(Role.VALIDATOR))
        assert caught.value.type is ProblemType.FORBIDDEN
        await until(lambda: bool(member.events(LoadBase)))


async def test_public_pages_answer_anyone(running: Running) -> None:
    for path in ("/v1/run", "/v1/status", "/v1/manifest"):
        status, document, _ = await raw(running, path, b"", method="GET")
        assert (status, bool(document)) == (200, True)
    async with running.client(STRANGER) as client:
        info = await client.run()
        assert (info.run, info.spec, info.orchestrator) == (running.spec.id, running.spec, ORCHESTRATOR.ss58)
        assert await client.manifest() == b'{"shards": []}'


async def test_the_addresses_that_a_member_joins_with_are_public(running: Running) -> None:
    addresses = ("quic://192.0.2.7:4433", "tcp://[2001:db8::7]:4433")
    async with running.client(STRANGER) as client:
        await client.join(join_request(addresses=addresses))
    _, status, _ = await raw(running, "/v1/status", b"", method="GET")
    assert [member["addresses"] for member in status["members"]] == [list(addresses)]


@pytest.mark.parametrize("addresses", [["a"] * 9, ["a" * 201], ["two words"], [""]])
async def test_addresses_are_few_short_and_printable(running: Running, addresses: list[str]) -> None:
    body = json.dumps(json.loads(JOIN) | {"addresses": addresses}).encode()
    headers = signed(STRANGER, "/v1/join", body)
    await refused(running, ProblemType.MALFORMED_BODY, "/v1/join", body, headers=headers)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(ProblemType.RUN_ENDED, "this run has ended"),
        Problem(ProblemType.FORBIDDEN, "it is a validator", extra={"member_as": "validator"}),
    ],
    ids=lambda problem: str(problem.type),
)
@pytest.mark.parametrize("signed_call", [True, False])
async def test_nobody_but_the_orchestrator_ends_a_node(problem: Problem, signed_call: bool) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        body = problem.to_json()
        head = f"HTTP/1.1 {problem.status} x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    async with (
        hostile(answer) as somebody,
        OrchestratorClient(STRANGER, somebody.url, ORCHESTRATOR.ss58, retry_for_s=0) as client,
    ):
        with pytest.raises(UntrustedAnswer):
            await (client.join(join_request()) if signed_call else client.run())


async def test_the_orchestrators_own_refusal_of_a_second_role_is_believed(running: Running) -> None:
    async with running.client(STRANGER) as client:
        await client.join(join_request())
        with pytest.raises(Problem) as refusal:
            await client.join(join_request(Role.VALIDATOR))
    assert refusal.value.extra["member_as"] == "miner"
