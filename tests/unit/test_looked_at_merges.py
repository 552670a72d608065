"""The store's part in a merge: what it lacks does not count, and while it is away nobody is late."""

from __future__ import annotations

import pytest
from blake3 import blake3

from iota.objects import DeltaKey, MergedKey
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.messages import Delta, Merged, Report
from iota.protocol.receipts import OpKind
from orchestrator.coordinator import Exchanged, Finding, StoreAway, StoreBack
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merger_draws import draw_block
from orchestrator.coordinator.patience import delta_limit_s
from orchestrator.coordinator.state import Phase
from orchestrator.http.copy_reader import CopyReader
from orchestrator.http.metrics import Metrics
from orchestrator.http.object_checks import ObjectChecks
from orchestrator.http.recorder import Recorder
from tests.support.coordinators import Driven
from tests.support.journals import MemoryJournal
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import SECRET, STORE
from tests.support.small_spec import small_spec


@pytest.fixture
def driven() -> Driven:
    """The steps of an epoch are closed, at three stages of two replicas."""
    schedule = {"epochs": 2, "steps": 1, "microbatches": 2}
    found = Driven.training(small_spec(layout={"cuts": [1, 1, 1], "replicas": 2}, schedule=schedule))
    for index in range(2):
        found.run_microbatch(0, index)
    assert found.state.phase is Phase.MERGING
    return found


class Door:
    """Exchanges with a run whose server looks at its store first."""

    def __init__(self, driven: Driven) -> None:
        self.driven, self.store, metrics = driven, MemoryStore(STORE, SECRET), Metrics()
        recorder = Recorder(MemoryJournal(), driven.coordinator, metrics)
        self._checks = ObjectChecks(driven.coordinator, self.store, recorder, metrics)
        self._reader = CopyReader(driven.coordinator, recorder, self.store, metrics)

    async def say(self, member: Member, report: Report, *, signed: bool = True) -> tuple[str, ...]:
        """Say one report, a merged part with its receipt; returns the keys of what is missing."""
        receipts = ()
        if isinstance(report, Merged) and signed:
            made = self.driven.receipt(member, OpKind.MERGE, 0, report.part)
            output = merge_output(report.stored.digest, report.left_out)
            receipts = (made.model_copy(update={"stage": report.stage, "output": output}),)
        said = Exchanged(at=self.driven.now, hotkey=member.hotkey, receipts=receipts, reports=(report,))
        left, missing = await self._checks.checked(said)
        if left is not None:
            self.driven.coordinator.apply(left)
        for copy in self.driven.coordinator.unread_copies():
            self.driven.coordinator.apply(await self._reader.read(copy))
        assert not self.driven.state.incidents.internal
        return missing

    def delta(self, member: Member, *, stored: bool = True) -> Delta:
        """A pseudo-gradient, of which the store has all, or all but the last part."""
        parts = []
        for number, size in enumerate(self.driven.state.part_bytes[member.stage]):
            key = str(DeltaKey(self.driven.state.spec.id, 0, member.stage, member.hotkey, number))
            self.store.objects[key] = bytes(size)
            parts.append(StoredObject(key=key, digest="1" * 64, size=size))
        if not stored:
            del self.store.objects[parts[-1].key]
        return Delta(epoch=0, parts=tuple(parts))

    def merged(self, member: Member, *, stored: bool = True, lie: bool = False) -> Merged:
        """Part 0 of stage 0 as this member merged it; `lie`: it stores other bytes."""
        key = str(MergedKey(self.driven.state.spec.id, 0, 0, 0, member.hotkey))
        true = bytes(self.driven.state.part_bytes[0][0])
        if stored:
            self.store.objects[key] = b"x" * len(true) if lie else true
        part = StoredObject(key=key, digest=blake3(true).hexdigest(), size=len(true))
        return Merged(epoch=0, stage=0, part=0, stored=part, left_out={})


async def test_a_pseudo_gradient_of_which_the_store_lacks_a_part_runs_into_the_deadline(
    driven: Driven,
) -> None:
    door = Door(driven)
    liar, *others = driven.state.miners()
    for member in others:
        assert await door.say(member, door.delta(member)) == ()
    false = door.delta(liar, stored=False)
    for _ in range(3):
        assert await door.say(liar, false) == (false.parts[-1].key,)
        driven.wait(1)
    merge = driven.state.current.merges[liar.stage]
    assert liar.hotkey not in merge.deltas
    driven.wait(driven.state.deadlines.merge.seconds)
    assert merge.fixed
    assert liar.hotkey in driven.state.incidents.named[-1]
    driven.draw_mergers()
    driven.merge_all()
    record = driven.seal()
    assert [(r.miner, r.why, r.parts) for r in record.left_out] == [(liar.hotkey, LeftOut.MISSING, ())]


async def test_a_pseudo_gradient_that_is_stored_again_in_time_is_merged(driven: Driven) -> None:
    door = Door(driven)
    for member in driven.state.miners():
        await door.say(member, door.delta(member, stored=False))
        assert await door.say(member, door.delta(member)) == ()
    driven.draw_mergers()
    assert all(len(m.parts[0].assign.contributions) == 2 for m in driven.state.current.merges)


