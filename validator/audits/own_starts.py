"""Makes a replica's own start again, from a base and what the replica contributed to the merge under way."""

from __future__ import annotations

import numpy as np

from iota.compute.commitment import tensors_root
from iota.compute.state import StageState
from iota.outer.base import named_weights
from iota.outer.base_values import partition_of
from iota.outer.delta_codecs import open_delta_codec
from iota.outer.nesterov import OuterState
from iota.outer.own_start import own_start
from iota.outer.partition import Vector
from iota.protocol.receipts import Receipt
from iota.spec import RunSpec
from validator.core.results import MinerFault


class OwnStartMaker:
    """The own start of an epoch, from the base before it and one part of the contribution after another."""

    def __init__(self, spec: RunSpec, epoch: int, anchor: OuterState) -> None:
        self._spec, self._epoch, self._anchor = spec, epoch, anchor
        self._made_N: Vector = np.empty_like(anchor.weights)
        self._parts = 0

    def take(self, data: bytes) -> None:
        """Take the next part of the contribution, as it is stored. Raises PartError."""
        anchor = partition_of(self._spec, self._anchor, self._parts)
        sent_N = open_delta_codec(self._spec.outer.codec).decode(data, anchor.weights.size)
        first = self._parts * self._spec.outer.part_elements
        own = slice(first, first + anchor.weights.size)
        self._made_N[own] = own_start(self._spec, self._epoch, anchor, sent_N)
        self._parts += 1

    def state(self, stage: int) -> StageState:
        """The weights that the replica starts with, rounded as those of a base. All parts were taken."""
        return StageState(named_weights(self._spec, stage, self._made_N))


def check_own_start(spec: RunSpec, miner: str, commit: Receipt, state: StageState, rest: str) -> None:
    """Hold an own start against the COMMIT of who says that it began with it.

    Args:
        rest: the root of what else is in the base (`BaseRoots.rest`), which the COMMIT names too.

    Raises MinerFault where the COMMIT is to other weights.
    """
    made, begun = commit.commitment, None if commit.commitment is None else commit.commitment.beginning
    found = tensors_root(state.weights, spec.outer.part_elements)
    said = "" if made is None else made.weights
    if said != found:
        reason = "it began neither with the base nor with that after what it contributed to the last merge"
        raise MinerFault(miner, commit.seq, reason, expected=found, found=said)
    if begun is None or begun.rest != rest:
        reason = "it names another rest of the base that its own start is made of"
        raise MinerFault(miner, commit.seq, reason, expected=rest, found="" if begun is None else begun.rest)
