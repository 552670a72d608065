"""A miner that cannot host what the run has says so: before it joins, where it cannot host any stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import miner.node
from iota.planning import Machine, all_needs
from iota.planning.fits import PROCESS_BYTES
from iota.settings import Activations
from tests.support.conditioned_nodes import Bench, bench, made_data


async def refused(made: Bench, **given: Any) -> str:
    """The sentence with which the miner ends."""
    made.start(**given)
    assert made.node is not None
    with pytest.raises(ValueError) as ended:  # noqa: PT011 - the callers look at the sentence
        await made.node
    return str(ended.value)


def on(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """The machine has so many bytes of memory, and a disk for everything."""
    whole = Machine(memory, 1 << 50, Path("/"))
    monkeypatch.setattr(
        miner.node.Machine, "whole", lambda place, card: replace(whole, place=place, card=card)
    )


@pytest.fixture
def data(tmp_path: Path) -> Any:
    return tmp_path / "shards", made_data(tmp_path / "shards")


async def test_a_machine_that_holds_no_stage_does_not_join(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, 1 << 20)
    async with bench(tmp_path, *data) as made:
        said = await refused(made)
        assert "stage 0 needs" in said
        assert "take a larger machine" in said
        assert not made.running.coordinator.members


async def test_snapshot_bytes_that_do_for_no_stage_are_refused_before_the_join(
    tmp_path: Path, data: Any
) -> None:
    async with bench(tmp_path, *data) as made:
        assert "--snapshot-bytes is 1MiB: give" in await refused(made, snapshot_bytes=1 << 20)
        assert not made.running.coordinator.members


async def test_a_machine_that_holds_another_stage_leaves_when_it_is_given_one_that_does_not_fit(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path, *data, stages=2, values={"layout": {"cuts": [3, 1]}}) as made:
        first, last = (
            n.memory_of(Activations.RECOMPUTE) + n.hosted for n in all_needs(made.running.coordinator.spec)
        )
        assert last < first
        on(monkeypatch, PROCESS_BYTES + last)
        assert "stage 0 needs" in await refused(made)
        (member,) = made.running.coordinator.members.values()
        assert (member.live, member.receipts) == (False, 0)
