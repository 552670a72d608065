"""The embedded ledger: forged writes, restarts, secret hashes, its file, and the real process."""

import asyncio
import json
import signal
import stat
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from iota.chain import BadInput, Incompatible, RateLimited, Rejected, TxCode, Unavailable, open_chain
from iota.chain.ledger.book import OWNER_UID
from iota.chain.ledger.client import LedgerChain
from iota.chain.ledger.clock import CHECKPOINT_BLOCKS
from iota.chain.ledger.server import make_app
from iota.identity.http_auth import sign_request
from iota.protocol.messages import Role
from tests.support.ledgers import MINER, NETUID, OTHER, VALIDATOR, Clock, served

REGISTER = json.dumps({"netuid": NETUID, "role": "miner"}).encode()


async def post(url: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url.rstrip("/") + path, data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def ledger_key(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url + "v1/info") as answer:
        return str((await answer.json())["hotkey"])


# ---- who may write --------------------------------------------------------------------------------


async def test_an_unsigned_write_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as url:
        status, problem = await post(url, "/v1/register", REGISTER, {})
        assert (status, problem["type"]) == (401, "unsigned")


async def test_a_write_with_an_empty_signature_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as url:
        headers = sign_request(MINER, "POST", "/v1/register", REGISTER, await ledger_key(url))
        status, _ = await post(url, "/v1/register", REGISTER, headers | {"X-Bittensor-Signature": ""})
        assert status == 400


async def test_a_replayed_write_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as url:
        headers = sign_request(MINER, "POST", "/v1/register", REGISTER, await ledger_key(url))
        assert (await post(url, "/v1/register", REGISTER, headers))[0] == 200
        status, problem = await post(url, "/v1/register", REGISTER, headers)
        assert (status, problem["type"]) == (409, "replayed")


async def test_a_write_in_anothers_name_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as url:
        headers = sign_request(OTHER, "POST", "/v1/register", REGISTER, await ledger_key(url))
        status, problem = await post(
            url, "/v1/register", REGISTER, headers | {"X-Bittensor-Hotkey": MINER.ss58}
        )
        assert (status, problem["type"]) == (401, "bad-signature")
        async with LedgerChain(url) as chain:
            assert await chain.uid(NETUID, MINER.ss58) is None


async def test_a_write_to_another_ledger_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as url:
        headers = sign_request(MINER, "POST", "/v1/register", REGISTER, OTHER.ss58)
        status, problem = await post(url, "/v1/register", REGISTER, headers)
        assert (status, problem["type"]) == (403, "wrong-receiver")


async def test_a_write_refused_for_its_rate_cannot_be_replayed_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    body = json.dumps({"netuid": NETUID, "data": "bb"}).encode()
    async with served(tmp_path, clock) as url, LedgerChain(url, MINER) as chain:
        (await chain.register(NETUID)).check()
        (await chain.commit(NETUID, b"\xaa")).check()
        # A sender whose clock is fast: its nonce lies after the restart, so only the stored fence helps.
        monkeypatch.setattr("iota.identity.http_auth._last_nonce", time.time_ns() + 1_800_000_000)
        headers = sign_request(MINER, "POST", "/v1/commit", body, await ledger_key(url))
        assert (await post(url, "/v1/commit", body, headers))[0] == 429
    clock.advance(1)
    async with served(tmp_path, clock) as url, LedgerChain(url) as chain:
        status, problem = await post(url, "/v1/commit", body, headers)
        assert (status, problem["type"]) == (503, "restarted")
        found = await chain.commitment(NETUID, MINER.ss58)
        assert found is not None
        assert found.data == b"\xaa"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"netuid": 9}',
        b'{"netuid": 9, "role": "owner"}',
        b'{"netuid": 9, "role": "miner", "stake": 5}',
        b'{"netuid": true, "role": "miner"}',
    ],
)
async def test_a_malformed_body_is_refused(tmp_path: Path, body: bytes) -> None:
    async with served(tmp_path) as url:
        headers = sign_request(MINER, "POST", "/v1/register", body, await ledger_key(url))
        status, problem = await post(url, "/v1/register", body, headers)
        assert (status, problem["type"]) == (400, "malformed")


async def test_an_oversized_body_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as url:
        body = b" " * (1 << 20)
        headers = sign_request(MINER, "POST", "/v1/register", body, await ledger_key(url))
        assert (await post(url, "/v1/register", body, headers))[0] == 413


async def test_an_answer_that_the_ledger_did_not_sign_is_not_believed(tmp_path: Path) -> None:
    result = {"ok": True, "code": "ok", "chain_error": None, "message": "", "block": 1}

    async def info(_: web.Request) -> web.Response:
        return web.json_response(
            {"version": "ledger/1", "hotkey": OTHER.ss58, "genesis": "0x", "block_time_s": 12.0, "netuid": 9}
        )

    async def register(_: web.Request) -> web.Response:
        return web.json_response(result, headers={"X-Iota-Signature": "00" * 64})

    app = web.Application()
    app.add_routes([web.get("/v1/info", info), web.post("/v1/register", register)])
    async with TestServer(app) as server, LedgerChain(str(server.make_url("/")), MINER) as chain:
        with pytest.raises(Unavailable, match="not signed") as caught:
            await chain.register(NETUID)
        assert caught.value.fate_unknown


