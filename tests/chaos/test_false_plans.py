"""A miner whose orchestrator lies in its plans: it waits, and goes on with a true one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from iota.console.conditions import Condition
from iota.data import Manifest
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.protocol.events import Delivered, Event, Plan
from iota.protocol.plans import PLAN_DOMAIN, signed_root
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator import Member
from orchestrator.http import member_calls
from orchestrator.http.delivery import Delivery
from tests.support.conditioned_nodes import bench, made_data
from tests.support.orchestrators import ORCHESTRATOR, until
from tests.support.plans import share_of, whole_plan

Lie = Callable[[str, Delivered, Plan], Delivered]


@dataclass
class Liar:
    """What the server tells in place of a plan; None is the truth."""

    lie: Lie | None = None
    told: int = 0


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("shards")
    return folder, made_data(folder)


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Liar:
    """The delivery of each orchestrator of this process, with plans as the liar has them."""
    made = Liar()

    class LyingDelivery(Delivery):
        async def of(self, member: Member, events: Sequence[tuple[int, Event]]) -> tuple[Delivered, ...]:
            return tuple(self._told(each) for each in await super().of(member, events))

        def _told(self, true: Delivered) -> Delivered:
            if made.lie is None or not isinstance(true.event, Plan):
                return true
            made.told += 1
            return made.lie(self._spec.id, true, true.event)

    monkeypatch.setattr(member_calls, "Delivery", LyingDelivery)
    return made


def signed_by(hotkey: Hotkey, run: str, seq: int, plan: Plan) -> Delivered:
    payload = signed_root(run, plan.share.epoch, plan.share.step, plan.proof)
    signature = hotkey.sign(signing_bytes(PLAN_DOMAIN, payload)).hex()
    return Delivered(seq=seq, event=plan, signature=signature)


def by_a_stranger(run: str, true: Delivered, plan: Plan) -> Delivered:
    return signed_by(Hotkey.from_seed(b"s" * 32), run, true.seq, plan)


def unsigned(run: str, true: Delivered, plan: Plan) -> Delivered:
    return true.model_copy(update={"signature": None})


def without_a_microbatch(run: str, true: Delivered, plan: Plan) -> Delivered:
    share = plan.share.model_copy(update={"microbatches": plan.share.microbatches[1:]})
    return true.model_copy(update={"event": plan.model_copy(update={"share": share})})


def anothers_share(run: str, true: Delivered, plan: Plan) -> Delivered:
    share, other = plan.share, fake_hotkey(7)
    whole = whole_plan(
        [other], len(share.microbatches),
        epoch=share.epoch, step=share.step, learning_rate=share.learning_rate,
    )  # fmt: skip
    return signed_by(ORCHESTRATOR, run, true.seq, share_of(whole, other))


def another_learning_rate(run: str, true: Delivered, plan: Plan) -> Delivered:
    share = plan.share
    whole = whole_plan(
        [share.hotkey], len(share.microbatches),
        epoch=share.epoch, step=share.step, learning_rate=share.learning_rate * 2,
    )  # fmt: skip
    return signed_by(ORCHESTRATOR, run, true.seq, share_of(whole, share.hotkey))


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (by_a_stranger, "is not signed by"),
        (unsigned, "is not signed by"),
        (without_a_microbatch, "is not under its root"),
        (anothers_share, "the share is that of"),
        (another_learning_rate, "its learning rate is"),
    ],
)
async def test_a_miner_acts_on_no_false_plan_waits_and_goes_on_with_a_true_one(
    lie: Lie, said: str, liar: Liar, shards: tuple[Path, Manifest], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    folder, manifest = shards
    async with bench(tmp_path, folder, manifest) as at:
        liar.lie = lie
        at.start()
        await until(lambda: said in caplog.text or at.ended(), 30.0)
        assert Condition.STRANGER.text in caplog.text
        await until(lambda: liar.told > 2 or at.ended(), 30.0)  # it joins again, and is told the same
        assert (at.ended(), at.receipts) == (False, 0)
        liar.lie = None
        await at.works()
        liar.lie, told = lie, liar.told
        await until(lambda: liar.told > told + 2 or at.ended(), 30.0)  # in the middle of an epoch too
        liar.lie = None
        await at.works()
    assert "Task was destroyed" not in caplog.text
