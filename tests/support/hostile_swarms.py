"""A swarm of two stages with two miners of set speed, of which one is hostile on its links."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from iota.settings import Ways
from iota.swarm.preparation import miner_names
from iota.swarm.processes import Program
from tests.support.hostile_miner import ENTRY
from tests.support.live_swarm import LiveSwarm, tiny

HONEST: Final = "honest"
MINERS: Final = miner_names(4)
HOSTILE: Final = MINERS[-1]
"""Of the last stage."""


class HostileSwarm(LiveSwarm):
    """A swarm with a miner that is hostile in `way`."""

    def __init__(self, root: Path, way: str, steps: int) -> None:
        options = tiny(stages=2, replicas=2, epochs=1, steps_per_epoch=steps, microbatches=8)
        super().__init__(root, options, ways=dict.fromkeys(MINERS, Ways.DIRECT), in_order=True)
        self._way = way

    def nodes(self) -> list[Program]:
        return [
            dataclasses.replace(
                program,
                entry=ENTRY,
                arguments=(self._way if program.name == HOSTILE else HONEST, *program.arguments),
            )
            for program in super().nodes()
        ]
