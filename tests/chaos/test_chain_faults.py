"""Each fault of a chain while weights are due, over the real SDK: bounded, said, never doubled, got over."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tests.support.chain_fault_bench import NEW, OLD, TEMPO, FaultBench, fault_bench
from tests.support.chain_fault_cases import CASES, Case
from tests.support.subtensor.fixtures import sdk_home
from tests.support.subtensor.metadata import RuntimeKind

__all__ = ["sdk_home"]

RECOVERY_BLOCKS = 60
"""A write whose fate stays unknown is given up after 42."""
SAID = 8
"""The most lines that the longest fault is told in."""
DOCS = Path(__file__).parents[2] / "docs" / "chain.md"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_weights_through_a_fault(
    case: Case, sdk_home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fault_bench(tmp_path, **case.settings) as b:
        before, tempo = len(b.states), b.tempo()
        caplog.clear()
        await case.begin(b)
        await b.go(case.blocks)
        check_what_is_seen(case, b, caplog)
        b.node.faults.clear()
        b.when_pooled = FaultBench.land
        if case.end is not None:
            await case.end(b)
        await recover(b)
        assert tuple(b.states[before:]) == case.states
        await b.go(b.model.value("SubtensorModule", "Tempo", (9,)))
        check_what_is_written(case, b, tempo)


async def test_a_runtime_that_does_not_fit_any_more_is_named_as_it_is_now(
    sdk_home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fault_bench(tmp_path) as b:
        upgraded = await b.node.upgrade(RuntimeKind.ITEM_ABSENT)
        await b.go(1)
        assert f"runtime {upgraded.spec_version} at {b.node.url} and bittensor" in caplog.text


def test_the_docs_have_a_row_for_each_fault_with_what_is_seen() -> None:
    section = DOCS.read_text().split("## When the chain misbehaves")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("|")][2:]
    told = {fault.strip(): set(re.findall("`(.+?)`", seen)) for fault, seen in rows}
    assert len(told) == len(rows)
    assert told == {case.fault: {c.seen for c in CASES if c.fault == case.fault} for case in CASES}


def check_what_is_seen(case: Case, b: FaultBench, caplog: pytest.LogCaptureFixture) -> None:
    assert b.chain.kinds == case.kinds
    warnings = [r for r in caplog.records if r.name.startswith("validator.") and r.levelno >= logging.WARNING]
    assert any(case.seen in r.getMessage() for r in warnings)
    assert len(warnings) <= SAID


async def recover(b: FaultBench) -> None:
    """The same setter goes on until its plan is in force."""
    end = b.now_s + RECOVERY_BLOCKS * 12
    while not (b.row() == NEW and b.states[-1] == "in force"):
        assert b.now_s < end, f"{b.setter.activity}: {b.states}"
        await b.go(1)


def check_what_is_written(case: Case, b: FaultBench, tempo: int) -> None:
    """One write a tempo, in that of the fault too, and never another row than the planned ones."""
    written = b.written()
    assert set(written.values()) == {1}
    assert case.blocks > TEMPO or tempo in written
    assert b.rows == [{}, OLD, NEW]
