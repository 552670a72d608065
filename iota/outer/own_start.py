"""Where a replica begins an epoch of a run with overlap, while the epoch before is merged.

    L_n = the weights of outer_step(base n-1, D^, eta, mu)

where D^ is what the replica contributes to the merge of epoch n-1, as its codec sent it: the base that would
come if nobody else had contributed. It follows from stored bytes, so that anybody can make it. The outer step
is linear in D, so the mean of the replicas' own starts, by their tokens, is base n. What the others did comes
one epoch late: delayed averaging (Zhou et al. 2020, arXiv 2006.00441), eager updates (Kale et al. 2025, arXiv
2502.12996).
"""

from __future__ import annotations

from iota.outer.base_values import next_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import Vector
from iota.spec import RunSpec


def own_start(spec: RunSpec, epoch: int, anchor: OuterState, contribution_N: Vector) -> Vector:
    """The own start (N,) of `epoch` >= 1 in fp32, before it is rounded as a base (`base_values.started`).

    `anchor` is base `epoch` - 1, `contribution_N` the decoded pseudo-gradient of that epoch; or both are of
    one partition. With one replica it is base `epoch` to the bit.
    """
    return next_base(spec, epoch - 1, anchor, contribution_N).weights
