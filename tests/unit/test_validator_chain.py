"""The validator's commitment and the draw's block, over a chain that refuses or lags."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from iota.chain import BadInput, ChainError, Incompatible, TxCode, TxResult, Unavailable
from tests.support.weight_benches import KEY, NETUID, RUN, Watched, bench
from validator.chain import SubnetChain


def over(chain: Watched) -> SubnetChain:
    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    asked: Any = chain
    return SubnetChain(asked, NETUID, KEY.ss58, at_once)


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("no node answers"),
        BadInput("block 3 has not come"),
        Incompatible("the runtime changes just now"),
    ],
    ids=["silent", "another node that lags", "an upgrade"],
)
async def test_a_hash_is_waited_for_through_everything_that_passes(tmp_path: Path, error: ChainError) -> None:
    async with bench(tmp_path) as b:

        async def first_fails(number: int) -> Any:
            b.chain.instead.clear()
            raise error

        b.chain.instead["block_hash"] = first_fails
        found = await over(b.chain).hash_of(3)
        assert found == await b.chain.chain.block_hash(3)


async def test_a_commitment_that_comes_too_soon_may_be_tried_again(tmp_path: Path) -> None:
    """And needs no registration: the node's next start is to try it, and not to stay away."""

    async def too_soon(*arguments: Any) -> TxResult:
        return TxResult.refusal(TxCode.RATE_LIMITED, "SpaceLimitExceeded", "wait for the next tempo")

    async with bench(tmp_path) as b:
        b.chain.instead["commit"] = too_soon
        with pytest.raises(Unavailable, match="wait for the next tempo"):
            await over(b.chain).commit_tip(RUN, "cd" * 32)