@pytest.mark.parametrize("number", [-1, 1 << 53, 1 << 70])
async def test_a_head_that_no_chain_has_is_refused_at_the_edge(number: int) -> None:
    async def head(_: web.Request) -> web.Response:
        return web.json_response({"number": number, "hash": "0x00", "time": 0.0})

    app = web.Application()
    app.add_routes([web.get("/v1/head", head)])
    async with TestServer(app) as server, LedgerChain(str(server.make_url("/"))) as chain:
        with pytest.raises(Incompatible):
            await chain.head()


async def test_a_ledger_that_changes_its_key_is_named_and_then_learnt_anew(tmp_path: Path) -> None:
    async with served(tmp_path) as url, LedgerChain(url, MINER) as chain:
        info = await chain._ledger_info()
        chain._known = info.model_copy(update={"hotkey": OTHER.ss58})
        with pytest.raises(Incompatible, match="another ledger"):
            await chain.register(NETUID)
        assert (await chain.register(NETUID)).ok


async def test_a_version_below_the_subnets_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, weights_version=3) as url, LedgerChain(url, VALIDATOR) as chain:
        (await chain.register(NETUID, Role.VALIDATOR)).check()
        result = await chain.set_weights(NETUID, {OWNER_UID: 1.0}, version_key=2)
        assert (result.code, result.chain_error) == (TxCode.INVALID_ARGUMENT, "IncorrectWeightVersionKey")
        assert (await chain.set_weights(NETUID, {OWNER_UID: 1.0}, version_key=3)).ok


async def test_without_the_faucet_a_validator_has_no_stake_and_no_permit(tmp_path: Path) -> None:
    async with served(tmp_path, faucet_stake=0.0) as url, LedgerChain(url, VALIDATOR) as chain:
        (await chain.register(NETUID, Role.VALIDATOR)).check()
        neuron = (await chain.subnet(NETUID)).neuron(VALIDATOR.ss58)
        assert neuron is not None
        assert (neuron.stake, neuron.validator_permit) == (0.0, False)


# ---- blocks and restarts --------------------------------------------------------------------------


async def test_a_restart_keeps_blocks_rows_and_identity(tmp_path: Path) -> None:
    clock = Clock()
    async with served(tmp_path, clock, tempo=5) as url, LedgerChain(url, VALIDATOR) as chain:
        (await chain.register(NETUID, Role.VALIDATOR)).check()
        (await chain.commit(NETUID, b"kept")).check()
        (await chain.set_weights(NETUID, {OWNER_UID: 1.0})).check()
        clock.advance(7)
        before = [await chain.block_hash(n) for n in range(8)], await chain.subnet(NETUID)
        rows, key = await chain.weights(NETUID), await ledger_key(url)
    async with served(tmp_path, clock) as url, LedgerChain(url) as chain:
        assert ([await chain.block_hash(n) for n in range(8)], await chain.subnet(NETUID)) == before
        assert (await chain.weights(NETUID), await ledger_key(url)) == (rows, key)
        found = await chain.commitment(NETUID, VALIDATOR.ss58)
        assert found is not None
        assert found.data == b"kept"
        clock.advance(1)
        assert (await chain.head()).number == 8


async def test_blocks_pass_while_the_ledger_is_down_and_hashes_do_not_depend_on_it(tmp_path: Path) -> None:
    clock = Clock()
    far = 2 * CHECKPOINT_BLOCKS + 7
    async with served(tmp_path, clock):
        pass
    clock.advance(far)
    async with served(tmp_path, clock) as url, LedgerChain(url) as chain:
        assert (await chain.head()).number == far
        sample = [await chain.block_hash(n) for n in (0, 1, CHECKPOINT_BLOCKS - 1, CHECKPOINT_BLOCKS, far)]
    async with served(tmp_path, clock) as url, LedgerChain(url) as chain:
        again = [await chain.block_hash(n) for n in (0, 1, CHECKPOINT_BLOCKS - 1, CHECKPOINT_BLOCKS, far)]
    assert again == sample
    assert len(set(sample)) == len(sample)


async def test_the_head_never_goes_back_with_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    async with served(tmp_path, clock):
        pass
    clock.advance(9)
    async with served(tmp_path, clock) as url, LedgerChain(url) as chain:
        head = await chain.head()
        clock.advance(-5)
        assert await chain.head() == head
    async with served(tmp_path, clock) as url, LedgerChain(url) as chain:
        assert await chain.head() == head


