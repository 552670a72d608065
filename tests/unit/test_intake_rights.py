"""URLs: each event brings those that its reader needs; each node writes its own keys only."""

from __future__ import annotations

import pytest

from iota.codec.shapes import payload_size
from iota.identity.keys import Hotkey
from iota.objects import BaseKey, FrameKey, part_count
from iota.protocol.events import (
    BaseAssign,
    Contribution,
    EvidenceReady,
    LoadBase,
    MergeAssign,
    MergeReady,
    Plan,
    Reroute,
)
from iota.protocol.frames import Direction, EvidenceItem, FrameName, StoredObject
from iota.protocol.messages import (
    Method,
    ObjectRequest,
    Ready,
    Role,
)
from iota.protocol.problems import Problem, ProblemType
from iota.wire.frame import encode_frame, make_header
from orchestrator.coordinator import BaseMade, Coordinator, Exchanged, Joined, Lost, Member
from orchestrator.coordinator.epoch_state import EpochState, PartMerge
from orchestrator.coordinator.member import Debt
from orchestrator.coordinator.merging import await_deltas, begin_merge
from orchestrator.coordinator.sealing import let_go
from orchestrator.intake.grants import accesses
from orchestrator.intake.rights import Access, access_for
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import BASE, join_request, make_spec
from tests.support.sealed_runs import sealed_run

SPEC = make_spec()
RUN = SPEC.id
FIRST, LAST, SPARE = (Hotkey.from_seed(c * 32) for c in (b"a", b"b", b"c"))
STORED = StoredObject(key=f"{RUN}/delta/0/0/x/part-000", digest=BASE, size=4096)


def coordinator() -> Coordinator:
    """Two miners in training; the first plan is out."""
    made = Coordinator(SPEC)
    for hotkey in (FIRST, LAST):
        made.apply(Joined(at=1.0, hotkey=hotkey.ss58, request=join_request()))
    for hotkey in (FIRST, LAST):
        made.apply(Exchanged(at=2.0, hotkey=hotkey.ss58, reports=(Ready(epoch=0, digest=BASE),)))
    make_bases(made)
    return made


def make_bases(made: Coordinator) -> None:
    """The orchestrator makes base 0."""
    for base in made.disputed_bases():
        made.apply(BaseMade(at=2.0, epoch=0, stage=base.stage, digest=BASE))


def member(made: Coordinator, stage: int) -> Member:
    return next(m for m in made.members.values() if m.stage == stage)


def plan_of(made: Coordinator, stage: int) -> Plan:
    events = made.events_after(member(made, stage).hotkey, 0)
    return next(e for _, e in events if isinstance(e, Plan))


@pytest.mark.parametrize(("stage", "direction"), [(0, Direction.FORWARD), (1, Direction.BACKWARD)])
def test_a_plan_brings_a_put_for_each_frame_of_its_exact_size(stage: int, direction: Direction) -> None:
    made = coordinator()
    sender, receiver = member(made, stage), member(made, 1 - stage)
    found = accesses(SPEC, sender, plan_of(made, stage))
    assert len(found) == SPEC.schedule.microbatches
    for index, access in enumerate(found):
        name = FrameName(epoch=0, step=0, microbatch=index, attempt=0, stage=stage, direction=direction)
        header = make_header(SPEC, name, "0" * 64, sender.hotkey, receiver.hotkey)
        frame = encode_frame(header, bytes(payload_size(SPEC)), lambda text: bytes(64))
        assert access == Access(Method.PUT, str(FrameKey(RUN, name)), len(frame))


def test_a_reroute_brings_urls_to_the_new_miner_alone_and_to_the_current_neighbour() -> None:
    made = coordinator()
    event = Reroute(
        epoch=0, step=0, microbatch=1, stage=0, attempt=3, miner=member(made, 0).hotkey,
        replaces=SPARE.ss58,
        before=None, after=member(made, 1).hotkey, send_forward=True,
    )  # fmt: skip
    [access] = accesses(SPEC, member(made, 0), event)
    assert access.key == f"{RUN}/frames/0/0/1.3/0.f"
    assert access.method is Method.PUT
    assert accesses(SPEC, member(made, 1), event) == []
    assert accesses(SPEC, member(made, 0), event.model_copy(update={"send_forward": False})) == []


def test_a_merge_brings_the_contributions_and_a_place_for_the_part() -> None:
    made = coordinator()
    merger = member(made, 1)
    event = MergeAssign(
        epoch=0,
        stage=0,
        part=0,
        contributions=(Contribution(hotkey=FIRST.ss58, tokens=8, joined=0, stored=STORED),),
    )
    assert accesses(SPEC, merger, event) == [
        Access(Method.GET, STORED.key),
        Access(Method.PUT, f"{RUN}/merged/0/0/part-000.{merger.hotkey}", 4096),
    ]


