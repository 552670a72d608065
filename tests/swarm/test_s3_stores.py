"""A whole swarm over an S3: one without conditions that verifies signatures, and moto's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.live_swarm import ORCHESTRATOR, Status, tiny
from tests.support.odd_s3 import Oddities, credentials, odd_s3
from tests.support.s3_swarm import S3Swarm
from tests.support.store_servers import moto_s3

OPTIONS = tiny(stages=2, microbatches=2, steps_per_epoch=2)


async def train(root: Path, store_url: str) -> tuple[Status, str]:
    """The status at the end of a run with a validator, and the orchestrator's log."""
    async with S3Swarm(root / "run", OPTIONS, store_url, validator=True) as swarm:
        status = await swarm.finished()
        await swarm.validator_done(60)
        return status, swarm.run_dir.log(ORCHESTRATOR).read_text()


def check(status: Status, root: Path) -> None:
    """All work was settled, and what was audited passed."""
    assert status["settled"] == OPTIONS.epochs * OPTIONS.steps_per_epoch * OPTIONS.microbatches
    [path] = (root / "run").glob("**/validator.sqlite")
    with closing(sqlite3.connect(path)) as database:
        verdicts = [json.loads(row[0]) for row in database.execute("SELECT json FROM verdicts")]
    assert {verdict["outcome"] for verdict in verdicts} == {"pass"}


async def test_a_swarm_trains_over_an_s3_that_lacks_what_some_services_lack(tmp_path: Path) -> None:
    """No conditions, no deletion without Content-MD5, URLs that live five minutes."""
    with credentials():
        async with odd_s3(Oddities(max_expiry_s=300)) as (service, url):
            status, log = await train(tmp_path, url)
            assert not [key for key in service.objects if "/.incoming/" in key]
    assert "uploads go to keys of their own, and are copied from there" in log
    assert "URLs live up to 300 s" in log
    check(status, tmp_path)


@pytest.mark.long
async def test_a_swarm_trains_over_moto(tmp_path: Path) -> None:
    with moto_s3("bucket") as url:
        status, _ = await train(tmp_path, f"s3://bucket/runs?endpoint={url}&region=us-east-1")
    check(status, tmp_path)
