"""What `iota up` says that its run waits for: nodes that it starts itself are for nobody else to start."""

from __future__ import annotations

import pytest

from iota.swarm.own_nodes import with_own_nodes
from tests.support.statuses import names_of, run_status

MISSING = "stage 0 has no replica: start a miner, or start a lost one again"


def test_miners_that_have_not_joined_are_said_to_start() -> None:
    whole = run_status(3)
    names = names_of(whole)
    status = {**whole, "phase": "gathering", "waiting": MISSING, "members": whole["members"][1:2]}
    assert with_own_nodes(status, names)["waiting"] == (
        "1 of 3 miners joined; miner-00, miner-02 are still starting"
    )


def test_many_that_start_are_counted() -> None:
    whole = run_status(9)
    status = {**whole, "phase": "gathering", "waiting": MISSING, "members": []}
    assert with_own_nodes(status, names_of(whole))["waiting"] == (
        "0 of 9 miners joined; miner-00, miner-01, miner-02 and 6 more are still starting"
    )


def test_a_lost_miner_is_started_again_by_the_command() -> None:
    status = run_status(3, waiting=MISSING)
    status["members"][1]["live"] = False
    assert with_own_nodes(status, names_of(status))["waiting"] == (
        "miner-01 is not answering; a process that has ended is started again by this command"
    )


@pytest.mark.parametrize(
    ("phase", "waiting"),
    [
        ("training", None),
        ("gathering", "stage 0 is loading its base"),
        ("finished", "validator 5F still audits epoch 2"),
    ],
)
def test_what_is_not_about_missing_nodes_stays(phase: str, waiting: str | None) -> None:
    status = run_status(3, phase=phase, waiting=waiting)
    assert with_own_nodes(status, names_of(status)) == status
