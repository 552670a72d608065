"""A validator whose orchestrator is gone: weights go on from the database, and it comes back by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from iota.chain import Chain, open_chain
from iota.console.conditions import DAY_S
from iota.console.watch import ConditionStands, Watch
from tests.support.data_sets import prepare_made_up
from tests.support.validator_stages import KEY, NETUID, THOROUGH, Stage, set_up, small_ledger


async def last_update(chain: Chain) -> int:
    neuron = (await chain.subnet(NETUID)).neuron(KEY.ss58)
    assert neuron is not None
    return neuron.last_update


async def staged(tmp_path: Path, url: str, chain: Chain) -> Stage:
    text = tmp_path / "data"
    manifest = prepare_made_up(text, count=200, shard_tokens=8_000, heldout_tokens=2_000)
    return await set_up(tmp_path, url, chain, (text, manifest), THOROUGH)


async def test_weights_go_on_while_the_orchestrator_is_away_and_the_run_ends_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with TestServer(small_ledger(tmp_path)) as server:
        url = str(server.make_url("/"))
        async with open_chain(url, KEY) as chain:
            stage = await staged(tmp_path, url, chain)
            orchestrator = stage.orchestrator
            validator = asyncio.create_task(stage.validate())
            await asyncio.wait_for(orchestrator.audited.wait(), 60)
            orchestrator.away = True
            joins, seen = len(orchestrator.joins), {await last_update(chain)}
            async with asyncio.timeout(60):
                while len(seen) < 4:
                    seen.add(await last_update(chain))
                    await asyncio.sleep(0.05)
            tempos = [block // 20 for block in sorted(seen)[1:]]
            assert len(set(tempos)) == len(tempos)
            assert not validator.done()
            orchestrator.away = False
            await validator
            assert len(orchestrator.joins) > joins
            assert orchestrator.closed == {0, 1}


async def test_an_orchestrator_that_never_comes_back_ends_the_validator(tmp_path: Path) -> None:
    async with TestServer(small_ledger(tmp_path)) as server:
        url = str(server.make_url("/"))
        async with open_chain(url, KEY) as chain:
            stage = await staged(tmp_path, url, chain)
            stage.watch = Watch(scale=0.5 / DAY_S)
            validator = asyncio.create_task(stage.validate())
            await asyncio.wait_for(stage.orchestrator.audited.wait(), 60)
            stage.orchestrator.away = True
            with pytest.raises(ExceptionGroup) as ended:
                await validator
    assert ended.group_contains(ConditionStands, match="nobody answers")
