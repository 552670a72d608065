"""`iota up` around its run: checks before anything is written, exit on signals, errors as messages."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from iota.chain.errors import ChainError
from iota.console.command import Stopped, WorkFailed
from iota.console.signals import call_on_stop
from iota.settings.environment import check_names
from iota.spec import RunSpec
from iota.store.store import StoreError
from iota.swarm.display import Display, Lines, display_on
from iota.swarm.invocation import resume_command
from iota.swarm.options import SwarmOptions, UpOptions
from iota.swarm.ports import is_free
from iota.swarm.processes import PreloadFailed
from iota.swarm.run_dir import RunDir, write_json
from iota.swarm.summary import Summary, boundary_traffic, summary_table
from iota.swarm.supervisor import ProgramFailed
from iota.swarm.up import SwarmUp
from iota.swarm.watching import NotReady

RUNS = Path("runs")
SPARE_BYTES = 512 << 20
"""Disk for data, shared bases and logs, beside what the nodes hold."""
_FAILURES = (ProgramFailed, PreloadFailed, NotReady, ChainError, StoreError)


def run_up(command: UpOptions, given: dict[str, Any]) -> None:
    """Run `iota up` to its end; `given` holds the options of the run that were on the command line.

    Raises:
        ValueError: a mistake of the user. The folder of a run that did not start is removed.
        WorkFailed: the swarm failed; its state is kept.
        Stopped: it was stopped; its state is kept.
    """
    began = time.monotonic()
    check_names()
    console = Console()
    card = _card(command.device)
    root = command.run_dir or _new_run_dir()
    if given.get("epoch") is not None and given.get("origin") is None:
        raise ValueError("--epoch is that of the base of --from DIR: give both, or neither")
    if given.get("origin") is not None:
        given = {**given, "origin": str(Path(given["origin"]).resolve())}
    if not (root / "options.json").exists():
        if given.get("origin") is not None:
            given = _after(given, console)
        _check(SwarmOptions.of(**given), command, root, card)
    if command.port is not None and not is_free(command.port):
        raise ValueError(f"port {command.port} is in use: stop what uses it, or give another --port")
    if command.summary is not None:
        _check_writable(command.summary)
    with RunDir(root) as run_dir:
        options = _options(run_dir, given)
        if run_dir.info().get("finished") and run_dir.summary_file.exists():
            console.print(f"the run in {run_dir.root} has ended; a new one needs another --run-dir")
            summary = Summary.read(run_dir.summary_file)
        else:
            run_dir.refuse_lost_journal()
            console.print(f"run directory {run_dir.root}", highlight=False, soft_wrap=True)
            summary = _run(run_dir, options, command, console, began)
    if command.summary is not None:
        write_json(command.summary, summary.as_json())
    console.print(summary_table(summary))


def _run(
    run_dir: RunDir, options: SwarmOptions, command: UpOptions, console: Console, began: float
) -> Summary:
    lines = Lines(console)

    def display(spec: RunSpec, names: Mapping[str, str]) -> Display:
        return display_on(console, names, boundary_traffic(spec)) if command.dashboard else lines

    resume = f"`{resume_command(run_dir.root)}` goes on from here"
    try:
        with _warnings_to(lines):
            return asyncio.run(_interruptible(SwarmUp(run_dir, options, command, lines.say, display, began)))
    except BaseException as error:
        if run_dir.fresh and not run_dir.spec_file.exists():
            # Nothing was trained, so there is nothing to resume.
            run_dir.discard()
            resume = ""
        if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            raise Stopped(f"stopped; {resume}" if resume else "stopped before the run began") from None
        failure = _failure(error)
        if failure is not None:
            raise WorkFailed(
                f"{failure}\nOnce that is put right, {resume}" if resume else str(failure)
            ) from None
        raise


async def _interruptible(swarm: SwarmUp) -> Summary:
    """Run the swarm; SIGTERM and SIGHUP (a lost terminal) cancel it, as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    call_on_stop(task.cancel, "SIGTERM", "SIGHUP", "SIGBREAK")
    return await swarm.run()


