"""`iota-validator calibrate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from validator.calibration.calibrate import Fitted
    from validator.calibration.plan import Plan

_MAX_DEPTH = 1000
_Kind = TypeVar("_Kind", bound=StrEnum)


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
    precision: Annotated[
        list[str] | None, typer.Option(help="Precision; may be given again. Default: all that there are.")
    ] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option(help="Optimizer; may be given again. Default: adamw, muon and sgd.")
    ] = None,
    wire: Annotated[
        list[str] | None, typer.Option(help="fp32, bf16 or int8; may be given again. Default: bf16.")
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

    from iota.compute.devices import accelerators
    from validator.calibration.calibrate import calibrate as run
    from validator.calibration.variants import variants

    torch.set_num_threads(1)  # comparing: threads that wait for one another are slow beside other programs
    plan = _plan(spec, precision, optimizer, wire, model, segments, steps)
    found = variants(sorted(set(threads or (1, 2))), accelerators())
    fitted = run(plan, found, out, lambda line: typer.echo(line, err=True))
    _show(fitted)
    _plot(fitted)


def _plan(
    spec: Path | None,
    precision: list[str] | None,
    optimizer: list[str] | None,
    wire: list[str] | None,
    model: str,
    segments: int,
    steps: int,
) -> Plan:
    from iota.settings.spec_file import read_spec
    from iota.spec import OptimizerKind, Precision, WireDtype
    from validator.calibration.plan import Plan, calibrated, default_specs, depths_of

    if spec is not None and (precision or optimizer or wire):
        raise ValueError("--spec says the precision, the optimizer and the wire: leave out the flags")
    if spec is not None:
        specs = [calibrated(read_spec(spec))]
    else:
        precisions = _chosen("--precision", precision, Precision)
        optimizers = _chosen("--optimizer", optimizer, OptimizerKind)
        wires = _chosen("--wire", wire or ["bf16"], WireDtype)
        specs = list(default_specs(precisions, optimizers, wires, model))
    return Plan(tuple(specs), segments, depths_of(steps))


def _chosen(flag: str, given: list[str] | None, kind: type[_Kind]) -> list[_Kind]:
    """The values of a flag, all where it was not given. Raises ValueError for one that there is not."""
    known = [str(each) for each in kind]
    for value in given or ():
        if value not in known:
            raise ValueError(f"{flag} {value} is none of {', '.join(known)}: give one of them")
    return [kind(value) for value in given or known]


def _show(fitted: list[Fitted]) -> None:
    from validator.audits.declared import COMPARED
    from validator.audits.measured import effective_bounds
    from validator.calibration.calibrate import lie_of

    typer.echo(
        "largest lie that passes, in percent of what is told, in the first and the last step of a segment:"
    )
    for each in fitted:
        first, last = (effective_bounds(each.spec, each.profile, depth) for depth in (1, each.profile.depth))
        lies = (
            f"{kind} {100 * lie_of(first, kind):.2g}, {100 * lie_of(last, kind):.2g}" for kind in COMPARED
        )
        typer.echo(f"{each.path.stem}: {'; '.join(lies)}")
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
