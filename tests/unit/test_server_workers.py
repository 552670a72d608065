"""Workers at the orchestrator: who is admitted for whom, and what a revocation ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from iota.client.conversation import Conversation
from iota.console.classification import passing
from iota.identity.certificates import revoke
from iota.identity.keys import Hotkey
from iota.protocol.messages import ExchangeRequest, JoinReply, JoinRequest, Role
from iota.protocol.problems import Problem, ProblemType, Standing
from iota.protocol.workers import Revocation
from orchestrator.coordinator import Revoked
from tests.support.orchestrators import Running, join_request, make_spec, orchestrator, raw, signed
from tests.support.workers import OWNER, RIVAL, certificate, certified_join, key

RUN = make_spec().id
WORKER = key(1)
LISTEN = ExchangeRequest(cursor=0, wait_s=0)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A run with two hotkeys on its list; no worker's key is on it."""
    async with open_run(tmp_path) as running:
        yield running


@asynccontextmanager
async def open_run(folder: Path, **limits: Any) -> AsyncIterator[Running]:
    async with orchestrator(folder / "journal", **limits) as running:
        running.members.only = {OWNER.ss58, RIVAL.ss58}
        yield running


async def join(running: Running, worker: Hotkey, request: JoinRequest) -> JoinReply:
    async with running.client(worker, retry_for_s=0) as client:
        return await client.join(request)


async def exchange(running: Running, worker: Hotkey) -> None:
    async with running.client(worker, retry_for_s=0) as client:
        await client.exchange(LISTEN)


async def revoked(running: Running, worker: Hotkey, by: Hotkey = OWNER) -> bool:
    async with running.client(by, retry_for_s=0) as client:
        return (await client.revoke(revoke(by, worker.ss58, RUN))).joined


def entries(running: Running) -> list[Revoked]:
    return [entry for entry in running.journal.replay() if isinstance(entry, Revoked)]


async def test_the_process_that_joined_last_has_the_key_and_the_other_ends_at_once(running: Running) -> None:
    first, second = (certified_join(RUN, WORKER, session=session) for session in (7, 8))
    assert (await join(running, WORKER, first)).session == 7
    async with running.client(WORKER) as client, Conversation(client, 0, session=7) as talk:
        ended = asyncio.ensure_future(anext(talk.events()))
        await join(running, WORKER, second)
        with pytest.raises(Problem, match=r"used by another process \(joined \d\d:\d\d:\d\d UTC\)") as caught:
            await asyncio.wait_for(ended, 5)
    assert passing(caught.value) is None  # the node waits for nothing
    async with running.client(WORKER, retry_for_s=0) as client:
        await client.exchange(ExchangeRequest(cursor=0, wait_s=0, session=8))
        await client.join(second)  # also one that comes late is of the same process
        await client.exchange(ExchangeRequest(cursor=0, wait_s=0, session=8))


# ---- at the door -------------------------------------------------------------------------------


async def test_a_worker_is_admitted_by_its_owner_and_keeps_its_place_after_a_restart(tmp_path: Path) -> None:
    async with open_run(tmp_path) as running:
        reply = await join(running, WORKER, certified_join(RUN, WORKER))
        await exchange(running, WORKER)
        assert running.coordinator.members[WORKER.ss58].owner == OWNER.ss58
    async with open_run(tmp_path) as running:
        await exchange(running, WORKER)
        assert (await join(running, WORKER, certified_join(RUN, WORKER))).stage == reply.stage
        running.members.only = {RIVAL.ss58}
        with pytest.raises(Problem, match=f"{OWNER.ss58} is not on this run's allow-list") as caught:
            await exchange(running, WORKER)
    assert caught.value.extra["standing"] == Standing.NOT_LISTED


async def test_a_hotkey_without_a_certificate_is_its_own_owner(running: Running) -> None:
    await join(running, OWNER, join_request())
    member = running.coordinator.members[OWNER.ss58]
    assert (member.owner, member.certificate) == (OWNER.ss58, None)
    with pytest.raises(Problem) as caught:
        await join(running, WORKER, join_request())
    assert caught.value.type is ProblemType.NOT_A_MEMBER


async def test_one_hotkey_works_itself_and_through_several_workers(running: Running) -> None:
    stages = [(await join(running, OWNER, join_request())).stage]
    for number in (1, 2, 3):
        stages.append((await join(running, key(number), certified_join(RUN, key(number)))).stage)
    assert sorted(stages) == [0, 0, 1, 1]
    assert {member.owner for member in running.coordinator.members.values()} == {OWNER.ss58}


