"""Any process is killed at any point of a merge: the run comes to the same bits, and nobody is blamed.

The long form (`./scripts/test tests/chaos/test_merge_kills.py -m long`) has every point with every process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.killed_merges import (
    Ended,
    check,
    check_lying,
    groups,
    killed_run,
    lying_run,
    options,
)
from tests.support.merge_points import DISPUTES, HONEST, Kill, Point, Victim

MERGES = 9
"""Kills of one run of the long form, each in the merge of another epoch."""
SHORT = (
    Kill(Point.ENCODED, Victim.CONCERNED),
    Kill(Point.COMMITTED, Victim.CONCERNED),
    Kill(Point.MERGED_UPLOADED, Victim.OTHER),
    Kill(Point.DRAWN, Victim.ORCHESTRATOR),
    Kill(Point.BASE_FILLED, Victim.CONCERNED, again=True),
    Kill(Point.READY_TAKEN, Victim.VALIDATOR),
    Kill(Point.BASE_LINKED, Victim.STORE),
)
Plain = Callable[[str, int, int], Ended]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """The run without kills, by codec, epochs and replicas; each is made once."""
    known: dict[tuple[str, int, int], Ended] = {}

    def run(codec: str, epochs: int, replicas: int) -> Ended:
        at = (codec, epochs, replicas)
        if at not in known:
            folder = tmp_path_factory.mktemp("plain")
            known[at] = asyncio.run(killed_run(folder, options(*at)))
            check(known[at], known[at])
        return known[at]

    return run


def test_a_process_of_each_kind_is_killed_in_a_merge_and_the_run_comes_to_the_same_bits(
    plain: Plain, tmp_path: Path
) -> None:
    """Also between error feedback and its COMMIT, and between that and the upload; it is used later."""
    chosen = options("sparse", len(SHORT) + 1)
    before = plain("sparse", len(SHORT) + 1, 1)
    check(asyncio.run(killed_run(tmp_path, chosen, SHORT)), before)


def test_an_orchestrator_that_is_killed_in_its_own_merge_settles_it_and_blames_the_liar_alone(
    tmp_path: Path,
) -> None:
    ended = asyncio.run(lying_run(tmp_path, "none", Kill(Point.REMERGE_STORED, Victim.ORCHESTRATOR)))
    check_lying(ended)


@pytest.mark.long
@pytest.mark.parametrize("victim", list(Victim), ids=lambda victim: victim.name)
@pytest.mark.parametrize("number", range(-(-len(HONEST) // MERGES)))
@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("codec", ["none", "sparse"])
def test_every_process_is_killed_at_every_point(
    plain: Plain, tmp_path: Path, codec: str, again: bool, number: int, victim: Victim
) -> None:
    kills = list(groups(HONEST, victim, MERGES, again=again))[number]
    chosen = options(codec, MERGES + 1)
    check(asyncio.run(killed_run(tmp_path, chosen, kills)), plain(codec, MERGES + 1, 1))


@pytest.mark.long
@pytest.mark.parametrize("victim", list(Victim), ids=lambda victim: victim.name)
@pytest.mark.parametrize("number", range(-(-len(HONEST) // MERGES)))
@pytest.mark.parametrize("codec", ["none", "sparse"])
def test_every_process_is_killed_at_every_point_beside_a_second_replica(
    plain: Plain, tmp_path: Path, codec: str, number: int, victim: Victim
) -> None:
    kills = list(groups(HONEST, victim, MERGES))[number]
    chosen = options(codec, MERGES + 1, replicas=2)
    check(asyncio.run(killed_run(tmp_path, chosen, kills)), plain(codec, MERGES + 1, 2))


@pytest.mark.long
@pytest.mark.parametrize("victim", list(Victim), ids=lambda victim: victim.name)
@pytest.mark.parametrize("point", DISPUTES, ids=lambda point: point.name)
@pytest.mark.parametrize("codec", ["none", "sparse"])
def test_every_process_is_killed_while_the_orchestrator_merges_itself(
    plain: Plain, tmp_path: Path, codec: str, point: Point, victim: Victim
) -> None:
    check_lying(asyncio.run(lying_run(tmp_path, codec, Kill(point, victim))), plain(codec, 2, 1))