def test_stored_things_bring_gets_and_other_events_nothing() -> None:
    made = coordinator()
    get = [Access(Method.GET, STORED.key)]
    reader = member(made, 0)
    assert accesses(SPEC, reader, MergeReady(epoch=0, stage=0, parts=(STORED,))) == get
    assert accesses(SPEC, reader, LoadBase(epoch=1, digest=BASE, parts=(STORED,))) == get
    ready = EvidenceReady(epoch=0, miner=LAST.ss58, item=EvidenceItem.SNAPSHOT, version=1, stored=STORED)
    assert accesses(SPEC, reader, ready) == get
    assert accesses(SPEC, reader, BaseAssign(epoch=1)) == []


def ask(made: Coordinator, who: Member, method: Method, key: str, size: int = 0) -> Access | ProblemType:
    try:
        return access_for(made, who, ObjectRequest(method=method, key=key, size=size))
    except Problem as problem:
        return problem.type


BYSTANDER, VALIDATOR = (Hotkey.from_seed(c * 32) for c in (b"d", b"v"))


def crowd() -> tuple[Coordinator, dict[str, Member]]:
    """Two replicas a stage: who has microbatch 0 at stages 0 and 1, another of stage 1, and a validator."""
    spec = make_spec()
    made = Coordinator(spec.model_copy(update={"layout": spec.layout.model_copy(update={"replicas": 2})}))
    for hotkey in (FIRST, LAST, SPARE, BYSTANDER):
        made.apply(Joined(at=1.0, hotkey=hotkey.ss58, request=join_request()))
    made.apply(Joined(at=1.0, hotkey=VALIDATOR.ss58, request=join_request(Role.VALIDATOR)))
    for hotkey in (FIRST, LAST, SPARE, BYSTANDER):
        made.apply(Exchanged(at=2.0, hotkey=hotkey.ss58, reports=(Ready(epoch=0, digest=BASE),)))
    make_bases(made)
    route = [made.members[made.neighbour(0, 0, 0, stage) or ""] for stage in range(2)]
    other = next(m for m in made.members.values() if m.stage == 1 and m is not route[1])
    return made, {
        "sender": route[0],
        "receiver": route[1],
        "other": other,
        "validator": made.members[VALIDATOR.ss58],
    }


EVERYBODY = {"sender", "receiver", "other", "validator"}


@pytest.mark.parametrize(
    ("key", "readers"),
    [
        ("data/{manifest}/shard-00000.bin", EVERYBODY),
        ("{run}/plan/0/0-" + "a" * 64 + ".json", EVERYBODY),
        ("{run}/base/0/1/part-000.safetensors", EVERYBODY),
        ("{run}/delta/0/0/{sender}/part-000", EVERYBODY),
        ("{run}/merged/0/0/part-000.{sender}", EVERYBODY),
        ("{run}/merged/0/0/part-000-" + "a" * 64, EVERYBODY),
        ("{run}/frames/0/0/0.0/0.f", {"sender", "receiver", "validator"}),
        ("{run}/frames/0/0/0.0/1.b", {"sender", "receiver", "validator"}),
        ("{run}/frames/0/9/0.0/0.f", {"validator"}),
        ("{run}/frames/7/0/0.0/0.f", {"validator"}),
        ("{run}/audit/0/{sender}/snapshot/1", {"sender", "validator"}),
        ("{run}/start.json", set()),
        ("{run}/anything", set()),
        ("{run}", set()),
        ("other/frames/0", set()),
        ("x/{run}/delta", set()),
        ("data/" + "e" * 64 + "/shard-00000.bin", set()),
    ],
)
def test_each_row_of_who_may_read_what(key: str, readers: set[str]) -> None:
    made, members = crowd()
    spec = made.spec
    sender = members["sender"].hotkey
    text = key.format(run=spec.id, manifest=spec.data.manifest, sender=sender)
    for who, asker in members.items():
        given = ask(made, asker, Method.GET, text)
        assert given == (Access(Method.GET, text) if who in readers else ProblemType.FORBIDDEN), who


