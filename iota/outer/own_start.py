"""Where a replica begins an epoch of a run with overlap, while the epoch before is merged.

    L = W - D^

W is the anchor, the newest base whose merge is over (`RunSpec.anchor`), and D^ what the replica contributes
to the merge that is under way, as its codec sent it: so the start is a function of stored bytes, and anybody
can make it. The replica keeps its own progress, and the merged difference is applied one epoch late: delayed
averaging (Zhou et al. 2020, arXiv 2006.00441) and eager updates (Kale et al. 2025, arXiv 2502.12996), but
for the own difference, which counts whole here.
"""

from __future__ import annotations

from iota.outer.partition import Vector


def own_start(anchor_N: Vector, contribution_N: Vector) -> Vector:
    """The own start (N,) in fp32, before it is rounded as a base (`base_values.started`).

    `anchor_N` has the anchor's weights, `contribution_N` the decoded pseudo-gradient, or both are of one
    partition. With one replica, eta 1 and no momentum it is the next base to the bit.
    """
    found: Vector = anchor_N - contribution_N
    return found