FORGED = certificate(RUN, WORKER).model_copy(update={"owner": RIVAL.ss58})
WRONG = {
    "another run": (join_request(certificate=certificate("ab" * 32, WORKER)), "is of run abababababab"),
    "another key": (certified_join(RUN, key(2)), "is that of the key"),
    "forged": (join_request(certificate=FORGED), f"is not signed by {RIVAL.ss58}"),
    "a validator's": (certified_join(RUN, WORKER, role=Role.VALIDATOR), "acts by its own hotkey"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_certificate_is_refused_by_name_and_joins_nobody(running: Running, what: str) -> None:
    request, told = WRONG[what]
    with pytest.raises(Problem, match=told) as caught:
        await join(running, WORKER, request)
    assert caught.value.type is ProblemType.BAD_CERTIFICATE
    assert not running.coordinator.members


async def test_a_certificate_of_an_owner_that_is_not_admitted_is_refused(running: Running) -> None:
    with pytest.raises(Problem, match=f"{key(7).ss58} is not on") as caught:
        await join(running, WORKER, certified_join(RUN, WORKER, key(7)))
    assert caught.value.type is ProblemType.NOT_A_MEMBER


async def test_a_key_has_one_owner_for_the_whole_run(running: Running) -> None:
    await join(running, WORKER, certified_join(RUN, WORKER))
    await join(running, RIVAL, join_request())
    for sender, request in (
        (WORKER, certified_join(RUN, WORKER, RIVAL)),
        (WORKER, join_request()),
        (RIVAL, certified_join(RUN, RIVAL, OWNER)),
    ):
        running.members.only = None
        with pytest.raises(Problem, match="one owner for a whole run") as caught:
            await join(running, sender, request)
        assert caught.value.type is ProblemType.BAD_CERTIFICATE
    assert running.coordinator.members[WORKER.ss58].owner == OWNER.ss58
    assert running.coordinator.members[RIVAL.ss58].owner == RIVAL.ss58


async def test_an_owner_has_so_many_places_and_a_revoked_worker_gives_its_place_back(tmp_path: Path) -> None:
    async with open_run(tmp_path, workers=2) as running:
        await join(running, key(1), certified_join(RUN, key(1)))
        await join(running, key(2), certified_join(RUN, key(2)))
        with pytest.raises(Problem, match="has 2 workers in this run") as caught:
            await join(running, key(3), certified_join(RUN, key(3)))
        assert caught.value.type is ProblemType.REFUSED
        assert passing(caught.value) is None  # waiting would not help: it is the owner's to mend
        assert all(f"{key(number).ss58} (stage {number - 1})" in caught.value.detail for number in (1, 2))
        await join(running, key(2), certified_join(RUN, key(2)))  # it has its place
        await join(running, key(4), certified_join(RUN, key(4), RIVAL))
        await revoked(running, key(1))
        await join(running, key(3), certified_join(RUN, key(3)))


# ---- revocation --------------------------------------------------------------------------------


async def test_a_revoked_worker_is_refused_for_ever_and_others_of_its_owner_go_on(tmp_path: Path) -> None:
    async with open_run(tmp_path) as running:
        for number in (1, 2):
            await join(running, key(number), certified_join(RUN, key(number)))
        assert await revoked(running, WORKER)
    async with open_run(tmp_path) as running:
        for call in (exchange(running, WORKER), join(running, WORKER, certified_join(RUN, WORKER))):
            with pytest.raises(Problem, match="has revoked its worker") as caught:
                await call
            assert caught.value.extra["standing"] == Standing.REVOKED
        renewed = join_request(certificate=certificate(RUN, WORKER, serial=99))
        with pytest.raises(Problem, match="has revoked its worker"):
            await join(running, WORKER, renewed)
        await exchange(running, key(2))
        await join(running, key(3), certified_join(RUN, key(3)))
        member = running.coordinator.members[WORKER.ss58]
        assert (member.live, member.left) == (False, True)


async def test_an_open_exchange_of_a_worker_ends_with_its_revocation(running: Running) -> None:
    await join(running, WORKER, certified_join(RUN, WORKER))
    async with running.client(WORKER, retry_for_s=0) as client:
        first = await client.exchange(LISTEN)
        listen = ExchangeRequest(cursor=first.events[-1].seq, wait_s=30)
        waiting = asyncio.create_task(client.exchange(listen))
        await revoked(running, WORKER)
        with pytest.raises(Problem, match="has revoked its worker"):
            await asyncio.wait_for(waiting, 2)  # the server's own limit is 5 s


async def test_a_revocation_is_taken_once_and_stays_provable(running: Running) -> None:
    await join(running, WORKER, certified_join(RUN, WORKER))
    for _ in range(3):
        assert await revoked(running, WORKER)
    (entry,) = entries(running)
    status, record, _ = await raw(running, f"/v1/members/{WORKER.ss58}", b"", method="GET")
    assert status == 200
    assert Revocation.model_validate(record["revocation"]) == entry.revocation
    assert (record["owner"], record["certificate"]["owner"]) == (OWNER.ss58, OWNER.ss58)
    assert record["why"].startswith("its owner revoked its key")
    assert record["incidents"][-1]["text"] == "its owner revoked its key"


async def test_a_worker_can_be_revoked_before_it_has_joined(running: Running) -> None:
    assert not await revoked(running, WORKER)
    with pytest.raises(Problem, match="has revoked its worker"):
        await join(running, WORKER, certified_join(RUN, WORKER))
    # A rival's revocation of the same key says nothing of its owner's certificate.
    assert not await revoked(running, key(2), by=RIVAL)
    await join(running, key(2), certified_join(RUN, key(2)))
    assert not await revoked(running, key(2), by=RIVAL)
    await exchange(running, key(2))


async def test_nobody_but_its_owner_revokes_a_worker(running: Running) -> None:
    await join(running, WORKER, certified_join(RUN, WORKER))
    await join(running, RIVAL, join_request())
    true = revoke(OWNER, WORKER.ss58, RUN)
    for sender, revocation, kind in (
        (RIVAL, revoke(RIVAL, WORKER.ss58, RUN), ProblemType.FORBIDDEN),
        (RIVAL, true, ProblemType.FORBIDDEN),
        (WORKER, true, ProblemType.FORBIDDEN),
        (OWNER, true.model_copy(update={"signature": "00" * 64}), ProblemType.BAD_SIGNATURE),
        (OWNER, revoke(OWNER, WORKER.ss58, "ab" * 32), ProblemType.REFUSED),
        (OWNER, revoke(OWNER, OWNER.ss58, RUN), ProblemType.FORBIDDEN),
        (OWNER, revoke(OWNER, RIVAL.ss58, RUN), ProblemType.FORBIDDEN),
        (key(7), revoke(key(7), WORKER.ss58, RUN), ProblemType.NOT_A_MEMBER),
    ):
        async with running.client(sender, retry_for_s=0) as client:
            with pytest.raises(Problem) as caught:
                await client.revoke(revocation)
        assert caught.value.type is kind
    await exchange(running, WORKER)
    assert entries(running) == []


async def test_a_revocation_sent_again_by_somebody_else_does_nothing(running: Running) -> None:
    body = revoke(OWNER, WORKER.ss58, RUN).model_dump_json().encode()
    headers = signed(OWNER, "/v1/revoke", body)
    assert (await raw(running, "/v1/revoke", body, headers=headers))[0] == 200
    assert (await raw(running, "/v1/revoke", body, headers=headers))[0] == 409
    assert len(entries(running)) == 1


async def test_an_owner_cannot_fill_the_journal_with_revocations(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.intake.owners.MAX_REVOKED", 2)
    for number in (1, 2):
        await revoked(running, key(number))
    await revoked(running, key(1))
    with pytest.raises(Problem, match="no more") as caught:
        await revoked(running, key(3))
    assert caught.value.type is ProblemType.REFUSED
    assert len(entries(running)) == 2


# ---- what is shown -----------------------------------------------------------------------------


async def test_status_and_record_name_the_owner(running: Running) -> None:
    await join(running, OWNER, join_request())
    await join(running, WORKER, certified_join(RUN, WORKER))
    _, status, _ = await raw(running, "/v1/status", b"", method="GET")
    shown = [(row["hotkey"], row["owner"], row["revoked"]) for row in status["members"]]
    assert shown == [(OWNER.ss58, OWNER.ss58, False), (WORKER.ss58, OWNER.ss58, False)]
