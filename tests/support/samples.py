"""One value of every form that is stored, sent, signed or hashed, with fixed content: see `formats`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from blake3 import blake3

from iota.codec.wire_dtype import encode_wire
from iota.data.manifest import Manifest, Shard, SourceInfo, TokenDtype, TokenizerInfo
from iota.identity.certificates import certify, revoke
from iota.identity.contacts import sign_contact
from iota.identity.signatures import signing_bytes
from iota.objects import part_sizes
from iota.outer.nesterov import OuterState
from iota.protocol import bridge, contacts, echo, events, messages, records
from iota.protocol.fingerprints import Fingerprint
from iota.protocol.frames import Direction, EvidenceItem, FrameKept, FrameName, FrameNotice, StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.receipts import (
    GENESIS,
    RECEIPTS_DOMAIN,
    Beginning,
    Commitment,
    OpKind,
    Receipt,
    ReceiptBatch,
    SignedHeader,
    StepUpdate,
    counted_digest,
    signed_payload,
)
from iota.protocol.seals import SignedSeal
from iota.protocol.workers import RevokeReply
from iota.spec import WireDtype
from iota.wire.frame import Frame, decode_frame, encode_frame, make_header
from miner.receipt_file import LogHeader
from orchestrator.coordinator.entries import (
    BaseMade,
    Bridged,
    CopyRead,
    Entry,
    Exchanged,
    Finding,
    Joined,
    Left,
    LookedAt,
    Lost,
    Remerged,
    Resumed,
    Returned,
    Revoked,
    StoreAway,
    StoreBack,
    Tick,
)
from tests.support.plans import share_of, whole_plan
from tests.support.sample_specs import tiny_spec
from tests.support.stored_keys import StoredKey
from validator.audits.verdicts import VerdictSigner
from validator.bundles import form
from validator.core.effects import FileVerdict
from validator.core.results import Result
from validator.core.tasks import AuditTask

MINER = StoredKey.from_seed(b"m" * 32)
OTHER = StoredKey.from_seed(b"n" * 32)
VALIDATOR = StoredKey.from_seed(b"v" * 32)
SERVER = StoredKey.from_seed(b"o" * 32)
DIGEST = "ab" * 32
OBJECT = StoredObject(key="run/delta/0/1/miner/part-000", digest=DIGEST, size=4096)
TIME = 1753000000.125


MANIFEST = Manifest(
    source="stdlib π",
    sources=(
        SourceInfo(
            name="stdlib π",
            fingerprint="files-ab",
            weight=1.0,
            documents=12,
            tokens=2010,
            complete=True,
            skipped={"null": 2, "broken": 1},
        ),
    ),
    duplicates=3,
    tokenizer=TokenizerInfo(name="bytes", digest=DIGEST, vocab_size=257, eos_id=256),
    dtype=TokenDtype.UINT16,
    shards=tuple(
        Shard(name=f"shard-0000{n}", tokens=1000 + n, digest=DIGEST, index_digest="cd" * 32) for n in range(2)
    ),
)


# ---- frames and receipts -----------------------------------------------------------------------


def _frame_name(stage: int, direction: Direction) -> FrameName:
    return FrameName(epoch=1, step=0, microbatch=1, attempt=0, stage=stage, direction=direction)


def read_frame(data: bytes, wire: WireDtype) -> Frame:
    """The frame, its sender's signature checked."""
    return decode_frame(data, tiny_spec(wire))


def frame_bytes(frame: Frame) -> bytes:
    """The frame as its sender, the miner, makes it."""
    return encode_frame(frame.header, frame.payload, MINER.sign)


def _frame(wire: WireDtype) -> Frame:
    values = torch.tensor([[[1.0, -0.5], [0.0, 3.0], [1e-3, 127.25]]])
    payload = encode_wire(values, wire).numpy().tobytes()
    digest = blake3(payload).hexdigest()
    name = _frame_name(0, Direction.FORWARD)
    header = make_header(tiny_spec(wire), name, digest, MINER.ss58, OTHER.ss58)
    return read_frame(frame_bytes(Frame(header, b"", payload)), wire)


