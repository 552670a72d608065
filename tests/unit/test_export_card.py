"""What an export says of its model: the card, and the held-out loss."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iota.data import read_manifest
from iota.exporting.card import model_card
from iota.protocol.heldout import BaseLoss
from tests.support.stored_runs import StoredRun, store_run
from tests.unit.test_export_sources import export, exported, served


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return store_run(tmp_path / "run")


def test_the_model_card_says_what_the_model_is(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    assert export("--run-dir", run.root, "--license", "apache-2.0", "--to", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text()
    for said in (
        run.spec.id,
        "license: apache-2.0",
        "transformers>=4.57,<6.0",
        "1 of 2 epochs",
        "not measured",
    ):
        assert said in card
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["pad_token_id"] == 256


def test_the_model_card_says_how_documents_were_masked(run: StoredRun) -> None:
    manifest = read_manifest(run.root / "store", run.spec.data.manifest)
    data = run.spec.data.model_copy(update={"mask_documents": True, "eos_id": manifest.tokenizer.eos_id})
    masked = run.spec.model_copy(update={"data": data})
    cards = [model_card(spec, 1, manifest, None, None) for spec in (run.spec, masked)]
    assert ["begin a prompt with one" in card for card in cards] == [False, True]


def test_the_lines_of_the_model_card_ask_no_question(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    assert export("--run-dir", run.root, "--to", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text()
    lines = card.split("```python\n")[1].split("```")[0].replace("FOLDER", repr(str(tmp_path / "model")))
    done = subprocess.run(
        [sys.executable, "-c", lines],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        input="",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_an_export_measures_the_held_out_loss_with_its_standard_error(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    assert export("--run-dir", run.root, "--heldout-tokens", 3000, "--to", tmp_path / "model") == 0
    found = json.loads((tmp_path / "model" / "evaluation.json").read_text())
    assert 4 < found["loss"] < 8
    assert 0 < found["standard_error"] < 0.1 * found["loss"]
    assert (found["epoch"], found["tokens"] > 2900, found["documents"] > 5) == (1, True, True)
    assert f"{found['loss']:.4f} ±" in (tmp_path / "model" / "README.md").read_text()


async def test_the_card_states_what_the_run_has_measured(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    async with served(run) as (running, _):
        running.coordinator.state.totals.heldout[1] = BaseLoss(3.25, 0.0125, 16, 4096)
        assert await exported("--orchestrator", running.url, "--to", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "3.2500 ± 0.0125 (standard error) nats a token, on 4,096 tokens" in card


def test_names_of_others_are_no_markup_in_the_model_card(run: StoredRun) -> None:
    evil = "x](http://evil) <script>alert(1)</script> ![a](b) | z\n\n# owned"
    given = read_manifest(run.store, run.spec.data.manifest)
    card = model_card(run.spec, 1, given.model_copy(update={"source": evil}), None, None)
    assert "\n# owned" not in card
    assert not re.search(r"(?<!\\)[<>\[\]!]", card.split("| data |")[1].split("\n")[0])
