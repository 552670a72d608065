"""What a hostile validator, or a hostile record, does to the audits of the honest ones."""

from __future__ import annotations

import pytest

from iota.identity.keys import Hotkey
from iota.model.snapshot_time import LINE_SHARE, drawn_snapshots
from iota.objects import snapshot_bytes
from iota.protocol.events import EvidenceRequest
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import EvidenceWanted, Reveal, Role
from iota.spec import AuditSpec
from orchestrator.coordinator.evidence import max_wanted
from orchestrator.coordinator.member import Member
from tests.support.audited_runs import World
from tests.support.coordinators import Driven
from tests.support.sealed_runs import sealed_run
from tests.support.small_runs import small_run
from tests.unit.test_all_receipts import resealed
from validator.core.core import FILING_SHARE
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks

STEPS = 100
ME = Hotkey.from_seed(bytes(32)).ss58


def _want(driven: Driven, validator: Member, miner: Member, item: EvidenceItem, version: int) -> None:
    wanted = EvidenceWanted(epoch=0, miner=miner.hotkey, item=item, version=version)
    driven.say(validator, reports=[wanted])


def _line() -> float:
    """The line by which what one draw demands takes three quarters of the audit deadline."""
    driven, miner, _ = sealed_run()
    spec = driven.coordinator.spec
    size = snapshot_bytes(spec, miner.stage) * drawn_snapshots(sealed_run(steps=STEPS)[0].coordinator.spec)
    return float(size / (0.75 * spec.audit.deadline_s * LINE_SHARE))


def test_what_a_hostile_validator_asks_for_first_does_not_make_an_honest_ones_evidence_late() -> None:
    driven, miner, validator = sealed_run(steps=STEPS, line=_line())
    spec, sealed_at = driven.coordinator.spec, driven.state.epochs[0].sealed_at
    hostile = driven.join(10, Role.VALIDATOR)
    driven.say(hostile, reports=[Reveal(epoch=0, link="2" * 64)])
    for number in range(max_wanted(driven.state, EvidenceItem.SNAPSHOT)):
        _want(driven, hostile, miner, EvidenceItem.SNAPSHOT, spec.audit.commit_every * number)
    for step in range(STEPS):
        _want(driven, hostile, miner, EvidenceItem.FRAMES, step)
    last, greedy = max(miner.owed.values()), list(miner.owed)
    asked_last = max(version for _, item, version in greedy if item is EvidenceItem.SNAPSHOT)
    for version in (STEPS, asked_last):
        _want(driven, validator, miner, EvidenceItem.SNAPSHOT, version)
        debt = miner.owed[0, EvidenceItem.SNAPSHOT, version]
        assert debt.deadline < sealed_at + FILING_SHARE * spec.audit.deadline_s
    new = miner.owed[0, EvidenceItem.SNAPSHOT, STEPS]
    assert max(miner.owed.values()).deadline == last.deadline + new.seconds
    news = [event for event in driven.news(miner) if isinstance(event, EvidenceRequest)]
    told = {(e.epoch, e.item, e.version): e.rank for e in news}
    assert told == {name: debt.rank for name, debt in miner.owed.items()}
    assert_can_be_stored(driven, miner)


def assert_can_be_stored(driven: Driven, miner: Member) -> None:
    """In the order of ranks, and of deadlines within one, all that a miner owes is stored in time."""
    ended = driven.now
    for debt in sorted(miner.owed.values(), key=lambda debt: (debt.rank, debt.deadline)):
        ended += debt.seconds
        assert ended <= debt.deadline + 1e-6, "it cannot be stored in time"


def _ask_for_all(driven: Driven, validator: Member, miner: Member, *, backwards: bool) -> None:
    driven.say(validator, reports=[Reveal(epoch=0, link="2" * 64)])
    every, most = driven.coordinator.spec.audit.commit_every, max_wanted(driven.state, EvidenceItem.SNAPSHOT)
    wanted = [(EvidenceItem.SNAPSHOT, every * number) for number in range(most)]
    wanted += [(EvidenceItem.FRAMES, step) for step in range(STEPS)]
    for item, version in reversed(wanted) if backwards else wanted:
        _want(driven, validator, miner, item, version)


def test_what_validators_ask_for_together_is_no_flood_of_requests() -> None:
    """Each that comes before others moved their deadlines, and all of them were asked for again."""
    driven, miner, _ = sealed_run(steps=STEPS, line=_line())
    driven.news(miner)
    for number, backwards in enumerate((False, True)):
        _ask_for_all(driven, driven.join(10 + number, Role.VALIDATOR), miner, backwards=backwards)
    asked = sum(len(askers) for askers in driven.state.epochs[0].wanted[miner.hotkey].values())
    requests = [event for event in driven.news(miner) if isinstance(event, EvidenceRequest)]
    assert len(requests) <= asked
    assert_can_be_stored(driven, miner)


def test_who_asks_for_the_same_just_before_its_deadline_gives_the_miner_no_more_time() -> None:
    driven, miner, validator = sealed_run(steps=STEPS)
    friend = driven.join(10, Role.VALIDATOR)
    driven.say(friend, reports=[Reveal(epoch=0, link="2" * 64)])
    for version in (0, STEPS):
        _want(driven, validator, miner, EvidenceItem.SNAPSHOT, version)
    name = (0, EvidenceItem.SNAPSHOT, STEPS)
    deadline = miner.owed[name].deadline
    driven.wait(deadline - driven.now - 0.5)
    _want(driven, friend, miner, EvidenceItem.SNAPSHOT, STEPS)
    assert name not in miner.owed or miner.owed[name].deadline <= deadline


@pytest.mark.xfail(strict=True, reason="who the validators of an epoch are is the orchestrator's word")
def test_made_up_validators_of_a_record_take_no_turns() -> None:
    """With them a hostile orchestrator spares its friends every segment but that of the run's last epoch."""
    world = World(small_run(schedule={"epochs": 9}, audit=AuditSpec(commit_every=1, window_steps=3)))
    world.train()
    made_up = (Hotkey.from_seed(bytes([n // 256, n % 256]) + bytes(30)).ss58 for n in range(400))
    sealed = resealed(world, validators=tuple(sorted([ME, *made_up])))
    hotkey = world.miners[0].hotkey
    drawn = [
        [t for t in drawn_tasks(sealed, Draws(f"{n:064x}", "cd" * 32, ME), hotkey) if t.kind == "segment"]
        for n in range(20)
    ]
    assert all(drawn)