async def test_a_copy_that_the_store_lacks_settles_nothing_and_counts_once_it_is_there(
    driven: Driven,
) -> None:
    door = Door(driven)
    for member in driven.state.miners():
        await door.say(member, door.delta(member))
    driven.draw_mergers()
    part = driven.state.current.merges[0].parts[0]
    one, two = (driven.state.members[hotkey] for hotkey in part.mergers)
    assert await door.say(one, door.merged(one)) == ()
    report = door.merged(two, stored=False)
    assert await door.say(two, report) == (report.stored.key,)
    assert part.agreed is None
    assert not driven.coordinator.disputed_parts()
    # Its receipt was taken the first time, so that the copy comes without one when it is stored again.
    assert await door.say(two, door.merged(two), signed=False) == ()
    assert part.agreed is not None


async def test_a_merger_that_never_stores_what_it_signed_is_replaced(driven: Driven) -> None:
    door = Door(driven)
    for member in driven.state.miners():
        await door.say(member, door.delta(member))
    driven.draw_mergers()
    part = driven.state.current.merges[0].parts[0]
    one, two = (driven.state.members[hotkey] for hotkey in part.mergers)
    await door.say(one, door.merged(one))
    await door.say(two, door.merged(two, stored=False))
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    third = driven.state.members[part.mergers[2]]
    await door.say(third, door.merged(third))
    assert part.agreed is not None


async def test_a_merger_that_stores_other_bytes_than_it_signed_is_charged_and_another_copy_is_used(
    driven: Driven,
) -> None:
    door = Door(driven)
    for member in driven.state.miners():
        await door.say(member, door.delta(member))
    driven.draw_mergers()
    part = driven.state.current.merges[0].parts[0]
    liar, honest = (driven.state.members[hotkey] for hotkey in part.mergers)
    await door.say(liar, door.merged(liar, lie=True))
    await door.say(honest, door.merged(honest))
    assert (liar.charged, part.agreed) == (True, None)
    third = driven.state.members[part.mergers[2]]
    await door.say(third, door.merged(third))
    assert part.agreed is not None
    assert part.agreed.stored.key == door.merged(honest).stored.key
    assert [m.charged for m in driven.state.miners()].count(True) == 1


def test_nobody_is_late_while_the_orchestrator_reads_a_copy(driven: Driven) -> None:
    driven.give_all()
    driven.draw_mergers()
    part = driven.state.current.merges[0].parts[0]
    for hotkey in list(part.mergers):
        driven.merge(driven.state.members[hotkey], 0, read=False)
    driven.wait(9 * driven.state.deadlines.merge.seconds)
    assert len(part.mergers) == 2
    (copy,) = driven.coordinator.unread_copies()
    driven.read(copy)
    assert part.agreed is not None
    assert not driven.coordinator.unread_copies()


def test_a_copy_that_is_gone_when_it_is_read_charges_nobody_and_may_be_stored_again(driven: Driven) -> None:
    driven.give_all()
    driven.draw_mergers()
    part = driven.state.current.merges[0].parts[0]
    one, two = (driven.state.members[hotkey] for hotkey in part.mergers)
    for member in (one, two):
        driven.merge(member, 0, read=False)
    (copy,) = driven.coordinator.unread_copies()
    driven.read(copy, Finding.ABSENT)
    assert not driven.coordinator.unread_copies()
    driven.merge(one, 0)
    assert part.agreed is not None
    assert not any(member.charged for member in driven.state.miners())


def test_no_pseudo_gradient_is_late_because_the_store_was_away(driven: Driven) -> None:
    driven.coordinator.apply(StoreAway(at=driven.now))
    for _ in range(5):
        driven.wait(100 * driven.state.deadlines.merge.seconds)
    driven.coordinator.apply(StoreBack(at=driven.now))
    limit = delta_limit_s(driven.state, 0)
    driven.wait(limit - 1)
    assert not any(merge.fixed for merge in driven.state.current.merges)
    driven.wait(2)
    assert all(merge.fixed for merge in driven.state.current.merges)


def test_no_merger_is_replaced_because_the_store_was_away(driven: Driven) -> None:
    for member in driven.state.miners():
        driven.say(member, reports=[Door(driven).delta(member)])
    driven.draw_mergers()
    limit, part = driven.state.deadlines.merge.seconds, driven.state.current.merges[0].parts[0]
    driven.coordinator.apply(StoreAway(at=driven.now))
    for _ in range(5):
        driven.wait(limit)
    driven.coordinator.apply(StoreBack(at=driven.now))
    driven.wait(limit - 1)
    assert len(part.mergers) == 2
    assert not driven.coordinator.disputed_parts()


def test_mergers_are_drawn_once_the_store_is_back(driven: Driven) -> None:
    for member in driven.state.miners():
        driven.say(member, reports=[Door(driven).delta(member)])
    driven.coordinator.apply(StoreAway(at=driven.now))
    driven.wait(1, draw_block(driven.state), "b" * 64)
    assert not driven.state.current.merges[0].parts
    driven.coordinator.apply(StoreBack(at=driven.now))
    assert driven.state.current.merges[0].parts[0].seed.startswith("b" * 64)
