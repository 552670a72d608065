"""The intake without HTTP: the entry or the problem that each request gives, and no other change."""

from __future__ import annotations

import copy
from typing import Any
from unittest.mock import Mock

import pytest

from iota.codec.shapes import payload_size
from iota.objects import DeltaKey, EvidenceKey, MergedKey, max_bytes, part_count
from iota.protocol.frames import Direction, EvidenceItem, FrameName, FrameNotice, StoredObject
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    AuditsDone,
    Capabilities,
    Delta,
    EvidenceStored,
    EvidenceWanted,
    ExchangeRequest,
    JoinRequest,
    Merged,
    Method,
    ObjectRequest,
    Ready,
    Role,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import GENESIS, OpKind, Receipt, ReceiptBatch
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator import Exchanged, Joined, Left, Member, Returned
from orchestrator.coordinator.state import Phase
from orchestrator.intake import Intake
from tests.support.coordinators import Driven
from tests.support.orchestrators import make_spec
from tests.support.receipts import content, frame_name, named_input

SPEC = make_spec()
GOOD, FORGED = "0" * 128, "f" * 128
STRANGER = fake_hotkey(50)


class Desk:
    """An intake before a run of two miners in training, and a validator."""

    def __init__(self) -> None:
        self.driven = Driven.training(SPEC)
        self.validator = self.driven.join(9, Role.VALIDATOR)
        self.intake = Intake(self.driven.coordinator, verify=self._verify)
        self.first, self.last = (self.driven.state.miners(stage)[0] for stage in range(2))

    @staticmethod
    def _verify(message: bytes, signature: bytes, hotkey: str) -> bool:
        return signature == bytes.fromhex(GOOD) and hotkey.encode() in message

    def exchange(self, member: Member, **news: Any) -> Exchanged | None:
        """The decision on an exchange, which must not change the run."""
        before = copy.deepcopy(self.driven.state)
        try:
            return self.intake.exchange(member.hotkey, ExchangeRequest(cursor=0, **news), at=self.driven.now)
        finally:
            assert self.driven.state == before

    def take(self, member: Member, **news: Any) -> Exchanged | None:
        """Decide, journal and apply."""
        said = self.exchange(member, **news)
        if said is not None:
            self.driven.coordinator.apply(said)
        return said

    def refusal(self, member: Member, **news: Any) -> Problem:
        with pytest.raises(Problem) as caught:
            self.exchange(member, **news)
        return caught.value


@pytest.fixture
def desk() -> Desk:
    return Desk()


def chain(member: Member, count: int, **fields: Any) -> list[Receipt]:
    """Receipts of a miner's first ops."""
    made: list[Receipt] = []
    kind = fields.get("kind", OpKind.FORWARD)
    for seq in range(1, count + 1):
        given = {
            "seq": seq, "epoch": 0, "step": 0, "microbatch": seq - 1, "stage": member.stage, "kind": kind,
            "version": 0, **content(kind, SPEC.data.tokens), "started": 1000.0, "ended": 1001.0,
            "device": "test", "previous": made[-1].content_digest() if made else GENESIS,
        } | fields  # fmt: skip
        made.append(Receipt.model_validate(given))
    return made


def batch(*receipts: Receipt, signature: str = GOOD) -> ReceiptBatch:
    return ReceiptBatch(receipts=receipts, signature=signature)


def notice(stage: int, direction: Direction, size: int, microbatch: int = 0) -> FrameNotice:
    name = FrameName(epoch=0, step=0, microbatch=microbatch, attempt=0, stage=stage, direction=direction)
    return FrameNotice(name=name, digest="c" * 64, size=size)


def stored(key: object, size: int = 16) -> StoredObject:
    return StoredObject(key=str(key), digest="d" * 64, size=size)


def join_request(role: Role = Role.MINER, versions: tuple[int, ...] = (PROTOCOL_VERSION,)) -> JoinRequest:
    return JoinRequest(
        role=role, versions=versions, capabilities=Capabilities(device="cpu", memory=1, flops=1.0)
    )


