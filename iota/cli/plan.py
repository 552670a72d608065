"""`iota plan`: the cut of a model, the needs of each stage, and the compression that hides the transfers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from iota.cli.planned_memory import MEMORY_HELP, Device, planned_machine, runs_of_stages, show_memory
from iota.cli.spec import given_values
from iota.console.counts import counted
from iota.console.durations import duration
from iota.model.proposal import make_spec
from iota.planning import (
    COMPUTE_BUDGET,
    EXPECTED_TFLOPS,
    EXPECTED_UTILIZATION,
    AuditCosts,
    PlanTable,
    Rates,
    fitted_spec,
    plan_table,
    reached,
    segments_until,
)
from iota.spec import OptimizerKind, RunSpec
from iota.spec.draft import MANIFEST, PRESET, STAGES, Draft, merged, set_value, value_at

app = typer.Typer()


@app.command()
def plan(
    model: Annotated[
        str | None, typer.Option(help="A preset, or a JSON file of a model shape.  (default: small)")
    ] = None,
    stages: Annotated[int | None, typer.Option(help="Pipeline stages.  (default: by the model)")] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens in a sequence.  (default: by the model)")
    ] = None,
    ratio: Annotated[
        int | None, typer.Option(help="How many times narrower a boundary is.  (default: by the model)")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="A run's spec, or a TOML file of values.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="A.B=C", help="Set one value of the spec.")] = None,
    link_mbps: Annotated[float, typer.Option(help="Slowest uplink or downlink of a miner.")] = 100.0,
    device_tflops: Annotated[
        float, typer.Option(help="Peak of the slowest device, at its dtype.")
    ] = EXPECTED_TFLOPS,
    device: Annotated[Device, typer.Option(help="What the miners compute on.")] = Device.CUDA,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MEMORY_HELP)] = None,
    host_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Main memory beside a GPU's --memory.  (default: enough)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the cut, each stage's parameters, FLOPs, memory and disk, and what audits cost and find.

    With --memory the cut, the number of stages and the microbatch are proposed so that each stage fits, and
    a second table says how: what its memory holds, under which activation policy.
    """
    own: Draft = {}
    flags = {PRESET: model, STAGES: stages, "data.sequence_length": sequence_length, "boundary.ratio": ratio}
    for path, value in flags.items():
        if value is not None:
            set_value(own, path, value)
    given = merged(given_values(spec, set), own)
    machine = planned_machine(device, memory, host_memory)

    def propose(draft: Draft) -> RunSpec:
        return make_spec(draft, value_at(draft, MANIFEST) or "0" * 64, 2)

    made = propose(given) if machine is None else fitted_spec(given, propose, machine, reached(device_tflops))
    table = plan_table(
        made,
        link_mbps=link_mbps,
        device_tflops=device_tflops,
        compiled=device is Device.CUDA,
        machine=machine,
    )
    if as_json:
        typer.echo(json.dumps(table.as_json(), indent=2))
        return
    console = Console()
    _show(console, table, made, device, device_tflops)
    if machine is not None:
        show_memory(console, table, made, machine)
    for line in _rest(table, made, link_mbps):
        console.print(line)


