"""Orchestrators that lie to a miner, and what the miner keeps of it: files that prove the lie to a third."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from typer.testing import CliRunner

from iota.cli.audit import app
from iota.client.evidence_files import SealBook, signed_by
from iota.client.orchestrator import UntrustedAnswer
from iota.protocol.events import Delivered, Drop, EpochClose, Plan, StepClose
from iota.protocol.evidence import Evidence, EvidenceKind, fault
from iota.protocol.receipts import OpKind
from iota.protocol.records import CountedList, EpochRecord
from iota.protocol.seals import SignedSeal
from miner.receipt_log import ReceiptLog
from miner.told import Told
from orchestrator.coordinator import sealing
from orchestrator.http.statements import Statements
from tests.support.orchestrators import ORCHESTRATOR, Node, Running, orchestrator
from tests.support.whole_epochs import epoch, sealed

Lie = Callable[[EpochRecord], EpochRecord]


async def lied_to(folder: Path, monkeypatch: pytest.MonkeyPatch, lie: Lie) -> tuple[Evidence | None, Told]:
    """A miner's evidence after an epoch whose record is a lie, and what it keeps."""
    monkeypatch.setattr(
        sealing, "make_record", lambda run, state, make=sealing.make_record: lie(make(run, state))
    )
    async with orchestrator(folder / "journal") as running, epoch(running) as pair:
        await sealed(running, pair)
        told = await checked(folder, running, pair[0])
    files = sorted((folder / "evidence").glob("*"))
    assert len(files) <= 1
    return (Evidence.model_validate_json(files[0].read_bytes()) if files else None), told


async def checked(folder: Path, running: Running, node: Node) -> Told:
    """A miner's checks over all that a node has heard, with its receipts on disk."""
    log = ReceiptLog(folder / "receipts.jsonl", running.spec.id, node.hotkey)
    for receipt in node.log.receipts:
        fields = receipt.model_dump(exclude={"seq", "previous"})
        assert log.append(fields) == receipt
    told = Told(SealBook(folder, running.spec.id, ORCHESTRATOR.ss58), node.hotkey.ss58, log)
    for delivered in node.heard:
        if (seal := told.hear(delivered)) is not None:
            await told.check(node.client, seal, node.talk.acknowledged)
    log.close()
    return told


def proves(evidence: Evidence | None) -> EvidenceKind:
    """What a third finds in the file, with the orchestrator's address and nothing else."""
    assert evidence is not None
    assert fault(evidence, signed_by(ORCHESTRATOR.ss58)) is None
    assert fault(evidence, signed_by("5" + "G" * 47)) is not None
    with TemporaryDirectory() as folder:
        file = Path(folder) / "evidence.json"
        file.write_bytes(evidence.model_dump_json().encode())
        shown = CliRunner().invoke(app, ["verify", str(file)])
        assert shown.exit_code == 0
        assert f"proven against {ORCHESTRATOR.ss58}: in epoch 0" in shown.output
        file.write_bytes(evidence.model_copy(update={"epoch": 1}).model_dump_json().encode())
        assert "not proven" in str(CliRunner().invoke(app, ["verify", str(file)]).exception)
    return evidence.kind


async def test_an_honest_orchestrator_is_not_accused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, told = await lied_to(tmp_path, monkeypatch, lambda record: record)
    assert (evidence, told.accusations) == (None, 0)


