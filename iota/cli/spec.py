"""`iota spec`: writes the RunSpec of a run whose processes are started one by one."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.cli.planned_memory import MEMORY_HELP, Device, planned_machine
from iota.console.counts import counted
from iota.settings import NodeSettings, OrchestratorSettings
from iota.settings.flags import set_parameters, with_flags
from iota.settings.roles import MAX_PASSES
from iota.settings.spec_flags import spec_flags, taken
from iota.spec.draft import Draft, from_assignments, merged
from iota.swarm.options import SPEC_PATHS, RunOptions

if TYPE_CHECKING:
    from iota.data import Manifest
    from iota.planning import Machine
    from iota.spec import RunSpec
    from iota.store import ObjectStore

app = typer.Typer()
_OF_JOURNAL = {"store": "the embedded one on this machine"}


def _with_every_value(command: Any) -> Any:
    """Adds a flag for each value of a spec that `RunOptions` has no flag for, in place of `**flags`."""
    own = inspect.signature(command).parameters.values()
    set_parameters(command, [*own, *spec_flags(SPEC_PATHS.values())])
    return command


@app.command()
@_with_every_value
@with_flags(RunOptions)
@with_flags(OrchestratorSettings, only=("store", "store_secret_file"), unset=_OF_JOURNAL)
@with_flags(NodeSettings, only=("orchestrator_hotkey", "allow_private_urls"))
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
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="An earlier run to start from: folder of an `iota up`, URL of an orchestrator, or a journal"
            " with its --store.",
        ),
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(min=0, help="Merged epochs of that run's base.  (default: the newest)")
    ] = None,
    init_store: Annotated[
        str | None,
        typer.Option(help="s3:// store for the start weights.  (default: the folder of --data)"),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help=MEMORY_HELP)] = None,
    device: Annotated[Device, typer.Option(help="What has that --memory.")] = Device.CUDA,
    max_passes: Annotated[float, typer.Option(help="Most passes over the training data.")] = MAX_PASSES,
    **flags: Any,
) -> None:
    """Write the spec of a run: what it computes, and so its id.

    What is not given is proposed for the size of the model, and with --memory for the miners' devices (`iota
    plan --memory` shows how). --set and flags win over --spec. With --from the run goes on from another one's
    weights, and what is not given is that run's.
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
    _refuse_mixed(origin, epoch, options.init, flags)
    from iota.data import read_manifest
    from iota.data.passes import check_data, check_passes
    from iota.store import open_store

    identity = manifest or _only_manifest(data)
    found = read_manifest(data, identity)
    given, machine = options.draft(), planned_machine(device, memory)

    def checked(draft: Draft) -> RunSpec:
        made = _proposed(draft, found, machine)
        check_data(made, found)
        typer.echo(check_passes(made, found, max_passes))
        return made

    place = data if init_store is None else lambda: open_store(init_store)
    if origin is not None:
        made = _continued(origin, epoch, flags, given, identity, checked, place, out)
    elif options.init is not None:
        from iota.swarm.starting import start_from_init

        made = start_from_init(checked(given), options.init, place, typer.echo)
    else:
        made = checked(given)
    with out.open("x") as file:
        file.write(made.model_dump_json(indent=2) + "\n")
    stages = counted(made.layout.stages, "stage")
    typer.echo(f"run {made.id}: {stages} of {list(made.layout.cuts)} layers, in {out}")


def _refuse_mixed(origin: str | None, epoch: int | None, init: str | None, flags: dict[str, Any]) -> None:
    """Raise ValueError where flags about an earlier run are given without one, or beside --init."""
    if origin is not None and init is not None:
        raise ValueError("--init and --from both say what the run starts from: give one of them")
    theirs = NodeSettings.given(flags) | OrchestratorSettings.given(flags)
    if origin is None and (epoch is not None or theirs):
        named = "--epoch" if epoch is not None else f"--{next(iter(theirs)).replace('_', '-')}"
        raise ValueError(f"{named} is about the earlier run of --from RUN: give both, or neither")


def _continued(
    origin: str,
    epoch: int | None,
    flags: dict[str, Any],
    given: Draft,
    manifest: str,
    make: Callable[[Draft], RunSpec],
    store: Path | Callable[[], ObjectStore],
    out: Path,
) -> RunSpec:
    """The spec of a run from a base of the run at `origin`, whose weights are then in `store`.

    `make` makes a spec of a draft. Raises ValueError where the base is not there, or `given` does not fit it.
    """
    from iota.cli.orchestrator_calls import no_orchestrator
    from iota.cli.progress_bar import progress_bar
    from iota.client.orchestrator import OrchestratorUnreachable
    from iota.spec.continuation import continued
    from iota.swarm.earlier_run import earlier_run, opening_of
    from iota.swarm.starting import start_from

    node, recorded = NodeSettings.given(flags), OrchestratorSettings.given(flags)
    folder = out.with_name(f".{out.name}.download")
    opening = opening_of(origin, node, recorded, lambda line: typer.echo(f"spec: {line}", err=True))
    try:
        with earlier_run(opening, epoch) as earlier, progress_bar("spec") as progress:
            same_data = manifest == earlier.spec.data.manifest
            made = make(continued(earlier.spec, earlier.epoch, given, same_data=same_data))
            first = made.data.first_sequence
            order = "goes on" if same_data else "is other data than the earlier run's, and begins"
            typer.echo(f"the data {order} at place {first:,} of the order of samples")
            made = start_from(made, earlier.weights(folder, progress), store, typer.echo)
    except OrchestratorUnreachable as error:
        raise no_orchestrator(origin, error) from None
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _proposed(given: Draft, manifest: Manifest, machine: Machine | None) -> RunSpec:
    """The spec on a data set, for machines like `machine`. Raises ValueError where a stage does not fit."""
    from iota.model.proposal import make_spec
    from iota.planning import EXPECTED_TFLOPS, all_needs, fitted_spec, reached, stage_shortfalls

    def propose(draft: Draft) -> RunSpec:
        ids, heldout = manifest.tokenizer, manifest.heldout.tokens
        return make_spec(draft, manifest.content_digest(), ids.vocab_size, heldout, ids.eos_id)

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