FRAMES = {wire.value: _frame(wire) for wire in WireDtype}


def _receipts() -> dict[str, Receipt]:
    """A chain of one receipt of each kind that a miner gives."""
    header = SignedHeader(header='{"payload":"ab"}', signature="ef" * 64)
    update = StepUpdate(gradient_norm=1e-5, counted=counted_digest([(1, 0)]), learning_rate=0.005)
    fingerprint = Fingerprint(forward="01" * 32, backward="23" * 32, step="45" * 32, wide="67" * 32)
    beginning = Beginning(rest="89" * 32, fingerprint=fingerprint)
    commitment = Commitment(weights=DIGEST, moments="cd" * 32, before="ef" * 32, beginning=beginning)
    kinds = {
        OpKind.FORWARD: {"inputs": (header,), "tokens": 3, "microbatch": 1},
        OpKind.LOSS: {"inputs": (header,), "tokens": 3, "microbatch": 1, "loss": 0.6931},
        OpKind.BACKWARD: {"inputs": (header, header), "microbatch": 1, "attempt": 1},
        OpKind.STEP: {"update": update, "output": update.counted},
        OpKind.COMMIT: {"commitment": commitment, "output": commitment.root, "step": 1, "version": 1},
        OpKind.EVAL: {"inputs": (header,), "tokens": 3, "microbatch": 2, "loss": 0.75},
    }
    found: dict[str, Receipt] = {}
    previous = GENESIS
    for seq, (kind, fields) in enumerate(kinds.items(), 1):
        document = {
            "seq": seq, "epoch": 1, "step": 0, "stage": 1, "kind": kind, "version": 0, "output": DIGEST,
            "started": TIME, "ended": TIME + seq, "device": "cpu-avx2", "previous": previous,
        }  # fmt: skip
        found[kind.value] = Receipt.model_validate(document | fields)
        previous = found[kind.value].content_digest()
    return found


RECEIPTS = _receipts()


def _signed_batch(receipts: Sequence[Receipt]) -> ReceiptBatch:
    payload = signed_payload(DIGEST, MINER.ss58, receipts[-1].content_digest())
    signature = MINER.sign(signing_bytes(RECEIPTS_DOMAIN, payload))
    return ReceiptBatch(receipts=tuple(receipts), signature=signature.hex())


BATCH = _signed_batch([RECEIPTS["forward"], RECEIPTS["loss"]])

RECEIPT_LOG = {
    "header": LogHeader(run=DIGEST, hotkey=MINER.ss58, count=7, head="cd" * 32),
    "receipt": RECEIPTS["step"],
}


# ---- events ------------------------------------------------------------------------------------