def _show(console: Console, plan: PlanTable, spec: RunSpec, device: Device, device_tflops: float) -> None:
    title = (
        f"{spec.name}: {counted(plan.model_parameters, 'parameter')} in {counted(len(plan.stages), 'stage')}"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ("stage", "layers", "parameters\n(M)", "MFLOP\na token", "memory\n(GB)", "recomputing\n(GB)")
    for heading in (*headings, "disk\n(GB)", "load"):
        table.add_column(heading, justify="right")
    for named, row in runs_of_stages(plan):
        table.add_row(
            named,
            str(row.layers),
            f"{row.parameters / 1e6:,.1f}",
            f"{row.flops_per_token / 1e6:,.1f}",
            f"{row.memory / 1e9:,.2f}",
            f"{row.memory_recomputing / 1e9:,.2f}",
            f"{row.disk / 1e9:,.1f}",
            f"{row.load:.0%}",
        )
    console.print(table)
    speed = (
        f"{plan.tokens_per_second:,.0f} tokens/s a chain of devices of {device_tflops:g} TFLOPS"
        f" (--device-tflops) at {EXPECTED_UTILIZATION:.0%} of that"
    )
    console.print(f"Cut {','.join(str(s.layers) for s in plan.stages)}; {speed}; balance {plan.balance:.0%}.")
    held = f"{counted(plan.in_flight, 'microbatch')} of {counted(plan.microbatch_tokens, 'token')} in flight"
    layers = "compiled layers, as on CUDA" if device is Device.CUDA else "layers as they are on a CPU"
    console.print(f"Memory counts {held}, {_state(spec)}, and {layers}; disk the snapshots of two epochs.")


def _rest(plan: PlanTable, spec: RunSpec, link_mbps: float) -> list[str]:
    return [
        f"The run trains on {counted(plan.run_tokens, 'token')}.",
        _heldout(plan, spec.schedule.heldout),
        _verdict(plan, link_mbps),
        *_audits(plan.audits, spec),
    ]


def _state(spec: RunSpec) -> str:
    """The number formats of what a stage holds."""
    own = spec.optimizer
    weights = "bf16" if spec.precision.holds_bf16 else "fp32"
    moments = "" if own.kind is OptimizerKind.SGD else f", {own.moments} moments"
    return f"{weights} weights{moments}, {own.gradient_sums} sums of gradients"


def _heldout(plan: PlanTable, microbatches: int) -> str:
    if not microbatches:
        return "No epoch's base is measured on held-out text: give schedule.heldout."
    return (
        f"Each epoch's base is measured on {counted(microbatches, 'held-out microbatch')} of"
        f" {counted(plan.microbatch_tokens, 'token')}: {plan.heldout_share:.1%} of the compute."
    )


def _audits(costs: AuditCosts, spec: RunSpec) -> list[str]:
    """What audits cost and find, and what is out of reach."""
    rates, turn = costs.rates, counted(round(costs.rates.turn_steps), "step")
    tenth = segments_until(0.1, 0.99) / costs.segments * rates.turn_steps
    lines = [
        f"Audits take {rates.compute:.1%} of the swarm's compute, however many validators there are"
        f" (segments {rates.segment_compute:.1%}, single ops {rates.op_compute:.2%})."
        f" A cheat in every segment is found within a window of {turn}; in one of ten,"
        f" with a chance of 99 % within {tenth:,.0f}.",
        f"In {turn} ({duration(costs.turn_s)}) a miner of the largest stage stores"
        f" {_gb(costs.stored)} for them; validators fetch {_gb(costs.fetched)}, with frames and bases.",
        f"A kept state is {_gb(costs.snapshot)}: its disk needs {_gb(costs.kept)} for them, and"
        f" {_gb(costs.written_day)} a day are written to it"
        f" (audit.commit_every {spec.audit.commit_every}).",
        _budget(costs, spec),
    ]
    if spec.audit.window < rates.window:
        lines.append(
            f"audit.window {spec.audit.window} leaves work out of scores before it is audited:"
            f" {counted(rates.window, 'epoch')} would count it."
        )
    if costs.storing_s > costs.turn_s:
        lines.append(
            f"Out of reach: by a quarter of audit.line ({spec.audit.line * 8 / 1e6:,.0f} Mbps) one segment's"
            f" evidence takes {duration(costs.storing_s)}, longer than the steps between two of them:"
            f" audit.window_steps {costs.line_window:,}, faster lines or more stages would do."
        )
    return lines


def _budget(costs: AuditCosts, spec: RunSpec) -> str:
    """Whether the audits keep the compute budget, and the smallest rates that do."""
    most = f"{COMPUTE_BUDGET:.0%} of the compute"
    kept = costs.rates.compute <= COMPUTE_BUDGET
    if costs.within is None:
        return f"That is above {most}, and single ops alone are: longer epochs or fewer audit.ops would do."
    if kept and _rates(costs.within) == _rates(costs.rates):
        return f"These are the smallest windows within {most}."
    found = (
        f"{_rates(costs.within)} would take {costs.within.compute:.1%}, and find a cheat in every segment"
        f" within {counted(round(costs.within.turn_steps), 'step')}"
    )
    return f"That is {'within' if kept else 'above'} {most}: {found}."


def _rates(rates: Rates) -> str:
    given = {"window_steps": rates.window_steps, "extra_every": rates.extra_every, "window": rates.window}
    return ", ".join(f"audit.{name} {value:,}" for name, value in given.items())


def _gb(size: float) -> str:
    return f"{size / 1e9:,.{0 if size >= 1e10 else 2}f} GB"


def _verdict(plan: PlanTable, link_mbps: float) -> str:
    if plan.hiding_ratio is None:
        return f"No ratio hides the transfers at {link_mbps:g} Mbps: cut fewer, larger stages."
    needed = f"At {link_mbps:g} Mbps the smallest ratio that hides the transfers is {plan.hiding_ratio}"
    if plan.ratio < plan.hiding_ratio:
        return f"{needed}; at {plan.ratio} the links hold the stages up."
    if plan.ratio > plan.hiding_ratio:
        return f"{needed}; {plan.ratio} costs quality and hides nothing more."
    return f"{needed}: the one given."
