"""`iota-validator calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota.spec import ComputeDtype, OptimizerKind, WireDtype

if TYPE_CHECKING:
    from validator.calibration.calibrate import Fitted
    from validator.calibration.plan import Plan

_MAX_DEPTH = 1000


def add_calibrate(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command()(calibrate)


def calibrate(
    out: Annotated[
        Path, typer.Option(help="Folder of samples, profiles and plots. One that is there is gone on with.")
    ] = Path("calibration"),
    spec: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Calibrate for this run instead of for the small default model."),
    ] = None,
    compute: Annotated[
        list[ComputeDtype] | None, typer.Option(help="Compute dtypes; may be given again. Default: all.")
    ] = None,
    optimizer: Annotated[
        list[OptimizerKind] | None, typer.Option(help="Optimizers; may be given again. Default: all.")
    ] = None,
    wire: Annotated[
        list[WireDtype] | None, typer.Option(help="Wire dtypes; may be given again. Default: bf16.")
    ] = None,
    model: Annotated[str, typer.Option(help="Preset of the model, without --spec.")] = "small",
    segments: Annotated[int, typer.Option(min=1, max=1000, help="Segments of each run.")] = 4,
    steps: Annotated[
        int, typer.Option(min=1, max=_MAX_DEPTH, help="Steps of a segment: profiles hold for up to so many.")
    ] = 10,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, max=4096, help="Thread counts; may be given again. Default: 1 and 2."),
    ] = None,
) -> None:
    """Measure how far honest replays on different devices are from one another, and set tolerances by it.

    Validators replay miners' work. On one device class a replay gives the same bits; on another it gives
    nearly the same values, and a profile says how nearly. This command replays the same segments in child
    processes with other numbers of threads and other kernels (AVX2 or AVX-512, those of oneDNN and MKL, CUDA
    where there is a device), compares each two, and fits the tail of the distances. It writes
    OUT/profiles/*.json and a plot beside each. A bound is the distance that one honest replay in a million
    passes, times four; the table says the largest lie that still passes. Ctrl-C keeps what was measured; the
    same command goes on.

    `iota-validator start --profiles OUT/profiles` uses them.
    """
    import torch

    from validator.calibration.calibrate import calibrate as run
    from validator.calibration.variants import variants

    torch.set_num_threads(1)  # comparing: threads that wait for one another are slow beside other programs
    plan = _plan(spec, compute, optimizer, wire, model, segments, steps)
    found = variants(sorted(set(threads or (1, 2))), cuda=torch.cuda.is_available())
    fitted = run(plan, found, out, lambda line: typer.echo(line, err=True))
    _show(fitted)
    _plot(fitted)


def _plan(
    spec: Path | None,
    compute: list[ComputeDtype] | None,
    optimizer: list[OptimizerKind] | None,
    wire: list[WireDtype] | None,
    model: str,
    segments: int,
    steps: int,
) -> Plan:
    from iota.settings.spec_file import read_spec
    from validator.calibration.plan import Plan, calibrated, default_specs, depths_of

    if spec is not None and (compute or optimizer or wire):
        raise ValueError("--spec says the compute dtype, the optimizer and the wire: leave out the flags")
    if spec is not None:
        specs = [calibrated(read_spec(spec))]
    else:
        every = compute or list(ComputeDtype), optimizer or list(OptimizerKind), wire or [WireDtype.BF16]
        specs = list(default_specs(*every, model))
    return Plan(tuple(specs), segments, depths_of(steps))


def _show(fitted: list[Fitted]) -> None:
    from validator.audits.declared import COMPARED
    from validator.calibration.calibrate import lie_of

    typer.echo("largest lie that passes, in percent of what is told:")
    for each in fitted:
        lies = (f"{kind} {100 * lie_of(each.profile, each.spec, kind):.2g}" for kind in COMPARED)
        typer.echo(f"{each.path.stem}: {', '.join(lies)}")
        typer.echo(f"  {each.path}")


def _plot(fitted: list[Fitted]) -> None:
    from validator.calibration.plot import plot

    try:
        for each in fitted:
            plot(each, each.path.with_suffix(".png"))
    except ImportError:
        typer.echo(
            "no plots: matplotlib is not installed (pip install matplotlib; the same command draws them)"
        )
