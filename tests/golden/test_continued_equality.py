"""A run from another one's base begins where that one was, however it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from iota.cli.main import main
from iota.compute.evaluate import evaluate_model
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.data import DirectoryReader
from iota.model.initial import initial_weights
from iota.objects import start_key
from iota.outer.base import base_digest, named_weights, read_base
from iota.protocol.records import START_RECORDS
from iota.settings.spec_file import read_spec
from iota.spec import RunSpec
from tests.support.stored_runs import StoredRun, store_run

PLAIN = {"codec": "identity", "ratio": 1, "wire": "fp32"}


def continued(run: StoredRun, out: Path, *flags: str) -> RunSpec:
    """The spec that `iota spec --from` makes of a run's folder, with its start weights in the same store."""
    run.write_journal()
    given = ["--from", str(run.root), "--data", str(run.store), "--out", str(out), *flags]
    with pytest.raises(SystemExit) as ended:
        main(["spec", *given])
    assert ended.value.code == 0
    return read_spec(out)


def start_states(spec: RunSpec, store: Path) -> Iterator[StageState]:
    """Each stage's state, read from the store as a miner reads it, against the digests of the spec."""
    assert spec.init is not None
    for record in START_RECORDS.validate_json((store / start_key(spec.id)).read_bytes()):
        base = read_base(spec, record.stage, [(store / part.key).read_bytes() for part in record.parts])
        assert base_digest(spec, base) == record.digest == spec.init.digests[record.stage]
        assert spec.init.largest is not None
        assert not base.momentum.any()
        assert float(np.abs(base.weights).max()) <= spec.init.largest
        yield StageState(named_weights(spec, record.stage, base.weights))


def heldout(run: StoredRun) -> list[Tokens]:
    """All held-out text of the run's data, in batches."""
    reader, length = DirectoryReader(run.store, run.spec.data.manifest), run.spec.data.sequence_length
    count, size = reader.heldout_count(length), run.spec.data.sequences
    return [
        np.stack([reader.heldout_tokens(n, length) for n in range(first, first + size)])
        for first in range(0, count - size + 1, size)
    ]


@pytest.mark.parametrize("cuts", ["4", "1,3", "3,1", "1,2,1", "1,1,1,1"])
@pytest.mark.parametrize("part_elements", ["1000", "16384"])
def test_the_heldout_loss_of_the_first_base_is_that_of_the_base_it_was_cut_from(
    tmp_path: Path, cuts: str, part_elements: str
) -> None:
    run = store_run(tmp_path / "run", boundary=PLAIN)
    before = evaluate_model(run.spec, run.states, heldout(run))
    spec = continued(
        run, tmp_path / "spec.json", "--layout.cuts", cuts, "--outer.part_elements", part_elements
    )
    after = evaluate_model(spec, start_states(spec, run.store), heldout(run))
    assert len(heldout(run)) > 20
    assert after == pytest.approx(before, abs=1e-5)


def test_another_codec_begins_as_in_a_run_from_the_seed_and_all_other_weights_go_on(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    flags = ("--stages", "3", "--boundary", "resbm", "--ratio", "4", "--replicas", "2")
    spec = continued(run, tmp_path / "spec.json", *flags)
    trained = {name: w for state in run.states for name, w in state.weights.items()}
    found = {name: w for state in start_states(spec, run.store) for name, w in state.weights.items()}
    seeded = {name: w for stage in range(3) for name, w in initial_weights(spec, stage).items()}
    fresh = {name for name in found if name.startswith("boundary.")}
    assert fresh
    assert all(torch.equal(found[name], seeded[name]) for name in fresh)
    assert found.keys() - fresh == {name for name in trained if not name.startswith("boundary.")}
    assert all(torch.equal(found[name], trained[name]) for name in found.keys() - fresh)


def test_weights_go_from_fp32_into_a_run_of_bf16_weights(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", boundary=PLAIN)
    spec = continued(run, tmp_path / "spec.json", "--stages", "1", "--precision", "bf16-sr")
    [state] = start_states(spec, run.store)
    trained = {name: w for state in run.states for name, w in state.weights.items()}
    assert all(torch.equal(w, trained[name].to(torch.bfloat16)) for name, w in state.weights.items())