# ---- joining and leaving ---------------------------------------------------------------------------


def test_a_join_is_an_entry_with_the_time_that_was_given(desk: Desk) -> None:
    request = join_request()
    assert desk.intake.join(STRANGER, request, 7.5) == Joined(at=7.5, hotkey=STRANGER, request=request)


@pytest.mark.parametrize(
    ("versions", "who"), [((0,), "upgrade the node"), ((PROTOCOL_VERSION + 1,), "upgrade the orchestrator")]
)
def test_a_join_without_a_common_version_is_told_who_must_upgrade(
    desk: Desk, versions: tuple[int, ...], who: str
) -> None:
    with pytest.raises(Problem, match=who) as caught:
        desk.intake.join(STRANGER, join_request(versions=versions), 1.0)
    assert caught.value.type is ProblemType.VERSION_MISMATCH
    assert caught.value.extra == {
        "orchestrator_versions": [PROTOCOL_VERSION],
        "node_versions": list(versions),
    }


def test_a_member_keeps_its_role(desk: Desk) -> None:
    with pytest.raises(Problem) as caught:
        desk.intake.join(desk.first.hotkey, join_request(Role.VALIDATOR), 1.0)
    assert caught.value.type is ProblemType.FORBIDDEN


def test_a_run_that_has_ended_takes_no_new_miner_but_its_own_and_validators(desk: Desk) -> None:
    desk.driven.state.phase = Phase.FINISHED
    with pytest.raises(Problem) as caught:
        desk.intake.join(STRANGER, join_request(), 1.0)
    assert caught.value.type is ProblemType.RUN_ENDED
    assert desk.intake.join(desk.first.hotkey, join_request(), 1.0)
    assert desk.intake.join(STRANGER, join_request(Role.VALIDATOR), 1.0)


def test_a_member_is_back_when_it_was_lost_and_only_then(desk: Desk) -> None:
    hotkey = desk.first.hotkey
    assert desk.intake.returned(hotkey, 1.0) is None
    desk.driven.lose(desk.first)
    assert desk.intake.returned(hotkey, 2.0) == Returned(at=2.0, hotkey=hotkey)
    desk.driven.coordinator.apply(Left(at=3.0, hotkey=hotkey))
    assert desk.intake.returned(hotkey, 4.0) is None


def test_a_member_leaves_once(desk: Desk) -> None:
    entry = desk.intake.leave(desk.first.hotkey, 1.0)
    assert entry == Left(at=1.0, hotkey=desk.first.hotkey)
    desk.driven.coordinator.apply(entry)
    assert desk.intake.leave(desk.first.hotkey, 2.0) is None


def test_a_stranger_is_told_to_join_first(desk: Desk) -> None:
    for ask in (
        lambda: desk.intake.member(STRANGER),
        lambda: desk.intake.returned(STRANGER, 1.0),
        lambda: desk.intake.exchange(STRANGER, ExchangeRequest(cursor=0), 1.0),
        lambda: desk.intake.leave(STRANGER, 1.0),
        lambda: desk.intake.access(STRANGER, ObjectRequest(method=Method.GET, key=f"{SPEC.id}/x")),
    ):
        with pytest.raises(Problem) as caught:
            ask()
        assert caught.value.type is ProblemType.NOT_JOINED


# ---- receipts ------------------------------------------------------------------------------------


def test_receipts_that_are_new_are_taken_and_the_rest_of_a_batch_is_not(desk: Desk) -> None:
    receipts = chain(desk.first, 4)
    said = desk.take(desk.first, receipts=batch(*receipts[:2]))
    assert said == Exchanged(at=desk.driven.now, hotkey=desk.first.hotkey, receipts=tuple(receipts[:2]))
    assert desk.take(desk.first, receipts=batch(*receipts[:2])) is None
    overlapping = desk.take(desk.first, receipts=batch(*receipts[1:]))
    assert overlapping is not None
    assert overlapping.receipts == tuple(receipts[2:])
    assert desk.first.receipts == 4


