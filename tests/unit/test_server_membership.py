"""Membership by the metagraph: looked for anew when asked, and strangers cannot make that costly."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType
from orchestrator.server.membership import LOOK_EVERY_S, Admission, Metagraph


class Chain:
    """Neurons that the test registers, and a count of how often they were read."""

    def __init__(self, *hotkeys: str) -> None:
        self.hotkeys = hotkeys
        self.reads = 0

    async def subnet(self, netuid: int) -> Any:
        self.reads += 1
        await asyncio.sleep(0)
        return SimpleNamespace(
            neurons=[SimpleNamespace(hotkey=h, validator_permit=False) for h in self.hotkeys]
        )


def admission(chain: Chain) -> Admission:
    graph = Metagraph(chain, 1)
    return Admission(graph, graph.look_again)


async def test_a_node_that_registered_since_the_last_read_is_admitted_at_once() -> None:
    chain = Chain("new")
    asked = admission(chain)
    assert await asked.allows("new", Role.MINER)
    assert await asked.allows("new", *Role)
    assert chain.reads == 1


async def test_many_who_ask_at_once_share_one_read() -> None:
    chain = Chain("new")
    asked = admission(chain)
    answers = await asyncio.gather(*(asked.allows(h, Role.MINER) for h in ("new", "x", "y", "z")))
    assert answers == [True, False, False, False]
    assert chain.reads == 1


async def test_strangers_cause_no_more_reads_and_are_told_when_to_return() -> None:
    chain = Chain()
    asked = admission(chain)
    assert not await asked.allows("stranger", Role.MINER)
    for n in range(20):
        with pytest.raises(Problem) as caught:
            await asked.allows(f"stranger {n}", Role.MINER)
        assert caught.value.type is ProblemType.RATE_LIMITED
        assert 0 < (caught.value.retry_after or 0) <= LOOK_EVERY_S
    assert chain.reads == 1
