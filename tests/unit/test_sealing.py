"""When an epoch is sealed, what its record holds, and that nothing changes it afterwards."""

from __future__ import annotations

import zlib

from blake3 import blake3

from iota.objects import plans_prefix
from iota.protocol.events import EpochClose
from iota.protocol.frames import StoredObject
from iota.protocol.merkle import merkle_root
from iota.protocol.messages import (
    BaseStored,
    Delta,
    Ready,
    Reveal,
    Role,
)
from iota.protocol.receipts import OpKind
from iota.protocol.records import EpochRecord
from iota.protocol.seals import member_parts
from orchestrator.coordinator import Resumed
from orchestrator.coordinator.state import Phase
from orchestrator.coordinator.status import SEAL_SAID_S, waiting_for
from tests.support.coordinator_indexes import check_indexes
from tests.support.coordinators import Driven
from tests.support.orchestrators import make_spec


def merged(epochs: int = 3) -> Driven:
    """A run whose epoch 0 is merged in block 5: all replicas hold the next base. It is not sealed."""
    driven = Driven.training(make_spec(epochs=epochs, steps=1, microbatches=2))
    driven.wait(1.0, block=5 - driven.state.spec.audit.seal_blocks)
    finish(driven)
    go_on(driven)
    return driven


def finish(driven: Driven, *, chain_away: bool = False) -> None:
    """The epoch in training is trained and its parts are merged."""
    number = driven.state.epoch
    for index in range(2):
        driven.run_microbatch(0, index)
    for member in driven.state.miners():
        parts = _parts(driven, member.stage, f"d/{member.hotkey}")
        driven.say(member, reports=[Delta(epoch=number, parts=parts)])
    if chain_away:
        driven.wait(driven.state.limits.max_s + 1)
    else:
        driven.draw_mergers()
    driven.merge_all()
    assert driven.state.current.unmerged == 0


def go_on(driven: Driven) -> None:
    """All replicas hold the next base, and store it."""
    number = driven.state.epoch + 1
    members = driven.state.miners()
    for member in members:
        driven.say(member, reports=[Ready(epoch=number, digest=f"{member.stage:064x}")])
    for member in members:
        base = BaseStored(
            epoch=number, digest=f"{member.stage:064x}", parts=_parts(driven, member.stage, "b")
        )
        driven.say(member, reports=[base])


def _parts(driven: Driven, stage: int, name: str) -> tuple[StoredObject, ...]:
    sizes = driven.state.part_bytes[stage]
    return tuple(StoredObject(key=f"{name}/{n}", digest="1" * 64, size=s) for n, s in enumerate(sizes))


def record_bytes(driven: Driven, number: int) -> bytes:
    published = driven.coordinator.published(number)
    assert published is not None
    return zlib.decompress(published.packed)


def seals(driven: Driven) -> list[EpochClose]:
    member = driven.state.miners()[0]
    return [e for _, e in driven.coordinator.events_after(member.hotkey, 0) if isinstance(e, EpochClose)]


def test_an_epoch_is_sealed_at_the_first_block_after_its_merges() -> None:
    driven = merged()
    driven.wait(100.0, block=5)
    assert driven.coordinator.published(0) is None
    driven.wait(1.0, block=9)
    [seal] = seals(driven)
    assert seal.block == 9 + driven.state.spec.audit.seal_blocks


def test_an_epoch_is_not_sealed_before_every_stage_holds_the_next_base() -> None:
    driven = Driven.training(make_spec(steps=1, microbatches=2))
    finish(driven)
    *members, last = driven.state.miners()
    for member in members:
        driven.say(member, reports=[Ready(epoch=1, digest=f"{member.stage:064x}")])
    driven.wait(1.0, block=50)
    driven.say(last, reports=[Ready(epoch=1, digest=f"{last.stage:064x}")])
    assert driven.coordinator.published(0) is None
    driven.wait(1.0, block=51)
    assert {(base.epoch, base.stage) for base in driven.record(0).bases} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_training_goes_on_while_the_chain_is_away_and_its_epochs_are_sealed_in_order() -> None:
    driven = merged()
    assert (driven.state.epoch, driven.state.phase) == (1, Phase.TRAINING)
    finish(driven, chain_away=True)
    go_on(driven)
    assert driven.coordinator.sealed_epochs == 0
    driven.wait(1.0, block=6)
    assert [seal.epoch for seal in seals(driven)] == [0, 1]
    assert driven.coordinator.sealed_epochs == 2


def test_the_status_names_the_block_that_a_seal_waits_for() -> None:
    driven = merged()
    assert waiting_for(driven.state) is None
    finish(driven, chain_away=True)
    assert driven.now > driven.state.epochs[0].merged_at + SEAL_SAID_S
    go_on(driven)
    said = waiting_for(driven.state)
    assert said is not None
    assert "epoch 0 cannot be sealed: the chain has shown no block after 5" in said
    driven.wait(0.0, block=6)
    assert waiting_for(driven.state) is None


def test_a_run_does_not_end_before_its_last_epoch_is_sealed() -> None:
    driven = merged(epochs=1)
    assert driven.state.phase is Phase.FINISHED
    assert "sealed with the next block" in (waiting_for(driven.state) or "")
    assert not driven.coordinator.ended
    driven.wait(1.0, block=6)
    assert driven.coordinator.ended