@pytest.mark.parametrize(("heard", "warns"), [("all", True), ("a drop", False), ("no plan", False)])
async def test_microbatches_that_were_taken_are_counted_with_those_that_were_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, heard: str, warns: bool
) -> None:
    def withdrawn(run: Any, state: Any, make: Any = sealing.make_record) -> EpochRecord:
        record: EpochRecord = make(run, state)
        return record.model_copy(
            update={"miners": tuple(m.model_copy(update={"withdrawn": 1}) for m in record.miners)}
        )

    monkeypatch.setattr(sealing, "make_record", withdrawn)
    async with orchestrator(tmp_path / "journal") as running, epoch(running) as pair:
        await sealed(running, pair)
        node = pair[0]
        if heard == "a drop":
            node.heard.insert(0, Delivered(seq=10**6, event=Drop(epoch=0, step=0, microbatch=0)))
        elif heard == "no plan":  # as after a restart that took the base anew
            node.heard = [delivered for delivered in node.heard if not isinstance(delivered.event, Plan)]
        await checked(tmp_path, running, node)
    assert ("1 microbatches taken from this miner, which heard of 0" in caplog.text) == warns


async def test_a_second_plan_in_the_record_is_proved_by_the_root_that_the_miner_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lie(record: EpochRecord) -> EpochRecord:
        plans = (record.plans[0].model_copy(update={"root": "e" * 64}), *record.plans[1:])
        return record.model_copy(update={"plans": plans})

    evidence, told = await lied_to(tmp_path, monkeypatch, lie)
    assert proves(evidence) is EvidenceKind.TWO_PLANS
    assert told.accusations == 1
    assert caplog.text.count("the orchestrator contradicts itself in epoch 0 (two-plans)") == 1


async def test_a_false_count_in_the_record_is_proved_by_the_steps_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(record: EpochRecord) -> EpochRecord:
        fewer = tuple(
            CountedList(step=each.step, miner=each.miner, counted=each.counted[1:]) for each in record.counted
        )
        return record.model_copy(update={"counted": fewer})

    evidence, _ = await lied_to(tmp_path, monkeypatch, lie)
    assert proves(evidence) is EvidenceKind.OTHER_COUNTED


async def test_a_receipt_that_was_acknowledged_and_is_left_out_is_proved_by_the_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(record: EpochRecord) -> EpochRecord:
        shorter = tuple(m.model_copy(update={"last_receipt": m.last_receipt - 1}) for m in record.miners)
        return record.model_copy(update={"miners": shorter})

    evidence, _ = await lied_to(tmp_path, monkeypatch, lie)
    assert proves(evidence) is EvidenceKind.LEFT_OUT


async def test_other_receipts_than_the_acknowledged_ones_in_the_seal_are_proved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(record: EpochRecord) -> EpochRecord:
        others = tuple(m.model_copy(update={"receipts": "7" * 64}) for m in record.miners)
        return record.model_copy(update={"miners": others})

    evidence, _ = await lied_to(tmp_path, monkeypatch, lie)
    assert proves(evidence) is EvidenceKind.LEFT_OUT


async def test_two_seals_of_one_epoch_are_kept_and_prove_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with orchestrator(tmp_path / "journal") as running, epoch(running) as pair:
        seal = await sealed(running, pair)
        other = seal.model_copy(update={"block": seal.block + 1})
        signed = SignedSeal(seal=other, signature=Statements(running.spec.id, ORCHESTRATOR).seal(other))

        async def published(number: int) -> SignedSeal:
            return signed

        monkeypatch.setattr(pair[0].client, "seal", published)
        await checked(tmp_path, running, pair[0])
    [file] = (tmp_path / "evidence").iterdir()
    assert proves(Evidence.model_validate_json(file.read_bytes())) is EvidenceKind.TWO_SEALS
    assert file.name == "0-two-seals.json"


@pytest.mark.parametrize("kind", [StepClose, EpochClose])
async def test_what_the_orchestrator_has_not_signed_is_not_acted_on(tmp_path: Path, kind: type) -> None:
    async with orchestrator(tmp_path / "journal") as running, epoch(running) as pair:
        await sealed(running, pair)
        told = await checked(tmp_path, running, pair[0])
        [delivered, *_] = [d for d in pair[0].heard if isinstance(d.event, kind)]
        for signature in (None, "0" * 128):
            forged = Delivered(seq=delivered.seq, event=delivered.event, signature=signature)
            with pytest.raises(UntrustedAnswer, match=r"has no signature|not signed by"):
                told.hear(forged)


