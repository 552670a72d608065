"""Re-routes: who hears of one, what the replicas make of it, and which frames they may write then."""

from __future__ import annotations

import pytest

from iota.objects import FrameKey
from iota.protocol.events import Admit, Drop, Event, Plan, Reroute
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import Method, ObjectRequest
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline
from iota.wire.transport import OutgoingFrame
from miner.core.core import ReplicaCore
from miner.core.effects import Effect, RunOp, SendFrame
from miner.core.facts import BaseHeld, FrameArrived, Heard, StateLoaded
from orchestrator.coordinator.member import Member
from orchestrator.intake import accesses
from orchestrator.intake.rights import access_for
from tests.support.coordinators import Driven
from tests.support.frames import frame_name, outgoing
from tests.support.plans import share_of, whole_plan
from tests.support.virtual_runs import tiny_spec

SPEC = tiny_spec(stages=3, replicas=2, epochs=2, steps=2, microbatches=4, pipeline=Pipeline.SYNC, credit=4)


@pytest.fixture
def driven() -> Driven:
    made = Driven.training(SPEC)
    for member in made.state.miners():
        made.news(member)
    return made


def holder(driven: Driven, index: int, stage: int) -> Member:
    return driven.state.members[driven.state.current.steps[0].microbatches[index].places[stage].miner]


def heard(driven: Driven, index: int, stage: int) -> dict[str, Reroute]:
    """The newest re-route of a microbatch of step 0 at a stage, by who hears of it since the last call."""
    return {
        member.hotkey: event
        for member in driven.state.miners()
        for event in driven.news(member)
        if isinstance(event, Reroute) and (event.step, event.microbatch, event.stage) == (0, index, stage)
    }


def test_a_reroute_goes_to_both_replicas_and_to_those_beside_them_alone(driven: Driven) -> None:
    before, old, after = (holder(driven, 0, stage) for stage in range(3))
    driven.lose(old)
    new = holder(driven, 0, 1)
    told = heard(driven, 0, 1)
    assert new is not old
    assert set(told) == {before.hotkey, old.hotkey, new.hotkey, after.hotkey}
    [event] = {event.model_dump_json(): event for event in told.values()}.values()
    assert (event.miner, event.replaces) == (new.hotkey, old.hotkey)
    assert (event.before, event.after) == (before.hotkey, after.hotkey)


def test_at_the_ends_of_the_model_there_is_nobody_beside(driven: Driven) -> None:
    for stage, (before, after) in {0: (False, True), 2: (True, False)}.items():
        driven.lose(holder(driven, 0, stage))
        [event, *_] = heard(driven, 0, stage).values()
        assert (event.before is not None, event.after is not None) == (before, after)


def test_the_second_reroute_on_a_route_goes_to_the_present_neighbour_and_names_it(driven: Driven) -> None:
    first = holder(driven, 0, 0)
    driven.lose(first)
    heard(driven, 0, 0)
    driven.lose(holder(driven, 0, 1))
    present, told = holder(driven, 0, 0), heard(driven, 0, 1)
    assert present is not first
    assert present.hotkey in told
    assert first.hotkey not in told
    assert told[present.hotkey].before == present.hotkey


def test_the_new_replica_may_write_its_frames_and_the_relieved_one_none(driven: Driven) -> None:
    old = holder(driven, 0, 1)
    driven.lose(old)
    new, told = holder(driven, 0, 1), heard(driven, 0, 1)
    granted = accesses(SPEC, new, told[new.hotkey])
    attempt = told[new.hotkey].attempt
    names = [
        FrameName(epoch=0, step=0, microbatch=0, attempt=attempt, stage=1, direction=direction)
        for direction in Direction
    ]
    assert [access.key for access in granted] == [str(FrameKey(SPEC.id, name)) for name in names]
    assert all(accesses(SPEC, driven.state.members[h], e) == [] for h, e in told.items() if h != new.hotkey)
    for access in granted:
        request = ObjectRequest(method=Method.PUT, key=access.key, size=access.size)
        assert access_for(driven.coordinator, new, request) == access
        with pytest.raises(Problem) as refused:
            access_for(driven.coordinator, old, request)
        assert refused.value.type is ProblemType.FORBIDDEN


# ---- at the miner --------------------------------------------------------------------------------

FIRST, ME, LAST, OTHER, NEXT = (fake_hotkey(n) for n in range(5))
PLANNED = whole_plan((FIRST, ME, LAST), 4)


