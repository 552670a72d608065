"""Checks all receipts of an epoch against its plans, re-routes and counted lists and each other: no replay.

What contradicts what its miner signed, or the spec, is the miner's fault. What the orchestrator had to refuse
by its own plans, re-routes and lives is the orchestrator's fault alone: these stand under no miner's
signature, so the record is broken, and no miner is charged for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from iota.protocol.frames import Direction
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKey, OpKind, Receipt, SignedHeader
from iota.spec import Pipeline
from iota.wire.frame import FrameHeader, is_signed
from iota.wire.receipt_form import form_fault, input_headers
from validator.core.receipt_checks import false_commit
from validator.core.results import MinerFault
from validator.core.sealed import SealBroken, SealedEpoch


def check_receipts(sealed: SealedEpoch) -> list[MinerFault]:
    """The first fault of each miner that its receipts, its COMMITs, or frames of others show; by hotkey.

    A signature of an input frame is checked only where its digest is not the one that the sender receipted
    (else the sender has signed that twice) or it is for another receiver, as after a re-route. So an honest
    epoch costs few signature checks.

    Raises:
        SealBroken: something stands in the record that the orchestrator had to refuse.
    """
    found: dict[str, MinerFault] = {}
    for hotkey in sorted(sealed.receipts):
        chain = _good_form(sealed, hotkey, found)
        if len(chain) == len(sealed.receipts[hotkey]):  # of a miner at fault no order can be asked
            for receipt in chain:
                _check_given(sealed, hotkey, receipt)
            _check_lives(sealed, hotkey, chain)
        for receipt in chain:
            for header, signed in zip(input_headers(sealed.spec, receipt), receipt.inputs, strict=True):
                fault = _input_fault(sealed, hotkey, receipt, header, signed)
                if fault is not None:
                    found.setdefault(fault.hotkey, fault)
        false = false_commit(sealed, hotkey)
        if false is not None:
            found.setdefault(hotkey, false)
    _check_counted(sealed)
    _check_heldout(sealed)
    _check_deltas(sealed)
    return [found[hotkey] for hotkey in sorted(found)]


# ---- one receipt ---------------------------------------------------------------------------------


def _good_form(sealed: SealedEpoch, hotkey: str, found: dict[str, MinerFault]) -> list[Receipt]:
    """The miner's receipts that its ops can give, each op once; the first other one is its fault."""
    good: dict[tuple[OpKey, int], Receipt] = {}
    for receipt in sealed.receipts[hotkey]:
        wrong = form_fault(sealed.spec, sealed.miners[hotkey].stage, receipt)
        try:
            input_headers(sealed.spec, receipt)
        except ValueError as error:
            wrong = wrong or str(error)
        # A later life commits to the version that it begins with, though an earlier one may have done so.
        of_life = sealed.life(hotkey, receipt).first_receipt if receipt.kind is OpKind.COMMIT else 0
        name = (receipt.key, of_life)
        if wrong is None and name in good:
            wrong = "is of an op that has a receipt"
        if wrong is None:
            good[name] = receipt
        else:
            found.setdefault(hotkey, MinerFault(hotkey, receipt.seq, f"its receipt {wrong}"))
    return list(good.values())


def _check_given(sealed: SealedEpoch, hotkey: str, receipt: Receipt) -> None:
    """Raise SealBroken for an op that the miner was not given, or of another version or life than it has."""
    if receipt.kind is OpKind.MERGE:
        return  # it is judged by the parts that the record gave to the miner
    life = sealed.life(hotkey, receipt)
    if receipt.kind is OpKind.COMMIT:
        _check_commit(sealed, hotkey, receipt, life.joined)
        return
    at = (receipt.step, receipt.microbatch, receipt.attempt, receipt.stage)
    if receipt.step < life.joined or (receipt.kind is not OpKind.STEP and sealed.owner(*at) != hotkey):
        raise _let_through(hotkey, receipt, "of an op that it was not given")
    if receipt.version != sealed.spec.weight_version(receipt.step, life.joined):
        raise _let_through(hotkey, receipt, "of another weight version than its step uses")


def _check_commit(sealed: SealedEpoch, hotkey: str, receipt: Receipt, joined: int) -> None:
    """Raise SealBroken for a COMMIT that is due at no version, or has `before` where its version has none."""
    spec, version = sealed.spec, receipt.version
    if receipt.step != version or not spec.is_committed(version, joined):
        raise _let_through(hotkey, receipt, "of a COMMIT to a version that it does not commit to")
    wanted = spec.schedule.pipeline is Pipeline.DELAYED and version > joined
    made = receipt.commitment
    if made is not None and (wanted, version == joined) != (made.before != EMPTY, made.beginning is not None):
        raise _let_through(hotkey, receipt, "of a COMMIT with other groups than its version has")


