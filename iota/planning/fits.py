"""Which activation policy a machine has memory for, and the time that it costs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iota.model.graph_sizes import POLICIES
from iota.model.layout import count, layer_shapes, stage_flops
from iota.planning.machine import Machine
from iota.planning.needs import Needs
from iota.settings import Activations
from iota.spec import RunSpec

PROCESS_BYTES: Final = 270_000_000
"""Main memory that a node's process takes besides the tensors of its stage, at the least: its imports, 264 MB
of a miner and 268 of a validator on Linux, nearly all of it torch's."""
HOST_LINK: Final = 25e9
"""Bytes a second, each way, between a card and pinned host memory: PCIe 4.0 x16. An H100 on 5.0 did 55e9."""
SELECTIVE_TIME: Final = 0.05
"""Share of a forward and backward that SELECTIVE adds to eager layers: 0.06 in fp32 and none in bf16 on a CPU
(`small`, one thread). Compiled layers compute the same again under every policy."""


@dataclass(frozen=True)
class Fit:
    """How a replica of a stage runs on a machine."""

    policy: Activations | None
    """The policy that adds least time, of those with room for all graphs; None: there is none."""
    under: Activations
    """`policy`, or where it is None the one that needs least of the device; what follows is under it."""
    memory: int
    """Bytes of the device with all graphs."""
    host: int
    """Bytes of main memory besides; on the CPU these are of the same memory."""
    in_flight: int
    """Microbatches whose graphs there is room for."""
    slowdown: float
    """Time that the policy adds to a forward and backward, as a share of it."""


def fit(spec: RunSpec, needs: Needs, machine: Machine, flops: float) -> Fit:
    """How a stage with these needs runs on a machine on which it reaches `flops` FLOP/s."""

    def time(policy: Activations) -> float:
        return slowdown(spec, needs, policy, flops)

    held = [policy for policy in _open_to(machine) if holds([needs], machine, policy)]
    policy = min(held, key=time, default=None)
    least = policy or min(_open_to(machine), key=needs.memory_of)
    return Fit(
        policy=policy,
        under=least,
        memory=needs.memory_of(least),
        host=_hosted(needs, least),
        in_flight=_in_flight(needs, machine, least),
        slowdown=time(least),
    )


def best_policy(
    nodes: Sequence[Needs], machine: Machine, wanted: Activations = Activations.AUTO
) -> Activations | None:
    """The first policy under which `machine` holds all of `nodes`, of `wanted` alone unless that is AUTO."""
    policies = _open_to(machine) if wanted is Activations.AUTO else (wanted,)
    return next((policy for policy in policies if holds(nodes, machine, policy)), None)


def holds(nodes: Sequence[Needs], machine: Machine, policy: Activations) -> bool:
    """Whether the memory of `machine` is enough for all of `nodes` under a policy."""
    computing, hosted = memory_of(nodes, policy)
    if machine.card is None:
        return computing + hosted <= machine.memory
    return computing <= machine.card and hosted <= machine.memory


def memory_of(nodes: Sequence[Needs], policy: Activations) -> tuple[int, int]:
    """Bytes that nodes need of their device and, besides, of main memory."""
    return sum(node.memory_of(policy) for node in nodes), sum(_hosted(node, policy) for node in nodes)


def slowdown(spec: RunSpec, needs: Needs, policy: Activations, flops: float) -> float:
    """Time that a policy adds to a forward and backward, as a share of it: an estimate.

    RECOMPUTE repeats each layer's forward but for its last product. OFFLOAD moves what SELECTIVE keeps out
    during the forward and back during the backward, which is twice as long: what does not hide adds time.
    """
    stage, cuts, length = needs.stage, spec.layout.cuts, spec.data.sequence_length
    whole = stage_flops(spec.model, cuts, stage, length, spec.boundary)
    selective = 0.0 if needs.compiled else SELECTIVE_TIME
    match policy:
        case Activations.RECOMPUTE:
            d, ffn = spec.model.hidden_size, spec.model.ffn_size
            layer = 2 * (count(layer_shapes(spec.model, 0)) - d * ffn + length * d)
            return cuts[stage] * layer / whole
        case Activations.OFFLOAD:
            forward_s = spec.data.tokens * whole / flops / 3
            moved = needs.kept[Activations.SELECTIVE].graph - needs.kept[Activations.OFFLOAD].graph
            waits = (max(0.0, moved / HOST_LINK - busy) for busy in (forward_s, 2 * forward_s))
            return selective + sum(waits) / (3 * forward_s)
        case Activations.SELECTIVE:
            return selective
        case _:
            return 0.0


def _open_to(machine: Machine) -> tuple[Activations, ...]:
    """Policies that a machine can gain by: on the CPU, OFFLOAD moves nothing out of the way."""
    return tuple(p for p in POLICIES if machine.card is not None or p is not Activations.OFFLOAD)


def _hosted(needs: Needs, policy: Activations) -> int:
    return PROCESS_BYTES + needs.hosted + needs.graphs * needs.kept[policy].host


def _in_flight(needs: Needs, machine: Machine, policy: Activations) -> int:
    """Graphs that there is room for, beside the rest; no more than there are at once."""
    kept, alone = needs.kept[policy], needs.memory_of(policy) - needs.graphs * needs.kept[policy].graph
    base = PROCESS_BYTES + needs.hosted
    if machine.card is None:
        return _most(needs.graphs, machine.memory - alone - base, kept.graph + kept.host)
    on_host = _most(needs.graphs, machine.memory - base, kept.host)
    return min(on_host, _most(needs.graphs, machine.card - alone, kept.graph))


def _most(wanted: int, room: int, each: int) -> int:
    if room < 0:
        return 0
    return min(wanted, room // each) if each else wanted
