"""`iota spec`: writes the RunSpec of a run whose processes are started one by one."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.cli.planned_memory import MEMORY_HELP, Device, planned_machine
from iota.console.counts import counted
from iota.settings.flags import set_parameters, with_flags
from iota.settings.roles import MAX_PASSES
from iota.settings.spec_flags import spec_flags, taken
from iota.spec.draft import Draft, from_assignments, merged
from iota.swarm.options import SPEC_PATHS, RunOptions

if TYPE_CHECKING:
    from iota.data import Manifest
    from iota.planning import Machine
    from iota.spec import RunSpec

app = typer.Typer()


def _with_every_value(command: Any) -> Any:
    """Adds a flag for each value of a spec that `RunOptions` has no flag for, in place of `**flags`."""
    own = inspect.signature(command).parameters.values()
    set_parameters(command, [*own, *spec_flags(SPEC_PATHS.values())])
    return command


@app.command()
@_with_every_value
@with_flags(RunOptions)
def spec(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that `iota data prepare --out` wrote to; needed but for --template."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; one that is there is not overwritten.")
    ] = None,
    manifest: Annotated[
        str | None, typer.Option(help="Id of the manifest, where the folder holds several.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="A TOML file of values, or another run's spec.")] = None,
    set: Annotated[
        list[str] | None, typer.Option(metavar="A.B=C", help="Set one value; may be repeated.")
    ] = None,
    template: Annotated[bool, typer.Option("--template", help="Write a commented file for --spec.")] = False,
    init_store: Annotated[
        str | None, typer.Option(help="s3:// store for the parts of --init.  (default: the folder of --data)")
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MEMORY_HELP)] = None,
    device: Annotated[Device, typer.Option(help="What has that --memory.")] = Device.CUDA,
    max_passes: Annotated[float, typer.Option(help="Most passes over the training data.")] = MAX_PASSES,
    **flags: Any,
) -> None:
    """Write the spec of a run: what it computes, and so its id.

    What is not given is proposed for the size of the model, and with --memory for the miners' devices (`iota
    plan --memory` shows how). --set and flags win over --spec.
    """
    values = merged(given_values(spec, set), taken(flags))
    options = RunOptions.of(**RunOptions.given(flags), values=values)
    if template:
        _write_template(options, out)
        return
    if data is None or out is None:
        raise ValueError("--data DIR and --out FILE are needed: see iota spec --help")
    if out.exists():
        raise ValueError(f"{out} is there already: remove it, or give another --out")
    from iota.data import read_manifest
    from iota.data.passes import check_heldout, check_passes

    identity = manifest or _only_manifest(data)
    found = read_manifest(data, identity)
    given = options.draft()
    made = _proposed(given, found, planned_machine(device, memory))
    check_heldout(made, found)
    typer.echo(check_passes(made, found, max_passes))
    if options.init is not None:
        from iota.swarm.starting import start_from

        made = start_from(made, options.init, init_store or data, typer.echo)
    with out.open("x") as file:
        file.write(made.model_dump_json(indent=2) + "\n")
    stages = counted(made.layout.stages, "stage")
    typer.echo(f"run {made.id}: {stages} of {list(made.layout.cuts)} layers, in {out}")


def _proposed(given: Draft, manifest: Manifest, machine: Machine | None) -> RunSpec:
    """The spec on a data set, for machines like `machine`. Raises ValueError where a stage does not fit."""
    from iota.model.proposal import make_spec
    from iota.planning import EXPECTED_TFLOPS, all_needs, fitted_spec, reached, stage_shortfalls

    def propose(draft: Draft) -> RunSpec:
        return make_spec(
            draft, manifest.content_digest(), manifest.tokenizer.vocab_size, manifest.heldout.tokens
        )

    if machine is None:
        return propose(given)
    made = fitted_spec(given, propose, machine, reached(EXPECTED_TFLOPS))
    for needs in all_needs(made, compiled=machine.card is not None):
        if found := stage_shortfalls(made, needs, machine):
            raise ValueError(f"--memory: {'; '.join(found)}")
    return made


def given_values(spec: Path | None, assignments: list[str] | None) -> Draft:
    """The values of `--spec` and `--set`; the latter win. Raises ValueError for what no spec has."""
    from iota.settings.spec_file import read_draft

    return merged(read_draft(spec) if spec is not None else {}, from_assignments(assignments or ()))


def _write_template(options: RunOptions, out: Path | None) -> None:
    from iota.settings.spec_template import template

    text = template(options.draft_spec(), options.draft())
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{out} is there already: remove it, or give another --out") from None


def _only_manifest(data: Path) -> str:
    """The id of the one manifest in the folder `data`. Raises ValueError for none or several."""
    from iota.data import prepared_ids

    found = prepared_ids(data)
    if len(found) == 1:
        return found[0]
    raise ValueError(f"{data} holds several data sets: choose one with --manifest, of {', '.join(found)}")
