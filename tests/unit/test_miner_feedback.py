"""A miner's encoded pseudo-gradient and error feedback: on disk with the last COMMIT, intact or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from iota.compute.engine import Engine
from iota.compute.names import Microbatch
from iota.compute.state import StageState, load_state
from iota.objects import delta_part_bytes, stage_feedback_bytes
from iota.outer.error_feedback import encode_part
from iota.outer.partition import PartError, split
from iota.outer.pseudo_gradient import pseudo_gradient
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKind
from iota.spec import OuterCodec, RunSpec
from miner.delta_files import DeltaFiles, EpochStart
from miner.disk import MinerDisk
from miner.op_records import StateLost
from tests.support.damage import DAMAGES, Damage
from tests.support.one_stage_miners import OneStageMiner, one_stage
from tests.support.small_runs import sample

LOSSY = [OuterCodec.INT8, OuterCodec.SPARSE]
Open = Callable[..., OneStageMiner]


def of(codec: OuterCodec) -> RunSpec:
    return one_stage(outer={"codec": codec, "part_elements": 10_000})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Open]:
    opened: list[OneStageMiner] = []

    def start(spec: RunSpec) -> OneStageMiner:
        for before in opened[-1:]:
            before.close()
        opened.append(OneStageMiner(tmp_path, spec))
        opened[-1].load()
        return opened[-1]

    yield start
    opened[-1].close()


def weights(spec: RunSpec, steps: int) -> StageState:
    """The state after so many steps, by a plain engine."""
    engine = Engine(spec, 0)
    engine.load(StageState.initial(spec, 0), version=0)
    for step in range(steps):
        engine.loss(Microbatch(0, step, 0), spec.weight_version(step), None, sample(spec)(0, step, 0))
        engine.step(step, 1, 0.01)
    return engine.state()


@pytest.mark.parametrize("codec", OuterCodec)
def test_the_last_commit_leaves_the_pseudo_gradient_and_the_feedback_on_disk(
    start: Open, codec: OuterCodec
) -> None:
    spec = of(codec)
    miner = start(spec)
    miner.train(0, 7)
    miner.settle()
    delta = pseudo_gradient(StageState.initial(spec, 0).weights, weights(spec, 7).weights).numpy()
    made = [encode_part(spec.outer, part, None) for part in split(delta, spec.outer.part_elements)]
    assert [file.read_bytes() for file in miner.disk.delta_parts(0)] == [data for data, _ in made]
    assert [len(data) for data, _ in made] == delta_part_bytes(spec, 0)
    files = DeltaFiles(spec, miner.disk)
    assert len(files.feedback(1)) == stage_feedback_bytes(spec, 0)
    shown = {r.version: r.commitment.feedback for r in miner.of(OpKind.COMMIT) if r.commitment is not None}
    assert [shown[0], shown[5]] == [EMPTY, EMPTY]
    assert shown[7] == EpochStart(1, {}, files.leaves(1)).root
    assert (shown[7] != EMPTY) is codec.has_feedback


@pytest.mark.parametrize("codec", LOSSY)
def test_a_restarted_miner_comes_to_the_same_feedback(start: Open, codec: OuterCodec) -> None:
    miner = start(of(codec))
    miner.train(0, 7)
    miner.settle()
    before = (
        [file.read_bytes() for file in miner.disk.delta_parts(0)],
        DeltaFiles(of(codec), miner.disk).leaves(1),
    )
    again = start(of(codec))
    again.train(0, 7)
    again.settle()  # the commitment is that of the receipt: another one would end the life
    after = (
        [file.read_bytes() for file in again.disk.delta_parts(0)],
        DeltaFiles(of(codec), again.disk).leaves(1),
    )
    assert before == after


@pytest.mark.parametrize("codec", LOSSY)
def test_what_an_epoch_leaves_is_in_the_next_ones_pseudo_gradient(tmp_path: Path, codec: OuterCodec) -> None:
    spec, first = of(codec), StageState.initial(of(codec), 0).weights
    final = weights(spec, 3).weights
    delta = pseudo_gradient(first, final).numpy()
    left = [None] * len(split(delta, spec.outer.part_elements))
    with MinerDisk(tmp_path) as disk:
        files, root = DeltaFiles(spec, disk), EMPTY
        for epoch in range(3):
            start = EpochStart(epoch, first, files.leaves(epoch))
            assert start.root == root
            root = files.write(start, final)
            made = [
                encode_part(spec.outer, part, before)
                for part, before in zip(split(delta, spec.outer.part_elements), left, strict=True)
            ]
            left = [rest for _, rest in made]
            assert [file.read_bytes() for file in disk.delta_parts(epoch)] == [data for data, _ in made]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_feedback_that_was_damaged_on_disk_ends_the_life(start: Open, tmp_path: Path, damage: Damage) -> None:
    spec = of(OuterCodec.SPARSE)
    miner = start(spec)
    files = DeltaFiles(spec, miner.disk)
    state = load_state(miner.disk.start_state(0), spec, 0)
    files.write(EpochStart(-1, state.weights), weights(spec, 1).weights)
    miner.runner.load(0, 0, state, miner.roots(), files.leaves(0))
    damage(miner.disk.feedback(0) / "part-001")
    with pytest.raises((PartError, OSError)):
        files.feedback(0)
    miner.train(0, 7)
    with pytest.raises((StateLost, OSError)):
        miner.settle()


def test_a_miner_without_feedback_on_disk_begins_with_none(tmp_path: Path) -> None:
    with MinerDisk(tmp_path) as disk:
        files = DeltaFiles(of(OuterCodec.SPARSE), disk)
        assert files.leaves(3) == ()
        assert files.feedback(3) == b""
        start = StageState.initial(of(OuterCodec.SPARSE), 0).weights
        files.write(EpochStart(2, start), start)
        assert len(files.leaves(3)) == len(delta_part_bytes(of(OuterCodec.SPARSE), 0))
        assert not np.frombuffer(files.feedback(3), np.uint16).any()
        disk.forget_feedback(3)
        assert files.leaves(3) == ()
        assert disk.delta_parts(2)
        disk.forget_epoch(2)
        assert not disk.delta_parts(2)