def test_receipts_after_a_gap_or_stored_already_cost_no_digest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = chain(desk.first, 3)
    desk.take(desk.first, receipts=batch(receipts[0]))
    monkeypatch.setattr(Receipt, "content_digest", Mock(side_effect=AssertionError))
    for given in (receipts[:1], receipts[2:]):
        assert desk.exchange(desk.first, receipts=batch(*given)) is None


def test_an_exchange_without_news_gives_no_entry(desk: Desk) -> None:
    assert desk.exchange(desk.first) is None
    assert desk.exchange(desk.first, receipts=batch(signature=FORGED)) is None


def test_a_batch_is_signed_by_its_member(desk: Desk) -> None:
    forged = batch(*chain(desk.first, 1), signature=FORGED)
    assert desk.refusal(desk.first, receipts=forged).type is ProblemType.BAD_SIGNATURE


def test_a_fork_of_the_stored_chain_is_refused_and_told_where_the_chain_stands(desk: Desk) -> None:
    kept = chain(desk.first, 1)
    desk.take(desk.first, receipts=batch(*kept))
    problem = desk.refusal(desk.first, receipts=batch(*chain(desk.first, 2, output="b" * 64)))
    assert problem.type is ProblemType.BAD_RECEIPTS
    assert problem.extra == {"receipts": 1, "head": kept[0].content_digest()}


def test_receipts_of_a_batch_follow_each_other(desk: Desk) -> None:
    first, second, third = chain(desk.first, 3)
    for torn in ((first, third), (first, second.model_copy(update={"previous": "e" * 64}))):
        assert desk.refusal(desk.first, receipts=batch(*torn)).type is ProblemType.BAD_RECEIPTS


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": OpKind.MERGE}, "merge"),
        ({"stage": 1}, "of stage 1, yours is 0"),
        ({"epoch": 1}, "has not begun"),
        ({"started": 0.0}, "clock"),
        ({"started": 2000.0}, "clock"),
        ({"loss": 1.0}, "only a LOSS"),
        ({"kind": OpKind.LOSS}, "which stage 0 does not have"),
    ],
)
def test_a_receipt_that_no_op_of_the_member_gives_is_refused(
    desk: Desk, fields: dict[str, Any], words: str
) -> None:
    problem = desk.refusal(desk.first, receipts=batch(*chain(desk.first, 1, **fields)))
    assert problem.type is ProblemType.BAD_RECEIPTS
    assert words in problem.detail


@pytest.mark.parametrize("loss", [-0.1, 1000.1, 1e30])
def test_a_loss_has_bounds(desk: Desk, loss: float) -> None:
    name = frame_name(0, Direction.FORWARD)
    inputs = (named_input(SPEC, name, desk.first.hotkey, desk.last.hotkey),)
    for given, refused in ((loss, True), (1000.0, False)):
        news = batch(*chain(desk.last, 1, kind=OpKind.LOSS, loss=given, inputs=inputs))
        if refused:
            assert "nats a token" in desk.refusal(desk.last, receipts=news).detail
        else:
            assert desk.exchange(desk.last, receipts=news)


def test_a_validator_has_no_receipts(desk: Desk) -> None:
    news = batch(*chain(desk.first, 1))
    assert "only miners run ops" in desk.refusal(desk.validator, receipts=news).detail


# ---- frames and reports --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [payload_size(SPEC), payload_size(SPEC) + 4097])
def test_a_frames_size_is_that_of_the_run(desk: Desk, size: int) -> None:
    problem = desk.refusal(desk.first, frames=(notice(0, Direction.FORWARD, size),))
    assert problem.type is ProblemType.FORBIDDEN


