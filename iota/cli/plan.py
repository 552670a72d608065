"""`iota plan`: the cut of a model, the needs of each stage, and the compression that hides the transfers."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from iota.model.planning import EXPECTED_UTILIZATION, PlanTable, plan_table
from iota.model.presets import load_model
from iota.spec import BoundarySpec

app = typer.Typer()


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="A preset, or a JSON file of a model shape.")] = "small",
    stages: Annotated[int, typer.Option(help="Pipeline stages.")] = 2,
    sequence_length: Annotated[int, typer.Option(help="Tokens in a sequence.")] = 1024,
    ratio: Annotated[int, typer.Option(help="How many times narrower a boundary is than the model.")] = 16,
    link_mbps: Annotated[float, typer.Option(help="Slowest uplink or downlink of a miner.")] = 100.0,
    device_tflops: Annotated[float, typer.Option(help="Peak of the slowest device, at its dtype.")] = 100.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the cut, and each stage's parameters, FLOPs and memory."""
    if ratio < 1:
        raise ValueError(f"ratio {ratio} is below 1: give 1 for a boundary as wide as the model")
    table = plan_table(
        load_model(model),
        stages,
        sequence_length,
        boundary=BoundarySpec(ratio=ratio),
        link_mbps=link_mbps,
        device_tflops=device_tflops,
    )
    if as_json:
        typer.echo(json.dumps(table.as_json(), indent=2))
    else:
        _show(table, model, link_mbps)


def _show(plan: PlanTable, model: str, link_mbps: float) -> None:
    console = Console()
    table = Table(title=f"{model}: {plan.model_parameters:,} parameters in {len(plan.stages)} stages")
    for heading in ("stage", "layers", "parameters", "MFLOP a token", "memory (GB)", "recomputing", "load"):
        table.add_column(heading, justify="right")
    for row in plan.stages:
        table.add_row(
            str(row.stage),
            str(row.layers),
            f"{row.parameters:,}",
            f"{row.flops_per_token / 1e6:,.1f}",
            f"{row.memory / 1e9:,.2f}",
            f"{row.memory_recomputing / 1e9:,.2f}",
            f"{row.load:.0%}",
        )
    console.print(table)
    speed = f"{plan.tokens_per_second:,.0f} tokens/s a chain at {EXPECTED_UTILIZATION:.0%} of the peak"
    console.print(f"Cut {','.join(str(s.layers) for s in plan.stages)}; {speed}; balance {plan.balance:.0%}.")
    held = f"{plan.in_flight} microbatches of {plan.microbatch_tokens:,} tokens in flight"
    console.print(f"Memory counts {held}, fp32 state, AdamW and two weight versions.")
    console.print(_verdict(plan, link_mbps))


def _verdict(plan: PlanTable, link_mbps: float) -> str:
    if plan.hiding_ratio is None:
        return f"No ratio hides the transfers at {link_mbps:g} Mbps: cut fewer, larger stages."
    needed = f"At {link_mbps:g} Mbps the smallest ratio that hides the transfers is {plan.hiding_ratio}"
    if plan.ratio < plan.hiding_ratio:
        return f"{needed}; at {plan.ratio} the links hold the stages up."
    if plan.ratio > plan.hiding_ratio:
        return f"{needed}; {plan.ratio} costs quality and hides nothing more."
    return f"{needed}: the one given."