async def test_two_ledgers_alike_in_all_that_is_public_have_different_hashes(tmp_path: Path) -> None:
    clock = Clock()
    hashes = []
    for name in ("a", "b"):
        async with served(tmp_path / name, clock) as url, LedgerChain(url) as chain:
            hashes.append(await chain.block_hash(0))
    assert hashes[0] != hashes[1]


async def test_nothing_that_the_ledger_serves_holds_its_seeds(tmp_path: Path) -> None:
    import sqlite3

    clock = Clock()
    texts = []
    async with served(tmp_path, clock) as url, LedgerChain(url, VALIDATOR) as chain:
        (await chain.register(NETUID, Role.VALIDATOR)).check()
        async with aiohttp.ClientSession() as session:
            for path in ("info", "head", "blocks/0", "blocks/99", "subnets/9", "subnets/9/epoch"):
                async with session.get(f"{url}v1/{path}") as answer:
                    texts.append(await answer.text())
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        seeds = [row[0] for row in database.execute("SELECT value FROM meta WHERE key LIKE '%seed'")]
    database.close()
    assert len(seeds) == 2
    assert not any(seed.hex() in text for seed in seeds for text in texts)


async def test_a_write_goes_into_a_block_whose_hash_is_not_out_yet(tmp_path: Path) -> None:
    clock = Clock()
    async with served(tmp_path, clock) as url, LedgerChain(url, MINER) as chain:
        block = (await chain.register(NETUID)).check().block
        assert block is not None
        with pytest.raises(BadInput, match="not come"):
            await chain.block_hash(block)


async def test_waiting_clients_are_woken_by_the_epoch(tmp_path: Path) -> None:
    async with served(tmp_path, block_time_s=0.05, tempo=4) as url, LedgerChain(url) as chain:
        first = await chain.wait_epoch(NETUID, timeout_s=20)
        second = await chain.wait_epoch(NETUID, after=first.index, timeout_s=20)
        assert second.index == first.index + 1
        assert second.last_epoch_block == first.last_epoch_block + 4


# ---- the file -------------------------------------------------------------------------------------


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    async with served(tmp_path):
        assert stat.S_IMODE((tmp_path / "ledger.db").stat().st_mode) == 0o600


async def test_two_processes_cannot_share_a_ledger(tmp_path: Path) -> None:
    async with served(tmp_path):
        with pytest.raises(ValueError, match="another process"):
            make_app(tmp_path / "ledger.db")


async def test_a_ledger_cannot_change_its_parameters(tmp_path: Path) -> None:
    async with served(tmp_path, tempo=7):
        pass
    with pytest.raises(ValueError, match="'tempo': 7"):
        make_app(tmp_path / "ledger.db", tempo=8)
    async with served(tmp_path) as url, LedgerChain(url) as chain:
        assert (await chain.subnet(NETUID)).tempo == 7


def test_another_file_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no database, but long enough to be looked at " * 50)
    with pytest.raises(ValueError, match="not a ledger"):
        make_app(tmp_path / "ledger.db")


# ---- connections ----------------------------------------------------------------------------------


async def test_a_ledger_that_does_not_answer_is_unavailable() -> None:
    hung = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = hung.sockets[0].getsockname()[1]
    try:
        async with LedgerChain(f"http://127.0.0.1:{port}", timeout_s=0.1) as chain:
            with pytest.raises(Unavailable, match=r"within 0\.1 s"):
                await chain.head()
    finally:
        hung.close()
    async with LedgerChain(f"http://127.0.0.1:{port}") as chain:
        with pytest.raises(Unavailable, match="is it running"):
            await chain.head()


async def test_a_clock_that_is_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as url, LedgerChain(url, MINER) as chain:
        await chain.info()
        monkeypatch.setattr("iota.identity.http_auth._last_nonce", time.time_ns() + 60_000_000_000)
        with pytest.raises(Rejected, match=r"\+60\.0 s|\+59\.\d s"):
            await chain.register(NETUID)


async def test_a_commitment_in_every_block_but_not_two_in_one(tmp_path: Path) -> None:
    clock = Clock()
    async with served(tmp_path, clock) as url, LedgerChain(url, MINER) as chain:
        (await chain.register(NETUID)).check()
        (await chain.commit(NETUID, b"one")).check()
        with pytest.raises(RateLimited):
            (await chain.commit(NETUID, b"two")).check()
        clock.advance(1)
        assert (await chain.commit(NETUID, b"three")).ok


async def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    code = "from iota.cli.main import main; main()"
    arguments = [
        "ledger",
        "serve",
        "--db",
        str(tmp_path / "l.db"),
        "--port",
        "0",
        "--tempo",
        "3",
        "--block-time",
        "0.1",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode()
        url = next(word for word in line.split() if word.startswith("http://"))
        async with open_chain(url, MINER) as chain:
            assert (await chain.register(NETUID)).ok
            assert (await chain.wait_epoch(NETUID)).tempo == 3
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
