"""The server looks at the store before it records what a member announces, and at frames that are denied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from iota.codec.shapes import payload_size
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.objects import BaseKey, DeltaKey, EvidenceKey, FrameKey, MergedKey
from iota.protocol.events import FrameReady, Plan
from iota.protocol.frames import EvidenceItem, FrameNotice, StoredObject
from iota.protocol.messages import (
    BadValue,
    BaseStored,
    Delta,
    EvidenceStored,
    ExchangeRequest,
    FrameMissing,
    Merged,
    Report,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind
from iota.protocol.words import WORD_DOMAIN, signed_word
from iota.store import StoreError
from iota.wire.frame import encode_frame, make_header
from orchestrator.coordinator import Exchanged, Finding
from orchestrator.http.metrics import Metrics
from orchestrator.http.object_checks import ObjectChecks
from orchestrator.http.recorder import Recorder
from orchestrator.journal import SqliteJournal
from tests.support.memory_store import MemoryStore
from tests.support.orchestrators import (
    ORCHESTRATOR,
    SECRET,
    STORE,
    Node,
    Running,
    make_spec,
    node,
    orchestrator,
    until,
)
from tests.support.sealed_runs import sealed_run

KEYS = {b: Hotkey.from_seed(b * 32) for b in (b"a", b"b")}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal") as running:
        yield running


async def _pair(running: Running, a: Node, b: Node) -> tuple[Node, Node]:
    """Sender and receiver of the first stage's frames, in training."""
    for each in (a, b):
        each.hold_base()
    await until(lambda: all(each.events(Plan) for each in (a, b)))
    return (a, b) if a.reply.stage == 0 else (b, a)


def _memory(running: Running) -> MemoryStore:
    assert isinstance(running.store, MemoryStore)
    return running.store


def _recorded(running: Running) -> list[Exchanged]:
    return [entry for entry in running.journal.replay() if isinstance(entry, Exchanged)]


async def test_a_frame_that_is_announced_and_not_stored_is_not_recorded_and_its_sender_is_told(
    running: Running,
) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        notice = sender.notice(receiver, 0)
        key = str(FrameKey(running.spec.id, notice.name))
        kept = _memory(running).objects.pop(key)
        before = len(_recorded(running))
        for content in (None, kept[:-1]):  # not there, and of another size
            if content is not None:
                _memory(running).objects[key] = content
            reply = await sender.client.exchange(ExchangeRequest(cursor=0, wait_s=5, frames=(notice,)))
            assert reply.missing == (key,)
        assert len(_recorded(running)) == before
        assert not receiver.events(FrameReady)
        _memory(running).objects[key] = kept
        reply = await sender.client.exchange(ExchangeRequest(cursor=0, wait_s=0, frames=(notice,)))
        assert reply.missing == ()
        await until(lambda: bool(receiver.events(FrameReady)))


