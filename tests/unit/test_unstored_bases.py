"""Bases that replicas agree on and do not store: the orchestrator does, and the run goes on and ends."""

from __future__ import annotations

from iota.protocol.events import BaseAssign, RunEnd
from iota.protocol.messages import BaseStored, Ready
from orchestrator.coordinator import Resumed
from orchestrator.coordinator.bases import MAX_KEEPERS
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec


def trained(epochs: int, replicas: int = 1) -> Driven:
    """Two stages before their first epoch, of one microbatch for each replica."""
    return Driven.training(
        small_spec(
            layout={"cuts": [1, 2], "replicas": replicas},
            schedule={"epochs": epochs, "steps": 1, "microbatches": 2 * replicas},
        )
    )


def run_epoch(driven: Driven, digest: str | None = None) -> None:
    """An epoch from its first op until all replicas claim the next base, which none of them stores."""
    number = driven.state.epoch
    for index in range(driven.state.spec.schedule.microbatches):
        driven.run_microbatch(0, index)
    driven.give_all()
    driven.draw_mergers()
    driven.merge_all()
    for member in driven.state.miners():
        driven.say(member, reports=[Ready(epoch=number + 1, digest=digest or f"{member.stage:064x}")])


def be_late(driven: Driven) -> None:
    """The keepers do not store the bases in time, and a block comes."""
    driven.wait(driven.state.deadlines.merge.seconds + 1, driven.state.head.block + 1)


def test_epochs_are_let_go_though_no_replica_stores_its_base() -> None:
    driven = trained(epochs=12)
    for number in range(8):
        run_epoch(driven)
        assert driven.state.epoch == number + 1
        be_late(driven)
        assert driven.make_bases() == 2
        driven.wait(driven.state.spec.audit.deadline_s + 1)
        assert len(driven.state.epochs) <= 2
    assert driven.state.audits.closed_epochs == list(range(8))


def test_a_run_ends_whose_last_base_no_replica_stores() -> None:
    driven = trained(epochs=1)
    run_epoch(driven)
    assert driven.state.phase is Phase.MERGING
    be_late(driven)
    assert "stores it" in str(driven.coordinator.status()["waiting"])
    assert driven.make_bases() == 2
    driven.wait(0.0, driven.state.head.block + 1)
    driven.wait(driven.state.spec.audit.deadline_s + 1)
    assert RunEnd() in driven.news(driven.state.miners()[0])


def test_other_replicas_are_asked_for_a_base_before_the_orchestrator_stores_it() -> None:
    driven = trained(epochs=2, replicas=MAX_KEEPERS + 1)
    run_epoch(driven)
    for _ in range(MAX_KEEPERS - 1):
        be_late(driven)
        assert not driven.coordinator.disputed_bases()
    be_late(driven)
    first, second = driven.coordinator.disputed_bases()
    assert first.store
    assert second.store
    keeper = driven.state.members[driven.state.bases.keepers[1, 0]]
    digest = driven.state.bases.digests[1, 0]
    driven.say(keeper, reports=[BaseStored(epoch=1, digest=digest, parts=())])
    assert driven.coordinator.disputed_bases() == [second]


def test_the_orchestrators_base_counts_in_place_of_a_false_one_that_nobody_stored() -> None:
    driven = trained(epochs=2)
    run_epoch(driven, "f" * 64)
    makers = driven.state.bases.makers[1, 0]
    be_late(driven)
    driven.make_bases("a" * 64)
    stored = driven.state.bases.stored[1, 0]
    assert (stored.digest, stored.makers) == ("a" * 64, ())
    assert {driven.state.members[h].owner for h in makers} <= driven.state.bases.false_owners


def test_keepers_are_asked_again_when_the_orchestrator_resumes() -> None:
    """It may have died with their reports, which it checks before it records them."""
    driven = trained(epochs=2, replicas=2)
    run_epoch(driven)
    keepers = [driven.state.members[driven.state.bases.keepers[1, stage]] for stage in range(2)]
    for keeper in keepers:
        driven.news(keeper)
    stored = driven.state.bases.digests[1, 0]
    driven.say(keepers[0], reports=[BaseStored(epoch=1, digest=stored, parts=())])
    driven.coordinator.apply(Resumed(at=driven.now))
    assert BaseAssign(epoch=1) not in driven.news(keepers[0])
    assert BaseAssign(epoch=1) in driven.news(keepers[1])