def _check_lives(sealed: SealedEpoch, hotkey: str, chain: Sequence[Receipt]) -> None:
    """Raise SealBroken for a life with two devices, STEPs or COMMITs out of order, or half an op."""
    devices: dict[int, str] = {}
    steps: dict[int, int] = {}
    commits: dict[int, int | None] = {}
    forwards: set[tuple[int, int, int]] = set()
    for receipt in (each for each in chain if each.kind is not OpKind.MERGE):
        life = sealed.life(hotkey, receipt)
        name = (receipt.step, receipt.microbatch, receipt.attempt)
        if devices.setdefault(life.first_receipt, receipt.device) != receipt.device:
            raise _let_through(hotkey, receipt, "of another device than those before it")
        if receipt.kind is OpKind.FORWARD:
            forwards.add(name)
        elif receipt.kind is OpKind.BACKWARD:
            if name not in forwards and sealed.runs_forward(*name, receipt.stage):
                raise _let_through(hotkey, receipt, "of a BACKWARD without its FORWARD")
        elif receipt.kind is OpKind.STEP:
            if receipt.step != steps.get(life.first_receipt, life.joined):
                raise _let_through(hotkey, receipt, "of a STEP out of order")
            steps[life.first_receipt] = receipt.step + 1
        elif receipt.kind is OpKind.COMMIT:
            due = commits.get(life.first_receipt, life.joined)
            if due is None or receipt.version != due or due > steps.get(life.first_receipt, life.joined):
                raise _let_through(hotkey, receipt, "of a COMMIT out of order")
            commits[life.first_receipt] = sealed.spec.committed_after(due)


def _let_through(hotkey: str, receipt: Receipt, what: str) -> SealBroken:
    return SealBroken(f"the orchestrator took receipt {receipt.seq} of {hotkey}, which is {what}")


# ---- frames --------------------------------------------------------------------------------------


def _input_fault(
    sealed: SealedEpoch, hotkey: str, receipt: Receipt, header: FrameHeader, signed: SignedHeader
) -> MinerFault | None:
    """The fault that an input shows: its sender's, who receipted another payload, or the receiver's.

    Raises SealBroken for a sender that was not given that attempt, whose frame nobody was to use.
    """
    name = header.name
    if sealed.owner(name.step, name.microbatch, name.attempt, name.stage) != header.sender:
        raise _let_through(hotkey, receipt, f"of an input of {header.sender}, who had no part in it")
    if name.direction is Direction.FORWARD:
        kind = OpKind.FORWARD
    else:
        kind = OpKind.LOSS if name.stage == sealed.spec.last_stage else OpKind.BACKWARD
    sent = sealed.receipt(header.sender, name.step, name.microbatch, name.attempt, kind)
    same = sent is not None and sent.output == header.payload
    if same and header.receiver == hotkey:
        return None
    if not is_signed(signed.header.encode(), bytes.fromhex(signed.signature), header.sender):
        return MinerFault(hotkey, receipt.seq, "its receipt names an input that its sender did not sign")
    if same or sent is None:  # for who had the work before, or nothing to compare
        return None  # the signed header shows that the receiver did no wrong
    reason = "it sent another frame than it receipted"
    return MinerFault(
        header.sender, sent.seq, reason, expected=sent.output, found=header.payload, witness=hotkey
    )


# ---- what the orchestrator counted ---------------------------------------------------------------


def _check_counted(sealed: SealedEpoch) -> None:
    """Raise SealBroken where something counts without a receipt, or twice at a stage."""
    seen: set[tuple[int, int, int]] = set()
    for counted in sealed.record.counted:
        miner = sealed.miners.get(counted.miner)
        if miner is None:
            raise SealBroken(f"work of {counted.miner} counts, who had no part in the epoch")
        if counted.miner not in sealed.receipts:
            continue  # its receipts are not at hand: the epoch is checked in part
        kind = OpKind.LOSS if miner.stage == sealed.spec.last_stage else OpKind.BACKWARD
        for microbatch, attempt in counted.counted:
            told = f"microbatch {microbatch} of step {counted.step}"
            if sealed.receipt(counted.miner, counted.step, microbatch, attempt, kind) is None:
                raise SealBroken(f"{told} counts for {counted.miner} without a receipt")
            if (counted.step, microbatch, miner.stage) in seen:
                raise SealBroken(f"{told} counts twice at stage {miner.stage}")
            seen.add((counted.step, microbatch, miner.stage))


def _check_heldout(sealed: SealedEpoch) -> None:
    """Raise SealBroken for a held-out microbatch without an op's receipt, or off the attempt that counts."""
    last = sealed.spec.last_stage
    for done in sealed.record.heldout:
        for stage, attempt in enumerate(done.attempts):
            miner = sealed.owner(0, done.microbatch, attempt, stage)
            told = f"held-out microbatch {done.microbatch} counts at stage {stage}"
            if miner is None:
                raise SealBroken(f"{told} by an attempt that nobody was given")
            if miner not in sealed.receipts and miner in sealed.miners:
                continue  # its receipts are not at hand: the epoch is checked in part
            kind = OpKind.EVAL if stage == last else OpKind.FORWARD
            receipt = sealed.receipt(miner, 0, done.microbatch, attempt, kind)
            if receipt is None:
                raise SealBroken(f"{told} for {miner} without a receipt")
            if stage and _attempt_before(sealed, receipt) not in (done.attempts[stage - 1], None):
                raise SealBroken(f"{told} for {miner}, who went on from another attempt than counts")


def _attempt_before(sealed: SealedEpoch, receipt: Receipt) -> int | None:
    """The attempt of the frame that a receipt names first; None for a receipt that is at fault itself."""
    try:
        return input_headers(sealed.spec, receipt)[0].name.attempt
    except ValueError:
        return None


def _check_deltas(sealed: SealedEpoch) -> None:
    """Raise SealBroken for a merged pseudo-gradient of a miner that has not committed to its last version."""
    for delta in sealed.record.deltas:
        if delta.miner in sealed.miners and delta.miner not in sealed.receipts:
            continue  # likewise
        if delta.miner not in sealed.miners or not sealed.has_stepped(delta.miner):
            raise SealBroken(f"the pseudo-gradient of {delta.miner} was merged without its COMMITs")