async def test_a_close_with_another_rate_than_its_plan_is_refused(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "journal") as running, epoch(running) as pair:
        told = Told(
            SealBook(tmp_path, running.spec.id, ORCHESTRATOR.ss58),
            pair[0].hotkey.ss58,
            log_of(tmp_path, pair[0]),
        )
        plan = next(d for d in pair[0].heard if isinstance(d.event, Plan))
        close = next(d.event for d in pair[0].heard if isinstance(d.event, StepClose))
        told.hear(plan)
        other = close.model_copy(update={"learning_rate": close.learning_rate / 2})
        signature = Statements(running.spec.id, ORCHESTRATOR).of(pair[0].hotkey.ss58, other)
        with pytest.raises(UntrustedAnswer, match="another learning rate than its plan"):
            told.hear(Delivered(seq=1, event=other, signature=signature))


def log_of(folder: Path, node: Node) -> ReceiptLog:
    return ReceiptLog(folder / "receipts.jsonl", node.log.run, node.hotkey)


async def test_evidence_that_was_changed_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(record: EpochRecord) -> EpochRecord:
        shorter = tuple(m.model_copy(update={"last_receipt": m.last_receipt - 1}) for m in record.miners)
        return record.model_copy(update={"miners": shorter})

    evidence, _ = await lied_to(tmp_path, monkeypatch, lie)
    assert evidence is not None
    assert evidence.acknowledged is not None
    assert evidence.part is not None
    last = evidence.receipts[-1]
    changes: list[dict[str, Any]] = [
        {"epoch": 1},
        {"run": "0" * 64},
        {"kind": EvidenceKind.TWO_SEALS},
        {"kind": EvidenceKind.TWO_PLANS},
        {"kind": EvidenceKind.OTHER_COUNTED},
        {"part": None},
        {"part": evidence.part.model_copy(update={"at": 1 - evidence.part.at})},
        {"acknowledged": None},
        {"acknowledged": evidence.acknowledged.model_copy(update={"sealed": 1})},
        {"acknowledged": evidence.acknowledged.model_copy(update={"receipts": last.seq + 1})},
        {"receipts": evidence.receipts[:-1]},
        {"receipts": evidence.receipts[::2]},
        {"receipts": (*evidence.receipts[:-1], last.model_copy(update={"kind": OpKind.FORWARD}))},
    ]
    check = signed_by(ORCHESTRATOR.ss58)
    for change in changes:
        assert fault(evidence.model_copy(update=change), check) is not None, change


def test_receipts_are_read_from_the_first_of_an_epoch(tmp_path: Path, node_log: ReceiptLog) -> None:
    written = [
        node_log.append(
            {
                "epoch": number // 3, "step": number, "stage": 0, "kind": OpKind.STEP, "version": 0,
                "output": "a" * 64, "started": 1.0, "ended": 2.0, "device": "cpu",
            }
        )
        for number in range(9)
    ]  # fmt: skip
    assert node_log.since(1) == tuple(written[3:])
    node_log.close()
    again = ReceiptLog(tmp_path / "log", "d" * 64, ORCHESTRATOR)
    assert again.since(2) == tuple(written[6:])
    assert again.since(7) == ()
    again.close()


@pytest.fixture
def node_log(tmp_path: Path) -> ReceiptLog:
    return ReceiptLog(tmp_path / "log", "d" * 64, ORCHESTRATOR)


def test_a_full_disk_does_not_end_the_miner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SealBook, evidence: Evidence) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SealBook, "accuse", full)

    def lie(record: EpochRecord) -> EpochRecord:
        return record.model_copy(update={"counted": ()})

    evidence, told = asyncio.run(lied_to(tmp_path, monkeypatch, lie))
    assert (evidence, told.accusations) == (None, 0)
