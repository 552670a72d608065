"""The parsers of what strangers make, each as a target for a fuzzer: bytes in, nothing out.

A target takes any bytes. It lets the errors pass by which its parser refuses an input; every other exception
is a fault. Where a digest or a signature would stop each changed input at the door, the target makes it anew,
as a hostile sender would.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from pydantic import BaseModel, JsonValue, ValidationError

from iota.client import orchestrator as client
from iota.client.orchestrator import UntrustedAnswer
from iota.compute.errors import StateError
from iota.compute.state import StageState, load_state, state_bytes, zero_moments
from iota.data.blocks import BlockIndex
from iota.data.manifest import DataError, Manifest, Shard, manifest_id, parse_manifest
from iota.data.reader import decode
from iota.data.sequences import Span
from iota.identity.signatures import signing_bytes
from iota.model.initial import initial_weights
from iota.objects import part_count, part_sizes
from iota.outer import open_delta_codec
from iota.outer.base import base_parts
from iota.outer.base_values import read_base_part
from iota.outer.merged_part import read_merged, write_merged
from iota.outer.partition import PartError
from iota.protocol.bridge import ChangeView, Lock, Set, WatchReply, WriteRequest
from iota.protocol.contacts import ContactsRequest
from iota.protocol.events import ExchangeReply
from iota.protocol.messages import ExchangeRequest, Verdict
from iota.protocol.plans import WholePlan
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import Receipt, SignedHeader
from iota.protocol.records import EpochRecord
from iota.protocol.verdicts import FiledVerdict, VerdictPage
from iota.spec import OuterCodec, WireDtype
from iota.wire.frame import DOMAIN, FrameError, decode_frame
from iota.wire.iroh_arrivals import KEPT, REFUSED, read_answer
from iota.wire.receipt_form import form_fault, input_headers
from orchestrator.bridge import Bridge, Writer, write
from orchestrator.coordinator import Bridged
from orchestrator.intake.bounds import parse
from tests.support import sample_specs, samples
from validator.audits.verdicts import verify_verdict
from validator.bundles import form
from validator.core.links import verify_link
from validator.core.pool import Judgement, is_relevant
from validator.core.record_checks import SealBroken, check_record
from validator.core.signed_chains import checked_receipts

SPEC = sample_specs.tiny_spec()
STAGE = 1
CORPUS = Path(__file__).parents[1] / "fuzz_corpus"
"""A folder for each target, with inputs that a fuzzer found; one that broke a parser is kept for good."""
_MESSAGES: dict[str, Any] = samples.MESSAGES
_PREFIX = struct.Struct("<4sBH")
_SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Target:
    """A parser of one form. `run` raises for a fault alone; every seed is an input that the parser takes."""

    name: str
    run: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    """The errors by which the parser refuses an input."""
    seeds: Callable[[], Sequence[bytes]]

    def __call__(self, data: bytes) -> None:
        """Parse; raises for a fault."""
        with suppress(*self.refusals):
            self.run(data)


def _json(*values: BaseModel) -> Callable[[], Sequence[bytes]]:
    return lambda: [value.model_dump_json().encode() for value in values]


# ---- frames --------------------------------------------------------------------------------------


def _resigned(data: bytes) -> bytes:
    """A frame with its sender's signature over the header that it has; other bytes as they are."""
    if len(data) < _PREFIX.size:
        return data
    length = _PREFIX.unpack_from(data)[2]
    text = data[_PREFIX.size : _PREFIX.size + length]
    body = _PREFIX.size + len(text) + _SIGNATURE_BYTES
    return b"".join(
        (data[: _PREFIX.size], text, samples.MINER.sign(signing_bytes(DOMAIN, text)), data[body:])
    )


def _frame(data: bytes) -> None:
    """The first byte chooses the wire dtype, and whether the signature is made anew."""
    choice, frame = data[:1], data[1:]
    wire = list(WireDtype)[choice[0] % 3] if choice else WireDtype.FP32
    decode_frame(_resigned(frame) if choice and choice[0] >= 128 else frame, sample_specs.tiny_spec(wire))


def _answers() -> list[bytes]:
    return [KEPT + bytes(64), REFUSED + b"not-expected\n", REFUSED + b"later\nno room"]


def _frames() -> list[bytes]:
    found = []
    for number, wire in enumerate(WireDtype):
        frame = samples.frame_bytes(samples.FRAMES[wire.value])
        found += [bytes([number + high]) + frame for high in (0, 129)]
    return found


# ---- receipts --------------------------------------------------------------------------------------