def _failure(error: BaseException) -> Exception | None:
    """The first of `_FAILURES` in `error`, also inside an ExceptionGroup; None for a bug."""
    if isinstance(error, BaseExceptionGroup):
        found = (_failure(inner) for inner in error.exceptions)
        return next((failure for failure in found if failure is not None), None)
    return error if isinstance(error, _FAILURES) else None


def _options(run_dir: RunDir, given: dict[str, Any]) -> SwarmOptions:
    """The saved options of a run that is resumed, else `given` over the defaults.

    Raises:
        ValueError: `given` contradicts the saved options, which would change what the run computes.
    """
    saved = run_dir.saved_options()
    if saved is None:
        return SwarmOptions.of(**given)
    if differences := saved.differences(given):
        raise ValueError(
            f"the run in {run_dir.root} was made with other options: {', '.join(differences)};"
            " leave them out to resume it, or give another --run-dir"
        )
    return saved


def _check(options: SwarmOptions, command: UpOptions, root: Path, card: int | None) -> None:
    """Refuse what cannot be before a file is written: options, the data source, too little memory or disk.

    `card` is the memory of the accelerator, None for the CPU.
    """
    from iota.data import open_source
    from iota.planning import Machine, all_needs, shortfalls

    spec = options.draft_spec()
    open_source(options.data)
    # The cache holds the data that is on this disk already, once for each node: that is in SPARE_BYTES.
    stages = [replace(needs, cache=0) for needs in all_needs(spec, compiled=card is not None)]
    nodes = stages * spec.layout.replicas
    if command.validator and card is None:  # it computes in main memory
        nodes.append(replace(max(stages, key=lambda needs: needs.memory), snapshots=0, graphs=1))
    machine = Machine.free(root, card)
    if found := shortfalls(nodes, replace(machine, disk=max(0, machine.disk - SPARE_BYTES))):
        raise ValueError("; ".join(found))


def _after(given: dict[str, Any], console: Console) -> dict[str, Any]:
    """The options of a run that starts from the one in the folder of `--from`. Raises ValueError."""
    from iota.swarm.earlier_run import after_folder  # imports torch, which takes seconds

    if given.get("init") is not None:
        raise ValueError("--init and --from both say what the run starts from: give one of them")
    return after_folder(given, lambda line: console.print(line, highlight=False, soft_wrap=True))


def _card(device: str) -> int | None:
    """Memory of the accelerator `device`, None for the CPU. Raises ValueError where there is none."""
    if device == "cpu":
        return None
    from iota.compute.devices import card_bytes, resolve_device  # imports torch, which takes seconds

    return card_bytes(resolve_device(device))


def _check_writable(summary: Path) -> None:
    """Refuse a file that could not be written at the end of the run."""
    if summary.is_dir():
        raise ValueError(f"--summary {summary} is a folder: give the name of a file")
    there = summary if summary.exists() else summary.absolute().parent
    if not os.access(there, os.W_OK):
        state = "cannot be written" if there.exists() else "does not exist"
        raise ValueError(
            f"--summary {summary}: {there} {state}: give a file in a folder that you may write to"
        )


def _new_run_dir() -> Path:
    """A new folder under `runs/`, named by the time; a number is added if that is taken."""
    name = time.strftime("%Y%m%d-%H%M%S")
    names = (name, *(f"{name}-{n}" for n in range(2, 1000)))
    return next(RUNS / n for n in names if not (RUNS / n).exists())


@contextmanager
def _warnings_to(lines: Lines) -> Iterator[None]:
    """Show the warnings that this process logs as lines of the display."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.say(f"warning: {record.getMessage()}")

    handler = Handler(logging.WARNING)
    logging.getLogger("iota").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("iota").removeHandler(handler)
