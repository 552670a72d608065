"""The held-out loss of each epoch's base, from microbatches that run through a real swarm."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from iota.compute.evaluate import evaluate_model
from iota.compute.state import StageState
from iota.data import DirectoryReader
from iota.data.samples import drawn_sequences
from iota.spec import RunSpec
from tests.support.live_swarm import LiveSwarm, tiny

HELDOUT = 6


async def test_the_status_and_the_validator_tell_the_loss_of_each_base(tmp_path: Path) -> None:
    options = tiny(epochs=2, values={"schedule": {"heldout": HELDOUT}})
    async with LiveSwarm(tmp_path / "run", options, validator=True) as swarm:
        status = await swarm.finished()
        await asyncio.wait_for(asyncio.shield(swarm.running["validator"].ended), 60)
        [path] = swarm.run_dir.node("validator").glob("*/validator.sqlite")
        spec, said = swarm.spec, swarm.run_dir.log("validator").read_text()
        initial = _initial_loss(spec, swarm.run_dir.store)
    losses, errors = status["heldout"], status["heldout_error"]
    assert losses.keys() == errors.keys() == {"0", "1"}
    assert losses["0"] == pytest.approx(initial, rel=1e-6)
    assert losses["1"] < losses["0"]
    assert all(0 < errors[epoch] < 0.1 * losses[epoch] for epoch in losses)
    assert set(status["heldout_tokens"].values()) == {HELDOUT * spec.data.tokens}
    assert status["settled"] == 2 * spec.schedule.steps * spec.schedule.microbatches
    for epoch in losses:
        assert f"epoch {epoch}: held-out loss of its base {losses[epoch]:.4f}" in said
    with closing(sqlite3.connect(path)) as database:
        verdicts = [json.loads(row[0]) for row in database.execute("SELECT json FROM verdicts")]
    assert {(verdict["outcome"], verdict["profile"]) for verdict in verdicts} == {("pass", "exact")}


def _initial_loss(spec: RunSpec, store: Path) -> float:
    """The loss of the initial weights on the run's held-out microbatches, in one process."""
    reader, length = DirectoryReader(store, spec.data.manifest), spec.data.sequence_length
    counts = {"count": reader.sequence_count(length), "heldout_count": reader.heldout_count(length)}
    batches = []
    for index in range(spec.schedule.microbatches, spec.planned(0)):
        drawn = drawn_sequences(spec, 0, 0, index, **counts)
        assert drawn.heldout
        batches.append(np.stack([reader.heldout_tokens(number, length) for number in drawn.numbers]))
    states = [StageState.initial(spec, stage) for stage in range(spec.layout.stages)]
    return evaluate_model(spec, states, batches)
