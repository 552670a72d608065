"""Whether a machine has what nodes of a run need, and what would help where it has not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.console.sizes import in_gb
from iota.planning.fits import best_policy, memory_of
from iota.planning.machine import Machine
from iota.planning.needs import Needs, all_needs
from iota.planning.remedies import remedies
from iota.settings import Activations
from iota.spec import RunSpec

_LEAST: Final = (Activations.RECOMPUTE, Activations.OFFLOAD)
"""Of these one needs least of the device, and one least of main memory."""


def shortfalls(
    nodes: Sequence[Needs], machine: Machine, wanted: Activations = Activations.AUTO, remedy: str = ""
) -> list[str]:
    """A sentence for each thing that `machine` has too little of for all of `nodes` together.

    Memory is counted under the policy `wanted`, or with AUTO under any that fits. `remedy` is what is said to
    help with memory, in place of a larger machine or a smaller run.
    """
    found = []
    if best_policy(nodes, machine, wanted) is None:
        policies = _LEAST[: 1 if machine.card is None else 2] if wanted is Activations.AUTO else (wanted,)
        found = min((_memory_shortfalls(nodes, machine, p, remedy) for p in policies), key=len)
    disk = sum(node.disk for node in nodes)
    if disk > machine.disk:
        found.append(
            f"{_named(nodes)} {in_gb(disk)} of disk, and for {machine.place} there are"
            f" {in_gb(machine.disk)}: free some, take a folder on another disk, or keep fewer snapshots"
            " (a larger audit.commit_every, or fewer schedule.steps)"
        )
    return found


def stage_shortfalls(
    spec: RunSpec, needs: Needs, machine: Machine, wanted: Activations = Activations.AUTO
) -> list[str]:
    """The shortfalls of a machine for one stage, with what the miner and the run's owner could do."""
    if best_policy([needs], machine, wanted) is not None:
        return shortfalls([needs], machine, wanted)
    compiled = needs.compiled
    changes = remedies(spec, needs.stage, machine, compiled=compiled, wanted=wanted)
    policy = best_policy([needs], machine)
    own = "take a larger machine" if policy is None else f"give --activations {policy}, or auto"
    others = f"; the run's owner could give it {or_list(changes)}" if changes else ""
    return shortfalls([needs], machine, wanted, own + others)


def stageless(
    spec: RunSpec, machine: Machine, *, compiled: bool = False, wanted: Activations = Activations.AUTO
) -> list[str]:
    """Why `machine` can host no stage of the run at all; nothing where it can host one."""
    every = all_needs(spec, compiled=compiled)
    short = [(len(found), needs) for needs in every if (found := shortfalls([needs], machine, wanted))]
    if len(short) < len(every):
        return []
    return stage_shortfalls(spec, min(short, key=lambda pair: pair[0])[1], machine, wanted)


def or_list(choices: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def _memory_shortfalls(
    nodes: Sequence[Needs], machine: Machine, policy: Activations, remedy: str
) -> list[str]:
    computing, hosted = memory_of(nodes, policy)
    what, remedy = _named(nodes), remedy or _SMALLER
    found = []
    if machine.card is not None and computing > machine.card:
        found.append(
            f"{what} {in_gb(computing)} of the accelerator's memory, and it has {in_gb(machine.card)}:"
            f" {remedy}"
        )
    needed = hosted if machine.card is not None else hosted + computing
    if needed > machine.memory:
        found.append(f"{what} {in_gb(needed)} of memory, and there are {in_gb(machine.memory)}: {remedy}")
    return found


_SMALLER: Final = (
    "take a larger machine, or a run of a smaller model, more stages on more machines, fewer replicas here or"
    " shorter sequences"
)


def _named(nodes: Sequence[Needs]) -> str:
    return (
        f"stage {nodes[0].stage} needs" if len(nodes) == 1 else f"the {len(nodes)} nodes on this machine need"
    )
