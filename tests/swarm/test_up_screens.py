"""`iota up` as people and services start it: on terminals of two sizes, a dumb one, in a pipe, by systemd."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.terminals import as_a_service, frames, in_a_pipe, on_terminal

pytestmark = pytest.mark.alone

SMALL = [
    "iota.cli.main", "up", "--model", "tiny", "--stages", "2", "--epochs", "1", "--steps-per-epoch", "40",
    "--microbatches", "2", "--sequence-length", "32", "--sequences", "1",
]  # fmt: skip


def on(term: str) -> dict[str, str]:
    return {**os.environ, "TERM": term, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_the_dashboard_fits_its_terminal_while_a_real_run_goes_on(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    code, written = await on_terminal(
        [*SMALL, "--no-validator", "--run-dir", str(tmp_path / "run")], size, on("xterm-256color")
    )
    assert code == 0, written[-2000:]
    pages = frames(written.partition("all processes have ended")[0])  # the last page stays, and more follows
    assert pages
    assert all(len(page) < size[1] and max(map(len, page)) <= size[0] for page in pages)
    last = "\n".join(pages[-1])
    for shown in ("epoch 0 (last: 0) step", "miner-00", "miner-01", "tokens/s", "boundary: "):
        assert shown in last
    assert "loss 5." in written
    assert "start a miner" not in written  # the command starts them itself
    assert "exporting the model" in written


async def test_a_service_without_home_terminal_and_stdin_gets_plain_lines_to_the_end(tmp_path: Path) -> None:
    code, written = await in_a_pipe(
        [*SMALL, "--run-dir", str(tmp_path / "run")], as_a_service(TERM="dumb"), closed_stdin=True
    )
    assert code == 0, written[-2000:]
    assert "\x1b" not in written
    assert "start a miner" not in written
    rows = written.splitlines()
    assert any(row.startswith("epoch 0 (last: 0) step ") and "loss 5." in row for row in rows)
    assert any("audits epoch 0, for " in row for row in rows)  # what the end of the run waits for
    assert "all processes have ended; exporting the model" in rows
    assert re.search(r"^weight \w{8} +0\.\d+  miner-0\d, stage \d", written, re.MULTILINE)
    log = (tmp_path / "run/logs/miner-01.log").read_text()
    for told in (
        r"miner 5\w+: iota [\d.]+, python [\d.]+, torch ", r"joined run [0-9a-f]{12} as a replica of stage",
        r"made from the seed: the base of epoch 0 is on disk", r"takes part in epoch 0 from step 0",
        r"epoch 0 step \d+/40, stage \d:.* tokens/s, waiting \d+%, \d of 3 microbatches in flight, frames ",
        r"merged epoch 0 \(\d+\.\d MB\)", r"audit of epoch 0 \(op\): \d passed",
    ):  # fmt: skip
        assert re.search(told, log), (told, log)
    log = (tmp_path / "run/logs/validator.log").read_text()
    assert re.search(r"epoch 0 is audited: .*\(\d+ in all\)", log), log
    assert re.search(r"weights of 2 miners are set in block \d+: 5", log), log
    log = (tmp_path / "run/logs/orchestrator.log").read_text()
    assert "joined as miner of stage 1, on cpu/" in log
    assert "epoch 0 is merged, after step 40 of the run" in log


async def test_ctrl_c_names_a_command_that_goes_on_and_says_nothing_twice(tmp_path: Path) -> None:
    stopped = False

    def stop(written: str) -> None:
        nonlocal stopped
        found = re.search(r"run directory (\S+)", written)
        if "loss 5." in written and found is not None and not stopped:
            stopped = True
            holder = int((tmp_path / "run/lock").read_text())
            os.kill(holder, 2)

    long = [*SMALL, "--no-validator", "--epochs", "50", "--run-dir", str(tmp_path / "run")]
    code, written = await on_terminal(long, (80, 24), on("dumb"), stop)
    assert (code, stopped) == (130, True)
    last = written.splitlines()[-1]
    assert re.fullmatch(rf"stopped; `(iota|\S+/iota|\S*scripts/up)( up)? --run-dir {tmp_path}/run` goes on"
                        r" from here", last), last  # fmt: skip
    assert "interrupted" not in written