def test_an_epochs_frames_are_read_by_those_who_had_the_microbatch_until_its_audits_close() -> None:
    """A miner that comes back late repeats an epoch that is sealed and over."""
    driven, first, _ = sealed_run()
    last = driven.state.miners(1)[0]
    driven.state.epoch, driven.state.epochs[1] = 1, EpochState(1)
    let_go(driven.state, 0)
    name = FrameName(epoch=0, step=0, microbatch=0, attempt=0, stage=0, direction=Direction.FORWARD)
    for who in (first, last):
        assert driven.coordinator.concerns(who, name)
        assert not driven.coordinator.concerns(who, name.model_copy(update={"microbatch": 99}))
    del driven.state.epochs[0]
    assert not driven.coordinator.concerns(first, name)


def test_who_had_a_microbatch_before_a_reroute_may_still_read_its_frames() -> None:
    made, members = crowd()
    name = FrameName(epoch=0, step=0, microbatch=0, attempt=0, stage=0, direction=Direction.FORWARD)
    made.apply(Lost(at=3.0, hotkey=members["receiver"].hotkey))
    assert made.neighbour(0, 0, 0, 1) == members["other"].hotkey
    assert all(made.concerns(members[who], name) for who in ("sender", "receiver", "other"))


def merging() -> Coordinator:
    """The pair gives its pseudo-gradients; a validator wants a snapshot of stage 0."""
    made = coordinator()
    await_deltas(made.state)
    begin_merge(made.state)
    member(made, 0).owed[0, EvidenceItem.SNAPSHOT, 1] = Debt(1e9)
    return made


def test_a_pseudo_gradient_is_stored_while_its_epoch_merges_and_in_its_parts_alone() -> None:
    made = coordinator()
    who = member(made, 0)
    key = f"{RUN}/delta/0/0/{who.hotkey}/part-000"
    assert ask(made, who, Method.PUT, key, 4096) is ProblemType.FORBIDDEN
    await_deltas(made.state)
    begin_merge(made.state)
    over = f"part-{part_count(SPEC, 0):03d}"
    for strange in (f"0/0/{who.hotkey}/{over}", f"1/0/{who.hotkey}/part-000", f"00/0/{who.hotkey}/part-000"):
        assert ask(made, who, Method.PUT, f"{RUN}/delta/{strange}", 4096) is ProblemType.FORBIDDEN, strange
    made.state.epoch, made.state.merging, made.state.epochs[0].merged_block = 1, None, 0
    assert ask(made, who, Method.PUT, key, 4096) is ProblemType.LATE


def test_a_merged_part_is_stored_by_whom_it_was_given_to() -> None:
    made = merging()
    who = member(made, 0)
    key = f"{RUN}/merged/0/1/part-000.{who.hotkey}"
    assert ask(made, who, Method.PUT, key, 4096) is ProblemType.FORBIDDEN
    assign = MergeAssign(epoch=0, stage=1, part=0, contributions=())
    made.state.current.merges[1].parts.append(PartMerge(assign, "", mergers=[who.hotkey]))
    assert ask(made, who, Method.PUT, key, 4096) == Access(Method.PUT, key, 4096)
    other = member(made, 1)
    theirs = f"{RUN}/merged/0/1/part-000.{other.hotkey}"
    assert ask(made, other, Method.PUT, theirs, 4096) is ProblemType.FORBIDDEN


def test_a_snapshot_is_stored_where_one_is_wanted_and_lacking() -> None:
    made = merging()
    who = member(made, 0)
    key = f"{RUN}/audit/0/{who.hotkey}/snapshot/1"
    assert ask(made, who, Method.PUT, f"{RUN}/audit/0/{who.hotkey}/snapshot/2", 10) is ProblemType.LATE
    assert ask(made, who, Method.PUT, key, 10) == Access(Method.PUT, key, 10)
    frames = f"{RUN}/audit/0/{who.hotkey}/frames/1"
    assert ask(made, who, Method.PUT, frames, 10) is ProblemType.LATE
    who.owed[0, EvidenceItem.FRAMES, 1] = Debt(1e9)
    assert ask(made, who, Method.PUT, frames, 10) == Access(Method.PUT, frames, 10)
    del who.owed[0, EvidenceItem.SNAPSHOT, 1]  # it was delivered, or its deadline has passed
    assert ask(made, who, Method.PUT, key, 10) is ProblemType.LATE


@pytest.mark.parametrize("tail", ["../x", "a//b", "./a", "a/", ".hidden"])
def test_a_text_that_is_no_key_is_malformed(tail: str) -> None:
    made = coordinator()
    for method in Method:
        assert ask(made, member(made, 0), method, f"{RUN}/{tail}", 10) is ProblemType.MALFORMED_BODY


