"""A run of real processes that starts from an older base of another one, cut otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from iota.settings.spec_file import read_spec
from orchestrator.journal import read_journal
from tests.support.live_swarm import DATA
from tests.support.terminals import as_a_service, in_a_pipe

pytestmark = pytest.mark.alone
PLAIN = [
    "--model", "tiny", "--stages", "2", "--epochs", "3", "--steps-per-epoch", "4", "--microbatches", "4",
    "--sequence-length", "64", "--sequences", "2", "--boundary", "identity", "--wire", "fp32",
    "--set", "schedule.heldout=3", "--set", "schedule.keep_every=1",
]  # fmt: skip


async def up(root: Path, *flags: str) -> str:
    """The words that an `iota up` says that ends well, however its lines are broken."""
    command = ["iota.cli.main", "up", "--run-dir", str(root), "--no-dashboard", *flags]
    code, written = await in_a_pipe(command, as_a_service(TERM="dumb"), closed_stdin=True)
    assert code == 0, written[-3000:]
    return " ".join(written.split())


def status(root: Path) -> dict[str, Any]:
    return read_journal(root / "journal.db").status()


async def test_a_run_goes_on_from_a_kept_base_in_another_cut_and_its_audits_pass(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    await up(old, *PLAIN, "--data", str(DATA), "--no-validator")
    journal, before = (old / "journal.db").read_bytes(), status(old)
    said = await up(new, "--from", str(old), "--epoch", "1", "--stages", "3", "--replicas", "1")
    spec, first = read_spec(new / "spec.json"), read_spec(old / "spec.json")
    assert f"from the base of epoch 1 of run {first.id[:12]}" in said
    assert (spec.layout.stages, spec.schedule.epochs) == (3, 2)
    assert (spec.data.manifest, spec.data.first_sequence) == (first.data.manifest, 4 * 4 * 2)
    assert spec.optimizer.lr == first.optimizer.lr
    after = status(new)
    assert after["heldout"]["0"] == pytest.approx(before["heldout"]["1"], abs=1e-5)
    assert after["heldout"]["1"] < after["heldout"]["0"]
    assert after["finished"]
    assert after["audits"]["passed"] > 0
    assert (after["audits"]["failed"], after["audits"]["inconclusive"]) == (0, 0)
    assert (old / "journal.db").read_bytes() == journal
    shutil.rmtree(old)  # a run is whole without the one that it came from
    assert "has ended" in await up(new, "--from", str(old))