def _receipt_batches(data: bytes) -> None:
    """As a validator reads a miner's receipts: form, signatures, chain, inputs."""
    batches = client._validated(client._BATCHES.validate_json, data, "no receipts")
    for batch in batches:
        for receipt in batch.receipts:
            if form_fault(SPEC, STAGE, receipt) is None:
                with suppress(ValueError):
                    input_headers(SPEC, receipt)
    last = samples.BATCH.receipts[-1]
    miner = _record().miners[0].model_copy(update={"last_receipt": last.seq})
    checked_receipts(samples.DIGEST, miner, last.epoch, batches)


def _batches() -> list[bytes]:
    return [b"[" + samples.BATCH.model_dump_json().encode() + b"]"]


@cache
def _receiving() -> Receipt:
    return samples.RECEIPTS["forward"]


def _signed_header(data: bytes) -> None:
    """The header of an input in a receipt, signed by who sent it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    signature = samples.MINER.sign(signing_bytes(DOMAIN, text.encode())).hex()
    named = SignedHeader(header=text, signature=signature)
    input_headers(SPEC, _receiving().model_copy(update={"inputs": (named,)}))


def _headers() -> list[bytes]:
    return [samples.FRAMES[WireDtype.BF16.value].header.canonical()]


# ---- records ---------------------------------------------------------------------------------------


@cache
def _record() -> EpochRecord:
    """The sample, with as many parts as the stage of the run has."""
    record: EpochRecord = _MESSAGES["epoch record"]
    parts = (samples.OBJECT,) * part_count(SPEC, STAGE)
    bases = tuple(base.model_copy(update={"parts": parts}) for base in record.bases)
    deltas = tuple(delta.model_copy(update={"parts": parts}) for delta in record.deltas)
    return record.model_copy(update={"bases": bases, "deltas": deltas, "heldout": ()})


def _epoch_record(data: bytes) -> None:
    check_record(SPEC, client._parse(EpochRecord, data))


def _plan(data: bytes) -> None:
    plan = WholePlan.model_validate_json(data)
    assert plan.root()
    assert all(len(plan.route(index)) == len(plan.routes[0]) for index in range(len(plan.routes)))


def _bridge_write(data: bytes) -> None:
    """A write, as the orchestrator does it, and again as its journal has it."""
    request = parse(WriteRequest, data)
    entry = Bridged(at=1.0, hotkey=samples.MINER.ss58, operator=True, write=request)
    stored = Bridged.model_validate_json(entry.canonical())
    lived, replayed = Bridge(), Bridge()
    writer = Writer(entry.hotkey, operator=True, member=False)
    found = write(lived, writer, entry.write, entry.at), write(replayed, writer, stored.write, stored.at)
    assert found[0] == found[1]
    assert lived == replayed
    for change in lived.changes:
        ChangeView.model_validate_json(change.json)


def _bridge_writes() -> list[bytes]:
    rule: JsonValue = {"write": "members", "read": "anyone"}
    ops = (Set(name="rights/a", value=rule), Set(name="b", value=1.0, ttl_s=2.0), Lock(name="c", lease_s=1.0))
    return [WriteRequest(request="0" * 32, ops=(op,)).model_dump_json().encode() for op in ops]


def _verdict(data: bytes) -> None:
    verify_verdict(samples.DIGEST, Verdict.model_validate_json(data), samples.VALIDATOR.ss58)


def _verdict_page(data: bytes) -> None:
    """As a validator reads what the others filed: form, chains of links, tasks, signatures."""
    page = client._parse(VerdictPage, data)
    for link in page.links.values():
        verify_link(link, 1, samples.DIGEST)
    for filed in page.verdicts:
        judgement = Judgement.of(filed.validator, filed.verdict)
        is_relevant(judgement, {judgement.task})
        verify_verdict(samples.DIGEST, filed.verdict, filed.validator)


def _verdict_pages() -> list[bytes]:
    filed = FiledVerdict(validator=samples.VALIDATOR.ss58, verdict=samples.VERDICT)
    links = {samples.VALIDATOR.ss58: samples.DIGEST}
    page = VerdictPage(epoch=1, closed=True, links=links, total=2, verdicts=(filed, filed))
    return [page.model_dump_json().encode()]


def _problem(data: bytes) -> None:
    str(Problem.from_json(503, data, "3"))


# ---- tensors ---------------------------------------------------------------------------------------


def _states() -> list[bytes]:
    weights, moments = initial_weights(SPEC, STAGE), zero_moments(SPEC, STAGE)
    return [state_bytes(StageState(weights)), state_bytes(StageState(weights, moments))]


def _base_part(data: bytes) -> None:
    read_base_part(SPEC, data, part_sizes(SPEC, 0)[0])


def _delta_part(codec: OuterCodec, data: bytes) -> None:
    """A partition of as many elements as the bytes may hold: other lengths are refused at once."""
    elements = {
        OuterCodec.NONE: len(data) // 4,
        OuterCodec.INT8: len(data) - 2 * -(-len(data) // 258),
        OuterCodec.SPARSE: len(data) // 452 * 4096,
        OuterCodec.SPARSE64: len(data) // 116 * 4096,
    }[codec]
    open_delta_codec(codec).decode(data, max(1, elements))


def _delta_parts(codec: OuterCodec) -> list[bytes]:
    return [open_delta_codec(codec).encode(np.arange(size, dtype=np.float32)) for size in (8, 4096)]


def _merged_part(data: bytes) -> None:
    read_merged(OuterCodec.SPARSE, data, 100)


def _merged_parts() -> list[bytes]:
    return [write_merged(OuterCodec.SPARSE, np.arange(100, dtype=np.float32) % 3)]


# ---- data ------------------------------------------------------------------------------------------


def _shard(data: bytes) -> None:
    """Tokens of a shard and its index, whose digests the manifest names."""
    index = blake3(data).digest()
    shard = Shard(
        name="shard-00000",
        tokens=max(1, len(data) // 2),
        digest=blake3(data).hexdigest(),
        index_digest=blake3(index).hexdigest(),
    )
    BlockIndex(shard, index, 2).check(0, data)
    decode(samples.MANIFEST, Span(shard, 0, shard.tokens), data, 0)


def _manifest(data: bytes) -> None:
    try:
        identity = manifest_id(Manifest.model_validate_json(data))
    except ValidationError:
        identity = samples.DIGEST
    parse_manifest(data, identity)


TARGETS = {
    target.name: target
    for target in (
        Target("frame", _frame, (FrameError,), _frames),
        Target("answer", read_answer, (ValueError,), _answers),
        Target("receipts", _receipt_batches, (UntrustedAnswer, SealBroken), _batches),
        Target("header", _signed_header, (ValueError,), _headers),
        Target(
            "exchange", lambda data: parse(ExchangeRequest, data), (Problem,),
            _json(_MESSAGES["exchange request"]),
        ),
        Target(
            "bridge", _bridge_write, (Problem,),
            lambda: [*_json(samples.BRIDGE_WRITE)(), *_bridge_writes()],
        ),
        Target(
            "variables", lambda data: client._parse(WatchReply, data), (UntrustedAnswer,),
            _json(_MESSAGES["bridge watch reply"]),
        ),
        Target(
            "contacts", lambda data: parse(ContactsRequest, data), (Problem,),
            _json(_MESSAGES["contacts request"]),
        ),
        Target("record", _epoch_record, (UntrustedAnswer, SealBroken), lambda: _json(_record())()),
        Target("plan", _plan, (ValidationError,), _json(samples.WHOLE_PLAN)),
        Target("verdict", _verdict, (ValidationError,), _json(samples.VERDICT)),
        Target("bundle", form.Manifest.model_validate_json, (ValidationError,), _json(samples.BUNDLE)),
        Target("verdicts", _verdict_page, (UntrustedAnswer,), _verdict_pages),
        Target(
            "events", lambda data: client._parse(ExchangeReply, data), (UntrustedAnswer,),
            _json(_MESSAGES["exchange reply"]),
        ),
        Target("problem", _problem, (), lambda: [Problem(ProblemType.LATE, "later").to_json()]),
        Target("state", lambda data: load_state(data, SPEC, STAGE), (StateError,), _states),
        Target("base", _base_part, (PartError,), lambda: base_parts(SPEC, samples.sample_base())[:1]),
        *(
            Target(name, partial(_delta_part, codec), (PartError,), partial(_delta_parts, codec))
            for name, codec in (
                ("delta", OuterCodec.NONE),
                ("delta-int8", OuterCodec.INT8),
                ("delta-sparse", OuterCodec.SPARSE),
                ("delta-sparse64", OuterCodec.SPARSE64),
            )
        ),
        Target("merged", _merged_part, (PartError,), _merged_parts),
        Target("shard", _shard, (DataError,), lambda: [np.arange(256, dtype="<u2").tobytes()]),
        Target("manifest", _manifest, (DataError,), _json(samples.MANIFEST)),
    )
}  # fmt: skip
"""By name."""
