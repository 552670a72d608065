"""Whether a machine has what nodes of a run need. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.planning.machine import Machine
from iota.planning.needs import Needs, all_needs
from iota.settings import Activations
from iota.spec import RunSpec

PROCESS_BYTES: Final = 200_000_000
"""Main memory that a node's process takes besides the tensors of its stage, at the least."""


def shortfalls(nodes: Sequence[Needs], machine: Machine) -> list[str]:
    """A sentence for each thing that `machine` has too little of for all of `nodes` together.

    Memory is counted under the activation policy that fits: RECOMPUTE, or OFFLOAD where there is a card.
    """
    policies = (
        (Activations.RECOMPUTE,) if machine.card is None else (Activations.RECOMPUTE, Activations.OFFLOAD)
    )
    found = min((_memory_shortfalls(nodes, machine, policy) for policy in policies), key=len)
    disk = sum(node.disk for node in nodes)
    if disk > machine.disk:
        found.append(
            f"{_named(nodes)} {_gb(disk)} of disk, and for {machine.place} there are"
            f" {_gb(machine.disk)}: free some, take a folder on another disk, or keep fewer snapshots"
            " (a larger audit.commit_every, or fewer schedule.steps)"
        )
    return found


def stageless(spec: RunSpec, machine: Machine) -> list[str]:
    """Why `machine` can host no stage of the run at all; nothing where it can host one."""
    each = [shortfalls([needs], machine) for needs in all_needs(spec)]
    return [] if not all(each) else min(each, key=len)


def _memory_shortfalls(nodes: Sequence[Needs], machine: Machine, policy: Activations) -> list[str]:
    computing = sum(node.memory_of(policy) for node in nodes)
    hosted = sum(PROCESS_BYTES + node.loading + node.graphs * node.kept[policy].host for node in nodes)
    what = _named(nodes)
    found = []
    if machine.card is not None and computing > machine.card:
        found.append(
            f"{what} {_gb(computing)} of the accelerator's memory, and it has {_gb(machine.card)}: {_SMALLER}"
        )
    needed = hosted if machine.card is not None else hosted + computing
    if needed > machine.memory:
        found.append(f"{what} {_gb(needed)} of memory, and there are {_gb(machine.memory)}: {_SMALLER}")
    return found


_SMALLER: Final = (
    "take a larger machine, or a run of a smaller model, more stages on more machines, fewer replicas here or"
    " shorter sequences"
)


def _named(nodes: Sequence[Needs]) -> str:
    return (
        f"stage {nodes[0].stage} needs" if len(nodes) == 1 else f"the {len(nodes)} nodes on this machine need"
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
