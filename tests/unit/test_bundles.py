"""Verdict bundles: a validator writes one for each FAIL, and anyone repeats the verdict from it alone."""

from __future__ import annotations

import json
import logging
import struct
import zipfile
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec, RunSpec
from tests.support.audited_miners import FalseBase, FalseLoss, FalseMerge, Honest, PoisonedDelta, SkipsStep
from tests.support.audited_runs import THREADS, World
from tests.support.bundles import (
    BLOCK_HASH,
    CHEAT,
    KEY,
    LINKS,
    OFTEN,
    Desk,
    cheated_world,
    claimed,
    members,
    reseal,
    rewritten,
)
from tests.support.small_runs import small_run
from tests.support.validator_stages import ORCHESTRATOR
from validator.audits.replay import ReplayOptions
from validator.bundles.archive import BundleReader, BundleRefused
from validator.bundles.form import MANIFEST
from validator.bundles.outside import Outside, Repeated
from validator.bundles.repeat import repeat
from validator.core.results import Result, result_of
from validator.core.segments import Draws
from validator.core.tasks import AuditTask, drawn_tasks, records_task

OPTIONS = ReplayOptions(threads=THREADS, max_threads=THREADS)


@pytest.fixture(scope="module")
def cheated() -> World:
    return cheated_world()


@pytest.fixture
async def desk(cheated: World, tmp_path: Path) -> Desk:
    return await Desk.over(cheated, tmp_path)


@pytest.fixture
async def bundle(desk: Desk) -> Path:
    """Of a FAIL of the cheat's first drawn op."""
    return await desk.accuse(CHEAT)


def undrawn(desk: Desk) -> str:
    """The hash of a block from which the cheat's drawn op does not follow."""
    sealed, task = desk.bench.sealed, desk.drawn(CHEAT)
    hotkey = desk.world.miners[CHEAT].hotkey
    hashes = (f"{n:064x}" for n in range(1000))
    return next(
        h for h in hashes if task not in drawn_tasks(sealed, Draws(h, LINKS.link(0), KEY.ss58), hotkey)
    )


async def repeated(path: Path) -> Repeated:
    return await repeat(path, OPTIONS, Outside())


# ---- verdicts come out the same -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AuditKind.OP, AuditKind.SEGMENT])
async def test_a_fail_of_each_kind_comes_out_the_same_without_a_server(desk: Desk, kind: AuditKind) -> None:
    path = await desk.accuse(CHEAT, kind)
    desk.world, desk.bench = None, None  # type: ignore[assignment]
    found = await repeated(path)
    assert found.faults == []
    assert found.confirmed
    assert found.result is not None
    assert found.result.outcome is Outcome.FAIL
    said = found.verdict
    assert (found.result.expected, found.result.found) == (said.expected, said.found)
    assert found.result.reason == said.reason


async def test_what_the_file_cannot_show_is_said(bundle: Path) -> None:
    assumed = " / ".join((await repeated(bundle)).assumed)
    for part in (
        "is the orchestrator of run",
        "has the hash",
        "committed the chain of its link",
        "token ids",
    ):
        assert part in assumed


async def test_a_bundle_has_what_one_audit_read_and_no_more(bundle: Path, cheated: World) -> None:
    with_receipts = {name for name in members(bundle) if name.startswith("receipts/")}
    assert with_receipts == {f"receipts/0/{cheated.miners[CHEAT].hotkey}.json"}
    assert not [name for name in members(bundle) if "/base/" in name]  # base 0 follows from the seed


@pytest.mark.parametrize("state", ["reset", "carry"])
async def test_a_later_epochs_bundle_has_its_base_and_the_moments_that_were_carried(
    tmp_path: Path, state: str
) -> None:
    audit = AuditSpec(window_steps=3, extra_every=1)
    late = World(small_run(audit=audit, optimizer={"state": state}), {CHEAT: FalseLoss()})
    late.train(0)
    late.train(1)
    path = await (await Desk.over(late, tmp_path, epoch=1)).accuse(CHEAT, AuditKind.SEGMENT)
    names, carries = members(path), state == "carry"
    assert [name for name in names if "/base/1/2/" in name]
    assert bool([name for name in names if "/audit/1/" in name]) is carries
    assert not [name for name in names if name.startswith("receipts/0/")]
    assert (await repeated(path)).confirmed


