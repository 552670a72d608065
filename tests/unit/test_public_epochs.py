"""What anyone reads of a sealed epoch, without a signature, and how it may be cached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blake3 import blake3

from iota.identity.signatures import signing_bytes, verify
from iota.protocol.messages import Reveal, Role
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.records import EpochRecord
from iota.protocol.seals import SEAL_DOMAIN
from tests.support.orchestrators import ORCHESTRATOR, Node, Running, node, orchestrator, raw, until
from tests.support.whole_epochs import epoch, sealed


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal") as found:
        yield found


async def got(running: Running, path: str, **headers: str) -> tuple[int, bytes, Any]:
    """Status, body and headers of a request that nobody has signed."""
    async with aiohttp.ClientSession() as http, http.get(running.url + path, headers=headers) as response:
        return response.status, await response.read(), response.headers


async def refused(running: Running, path: str) -> ProblemType:
    status, document, _ = await raw(running, path, b"", method="GET")
    return Problem(ProblemType(document["type"].rpartition(":")[2]), "", status=status).type


async def test_nothing_of_an_epoch_is_read_before_its_seal(running: Running) -> None:
    async with epoch(running) as (first, _):
        for what in (
            "seal",
            "record",
            f"record/{first.hotkey.ss58}",
            f"receipts/{first.hotkey.ss58}",
            "links",
        ):
            assert await refused(running, f"/v1/epochs/0/{what}") is ProblemType.NOT_FOUND
        for wrong in ("/v1/epochs/x/seal", "/v1/epochs/-1/seal", "/v1/epochs/7/record"):
            assert await refused(running, wrong) is ProblemType.NOT_FOUND
        assert await refused(running, "/v1/audit/epochs/0") is ProblemType.NOT_FOUND


async def test_anyone_reads_the_seal_the_record_and_the_receipts(running: Running) -> None:
    async with epoch(running) as pair:
        seal = await sealed(running, pair)
        async with running.client(pair[0].hotkey) as client:
            signed = await client.seal(0)
            assert signed.seal == seal
            message = signing_bytes(SEAL_DOMAIN, signed.payload(running.spec.id))
            assert verify(message, bytes.fromhex(signed.signature), ORCHESTRATOR.ss58)
            data = await client.record(0)
            assert blake3(data).hexdigest() == seal.record
            record = EpochRecord.model_validate_json(data)
            for each in pair:
                batches = await client.receipts(0, each.hotkey.ss58)
                assert [r for batch in batches for r in batch.receipts] == each.log.receipts
                part = await client.sealed_part(0, each.hotkey.ss58)
                assert part.is_of(seal)
                assert part.part.miner in record.miners
            assert await client.links(0) == {}
        assert await refused(running, f"/v1/epochs/0/record/{ORCHESTRATOR.ss58}") is ProblemType.NOT_FOUND
        assert await refused(running, f"/v1/epochs/0/receipts/{ORCHESTRATOR.ss58}") is ProblemType.NOT_FOUND


async def test_what_never_changes_is_cached_for_ever_and_the_rest_is_asked_for_again(
    running: Running,
) -> None:
    async with epoch(running) as pair:
        await sealed(running, pair)
        me = pair[0].hotkey.ss58
        for path, for_ever in {
            "seal": True, "record": True, f"record/{me}": True, f"receipts/{me}": False, "links": False,
        }.items():  # fmt: skip
            status, body, headers = await got(running, f"/v1/epochs/0/{path}")
            assert status == 200
            assert ("immutable" in headers["Cache-Control"]) is for_ever
            again = await got(running, f"/v1/epochs/0/{path}", **{"If-None-Match": headers["ETag"]})
            assert again[:2] == (304, b"")
            assert (await got(running, f"/v1/epochs/0/{path}", **{"If-None-Match": '"0"'}))[1] == body


async def test_links_are_read_as_they_are_revealed(running: Running) -> None:
    async with node(running, b"v", Role.VALIDATOR) as validator, epoch(running) as pair:
        await sealed(running, pair)
        tag = (await got(running, "/v1/epochs/0/links"))[2]["ETag"]
        validator.talk.send(reports=[Reveal(epoch=0, link="7" * 64)])
        await until(lambda: bool(running.coordinator.links(0)))
        status, _, _ = await got(running, "/v1/epochs/0/links", **{"If-None-Match": tag})
        assert status == 200
        async with running.client(pair[0].hotkey) as client:
            assert await client.links(0) == {validator.hotkey.ss58: "7" * 64}


async def test_an_acknowledgement_says_what_is_stored_and_how_many_epochs_are_sealed(
    running: Running,
) -> None:
    async with epoch(running) as pair:
        first: Node = pair[0]
        said = first.talk.acknowledged[0]
        assert (said.receipts, said.head) == (
            len(first.log.receipts),
            first.log.receipts[-1].content_digest(),
        )
        await sealed(running, pair)
        running.coordinator.members[first.hotkey.ss58].given_receipts += 1  # of an op that ends late
        first.log.add(microbatch=0)
        first.talk.send(receipts=len(first.log.receipts))
        assert await first.talk.flush(5)
        assert first.talk.acknowledged[1].receipts == said.receipts + 1
        assert first.talk.acknowledged[0] == said
