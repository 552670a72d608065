"""What `iota up` makes of the statuses it sees."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from iota.swarm.options import SwarmOptions
from iota.swarm.progress import Progress
from iota.swarm.run_dir import write_json
from iota.swarm.summary import Summary, summarise, summary_table


def status(phase: str, tokens: int = 0, losses: tuple[float, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "run": "a" * 64,
        "name": "small",
        "phase": phase,
        "waiting": None,
        "epoch": 0,
        "epochs": 1,
        "step": len(losses),
        "steps": 4,
        "open_microbatches": 0,
        "losses": list(losses),
        "heldout": {},
        "heldout_error": {},
        "heldout_tokens": {},
        "tokens": tokens,
        "settled": 0,
        "dropped": 0,
        "rerouted": 0,
        "audits": {"passed": 3, "failed": 0, "undelivered": 0, "inconclusive": 1, "closed_epochs": 1},
        "weights": {},
        "validator_compute_share": {},
        "named": [],
        "members": [],
        "finished": phase == "finished",
        **more,
    }


HELDOUT = {
    "heldout": {"0": 4.5, "1": 3.9},
    "heldout_error": {"0": None, "1": 0.02},
    "heldout_tokens": {"0": 1024, "1": 4096},
}


def watched() -> Progress:
    progress = Progress(began=100.0)
    progress.observe(102.0, status("gathering"))
    progress.observe(104.0, status("training"))
    progress.observe(106.0, status("training", 50, (5.0,)))
    progress.observe(112.0, status("merging", 400, (5.0, 4.0)))
    progress.observe(114.0, status("finished", 400, (5.0, 4.0), **HELDOUT))
    return progress


def test_time_is_counted_by_the_phase_that_it_passed_in() -> None:
    progress = watched()
    assert (progress.steps_s, progress.merge_s) == (8.0, 2.0)
    assert progress.utilization == pytest.approx(0.8)


def test_speed_is_settled_tokens_over_steps_and_merges() -> None:
    assert watched().tokens_per_second == pytest.approx(400 / 10)


def test_the_first_loss_is_timed_from_the_start_of_the_command() -> None:
    assert watched().first_loss_s == pytest.approx(6.0)


def test_a_resumed_run_counts_only_what_it_sees() -> None:
    progress = Progress(began=0.0)
    progress.observe(1.0, status("training", 1000, (5.0, 4.0)))
    progress.observe(3.0, status("training", 1200, (5.0, 4.0)))
    assert progress.tokens_per_second == pytest.approx(100.0)
    assert progress.first_loss_s is None


def test_nothing_seen_is_no_speed() -> None:
    progress = Progress(began=0.0)
    assert (progress.tokens_per_second, progress.utilization, progress.recent_tokens_per_second) == (0, 0, 0)


def test_the_summary_holds_what_the_run_did() -> None:
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    summary = summarise(
        spec, watched(), {"5F": 1.0}, memory={"miner": 5}, disk_bytes=7, restarts={"miner-00": 1}
    )
    summary.compare(50.0)
    found = summary.as_json()
    expected = {
        "tokens": 400,
        "steps": 2,
        "epochs": 1,
        "loss_first": 5.0,
        "loss_last": 4.0,
        "heldout_loss": 3.9,
        "heldout_standard_error": 0.02,
        "heldout_tokens": 4096,
        "bytes_per_boundary_per_token": 32.0,
        "compression_ratio": 16.0,
        "audits": {"passed": 3, "failed": 0, "undelivered": 0, "inconclusive": 1},
        "weights": {"5F": 1.0},
        "single_process_tokens_per_second": 50.0,
        "efficiency": pytest.approx(0.8),
    }
    assert expected.items() <= found.items()


def test_the_exports_measurement_replaces_the_validators(tmp_path: Path) -> None:
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    summary = summarise(spec, watched(), {}, memory={}, disk_bytes=0, restarts={})
    path = tmp_path / "evaluation.json"
    path.write_text('{"epoch": 1, "loss": 3.5, "standard_error": 0.01, "tokens": 32768, "documents": 40}')
    summary.take_heldout(path)
    found = summary.as_json()
    assert (found["heldout_loss"], found["heldout_standard_error"], found["heldout_tokens"]) == (
        3.5,
        0.01,
        32768,
    )


def test_without_a_comparison_the_summary_claims_none() -> None:
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    found = summarise(spec, watched(), {}, memory={}, disk_bytes=0, restarts={}).as_json()
    assert "efficiency" not in found


@pytest.mark.parametrize(
    ("options", "sent", "ratio"),
    [({"wire": "int8"}, 20.0, 25.6), ({"boundary": "identity"}, 512.0, 1.0), ({"stages": 1}, 0.0, 1.0)],
)
def test_compression_is_held_against_bf16(options: dict[str, Any], sent: float, ratio: float) -> None:
    spec = SwarmOptions.of(epochs=1, **options).spec("0" * 64, 257)
    summary = summarise(spec, watched(), {}, memory={}, disk_bytes=0, restarts={})
    assert summary.bytes_per_boundary_per_token == sent
    assert summary.compression_ratio == pytest.approx(ratio)


def test_the_time_left_is_that_of_the_steps_seen() -> None:
    progress = Progress(began=0.0)
    progress.observe(0.0, status("training", 0, steps=10))
    assert progress.eta_s is None
    progress.observe(8.0, status("training", 100, (5.0, 4.0), steps=10))
    assert progress.eta_s == pytest.approx(8 * 4.0)
    progress.observe(9.0, status("finished", 100, (5.0,) * 10, steps=10))
    assert progress.eta_s is None


def test_the_table_names_every_weight() -> None:
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    weights = {"5Fabcdefgh": 0.25, "5Gabcdefgh": 0.75}
    summary = summarise(spec, watched(), weights, memory={}, disk_bytes=0, restarts={})
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(summary_table(summary))
    assert "5Fabcdef" in (shown := console.export_text())
    assert "0.750" in shown


def test_the_table_says_which_miner_has_a_weight_and_why_one_was_restarted() -> None:
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    progress = Progress(began=0.0)
    member = {"hotkey": "5Fabcdefgh", "role": "miner", "stage": 1, "tokens": 900}
    progress.observe(1.0, status("finished", 400, (5.0,), members=[member]))
    end = "miner-01 (stage 1) ended with code 1: RuntimeError: no such device"
    summary = summarise(
        spec, progress, {"5Fabcdefgh": 1.0}, memory={}, disk_bytes=0, restarts={"miner-01": 1},
        ends=[end], names={"5Fabcdefgh": "miner-01"},
    )  # fmt: skip
    assert summary.members == {"miner-01": member}
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(summary_table(summary))
    shown = console.export_text()
    assert "1.000  miner-01, stage 1, 900 tokens" in shown
    assert end in shown


def test_a_resumption_that_saw_no_training_claims_no_speed() -> None:
    progress = Progress(began=0.0)
    progress.observe(1.0, status("finished", 400, (5.0, 4.0)))
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(summary_table(summarise(spec, progress, {}, memory={}, disk_bytes=0, restarts={})))
    rows = dict(line.split("  ", 1) for line in console.export_text().splitlines() if "  " in line)
    for name in ("speed", "utilization", "first loss after"):
        assert next(value.strip() for key, value in rows.items() if key.strip() == name) == "-"


def test_a_summary_comes_back_from_its_file(tmp_path: Path) -> None:
    spec = SwarmOptions(epochs=1).spec("0" * 64, 257)
    summary = summarise(spec, watched(), {"5F": 1.0}, memory={}, disk_bytes=7, restarts={})
    write_json(tmp_path / "s.json", summary.as_json())
    assert Summary.read(tmp_path / "s.json") == summary