async def test_a_bundle_about_a_pseudo_gradient_has_the_error_feedback_that_it_began_with(
    tmp_path: Path,
) -> None:
    audit = AuditSpec(window_steps=3, extra_every=1)
    late = World(small_run(audit=audit, outer={"codec": "sparse"}))
    late.train(0)
    late.miners[CHEAT].way = PoisonedDelta(1.5)
    late.train(1)
    path = await (await Desk.over(late, tmp_path, epoch=1)).accuse(CHEAT, AuditKind.SEGMENT)
    assert [name for name in members(path) if "/audit/1/" in name and "/feedback/0" in name]
    assert (await repeated(path)).confirmed


async def test_a_fault_of_the_records_comes_out_the_same(tmp_path: Path) -> None:
    lazy = World(small_run(audit=OFTEN), {0: SkipsStep()})
    lazy.train(0)
    desk = await Desk.over(lazy, tmp_path)
    fault = await desk.bench.check(0)
    assert fault is not None
    path = await desk.file(0, records_task(fault.seq), result_of(fault, fault.seq))
    assert path is not None
    found = await repeated(path)
    assert found.faults == []
    assert found.confirmed


async def test_who_receipted_another_frame_than_it_sent_is_shown_by_its_receivers_receipts(
    tmp_path: Path,
) -> None:
    two_faced = World(small_run(audit=OFTEN))
    two_faced.train(0)

    def other_output(chain: list[Receipt]) -> list[Receipt]:
        at = next(i for i, r in enumerate(chain) if r.kind is OpKind.FORWARD)
        return [*chain[:at], chain[at].model_copy(update={"output": "e" * 64}), *chain[at + 1 :]]

    reseal(two_faced, 0, other_output)
    desk = await Desk.over(two_faced, tmp_path)
    (fault,) = desk.bench.sealed.faults
    assert fault.hotkey == two_faced.miners[0].hotkey
    path = await desk.file(0, records_task(fault.seq), result_of(fault, fault.seq))
    assert path is not None
    assert sum(name.startswith("receipts/") for name in members(path)) == 2
    found = await repeated(path)
    assert found.faults == []
    assert found.confirmed


# ---- merges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["part", "base", "pseudo-gradient"])
async def test_a_fail_of_a_merge_comes_out_the_same(tmp_path: Path, way: str) -> None:
    liars: dict[str, dict[int, Honest]] = {
        "part": {1: FalseMerge(0)},
        "base": {stage: FalseBase() for stage in range(3)},
        "pseudo-gradient": {0: PoisonedDelta(1e6)},
    }
    world = World(small_run(audit=AuditSpec(merge_every=1)), liars[way])
    world.train(0)
    desk = await Desk.over(world, tmp_path)
    results = await desk.merges(base=way == "base")
    stage, task, result = next(found for found in results if found[2].outcome is Outcome.FAIL)
    path = await desk.file(stage, task, result)
    assert path is not None
    found = await repeated(path)
    assert found.faults == []
    assert found.confirmed
    honest = next((s, t, r) for s, t, r in results if r.outcome is Outcome.PASS) if way != "base" else None
    if honest is not None:
        path = await desk.file(*honest[:2], Result(Outcome.FAIL, honest[2].seq))
        assert path is not None
        refuted = await repeated(path)
        assert (refuted.faults, refuted.confirmed) == ([], False)


# ---- lies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AuditKind.OP, AuditKind.SEGMENT])
async def test_a_false_fail_of_an_honest_miner_is_refuted(desk: Desk, kind: AuditKind) -> None:
    path = await desk.accuse(0, kind, reason="it cheats")
    found = await repeated(path)
    assert found.faults == []
    assert not found.confirmed
    assert found.result is not None
    assert found.result.outcome is Outcome.PASS


