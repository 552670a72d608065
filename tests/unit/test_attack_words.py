"""Words on NaN of a life that its miner lost afterwards."""

from __future__ import annotations

import pytest

from tests.support import audit_benches as benches
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from tests.support.spoken_words import said


@pytest.mark.parametrize(("step", "known"), [(0, False), (2, False), (3, True)])
async def test_a_word_of_a_life_whose_weights_are_lost_is_not_repeated_with_others(
    step: int, known: bool
) -> None:
    """Each was an error of the validator, or its miner's fail though what it said was true."""
    world = World(small_run(schedule={"steps": 4}))
    world.train(rejoin=(1, 2))
    bench = await benches.bench(said(world, 1, step))
    bench.worker.close()
    assert bool(bench.sealed.words(world.miners[1].hotkey)) is known
