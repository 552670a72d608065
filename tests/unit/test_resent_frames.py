"""Frames that a replica has made go to who needs them now: a new neighbour, or the store."""

from __future__ import annotations

from iota.protocol.events import StoreFrame
from iota.protocol.frames import FrameKept
from miner.core.core import ReplicaCore
from miner.core.effects import (
    ResendFrame,
    Say,
    SendAgain,
    SendFrame,
)
from miner.core.facts import (
    FrameStored,
    OpDone,
)
from tests.support.pushed import (
    activations,
    moved,
    op_of,
    planned,
    push,
)
from tests.support.replica_cores import (
    LAST,
    OTHER,
    close,
    ended,
    hear,
    made,
)


def _forwarded(core: ReplicaCore) -> SendFrame:
    op = op_of(push(core, activations()))
    [sent] = [e for e in ended(core, OpDone(op, made(core))) if isinstance(e, SendFrame)]
    return sent


def _kept(sent: SendFrame) -> FrameStored:
    kept = FrameKept(receiver=LAST, signature="ab" * 64)
    return FrameStored(sent.frame.notice.model_copy(update={"kept": kept}))


def test_a_frame_that_was_pushed_is_said_with_its_receivers_word() -> None:
    core = planned()
    fact = _kept(_forwarded(core))
    assert core.take(fact) == [Say(frames=(fact.notice,), receipts=True)]


def test_a_new_neighbour_is_sent_what_lay_at_the_old_one() -> None:
    core = planned()
    sent = _forwarded(core)
    core.take(_kept(sent))
    name = sent.frame.notice.name
    assert hear(core, moved(2, OTHER, 1)) == [ResendFrame(name, OTHER)]
    assert core.wants(ResendFrame(name, OTHER))
    assert not core.wants(sent), "its receiver has the microbatch no more"
    hear(core, close(0))
    assert not core.wants(ResendFrame(name, OTHER))


def test_a_new_neighbour_is_to_hear_of_what_is_in_the_store() -> None:
    core = planned()
    notice = _forwarded(core).frame.notice
    core.take(FrameStored(notice))
    assert hear(core, moved(2, OTHER, 1)) == [Say(frames=(notice,))]


def test_a_frame_goes_to_who_has_the_microbatch_when_it_is_made() -> None:
    core = planned()
    op = op_of(push(core, activations()))
    hear(core, moved(2, OTHER, 1))
    assert SendFrame(made(core), OTHER) in ended(core, OpDone(op, made(core)))


def test_a_frame_that_its_receiver_denies_is_stored() -> None:
    core = planned()
    name = _forwarded(core).frame.notice.name
    assert hear(core, StoreFrame(name=name)) == [SendAgain(name)]
    assert core.wants(SendAgain(name))
    hear(core, close(0))
    assert hear(core, StoreFrame(name=name)) == []