async def test_receipts_count_when_the_frame_beside_them_is_missing(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        notice = sender.notice(receiver, 0)
        _memory(running).objects.clear()
        sender.log.add(OpKind.FORWARD)
        request = ExchangeRequest(cursor=0, wait_s=0, frames=(notice,), receipts=sender.log.after(0))
        reply = await sender.client.exchange(request)
        assert (reply.receipts, len(reply.missing)) == (1, 1)


async def test_a_node_is_told_by_its_conversation_what_to_store_again(running: Running) -> None:
    told: list[tuple[str, ...]] = []
    async with node(running, b"a", on_missing=told.append) as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        if sender is a:
            notice = sender.notice(receiver, 0)
            _memory(running).objects.clear()
            sender.talk.send(frames=[notice])
            await until(lambda: bool(told))
            assert told == [(str(FrameKey(running.spec.id, notice.name)),)]


async def test_what_was_there_is_not_looked_at_again(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        notices = [sender.notice(receiver, index) for index in range(3)]
        for _ in range(3):
            request = ExchangeRequest(cursor=0, wait_s=0, frames=tuple(notices))
            assert (await sender.client.exchange(request)).missing == ()
        keys = {str(FrameKey(running.spec.id, notice.name)) for notice in notices}
        assert sorted(key for key in _memory(running).looks if key in keys) == sorted(keys)


async def test_an_outage_of_the_store_ends_nothing_and_accuses_nobody(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        notice, before = sender.notice(receiver, 0), len(_recorded(running))
        _memory(running).away = True
        request = ExchangeRequest(cursor=0, wait_s=0, frames=(notice,))
        for _ in range(2):
            with pytest.raises(Problem) as caught:
                await sender.client.exchange(request, retry_for_s=0)
            assert caught.value.type is ProblemType.UNAVAILABLE
            assert caught.value.retry_after
        assert len(_recorded(running)) == before
        assert "object store" in str((await sender.client.status())["waiting"])
        assert not running.background.done()
        _memory(running).away = False
        sender.talk.send(frames=[notice])
        await until(lambda: bool(receiver.events(FrameReady)))
        status = await sender.client.status()
        assert status["waiting"] is None
        assert not any(hotkey in line for hotkey in running.coordinator.members for line in status["named"])


async def test_an_outage_is_noticed_though_nobody_announces_anything(running: Running) -> None:
    """Members wait for the store beside the orchestrator: their uploads, and the data that they read."""
    state = running.coordinator.state
    _memory(running).away = True
    await until(lambda: state.store_away_since is not None)
    _memory(running).away = False
    await until(lambda: state.store_away_since is None)
    assert list(state.incidents.named) == ["the object store does not answer the orchestrator"]


async def test_an_object_that_the_store_cannot_give_is_missing_and_no_outage(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        notice = sender.notice(receiver, 0)

        async def size(key: str) -> int | None:
            raise StoreError("HEAD: it sent a compressed body, which was not asked for")

        monkeypatch.setattr(running.store, "size", size)
        reply = await sender.client.exchange(ExchangeRequest(cursor=0, wait_s=0, frames=(notice,)))
        assert reply.missing == (str(FrameKey(running.spec.id, notice.name)),)
        assert running.coordinator.state.store_away_since is None


async def test_an_exchange_without_objects_is_taken_while_the_store_is_away(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, _ = await _pair(running, a, b)
        _memory(running).away = True
        sender.log.add(OpKind.FORWARD)
        request = ExchangeRequest(cursor=0, wait_s=0, receipts=sender.log.after(0))
        assert (await sender.client.exchange(request)).receipts == 1


# ---- every kind of object ------------------------------------------------------------------------


def _kinds(run: str, me: str) -> dict[str, Report]:
    def stored(key: object) -> StoredObject:
        return StoredObject(key=str(key), digest="1" * 64, size=3)

    return {
        "delta": Delta(epoch=0, parts=tuple(stored(DeltaKey(run, 0, 0, me, n)) for n in range(3))),
        "merged": Merged(epoch=0, stage=0, part=0, stored=stored(MergedKey(run, 0, 0, 0, me))),
        "base": BaseStored(
            epoch=1, digest="1" * 64, parts=tuple(stored(BaseKey(run, 1, 0, n, me)) for n in range(3))
        ),
        "snapshot": EvidenceStored(
            epoch=0,
            item=EvidenceItem.SNAPSHOT,
            version=1,
            stored=stored(EvidenceKey(run, 0, me, EvidenceItem.SNAPSHOT, 1)),
        ),
    }


@pytest.mark.parametrize("kind", ["delta", "merged", "base", "snapshot"])
async def test_each_kind_of_object_must_be_there_in_all_its_parts(kind: str, tmp_path: Path) -> None:
    driven, miner, _ = sealed_run()
    spec, store = driven.coordinator.spec, MemoryStore(STORE, SECRET)
    journal = SqliteJournal(tmp_path / "journal", spec, ORCHESTRATOR.ss58)
    metrics = Metrics()
    checks = ObjectChecks(driven.coordinator, store, Recorder(journal, driven.coordinator, metrics), metrics)
    report = _kinds(spec.id, miner.hotkey)[kind]
    said = Exchanged(at=driven.now, hotkey=miner.hotkey, reports=(report,))
    keys = [s.key for s in (report.parts if isinstance(report, Delta | BaseStored) else (report.stored,))]  # type: ignore[union-attr]
    for key in keys[:-1]:
        store.objects[key] = b"abc"
    assert await checks.checked(said) == (None, (keys[-1],))
    store.objects[keys[-1]] = b"abcd"
    assert await checks.checked(said) == (None, (keys[-1],))
    store.objects[keys[-1]] = b"abc"
    assert await checks.checked(said) == (said, ())
    journal.close()


# ---- frames that somebody denies -----------------------------------------------------------------


async def _looked(running: Running, sender: Node, receiver: Node, stored: str) -> Finding:
    """What the server found of a frame that the receiver denies."""
    spec, name = running.spec, sender.notice(receiver, 0).name
    large = np.float32(1e16).tobytes()
    values = {"nan": b"\xff\xff\xff\xff", "large": large, "not receipted": large}.get(stored, bytes(4))
    payload = values * (payload_size(spec) // 4)
    who = receiver if stored == "another's" else sender
    header = make_header(spec, name, blake3(payload).hexdigest(), who.hotkey.ss58, receiver.hotkey.ss58)
    data = encode_frame(header, payload, who.hotkey.sign)
    if stored == "garbage":
        data = bytes(len(data))
    notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
    if stored != "not receipted":
        sender.log.add(OpKind.FORWARD, output=header.payload)
    else:  # its true result, beside another payload
        sender.log.add(OpKind.FORWARD)
    key = str(FrameKey(spec.id, name))
    _memory(running).objects[key] = data
    said = ExchangeRequest(cursor=0, wait_s=0, frames=(notice,), receipts=sender.log.after(0))
    await sender.client.exchange(said)
    if stored == "lost":
        del _memory(running).objects[key]
    if stored == "replaced":
        _memory(running).objects[key] = bytes(len(data))
    if stored in ("nan", "large", "not receipted"):
        word = signed_word(spec.id, 0, 0, 0)
        signature = receiver.hotkey.sign(signing_bytes(WORD_DOMAIN, word)).hex()
        report: Report = BadValue(epoch=0, step=0, microbatch=0, signature=signature)
    else:
        report = FrameMissing(name=name, reason="it is not there")
    await receiver.client.exchange(ExchangeRequest(cursor=0, wait_s=0, reports=(report,)))
    [looked] = _recorded(running)[-1].looked
    assert looked.name == name
    return looked.found


@pytest.mark.parametrize(
    ("stored", "finding"),
    [
        ("sound", Finding.SOUND),
        ("lost", Finding.ABSENT),
        ("replaced", Finding.OTHER),
        ("garbage", Finding.INVALID),
        ("another's", Finding.INVALID),
        ("nan", Finding.NOT_FINITE),
        ("large", Finding.LARGE),
        ("not receipted", Finding.INVALID),
    ],
)
async def test_a_denied_frame_is_read_and_what_it_is_goes_into_the_journal(
    running: Running, stored: str, finding: Finding
) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        assert await _looked(running, sender, receiver, stored) is finding
        epoch = running.coordinator.state.current
        liar = {Finding.SOUND: receiver, Finding.ABSENT: None, Finding.LARGE: None}.get(finding, sender)
        charged = {hotkey for hotkey, count in epoch.withdrawn.items() if count}
        assert charged == (set() if liar is None else {liar.hotkey.ss58})


async def test_a_word_on_nan_that_its_speaker_has_not_signed_is_refused(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        sender, receiver = await _pair(running, a, b)
        word = signed_word(running.spec.id, 0, 0, 0)
        forged = sender.hotkey.sign(signing_bytes(WORD_DOMAIN, word)).hex()
        for signature in ("", forged):
            report = BadValue(epoch=0, step=0, microbatch=0, signature=signature)
            with pytest.raises(Problem) as caught:
                await receiver.client.exchange(ExchangeRequest(cursor=0, wait_s=0, reports=(report,)))
            assert caught.value.type is ProblemType.BAD_SIGNATURE
        assert running.coordinator.state.totals.dropped == 0


def test_the_default_spec_of_these_tests_sends_numbers_of_four_bytes() -> None:
    assert payload_size(make_spec()) % 4 == 0
