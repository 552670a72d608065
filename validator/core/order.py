"""The order in which a validator audits the miners of an epoch."""

from __future__ import annotations

from collections.abc import Container

from validator.core.draw import draw
from validator.core.sealed import SealedEpoch

Group = tuple[bool, bool, bytes]
"""What is audited together: one stage, of those that are owed the audit of a segment or of the others, and of
both those that are flagged or the others."""


def audit_groups(
    sealed: SealedEpoch, block_hash: str, link: str, owed: Container[str], flagged: Container[str] = ()
) -> dict[str, Group]:
    """The group of each miner, in the order of their audits.

    Those that are `owed` one come first, among them and among the others those that are `flagged`, and of
    each a stage together, so that few bases are fetched twice. The order of stages, and of their miners, is
    drawn: who is left out where time is short differs by epoch and validator, and no hotkey is always last.
    """

    def place(name: str) -> bytes:
        return draw(sealed.spec.id, block_hash, link, sealed.epoch, f"order of {name}")

    stages = [place(f"stage {stage}") for stage in range(sealed.spec.layout.stages)]
    found = {
        hotkey: (hotkey not in owed, hotkey not in flagged, stages[miner.stage])
        for hotkey, miner in sealed.miners.items()
    }
    return dict(sorted(found.items(), key=lambda each: (each[1], place(each[0]))))