async def test_a_fail_of_an_op_that_nobody_drew_gets_no_bundle_and_the_log_says_so(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    sealed, hotkey = desk.bench.sealed, desk.world.miners[CHEAT].hotkey
    drawn = {task.seq for task in drawn_tasks(sealed, Draws(BLOCK_HASH, LINKS.link(0), KEY.ss58), hotkey)}
    chosen = next(r for r in sealed.auditable(hotkey) if r.seq not in drawn)
    seq = chosen.seq
    caplog.set_level(logging.INFO)
    task = AuditTask(AuditKind.OP, f"op:{seq}", seq, chosen.step)
    assert await desk.file(CHEAT, task, Result(Outcome.FAIL, seq, reason="chosen")) is None
    assert f"op:{seq} of {hotkey} gets no file" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_verdict_that_names_another_receipt_as_the_first_that_failed_is_not_confirmed(
    desk: Desk,
) -> None:
    task = desk.drawn(CHEAT, AuditKind.SEGMENT)
    true = await desk.audit(CHEAT, task)
    path = await desk.file(CHEAT, task, Result(Outcome.FAIL, true.seq + 1))
    assert path is not None
    found = await repeated(path)
    assert (found.faults, found.confirmed) == ([], False)


async def test_a_bundle_of_another_task_than_its_verdicts_is_refused(bundle: Path, tmp_path: Path) -> None:
    task = json.loads(members(bundle)[MANIFEST])["task"]
    for other in ({**task, "seq": task["seq"] + 1}, {**task, "kind": "segment"}):
        (fault,) = (await repeated(claimed(bundle, tmp_path / "x.zip", task=other))).faults
        assert fault.startswith("the verdict is of another audit")


async def test_a_changed_byte_of_each_member_is_told_by_name(bundle: Path, tmp_path: Path) -> None:
    for name, data in members(bundle).items():
        if name != MANIFEST:
            changed = bytes([data[0] ^ 1]) + data[1:]
            (fault,) = (await repeated(rewritten(bundle, tmp_path / "x.zip", {name: changed}))).faults
            assert fault == f"not as the manifest has them: {name}"


async def test_a_changed_member_is_told_also_where_the_manifest_names_its_digest(
    bundle: Path, tmp_path: Path
) -> None:
    receipts = next(name for name in members(bundle) if name.startswith("receipts/"))
    frame = next(name for name in members(bundle) if "/frames/" in name)
    plan = next(name for name in members(bundle) if "/plan/" in name)
    for name, was, becomes, told in (
        ("record.json", b'"withdrawn":0', b'"withdrawn":9', "not the one that was sealed"),
        (receipts, b'"tokens":', b'"tokens":1', "do not chain"),
        (plan, b'"learning_rate":0', b'"learning_rate":1', "a learning rate that the spec forbids"),
    ):
        changed = members(bundle)[name].replace(was, becomes, 1)
        found = await repeated(rewritten(bundle, tmp_path / "x.zip", {name: changed}, manifest=True))
        assert any(told in fault for fault in found.faults), (name, found.faults)
    changed = members(bundle)[frame][:-1] + b"x"
    found = await repeated(rewritten(bundle, tmp_path / "x.zip", {frame: changed}, manifest=True))
    assert found.result is not None
    assert found.result.outcome is Outcome.UNDELIVERED  # as if store and miner had lost it


async def test_another_manifest_confirms_nothing(desk: Desk, bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads(members(bundle)[MANIFEST])
    elsewhere = undrawn(desk)
    stranger = Hotkey.from_seed(b"\x44" * 32).ss58
    for fields, told in (
        ({"orchestrator": stranger}, "the seal is not signed"),
        ({"validator": stranger}, "the verdict is not signed"),
        ({"verdict": {**manifest["verdict"], "outcome": "pass"}}, "the verdict is not signed"),
        ({"block_hash": elsewhere}, "the draw demands no"),
        ({"run": "ab" * 32}, "of run"),
    ):
        found = await repeated(claimed(bundle, tmp_path / "x.zip", **fields))
        assert not found.confirmed
        assert any(told in fault for fault in found.faults), found.faults


async def test_a_false_snapshot_is_an_assumption_and_no_proof(desk: Desk, cheated: World) -> None:
    """A miner signs what a snapshot must be, and not that it delivered this one."""
    original = desk.bench.deliver
    desk.bench.deliver = lambda miner, version: (original(miner, version) or b"")[:-4] + b"\0\0\x80?"
    path = await desk.accuse(0, AuditKind.SEGMENT)
    found = await repeated(path)
    assert found.confirmed
    assert any("delivered the snapshot that is in the file" in line for line in found.assumed)


async def test_a_bundle_of_another_orchestrator_than_the_known_one_is_refused(bundle: Path) -> None:
    found = await repeat(bundle, OPTIONS, Outside(ORCHESTRATOR.ss58))
    assert found.confirmed
    assert not [line for line in found.assumed if "orchestrator" in line]
    other = Outside(Hotkey.from_seed(b"\x44" * 32).ss58)
    (fault,) = (await repeat(bundle, OPTIONS, other)).faults
    assert fault.startswith("it is of orchestrator")


# ---- hostile files ---------------------------------------------------------------------------------


async def test_files_that_are_no_bundles_are_refused_before_they_are_read(
    bundle: Path, tmp_path: Path
) -> None:
    whole = bundle.read_bytes()
    end = whole[-22:]
    many = end[:8] + struct.pack("<2H2L", 65000, 65000, 1 << 30, 0) + end[20:]
    locator = b"PK\x06\x07" + bytes(16)
    for data in (
        b"",
        b"PK",
        whole[:100],
        whole[:-1],
        whole + b"x",
        whole[:-22] + many,
        whole[:-22] + locator + end,
    ):
        path = tmp_path / "hostile.zip"
        path.write_bytes(data)
        with pytest.raises(BundleRefused):
            await repeated(path)


async def test_compressed_and_repeated_members_are_refused(tmp_path: Path) -> None:
    bomb, twice = tmp_path / "bomb.zip", tmp_path / "twice.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(MANIFEST, bytes(50 << 20))
    with zipfile.ZipFile(twice, "w") as file:
        file.writestr(MANIFEST, b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr(MANIFEST, b"{}")
    for path in (bomb, twice):
        with pytest.raises(BundleRefused, match="compressed or encrypted, or comes twice"):
            await repeated(path)


async def test_members_that_share_bytes_are_refused(bundle: Path, tmp_path: Path) -> None:
    """The classic bomb without compression: many entries of one place of the file."""
    data = bytes(1000)
    path = tmp_path / "shared.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", data)
        first = file.filelist[0]
        for n in range(5):
            again = zipfile.ZipInfo(f"b{n}")
            again.header_offset, again.file_size, again.compress_size = (
                0,
                first.file_size,
                first.compress_size,
            )
            again.CRC = first.CRC
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again
    with pytest.raises(BundleRefused, match="larger than it"):
        BundleReader(path)


@pytest.mark.parametrize(
    "sizes",
    [{"outer": {"part_elements": 1}}, {"data": {"sequences": 2**40}}, {"model": {"hidden_size": 2**40}}],
    ids=lambda sizes: next(iter(sizes)),
)
async def test_a_spec_with_absurd_sizes_is_refused_before_anything_is_made_of_them(
    bundle: Path, tmp_path: Path, sizes: dict[str, dict[str, int]]
) -> None:
    document = json.loads(members(bundle)["spec.json"])
    for section, fields in sizes.items():
        document[section] |= fields
    spec = RunSpec.model_validate(document)
    changed = rewritten(
        bundle, tmp_path / "x.zip", {"spec.json": spec.model_dump_json().encode()}, manifest=True
    )
    (fault,) = (await repeated(claimed(changed, tmp_path / "y.zip", run=spec.id))).faults
    assert fault == "spec.json has sizes that no run has"


async def test_names_outside_the_form_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = rewritten(bundle, tmp_path / "x.zip", {"../../evil": b"x"})
    (fault,) = (await repeated(path)).faults
    assert fault.endswith("../../evil")
    assert not (tmp_path / "evil").exists()