def test_a_member_writes_its_own_keys() -> None:
    made = merging()
    who = member(made, 0)
    for key in (f"{RUN}/delta/0/0/{who.hotkey}/part-000", f"{RUN}/audit/0/{who.hotkey}/snapshot/1"):
        assert ask(made, who, Method.PUT, key, 4096) == Access(Method.PUT, key, 4096)


def test_a_key_of_another_member_stage_kind_or_run_is_forbidden() -> None:
    made = coordinator()
    who, other = member(made, 0), member(made, 1)
    for key in (
        f"{RUN}/delta/0/1/{other.hotkey}/part-000",
        f"{RUN}/delta/0/1/{who.hotkey}/part-000",
        f"{RUN}/audit/0/{other.hotkey}/snapshot/1",
        f"{RUN}/merged/0/0/part-000.{other.hotkey}",
        f"{RUN}/receipts/0/{who.hotkey}/000",
        f"{'e' * 64}/delta/0/0/{who.hotkey}/part-000",
        f"{RUN}/delta/0/0/{who.hotkey}/part-000/more",
        f"data/{SPEC.data.manifest}/shard-00000.bin",
        f"{RUN}/base/1/0/part-000.{who.hotkey}.safetensors",
    ):
        assert ask(made, who, Method.PUT, key, 4096) is ProblemType.FORBIDDEN, key


def test_a_base_is_stored_only_by_whom_the_coordinator_chose() -> None:
    made = coordinator()
    who = member(made, 0)
    key = f"{RUN}/base/1/0/part-000.{who.hotkey}.safetensors"
    made.state.bases.asked[1, 0] = {who.hotkey}
    assert ask(made, who, Method.PUT, key, 100) == Access(Method.PUT, key, 100)
    theirs = (f"part-{part_count(SPEC, 0):03d}.{who.hotkey}.safetensors", "part-000.safetensors")
    for strange in ("manifest.json", *theirs):
        assert ask(made, who, Method.PUT, f"{RUN}/base/1/0/{strange}", 100) is ProblemType.FORBIDDEN


async def test_what_one_keeper_of_a_base_wrote_does_not_stand_in_the_next_ones_way() -> None:
    made, store = coordinator(), MemoryStore("http://store", bytes(32))
    for who in made.state.roster.stages[0][:2]:
        made.state.bases.asked[1, 0] = {who.hotkey}
        access = ask(made, who, Method.PUT, str(BaseKey(RUN, 1, 0, 0, who.hotkey)), 10)
        assert isinstance(access, Access)
        await store.put(access.key, b"some bytes")


def test_sizes_are_bounded() -> None:
    made = merging()
    who = member(made, 0)
    who.owed.update({(0, item, 1): Debt(1e9) for item in EvidenceItem})
    kinds = (f"delta/0/0/{who.hotkey}/part-000", *(f"audit/0/{who.hotkey}/{i}/1" for i in EvidenceItem))
    for kind in kinds:
        for size in (0, 1 << 40):
            assert ask(made, who, Method.PUT, f"{RUN}/{kind}", size) is ProblemType.TOO_LARGE


def test_a_frame_is_written_by_its_current_sender_at_its_exact_size() -> None:
    made = coordinator()
    who, other = member(made, 0), member(made, 1)
    planned = accesses(SPEC, who, plan_of(made, 0))[0]
    assert ask(made, who, Method.PUT, planned.key, planned.size) == planned
    assert ask(made, who, Method.PUT, planned.key, planned.size + 1) is ProblemType.FORBIDDEN
    assert ask(made, other, Method.PUT, planned.key, planned.size) is ProblemType.FORBIDDEN
    outwards = f"{RUN}/frames/0/0/0.0/0.b"
    assert ask(made, who, Method.PUT, outwards, planned.size) is ProblemType.FORBIDDEN
    over = f"{RUN}/frames/9/0/0.0/0.f"
    assert ask(made, who, Method.PUT, over, planned.size) is ProblemType.LATE
    for strange in ("frames/0/0/0.0/0.x", "frames/0/0/00.0/0.f", "frames/0/0/99999999999.0/0.f", "frames/0"):
        assert ask(made, who, Method.PUT, f"{RUN}/{strange}", planned.size) is ProblemType.FORBIDDEN


def test_a_validator_writes_nothing() -> None:
    made = coordinator()
    made.apply(Joined(at=3.0, hotkey=SPARE.ss58, request=join_request(Role.VALIDATOR)))
    who = made.members[SPARE.ss58]
    assert ask(made, who, Method.PUT, f"{RUN}/audit/0/{SPARE.ss58}/snapshot/1", 10) is ProblemType.FORBIDDEN
