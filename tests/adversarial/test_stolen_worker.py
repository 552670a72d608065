"""One hotkey with three workers on one machine; the key of one is stolen, and revoked in the middle."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from iota.client.orchestrator import OrchestratorClient
from iota.identity.certificates import certificate_fault
from iota.identity.worker_file import Worker, load_worker, make_worker
from iota.protocol.member_records import MemberState
from iota.protocol.messages import ExchangeRequest, JoinRequest
from iota.protocol.problems import Problem, ProblemType
from iota.settings import MinerSettings
from iota.swarm.preparation import WALLET
from iota.swarm.processes import Program
from miner.workers import revoke
from tests.support.live_swarm import LiveSwarm, Status, tiny
from tests.support.orchestrators import join_request

OWNER = "miner-00"
"""The only registered hotkey of a miner."""
STOLEN = "miner-01"


class OwnersSwarm(LiveSwarm):
    """Each miner works with a worker file of one owner, and finds no wallet."""

    @property
    def miners(self) -> int:
        return 1

    def worker_file(self, name: str) -> Path:
        """The file of a miner by name, made with its first use."""
        path = self.run_dir.root / f"{name}.json"
        if not path.exists():
            make_worker(path, self.crew.hotkeys[OWNER], self.spec.id, 0)
        return path

    def worker(self, name: str) -> Worker:
        return load_worker(self.worker_file(name))

    def nodes(self) -> list[Program]:
        programs = [self.works_by_file(p) for p in self.programs.miners(self.spec.layout.stages)]
        return [*programs, self.programs.validator()]

    def works_by_file(self, program: Program) -> Program:
        more = ("--worker", str(self.worker_file(program.name)), "--wallet.path", "/nowhere")
        return dataclasses.replace(program, arguments=(*program.arguments, *more))

    async def revoke(self, name: str) -> str:
        settings = MinerSettings.of(
            orchestrator=self.url, wallet_name=WALLET, wallet_hotkey=OWNER, wallet_path=self.run_dir.wallets
        )
        return await revoke(settings, self.worker(name).key.ss58)


def audited(status: Status, hotkey: str) -> bool:
    return any((v["miner"], v["epoch"], v["outcome"]) == (hotkey, 0, "pass") for v in status["verdicts"])


async def refused(url: str, thief: Worker, join: JoinRequest) -> None:
    async with OrchestratorClient(thief.key, url, retry_for_s=0) as client:
        for call in (client.join(join), client.exchange(ExchangeRequest(cursor=0, wait_s=0))):
            with pytest.raises(Problem, match="has revoked its worker") as caught:
                await call
            assert caught.value.type is ProblemType.NOT_A_MEMBER


async def test_a_stolen_worker_is_shut_out_and_the_owners_others_finish_the_run(tmp_path: Path) -> None:
    options = tiny(stages=3, epochs=8)
    async with OwnersSwarm(tmp_path / "run", options, validator=True) as swarm:
        owner, thief = swarm.crew.addresses[OWNER], swarm.worker(STOLEN)
        stolen = thief.key.ss58
        before = await swarm.until(lambda s: s["epoch"] >= 1 and audited(s, stolen))
        assert {m["owner"] for m in before["members"] if m["role"] == "miner"} == {owner}
        assert f"{stolen} is revoked" in await swarm.revoke(STOLEN)

        await refused(swarm.url, thief, join_request(certificate=thief.certificate))
        code = await asyncio.wait_for(asyncio.shield(swarm.running[STOLEN].ended), 60)
        assert code == 2
        assert "has revoked its worker" in swarm.run_dir.log(STOLEN).read_text().splitlines()[-1]

        (place,) = [m["stage"] for m in before["members"] if m["hotkey"] == stolen]
        await swarm.start(swarm.works_by_file(swarm.programs.miners(4)[3]))
        status = await swarm.until(lambda s: s["phase"] == "finished", 200)
        async with OrchestratorClient(None, swarm.url) as client:
            record = await client.member(stolen)

    assert "could not be measured" not in swarm.run_dir.log(OWNER).read_text()
    replaced = next(m for m in status["members"] if m["hotkey"] == swarm.worker("miner-03").key.ss58)
    assert (replaced["stage"], replaced["owner"], replaced["tokens"] > 0) == (place, owner, True)
    assert not [v for v in status["verdicts"] if v["outcome"] == "fail"]
    # What the worker did before stands under its owner, with the proofs of both words.
    assert (record.owner, record.state) == (owner, MemberState.LEFT)
    assert record.certificate is not None
    assert certificate_fault(record.certificate, swarm.spec.id, stolen) is None
    assert record.revocation is not None
    assert record.epochs[0].tokens == options.steps_per_epoch * options.microbatches * 128
    assert record.receipts > 0
