"""Notices of pushed frames before a real server: signatures are checked, and the store is not asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.objects import FrameKey
from iota.protocol.events import FrameReady, Plan, StoreFrame
from iota.protocol.frames import KEPT_DOMAIN, FrameKept, FrameNotice, kept_statement
from iota.protocol.messages import ExchangeRequest, FrameMissing, Method
from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Exchanged
from orchestrator.intake import Access, accesses
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import Node, Running, node, orchestrator, until

STRANGER = Hotkey.from_seed(b"s" * 32)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal") as running:
        yield running


@pytest.fixture
async def pair(running: Running) -> AsyncIterator[tuple[Node, Node]]:
    """Sender and receiver of the first stage's frames, in training; no frame is in the store."""
    async with node(running, b"a") as a, node(running, b"b") as b:
        for each in (a, b):
            each.hold_base()
        await until(lambda: all(each.events(Plan) for each in (a, b)))
        yield (a, b) if a.reply.stage == 0 else (b, a)


def kept(
    running: Running,
    pair: tuple[Node, Node],
    index: int = 0,
    *,
    signer: Hotkey | None = None,
    signed: FrameNotice | None = None,
    run: str | None = None,
) -> FrameNotice:
    """The notice of a pushed frame, with a signature of its receiver over it, or over what is given."""
    sender, receiver = pair
    notice = sender.notice(receiver, index)
    assert isinstance(running.store, MemoryStore)
    running.store.objects.clear()
    said = signed or notice
    message = signing_bytes(KEPT_DOMAIN, kept_statement(run or running.spec.id, said.name, said.digest))
    signature = (signer or receiver.hotkey).sign(message).hex()
    return notice.model_copy(update={"kept": FrameKept(receiver=receiver.hotkey.ss58, signature=signature)})


async def say(one: Node, *frames: FrameNotice, reports: tuple[FrameMissing, ...] = ()) -> None:
    reply = await one.client.exchange(ExchangeRequest(cursor=0, wait_s=0, frames=frames, reports=reports))
    assert reply.missing == ()


async def refused(one: Node, notice: FrameNotice) -> Problem:
    with pytest.raises(Problem) as caught:
        await one.client.exchange(ExchangeRequest(cursor=0, wait_s=0, frames=(notice,)))
    return caught.value


def forward(running: Running, index: int = 0) -> object:
    return running.coordinator.state.current.steps[0].microbatches[index].places[0].forward


async def test_a_kept_frame_is_recorded_without_a_look_at_the_store_and_without_an_event(
    running: Running, pair: tuple[Node, Node]
) -> None:
    notice = kept(running, pair)
    assert isinstance(running.store, MemoryStore)
    running.store.away = True
    await say(pair[0], notice)
    assert forward(running) == (0, notice.digest, notice.size, pair[1].hotkey.ss58)
    assert str(FrameKey(running.spec.id, notice.name)) not in running.store.looks
    recorded = [entry for entry in running.journal.replay() if isinstance(entry, Exchanged) and entry.frames]
    await say(pair[0], notice)
    assert recorded == [e for e in running.journal.replay() if isinstance(e, Exchanged) and e.frames]
    assert not pair[1].events(FrameReady)


@pytest.mark.parametrize("lie", ["nobody", "the sender", "another frame", "another digest", "another run"])
async def test_what_the_receiver_has_not_signed_of_this_frame_is_refused(
    running: Running, pair: tuple[Node, Node], lie: str
) -> None:
    of_another = kept(running, pair, 1)
    other_digest = of_another.model_copy(update={"name": kept(running, pair).name, "digest": "d" * 64})
    notice = {
        "nobody": kept(running, pair, signer=STRANGER),
        "the sender": kept(running, pair, signer=pair[0].hotkey),
        "another frame": kept(running, pair, signed=of_another),
        "another digest": kept(running, pair, signed=other_digest),
        "another run": kept(running, pair, run="e" * 64),
    }[lie]
    problem = await refused(pair[0], notice)
    assert problem.type is ProblemType.BAD_SIGNATURE
    assert str(notice.name) in problem.detail
    assert forward(running) is None


async def test_who_signs_and_denies_makes_its_neighbour_store_the_frame_and_no_more(
    running: Running, pair: tuple[Node, Node]
) -> None:
    sender, receiver = pair
    notice = kept(running, pair)
    await say(sender, notice)
    await say(receiver, reports=(FrameMissing(name=notice.name, reason="gone"),))
    await until(lambda: bool(sender.events(StoreFrame)))
    member = running.coordinator.members[sender.hotkey.ss58]
    key = str(FrameKey(running.spec.id, notice.name))
    assert accesses(running.spec, member, StoreFrame(name=notice.name)) == [
        Access(Method.PUT, key, notice.size)
    ]
    assert member.withdrawn == 0
    stored = sender.notice(receiver, 0)
    await say(sender, stored)
    await until(lambda: bool(receiver.events(FrameReady)))
    assert forward(running) == (0, stored.digest, stored.size, None)


async def test_the_url_of_a_frame_to_store_comes_with_the_event(
    running: Running, pair: tuple[Node, Node]
) -> None:
    sender, receiver = pair
    notice = kept(running, pair)
    await say(sender, notice)
    await say(receiver, reports=(FrameMissing(name=notice.name, reason="gone"),))
    reply = await sender.client.exchange(ExchangeRequest(cursor=0, wait_s=0))
    [delivered] = [each for each in reply.events if isinstance(each.event, StoreFrame)]
    assert list(delivered.urls) == [str(FrameKey(running.spec.id, notice.name))]
