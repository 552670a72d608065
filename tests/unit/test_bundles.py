"""Verdict bundles: a validator writes one for each FAIL, and anyone repeats the verdict from it alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from iota.chain import open_chain
from iota.data import Manifest
from iota.protocol.messages import Outcome, Verdict
from tests.support.audited_runs import THREADS
from tests.support.data_sets import prepare_made_up
from tests.support.validator_stages import KEY, NETUID, THOROUGH, set_up, small_ledger
from validator.audits.replay import ReplayOptions
from validator.bundles.repeat import Repeated, repeat

OPTIONS = ReplayOptions(threads=THREADS, max_threads=THREADS)


@dataclass
class Audited:
    """A run that has ended: its orchestrator and its store are gone, the validator's folder stays."""

    bundles: list[Path]
    verdicts: list[Verdict]
    noisy: str
    ledger: Path
    """Database of the chain."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("data")
    return out, prepare_made_up(out, count=200, shard_tokens=8_000, heldout_tokens=2_000)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, data: tuple[Path, Manifest]) -> Audited:
    return asyncio.run(_audit(tmp_path_factory.mktemp("audited"), data))


async def _audit(folder: Path, data: tuple[Path, Manifest]) -> Audited:
    async with TestServer(small_ledger(folder)) as server:
        url = str(server.make_url("/"))
        async with open_chain(url, KEY) as chain:
            stage = await set_up(folder, url, chain, data, THOROUGH)
            await stage.validate()
    kept = folder / "validator" / stage.spec.id[:16] / "verdicts"
    return Audited(
        bundles=sorted(kept.glob("*.zip")),
        verdicts=stage.orchestrator.verdicts(),
        noisy=stage.orchestrator.world.miners[1].hotkey,
        ledger=folder / "ledger.db",
    )


async def test_each_failed_verdict_has_a_bundle_that_gives_it_again(audited: Audited) -> None:
    failed = [v for v in audited.verdicts if v.outcome is Outcome.FAIL]
    assert failed and len(audited.bundles) == len(failed)
    for path in audited.bundles:
        found = await repeat(path, OPTIONS)
        assert found.faults == [] and found.confirmed
        assert found.result is not None
        assert (found.result.expected, found.result.found) == (found.verdict.expected, found.verdict.found)