NOTICE = FrameNotice(name=_frame_name(0, Direction.FORWARD), digest=DIGEST, size=500)
KEPT = NOTICE.model_copy(update={"kept": FrameKept(receiver=OTHER.ss58, signature="5a" * 64)})
WHOLE_PLAN = whole_plan((MINER.ss58, OTHER.ss58), 2, epoch=1, learning_rate=1e-05)
PLAN = share_of(WHOLE_PLAN, OTHER.ss58)
REROUTE = events.Reroute(
    epoch=1, step=0, microbatch=1, stage=1, attempt=1, miner=OTHER.ss58, replaces=MINER.ss58,
    before=MINER.ss58, after=None, send_forward=False,
)  # fmt: skip
SEAL = events.EpochClose(
    epoch=1, root=DIGEST, receipts=4, block=7_000_000, members="cd" * 32, record="ef" * 32
)
MERGE = events.MergeAssign(
    epoch=1, stage=1, part=0,
    contributions=(events.Contribution(hotkey=MINER.ss58, tokens=6, joined=0, stored=OBJECT),),
)  # fmt: skip
MERGED = events.MergeReady(epoch=1, stage=1, parts=(OBJECT,))
VERDICT = VerdictSigner(DIGEST, VALIDATOR)(
    FileVerdict(
        epoch=1,
        miner=MINER.ss58,
        task=AuditTask(messages.AuditKind.OP, "op:2", 2),
        result=Result(
            messages.Outcome.FAIL,
            2,
            "cpu-avx2: equal",
            DIGEST,
            "cd" * 32,
            "the output has another digest",
        ),
    )
)
EVENTS: tuple[events.Event, ...] = (
    events.Admit(epoch=1, step=0, carries=True),
    events.LoadBase(epoch=1, digest=DIGEST, parts=(OBJECT,)),
    PLAN,
    REROUTE,
    events.FrameReady(notice=NOTICE, sender=MINER.ss58),
    events.StoreFrame(name=NOTICE.name),
    events.Drop(epoch=1, step=0, microbatch=1),
    events.StepClose(epoch=1, step=0, counted=((1, 0),), learning_rate=0.005),
    SEAL,
    MERGE,
    MERGED,
    events.BaseAssign(epoch=2),
    events.EvidenceRequest(epoch=1, item=EvidenceItem.SNAPSHOT, version=1, rank=2, deadline=TIME),
    events.EvidenceReady(epoch=1, miner=MINER.ss58, item=EvidenceItem.SNAPSHOT, version=1, stored=OBJECT),
    events.EvidenceMissed(
        epoch=1, miner=MINER.ss58, item=EvidenceItem.SNAPSHOT, version=1, deadline=TIME, live=True
    ),
    events.AuditsClosed(epoch=1),
    events.Accusation(validator=VALIDATOR.ss58, verdict=VERDICT),
    events.RunEnd(reason="all epochs are done"),
)


# ---- reports, messages, journal entries ----------------------------------------------------------