def test_the_seal_names_the_records_bytes_its_receipts_and_its_members_parts() -> None:
    driven = merged()
    driven.wait(1.0, block=6)
    [seal] = seals(driven)
    data = record_bytes(driven, 0)
    record = EpochRecord.model_validate_json(data)
    assert blake3(data).hexdigest() == seal.record
    assert (record.root, record.receipts) == (seal.root, seal.receipts)
    assert merkle_root([part.content_digest() for part in member_parts(record)]) == seal.members
    miners = [miner.receipts for miner in record.miners]
    assert merkle_root(miners) == record.root
    assert {(base.epoch, base.stage) for base in record.bases} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len(record.deltas) == 2
    assert len(record.merges) == 2


def test_the_record_names_the_validators_that_are_there_at_the_seal() -> None:
    driven = merged()
    here = [driven.join(number, Role.VALIDATOR).hotkey for number in (20, 12, 16)]
    driven.lose(driven.join(14, Role.VALIDATOR))
    driven.wait(1, block=6)
    driven.join(18, Role.VALIDATOR)
    assert driven.record(0).validators == tuple(sorted(here))


def test_a_seal_keeps_which_versions_each_miner_had_committed_to() -> None:
    driven = merged()
    driven.join(20, Role.VALIDATOR)
    driven.wait(1, block=6)
    epoch = driven.state.epochs[0]
    assert epoch.lives == {}, "let go"
    assert epoch.committed == {member.hotkey: (0, 1) for member in driven.state.miners()}


def test_receipts_between_the_merge_and_the_seal_are_sealed_and_later_ones_are_not() -> None:
    driven = merged()
    member = driven.state.miners()[0]
    before = member.receipts
    driven.say(member, receipts=[driven.receipt(member, OpKind.STEP, 0, 0).model_copy(update={"epoch": 0})])
    driven.wait(1.0, block=6)
    driven.say(member, receipts=[driven.receipt(member, OpKind.STEP, 0, 0).model_copy(update={"epoch": 0})])
    assert member.receipts == before + 2
    record = EpochRecord.model_validate_json(record_bytes(driven, 0))
    [mine] = [m for m in record.miners if m.hotkey == member.hotkey]
    assert mine.last_receipt == before + 1


def test_the_record_never_changes_after_the_seal_and_what_it_was_made_from_is_let_go() -> None:
    driven = merged()
    validator = driven.join(9, Role.VALIDATOR)
    driven.wait(1.0, block=6)
    data = record_bytes(driven, 0)
    driven.say(validator, reports=[Reveal(epoch=0, link="2" * 64)])
    assert driven.coordinator.links(0) == {validator.hotkey: "2" * 64}
    epoch = driven.state.epochs[0]
    assert not any([epoch.receipts, epoch.reroutes, epoch.counted, epoch.withdrawn])
    assert not any(step.order for step in epoch.steps)
    assert not any(merge.deltas or merge.parts for merge in epoch.merges)
    finish(driven)
    go_on(driven)
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(1.0, block=driven.state.head.block + 1)
    assert record_bytes(driven, 0) == data
    assert record_bytes(driven, 1) != data


def test_a_record_is_read_for_a_window_of_epochs_after_its_audits() -> None:
    spec = make_spec(epochs=9, steps=1, microbatches=2)
    spec = spec.model_copy(update={"audit": spec.audit.model_copy(update={"window": 2})})
    driven = Driven.training(spec)
    kept = []
    for _ in range(6):
        finish(driven)
        go_on(driven)
        driven.wait(1.0, block=driven.state.head.block + 1)
        kept.append([n for n in range(9) if driven.coordinator.published(n) is not None])
    assert kept[-1] == [3, 4, 5]
    assert all(len(numbers) <= 4 for numbers in kept)
    # Its plans go with it, since nothing of an epoch can be checked without them.
    gone = [prefix for prefix in driven.state.outbox.deletions if "/plan/" in prefix]
    assert gone == [plans_prefix(spec.id, number) for number in range(3)]
    assert set(gone) < set(driven.coordinator.closed_prefixes())
    assert driven.coordinator.plan_root(2, 0) is None
    assert driven.coordinator.plan_root(3, 0) is not None


def test_every_so_many_bases_stay_stored_when_their_audits_are_closed() -> None:
    spec = make_spec(epochs=9, steps=1, microbatches=2)
    spec = spec.model_copy(update={"schedule": spec.schedule.model_copy(update={"keep_every": 2})})
    driven = Driven.training(spec)
    for _ in range(6):
        finish(driven)
        go_on(driven)
        driven.wait(1.0, block=driven.state.head.block + 1)
        check_indexes(driven.state)
    assert driven.state.audits.closed_epochs == [0, 1, 2, 3, 4, 5]
    assert driven.coordinator.stored_epochs() == [2, 4, 6]
    assert driven.coordinator.stored_base(4, 0) is not None
    assert driven.coordinator.stored_base(3, 0) is None
    for prefixes in (driven.coordinator.closed_prefixes(), driven.state.outbox.deletions):
        bases = {prefix for prefix in prefixes if "/base/" in prefix}
        assert bases == {f"{spec.id}/base/{epoch}/" for epoch in (0, 1, 3, 5)}
