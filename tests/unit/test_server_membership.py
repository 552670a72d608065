"""Membership by the metagraph: looked for anew when asked, and strangers cannot make that costly."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iota.chain import Unavailable
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType, Standing
from orchestrator.http.admission import Admission, AllowList
from orchestrator.http.metagraph import REREAD_EVERY_S, STALE_S, Metagraph


class Chain:
    """Neurons that the test registers, and a count of how often they were read."""

    def __init__(self, *hotkeys: str) -> None:
        self.hotkeys = hotkeys
        self.reads = 0
        self.down = False

    async def subnet(self, netuid: int) -> Any:
        self.reads += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("no node answers")
        return SimpleNamespace(
            block=SimpleNamespace(number=100 + self.reads),
            neurons=[SimpleNamespace(hotkey=h, validator_permit=False) for h in self.hotkeys],
        )


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def admission(chain: Chain) -> Admission:
    graph = Metagraph(chain, 1)
    return Admission(graph, graph.standing, graph.reread)


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
        assert 0 < (caught.value.retry_after or 0) <= REREAD_EVERY_S
    assert chain.reads == 1


async def test_the_last_members_stand_for_an_hour_without_the_chain_and_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain, clock = Chain("known"), Clock()
    graph = Metagraph(chain, 1, now=clock)
    await graph.start()
    chain.down = True
    clock.now += STALE_S
    assert graph("known", Role.MINER)
    assert not graph("stranger", Role.MINER)
    with caplog.at_level(logging.WARNING), pytest.raises(Problem):
        await graph.reread()
    assert "no node answers; that of block 101 stands, 3600 s old" in caplog.text
    clock.now += 1
    with pytest.raises(Problem, match="60 minutes") as caught:
        graph("known", Role.MINER)
    assert caught.value.type is ProblemType.UNAVAILABLE
    chain.down = False
    await graph.refresh()
    assert graph("known", Role.MINER)


async def test_a_restart_while_the_chain_is_away_stops_nobody(tmp_path: Path) -> None:
    chain, clock, file = Chain("known"), Clock(), tmp_path / "seen.json"
    await Metagraph(chain, 1, file, "wss://a", clock).start()
    chain.down = True
    again = Metagraph(chain, 1, file, "wss://a", clock)
    await again.start()
    assert again("known", Role.MINER)
    for other in (Metagraph(chain, 2, file, "wss://a", clock), Metagraph(chain, 1, file, "wss://b", clock)):
        await other.start()
        assert not other("known", Role.MINER)
    clock.now += STALE_S + 1
    late = Metagraph(chain, 1, file, "wss://a", clock)
    await late.start()
    assert not late("known", Role.MINER)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"permits": 3}'])
async def test_a_damaged_file_of_members_is_not_taken(tmp_path: Path, content: bytes) -> None:
    chain, file = Chain("known"), tmp_path / "seen.json"
    file.write_bytes(content)
    chain.down = True
    graph = Metagraph(chain, 1, file)
    await graph.start()
    assert not graph("known", Role.MINER)
    chain.down = False
    await graph.refresh()
    assert graph("known", Role.MINER)


def test_an_allow_list_is_one_hotkey_a_line_with_comments(tmp_path: Path) -> None:
    hotkeys = [Hotkey.from_seed(seed * 32).ss58 for seed in (b"a", b"b", b"c")]
    file = tmp_path / "allow"
    file.write_text(f"# the first run\n{hotkeys[0]}\n\n  {hotkeys[1]}  # of a friend\n")
    allowed = AllowList.load(file)
    assert [allowed(hotkey, role) for hotkey in hotkeys for role in Role] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("content", [b"nobody\n", b"\xff\xfe", None])
def test_an_allow_list_that_cannot_be_read_says_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "allow"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"allow"):
        AllowList.load(file)


async def test_without_another_look_a_stranger_stays_one() -> None:
    asked = Admission(lambda hotkey, role: role is Role.VALIDATOR, lambda hotkey: Standing.NO_PERMIT)
    assert not await asked.allows("x", Role.MINER)
    assert await asked.allows("x", *Role)