BUNDLE = form.Manifest(
    run=DIGEST,
    orchestrator=SERVER.ss58,
    validator=VALIDATOR.ss58,
    seal=SignedSeal(seal=SEAL, signature="5a" * 64),
    block_hash="ab" * 32,
    link="cd" * 32,
    task=form.Task(kind=messages.AuditKind.OP, name="op:2", seq=2, step=0),
    verdict=VERDICT,
    delivered=tuple(form.Delivered(item=item, version=1, stored=OBJECT) for item in EvidenceItem),
    members=(form.Member(name="spec.json", digest=DIGEST, size=6),),
)
REPORTS: tuple[messages.Report, ...] = (
    messages.Ready(epoch=1, digest=DIGEST),
    messages.Delta(epoch=1, parts=(OBJECT,)),
    messages.Merged(epoch=1, stage=1, part=0, stored=OBJECT, left_out={MINER.ss58: LeftOut.OUT_OF_BOUNDS}),
    messages.BaseStored(epoch=2, digest=DIGEST, parts=(OBJECT,)),
    messages.BadValue(epoch=1, step=0, microbatch=1, signature="5a" * 64),
    messages.FrameMissing(name=NOTICE.name, reason="404"),
    messages.EvidenceStored(epoch=1, item=EvidenceItem.SNAPSHOT, version=1, stored=OBJECT),
    messages.Reveal(epoch=1, link=DIGEST),
    messages.EvidenceWanted(epoch=1, miner=MINER.ss58, item=EvidenceItem.SNAPSHOT, version=1),
    VERDICT,
    messages.AuditsDone(epoch=1),
    messages.WeightsSet(block=7_000_100, weights={MINER.ss58: 0.75, OTHER.ss58: 0.25}, compute_share=0.1),
)
CERTIFICATE = certify(OTHER, MINER, DIGEST, 1_753_000_000_125)
REVOCATION = revoke(OTHER, MINER.ss58, DIGEST)
JOIN = messages.JoinRequest(
    role=messages.Role.MINER,
    versions=(messages.PROTOCOL_VERSION,),
    capabilities=messages.Capabilities(device="cpu-avx2", memory=1 << 40, flops=1.5e12),
    receipts=4,
    epoch=1,
    addresses=("quic://192.0.2.7:4433",),
    link=DIGEST,
    certificate=CERTIFICATE,
)
CONTACT = sign_contact(
    contacts.Contact(
        run=DIGEST, hotkey=MINER.ss58, version=1_753_000_000_000, expires=TIME + 300,
        direct=("192.0.2.7:9000", "[2001:db8::7]:9000"), certificate="cd" * 32,
        iroh=contacts.IrohContact(
            key="ef" * 32, relay="https://relay.example", addresses=("192.0.2.7:4433",)
        ),
    ),
    MINER,
)  # fmt: skip
BRIDGE_WRITE = bridge.WriteRequest(
    request="5a" * 16,
    ops=(
        bridge.Set(
            name="run/lr-factor",
            value=0.5,
            kind=bridge.ValueKind.FLOAT,
            rule=bridge.WriteRule.CAS,
            expected=3,
            ttl_s=60.0,
        ),
        bridge.Delete(name="a/b", expected=4),
        bridge.Check(name="a/c", expected=0),
        bridge.Lock(name="a/d", lease_s=10.0),
        bridge.Renew(name="a/e", lease=5, lease_s=10.0),
        bridge.Unlock(name="a/f", lease=6),
    ),
)
BRIDGE_VARIABLE = bridge.VariableView(
    name="a/d",
    kind=bridge.ValueKind.JSON,
    rule=bridge.WriteRule.LOCK,
    value={"x": [1, None]},
    version=7,
    owner=MINER.ss58,
    expires=TIME,
    lease=bridge.LeaseView(holder=MINER.ss58, number=8, until=TIME),
)
BRIDGE_CHANGES = (
    bridge.ChangeView(revision=8, kind=bridge.ChangeKind.SET, name="a/d", variable=BRIDGE_VARIABLE),
    bridge.ChangeView(revision=9, kind=bridge.ChangeKind.EXPIRED, name="a/e", variable=None),
)
MESSAGES = {
    "bridge write request": BRIDGE_WRITE,
    "bridge write reply": bridge.WriteReply(revision=9),
    "bridge get request": bridge.GetRequest(name="a/d"),
    "bridge get reply": bridge.GetReply(revision=9, variable=BRIDGE_VARIABLE),
    "bridge list request": bridge.ListRequest(prefix="a", after="a/c"),
    "bridge list reply": bridge.ListReply(revision=9, variables=(BRIDGE_VARIABLE,), more=False),
    "bridge watch request": bridge.WatchRequest(prefix="a", revision=7, wait_s=5.0),
    "bridge watch reply": bridge.WatchReply(revision=9, snapshot=False, more=False, changes=BRIDGE_CHANGES),
    "join request": JOIN,
    "join reply": messages.JoinReply(
        run=tiny_spec().id, spec=tiny_spec(), orchestrator=SERVER.ss58, version=1, stage=1,
        cursor=3, receipts=4, head=DIGEST, resume=True, manifest_url="/v1/manifest",
        open_epochs=(0, 1),
    ),
    "exchange request": messages.ExchangeRequest(
        cursor=3, wait_s=5.0, receipts=BATCH, frames=(NOTICE, KEPT), reports=REPORTS[:1],
        status=messages.NodeStatus(
            state="epoch 1", tokens_per_second=1234.5, seconds={"compute": 1.5}, memory=1 << 33
        ),
    ),
    "exchange reply": events.ExchangeReply(
        events=(events.Delivered(seq=4, event=EVENTS[4], urls={"run/frames/1": "http://store/é"}),),
        receipts=4,
        acknowledged=events.Acknowledgement(receipts=4, head=DIGEST, sealed=1, signature="5a" * 64),
        missing=(OBJECT.key,),
    ),
    "delivered plan": events.Delivered(seq=5, event=PLAN, signature="5a" * 64),
    "whole plan": WHOLE_PLAN,
    "leave request": messages.LeaveRequest(reason="stopped"),
    "revocation": REVOCATION,
    "revoke reply": RevokeReply(joined=True),
    "object request": messages.ObjectRequest(method=messages.Method.PUT, key=OBJECT.key, size=4096),
    "object completion": messages.ObjectRequest(
        method=messages.Method.PUT, key=OBJECT.key, size=1 << 37, upload="a.b_c-d"
    ),
    "object parts": messages.ObjectReply(
        url="",
        expires=TIME,
        parts=messages.ObjectParts(upload="a.b_c-d", part_bytes=1 << 29, urls=("http://store/x?1",)),
    ),
    "object reply": messages.ObjectReply(url="http://store/x", expires=TIME),
    "contacts request": contacts.ContactsRequest(contact=CONTACT, wanted=(OTHER.ss58,)),
    "contacts reply": contacts.ContactsReply(contacts=(CONTACT,)),
    "echo request": echo.EchoRequest(answer=3, filler="00"),
    "echo reply": echo.EchoReply(address="192.0.2.7", filler="000"),
    "epoch record": records.EpochRecord(
        epoch=1,
        root=DIGEST,
        receipts=4,
        miners=(
            records.MinerRecord(
                hotkey=MINER.ss58, owner=OTHER.ss58, certificate=CERTIFICATE, stage=1, moments=DIGEST,
                lives=(records.LifeRecord(joined=0, first_receipt=1),),
                first_receipt=1, last_receipt=4, receipts=DIGEST, withdrawn=1, unproven=1,
            ),
        ),
        plans=(records.PlanRecord(step=0, root=PLAN.proof.root),),
        reroutes=(REROUTE,),
        counted=(records.CountedList(step=0, miner=MINER.ss58, counted=((1, 0),)),),
        heldout=(records.HeldoutRecord(microbatch=2, attempts=(1, 0)),),
        bases=(records.BaseRecord(
                epoch=1, stage=1, digest=DIGEST, parts=(OBJECT,), makers=(MINER.ss58,)
            ),),
        deltas=(records.DeltaRecord(miner=MINER.ss58, stage=1, tokens=6, parts=(OBJECT,)),),
        merge_assigns=(MERGE,),
        merges=(MERGED,),
        left_out=(
            records.LeftOutRecord(miner=MINER.ss58, stage=1, why=LeftOut.OUT_OF_BOUNDS, parts=(0,)),
        ),
        words=(
            records.Word(
                hotkey=MINER.ss58, stage=1, epoch=1, step=0, microbatch=1, attempt=0, inputs=(NOTICE,),
                signature="5a" * 64,
            ),
        ),
    ),
}  # fmt: skip
ENTRIES: tuple[Entry, ...] = (
    Joined(at=TIME, hotkey=MINER.ss58, request=JOIN),
    Exchanged(
        at=TIME,
        hotkey=MINER.ss58,
        receipts=BATCH.receipts,
        frames=(NOTICE, KEPT),
        reports=REPORTS,
        looked=(LookedAt(name=NOTICE.name, found=Finding.SOUND),),
    ),
    Left(at=TIME, hotkey=MINER.ss58),
    Lost(at=TIME, hotkey=MINER.ss58),
    Returned(at=TIME, hotkey=MINER.ss58),
    Tick(at=TIME, block=7_000_000, block_hash=DIGEST),
    Resumed(at=TIME),
    CopyRead(at=TIME, epoch=1, stage=1, part=0, merger=MINER.ss58, found=Finding.OTHER),
    Remerged(at=TIME, epoch=1, stage=1, part=0, stored=OBJECT, left_out={MINER.ss58: LeftOut.NOT_FINITE}),
    BaseMade(at=TIME, epoch=1, stage=1, digest=DIGEST),
    StoreAway(at=TIME),
    StoreBack(at=TIME),
    Revoked(at=TIME, revocation=REVOCATION),
    Bridged(at=TIME, hotkey=MINER.ss58, operator=False, write=BRIDGE_WRITE),
)


def sample_base() -> OuterState:
    """A base of stage 0 of the tiny run, in two partitions."""
    size = sum(part_sizes(tiny_spec(), 0))
    weights = np.arange(size, dtype=np.float32) / 8
    return OuterState(weights, -weights)
