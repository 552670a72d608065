"""What a validator remembers: each verdict once, for one run, one hotkey and one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.messages import AuditKind, Outcome, Verdict
from validator.audits.verdicts import signed_verdict
from validator.core.scoring import EpochWork
from validator.notebook import Notebook, NotebookInUse

KEY = Hotkey.from_seed(b"\x01" * 32)
MINER = Hotkey.from_seed(b"\x02" * 32).ss58
RUN = "ab" * 32


def verdict(outcome: Outcome = Outcome.PASS, epoch: int = 0, seq: int = 7) -> Verdict:
    return signed_verdict(
        RUN, KEY, epoch=epoch, miner=MINER, audit=AuditKind.OP, outcome=outcome, seq=seq, profile="exact"
    )


def test_the_first_verdict_of_a_name_stands_over_restarts(tmp_path: Path) -> None:
    with Notebook(tmp_path, RUN, KEY.ss58) as notebook:
        first = notebook.keep("op:7", verdict())
    with Notebook(tmp_path, RUN, KEY.ss58) as notebook:
        assert notebook.keep("op:7", verdict(Outcome.FAIL)) == first
        assert notebook.verdicts(0) == [first]
        assert notebook.failed() == {}


def test_failed_epochs_are_told_by_miner(tmp_path: Path) -> None:
    with Notebook(tmp_path, RUN, KEY.ss58) as notebook:
        for epoch, name in ((3, "op:1"), (1, "op:1"), (1, "op:2")):
            notebook.keep(name, verdict(Outcome.FAIL, epoch))
        assert notebook.failed() == {MINER: [1, 3]}


def test_an_unproven_epoch_marks_its_work(tmp_path: Path) -> None:
    with Notebook(tmp_path, RUN, KEY.ss58) as notebook:
        notebook.keep_work([EpochWork(e, MINER, 10, 1, 0) for e in range(3)])
        notebook.keep("op:1", verdict(Outcome.INCONCLUSIVE, 1), unproven=True)
        assert [(w.epoch, w.unproven) for w in notebook.work(1, 2)] == [(1, True), (2, False)]


def test_finished_epochs_and_held_out_losses_are_remembered(tmp_path: Path) -> None:
    with Notebook(tmp_path, RUN, KEY.ss58) as notebook:
        assert notebook.last_done() is None
        notebook.keep_heldout(1, 2.5)
        notebook.finish(0)
        notebook.finish(1)
    with Notebook(tmp_path, RUN, KEY.ss58) as notebook:
        assert (notebook.last_done(), notebook.is_done(0), notebook.is_done(2)) == (1, True, False)
        assert (notebook.heldout(1), notebook.heldout(0)) == (2.5, None)


def test_two_processes_cannot_share_a_directory(tmp_path: Path) -> None:
    with Notebook(tmp_path, RUN, KEY.ss58), pytest.raises(NotebookInUse, match="--data-dir"):
        Notebook(tmp_path, RUN, KEY.ss58)


def test_another_hotkey_is_told_to_use_its_own_directory(tmp_path: Path) -> None:
    Notebook(tmp_path, RUN, KEY.ss58).close()
    with pytest.raises(NotebookInUse, match="another run or hotkey"):
        Notebook(tmp_path, RUN, MINER)