def training(event: Event | None = None) -> ReplicaCore:
    """A replica of stage 1 that is admitted to epoch 0, and has heard `event`."""
    core = ReplicaCore(SPEC, 1, ME, reads_tokens=False)
    core.take(BaseHeld(0, "ba" * 32))
    core.take(Heard(Admit(epoch=0, step=0, carries=True)))
    core.take(StateLoaded(0, 0))
    if event is not None:
        core.take(Heard(event))
    return core


def reroute(stage: int, miner: str, replaces: str, attempt: int, **beside: str | None) -> Reroute:
    return Reroute(
        epoch=0, step=0, microbatch=0, stage=stage, attempt=attempt, miner=miner, replaces=replaces,
        **{"before": FIRST, "after": LAST, **beside}, send_forward=True,
    )  # fmt: skip


def begun(effects: list[Effect]) -> list[tuple[OpKind, int, str | None]]:
    """The ops that begin, with the replica that their frame goes to."""
    return [(e.op.kind, e.op.attempt, e.receiver) for e in effects if isinstance(e, RunOp)]


def wants(core: ReplicaCore, attempt: int = 0, to: str = LAST) -> bool:
    """Whether a forward's frame of this replica for microbatch 0 is still to be sent to `to`."""
    frame = outgoing(0)
    name = frame_name(0, 0, stage=1, attempt=attempt)
    notice = frame.notice.model_copy(update={"name": name})
    return core.wants(SendFrame(OutgoingFrame(notice, b""), to))


def arrives(core: ReplicaCore) -> list[tuple[OpKind, int, str | None]]:
    return begun(core.take(FrameArrived(frame_name(0, 0))))


def test_a_frame_goes_to_the_neighbour_of_now() -> None:
    core = training(share_of(PLANNED, ME))
    core.take(Heard(reroute(2, OTHER, LAST, 1, before=ME, after=None)))
    assert arrives(core) == [(OpKind.FORWARD, 0, OTHER)]


def test_a_replica_that_takes_over_without_a_share_knows_both_neighbours() -> None:
    core = training(reroute(1, ME, OTHER, 2))
    assert arrives(core) == [(OpKind.FORWARD, 2, LAST)]
    core = training(reroute(1, ME, OTHER, 2))
    core.take(Heard(reroute(2, NEXT, LAST, 3, before=ME, after=None)))
    core.take(Heard(reroute(0, OTHER, FIRST, 4, before=None, after=ME)))
    assert arrives(core) == [(OpKind.FORWARD, 2, NEXT)]


@pytest.mark.parametrize(
    "later",
    [(), (reroute(2, NEXT, LAST, 2, before=OTHER, after=None),), (reroute(1, NEXT, OTHER, 2),)],
    ids=["nothing", "neighbour", "third"],
)
def test_a_relieved_replica_runs_and_sends_nothing_of_it_whatever_it_hears_later(
    later: tuple[Event, ...],
) -> None:
    core = training(share_of(PLANNED, ME))
    assert wants(core)
    for event in (reroute(1, OTHER, ME, 1), *later):
        core.take(Heard(event))
    assert not wants(core)
    assert not wants(core, attempt=1)
    assert arrives(core) == []


def test_a_microbatch_that_comes_back_has_the_neighbours_of_then() -> None:
    core = training(share_of(PLANNED, ME))
    core.take(Heard(reroute(1, OTHER, ME, 1)))
    core.take(Heard(reroute(1, ME, OTHER, 3, before=OTHER, after=NEXT)))
    assert arrives(core) == [(OpKind.FORWARD, 3, NEXT)]
    assert wants(core, attempt=3, to=NEXT)
    assert not wants(core, attempt=3)
    assert not wants(core, to=NEXT)


def test_a_dropped_microbatch_is_sent_to_nobody() -> None:
    core = training(share_of(PLANNED, ME))
    core.take(Heard(Drop(epoch=0, step=0, microbatch=0)))
    core.take(Heard(reroute(2, NEXT, LAST, 1, before=ME, after=None)))
    assert not wants(core)
    assert arrives(core) == []


def test_a_share_of_another_epoch_gives_no_work() -> None:
    for epoch in (0, 1):
        share = share_of(whole_plan((FIRST, ME, LAST), 4, epoch=epoch), ME)
        assert isinstance(share, Plan)
        assert (arrives(training(share)) != []) == (epoch == 0)
