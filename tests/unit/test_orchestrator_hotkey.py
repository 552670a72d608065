"""Who speaks for a run: `/v1/run` is signed, by the hotkey that is given, known, or the first to sign."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from iota.client.known_orchestrator import KnownOrchestrator
from iota.client.orchestrator import OrchestratorClient, UntrustedAnswer
from iota.console.classification import passing
from iota.console.conditions import Condition
from iota.doctor import gathering
from iota.identity.http_auth import SIGNATURE_HEADER, sign_response
from iota.identity.keys import Hotkey
from iota.settings import MinerSettings
from tests.support.orchestrators import ORCHESTRATOR, make_spec, orchestrator, raw
from tests.support.store_servers import serving

STRANGER = Hotkey.from_seed(b"s" * 32)
NODE = Hotkey.from_seed(b"n" * 32)


@asynccontextmanager
async def impostor(
    named: Hotkey, signer: Hotkey | None, nonce: int | None = None, **schedule: int
) -> AsyncIterator[str]:
    """Answers `/v1/run` as `named`, signed by `signer` for the nonce that was asked or for `nonce`."""
    spec = make_spec(**schedule)
    document = {
        "run": spec.id, "spec": spec.model_dump(mode="json"), "orchestrator": named.ss58, "versions": [2],
        "epoch": 0, "step": 0,
    }  # fmt: skip
    body = json.dumps(document).encode()

    async def run(request: web.Request) -> web.Response:
        headers = {}
        if signer is not None:
            asked = int(request.query["nonce"]) if nonce is None else nonce
            headers[SIGNATURE_HEADER] = sign_response(signer, asked, 200, body, request_signature="")
        return web.Response(body=body, headers=headers)

    app = web.Application()
    app.router.add_get("/v1/run", run)
    async with serving(app) as url:
        yield url


def client(url: str, hotkey: str | None = None, file: Path | None = None) -> OrchestratorClient:
    known = None if file is None else KnownOrchestrator(file)
    return OrchestratorClient(NODE, url, hotkey, known=known, retry_for_s=0)


@pytest.mark.parametrize(("signer", "nonce"), [(None, None), (STRANGER, None), (ORCHESTRATOR, 1)])
@pytest.mark.parametrize("pinned", [False, True])
async def test_who_names_an_orchestrator_without_its_signature_is_another_server(
    signer: Hotkey | None, nonce: int | None, pinned: bool
) -> None:
    async with (
        impostor(ORCHESTRATOR, signer, nonce) as url,
        client(url, ORCHESTRATOR.ss58 if pinned else None) as asking,
    ):
        with pytest.raises(UntrustedAnswer, match="did not sign") as caught:
            await asking.run()
    assert (passing(caught.value) or (None,))[0] is Condition.STRANGER


async def test_the_hotkey_that_is_given_must_sign(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j.db") as running:
        async with client(running.url, ORCHESTRATOR.ss58) as asking:
            assert (await asking.run()).orchestrator == ORCHESTRATOR.ss58
        async with client(running.url, STRANGER.ss58, tmp_path / "known") as asking:
            with pytest.raises(UntrustedAnswer, match=f"is run by {ORCHESTRATOR.ss58}, not {STRANGER.ss58}"):
                await asking.run()
    assert not (tmp_path / "known").exists()


async def test_another_signer_is_refused_after_a_restart_and_taken_when_it_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, run = tmp_path / "data" / "orchestrator", make_spec().id
    async with orchestrator(tmp_path / "j.db") as running:
        for _ in range(2):
            async with client(running.url, file=file) as asking:
                await asking.run()
                await asking.run()
    assert file.read_text() == ORCHESTRATOR.ss58
    async with impostor(STRANGER, STRANGER, epochs=9) as url, client(url, file=file) as asking:
        with pytest.raises(UntrustedAnswer, match="--orchestrator-hotkey"):  # it names another run
            await asking.run()
    async with impostor(STRANGER, STRANGER) as url:
        async with client(url, file=file) as asking:
            with pytest.raises(UntrustedAnswer, match=f"--orchestrator-hotkey {STRANGER.ss58}") as caught:
                await asking.run()
        assert f"this node knows {ORCHESTRATOR.ss58} ({file})" in str(caught.value)
        async with client(url, STRANGER.ss58, file) as asking:
            await asking.run()
        async with client(url, file=file) as asking:
            await asking.run()
    lines = [
        r.message.partition(", ")[2] for r in caplog.records if r.message.startswith(f"run {run[:12]} of")
    ]
    assert lines == [
        "the first that signs here: --orchestrator-hotkey says beforehand who must",
        "as before",
        "as --orchestrator-hotkey demands",
        "as before",
    ]


async def test_an_answer_that_is_not_signed_is_not_remembered(tmp_path: Path) -> None:
    async with impostor(STRANGER, None) as url, client(url, file=tmp_path / "known") as asking:
        with pytest.raises(UntrustedAnswer):
            await asking.run()
    assert not (tmp_path / "known").exists()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 100, b"5" * 48, ORCHESTRATOR.ss58[:-1].encode()])
async def test_a_damaged_memory_is_said_and_made_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "orchestrator"
    file.write_bytes(damage)
    async with (
        orchestrator(tmp_path / "j.db") as running,
        client(running.url, file=file) as asking,
    ):
        await asking.run()
    assert "is damaged" in caplog.text
    assert file.read_text() == ORCHESTRATOR.ss58


async def test_a_line_end_in_the_memory_is_no_damage(tmp_path: Path) -> None:
    file = tmp_path / "orchestrator"
    file.write_text(f"{STRANGER.ss58}\n")
    async with orchestrator(tmp_path / "j.db") as running, client(running.url, file=file) as asking:
        with pytest.raises(UntrustedAnswer):
            await asking.run()


async def test_run_is_signed_for_a_nonce_alone(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j.db") as running:
        for query, signed in (
            ("", False),
            ("?nonce=7", True),
            ("?nonce=x", False),
            ("?nonce=" + "1" * 21, False),
        ):
            status, _, headers = await raw(running, f"/v1/run{query}", b"", method="GET")
            assert (status, SIGNATURE_HEADER in headers) == (200, signed), query


async def test_the_doctor_refuses_another_orchestrator_than_the_given_one(tmp_path: Path) -> None:
    async def seen(url: str, hotkey: Hotkey | None) -> object:
        end = asyncio.get_running_loop().time() + 5
        asked = gathering._orchestrator(url, None if hotkey is None else hotkey.ss58, lambda: 0.0)
        return await gathering.answer_to(asked, end)

    async with orchestrator(tmp_path / "j.db") as running, impostor(ORCHESTRATOR, STRANGER) as false:
        assert isinstance(await seen(running.url, ORCHESTRATOR), gathering.OrchestratorFacts)
        assert "--orchestrator-hotkey" in str(await seen(running.url, STRANGER))
        assert "did not sign" in str(await seen(false, None))


def test_a_hotkey_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r"--orchestrator-hotkey .* no ss58 address"):
        MinerSettings.of(orchestrator_hotkey="5short")
    mistyped = ORCHESTRATOR.ss58[:-1] + ("a" if ORCHESTRATOR.ss58[-1] != "a" else "b")
    with pytest.raises(ValueError, match=r"--orchestrator-hotkey .* mistyped"):
        client(
            "http://127.0.0.1:1", MinerSettings.of(orchestrator_hotkey=f" {mistyped} ").orchestrator_hotkey
        )