def test_a_frame_is_announced_by_a_replica_of_its_stage_and_stays_in_the_model(desk: Desk) -> None:
    size = payload_size(SPEC) + 700
    assert desk.exchange(desk.first, frames=(notice(0, Direction.FORWARD, size),))
    for member, stage, direction in (
        (desk.first, 1, Direction.BACKWARD),
        (desk.first, 0, Direction.BACKWARD),
        (desk.last, 1, Direction.FORWARD),
        (desk.validator, 0, Direction.FORWARD),
    ):
        problem = desk.refusal(member, frames=(notice(stage, direction, size),))
        assert problem.type is ProblemType.FORBIDDEN


def test_each_role_has_its_own_reports(desk: Desk) -> None:
    done, ready = AuditsDone(epoch=0), Ready(epoch=0, digest="b" * 64)
    desk.exchange(desk.validator, reports=(done,))
    desk.exchange(desk.first, reports=(ready,))
    assert desk.refusal(desk.first, reports=(done,)).type is ProblemType.FORBIDDEN
    assert desk.refusal(desk.validator, reports=(ready,)).type is ProblemType.FORBIDDEN


def test_a_validator_speaks_of_versions_that_there_are(desk: Desk) -> None:
    miner = desk.first.hotkey
    desk.exchange(
        desk.validator, reports=(EvidenceWanted(epoch=0, miner=miner, item=EvidenceItem.SNAPSHOT, version=2),)
    )
    for report in (
        EvidenceWanted(epoch=1, miner=miner, item=EvidenceItem.SNAPSHOT, version=0),
        EvidenceWanted(epoch=0, miner=miner, item=EvidenceItem.SNAPSHOT, version=3),
    ):
        assert desk.refusal(desk.validator, reports=(report,)).type is ProblemType.FORBIDDEN


def test_a_report_names_each_of_its_objects_within_its_size(desk: Desk) -> None:
    keys = [DeltaKey(SPEC.id, 0, 0, desk.first.hotkey, n) for n in range(part_count(SPEC, 0))]
    limit = max_bytes(SPEC, keys[0], 0)
    whole = tuple(stored(key, limit) for key in keys)
    desk.exchange(desk.first, reports=(Delta(epoch=0, parts=whole),))
    theirs = tuple(stored(DeltaKey(SPEC.id, 0, 1, desk.last.hotkey, key.part)) for key in keys)
    large = (stored(keys[0], limit + 1), *whole[1:])
    for wrong in (whole[:-1], whole[::-1], (), theirs, large):
        assert desk.refusal(desk.first, reports=(Delta(epoch=0, parts=wrong),)).type is ProblemType.FORBIDDEN


def test_a_merged_part_and_a_snapshot_bear_their_makers_name(desk: Desk) -> None:
    me, other = desk.first.hotkey, desk.last.hotkey
    for hotkey, refused in ((me, False), (other, True)):
        merged = Merged(epoch=0, stage=1, part=0, stored=stored(MergedKey(SPEC.id, 0, 1, 0, hotkey)))
        snapshot = EvidenceStored(
            epoch=0,
            item=EvidenceItem.SNAPSHOT,
            version=1,
            stored=stored(EvidenceKey(SPEC.id, 0, hotkey, EvidenceItem.SNAPSHOT, 1)),
        )
        for report in (merged, snapshot):
            if refused:
                assert desk.refusal(desk.first, reports=(report,)).type is ProblemType.FORBIDDEN
            else:
                desk.exchange(desk.first, reports=(report,))


def test_a_part_that_a_stage_does_not_have_is_nobodys(desk: Desk) -> None:
    for stage, part in ((1, part_count(SPEC, 1)), (2, 0)):
        key = MergedKey(SPEC.id, 0, stage, part, desk.first.hotkey)
        report = Merged(epoch=0, stage=stage, part=part, stored=stored(key))
        assert desk.refusal(desk.first, reports=(report,)).type is ProblemType.FORBIDDEN
