"""The machine that `iota plan` and `iota spec` plan for, and the table of what a stage's memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from iota.console.counts import counted
from iota.settings.kinds import parse_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from iota.planning import Machine, PlanTable, StagePlan
    from iota.spec import RunSpec

MEMORY_HELP: Final = "Memory of a miner's device, such as 80GB: each stage is to fit it."
_ANY: Final = 1 << 62
"""Bytes of what is not bounded."""
_LEAST: Final = 1_000_000
"""Bytes of the smallest memory that is planned for: less was written without its unit."""


class Device(StrEnum):
    """What miners compute on."""

    CUDA = "cuda"
    CPU = "cpu"


def planned_machine(device: Device, memory: str | None, host_memory: str | None = None) -> Machine | None:
    """The machine of each miner; None where no memory was given. Raises ValueError for what is no size."""
    from iota.planning import Machine

    if memory is None:
        if host_memory is not None:
            raise ValueError("--host-memory is that beside a GPU: give the GPU's with --memory")
        return None
    size = _size(memory, "--memory")
    if device is Device.CPU:
        if host_memory is not None:
            raise ValueError("--host-memory is that beside a GPU: on a CPU --memory is all there is")
        return Machine(size, _ANY, Path())
    return Machine(_ANY if host_memory is None else _size(host_memory, "--host-memory"), _ANY, Path(), size)


def _size(text: str, flag: str) -> int:
    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None
    assert isinstance(size, int), "text gives a number"
    if size < _LEAST:
        raise ValueError(
            f"{flag} {text} is {counted(size, 'byte')}, and no stage fits them: write 80GB or 500MB"
        )
    return size


def show_memory(console: Console, plan: PlanTable, spec: RunSpec, machine: Machine) -> None:
    """Print what the memory of each stage's device holds, and what would make stages fit that do not."""
    from rich.table import Table

    size = machine.memory if machine.card is None else machine.card
    title = f"On {'CPUs' if machine.card is None else 'GPUs'} of {size / 1e9:,.1f} GB (in GB)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    names = ("stage", "weights", "gradients", "moments", "graph", "in\nflight", "working", "all")
    for name in (*names, "main\nmemory", "policy", "time"):
        table.add_column(name, justify="right")
    for named, row in runs_of_stages(plan):
        table.add_row(named, *_cells(row))
    console.print(table)
    console.print(_explained(plan, spec))
    for line in _unfit(plan):
        console.print(line)


def _cells(row: StagePlan) -> list[str]:
    fit = row.fit
    assert fit is not None, "a plan for a machine has a fit for each stage"
    sizes = (row.weights, row.gradients, row.moments, row.graph)
    return [
        *(f"{size / 1e9:,.2f}" for size in sizes),
        f"{fit.in_flight}/{row.graphs}",
        f"{row.working / 1e9:,.2f}",
        f"{fit.memory / 1e9:,.2f}",
        f"{fit.host / 1e9:,.2f}",
        str(fit.policy or "none"),
        "-" if fit.policy is None else f"+{fit.slowdown:.0%}",
    ]


def _explained(plan: PlanTable, spec: RunSpec) -> str:
    from iota.planning import HOST_LINK

    said = (
        "A graph is kept for each microbatch between its forward and its backward, by the credit"
        f" {spec.schedule.credit} at the most; for so many of them there is room. The policy is the one that"
        " adds least time to a forward and backward, by an estimate"
    )
    if any(row.policy == "offload" for row in plan.stages):
        said += f" (offload at {HOST_LINK / 1e9:,.0f} GB/s each way)"
    return (
        f"{said}; `--activations auto` takes a faster one while there is room, and offload before recompute."
        " Main memory holds bases while they are loaded and merged, copies of the state on their way to the"
        " disk, and what is offloaded."
    )


def runs_of_stages(plan: PlanTable) -> Iterator[tuple[str, StagePlan]]:
    """Neighbouring stages that are alike, as `1-44`, with the row that they share."""
    for _, alike in groupby(plan.stages, key=lambda row: replace(row, stage=0)):
        rows = list(alike)
        first, last = rows[0].stage, rows[-1].stage
        yield str(first) if first == last else f"{first}-{last}", rows[0]


def _unfit(plan: PlanTable) -> Iterator[str]:
    """A line for each run of stages that do not fit: what would make them."""
    from iota.planning import or_list

    for named, row in runs_of_stages(plan):
        if row.fit is not None and row.fit.policy is None:
            said = f"Stage {named} does not fit under any policy"
            if row.remedies:
                yield f"{said}: it would with {or_list(row.remedies)}."
            else:
                yield f"{said}, nor would it with any change that this knows."
