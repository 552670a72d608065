"""A run of real processes that starts from existing weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iota.data import DirectoryReader, sequence_indices
from tests.support.data_sets import made_up_text, write_jsonl
from tests.support.live_swarm import LiveSwarm, tiny
from tests.support.llamas import save_llama


async def test_a_run_goes_on_from_where_the_weights_are(tmp_path: Path) -> None:
    """The first loss is that of the `transformers` model; audits replay epoch 0 from the same weights."""
    model = save_llama(tmp_path / "llama")
    write_jsonl(tmp_path / "text" / "a.jsonl", [made_up_text(n) for n in range(4000)])
    options = tiny(
        stages=2, model=None, init=str(tmp_path / "llama"), boundary="identity", wire="fp32", pipeline="sync",
        data=str(tmp_path / "text"),
    )  # fmt: skip
    async with LiveSwarm(tmp_path / "run", options, validator=True) as swarm:
        status = await swarm.finished()
        await swarm.validator_done(60)
        status = await swarm.until(lambda s: bool(s["audits"]["passed"]))
        spec = swarm.spec
    assert (status["audits"]["failed"], status["audits"]["inconclusive"]) == (0, 0)
    reader, length = (
        DirectoryReader(tmp_path / "run" / "store", spec.data.manifest),
        spec.data.sequence_length,
    )
    losses = []
    for index in range(spec.schedule.microbatches):
        drawn = sequence_indices(
            spec.seed, 0, 0, index, steps=spec.schedule.steps, microbatches=spec.schedule.microbatches,
            sequences=spec.data.sequences, count=reader.sequence_count(length), first=0,
        )  # fmt: skip
        ids = torch.stack([torch.from_numpy(reader.tokens(sequence, length)) for sequence in drawn])
        with torch.no_grad():
            logits = model(ids[:, :-1]).logits
        losses.append(float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())))
    assert status["losses"][0] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert status["losses"][-1] < status["losses"][0]
