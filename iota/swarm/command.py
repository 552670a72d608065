"""`iota up` around its run: checks before anything is written, exit on signals, errors as messages."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from iota.chain.errors import ChainError
from iota.codec.shapes import payload_size
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
"""Disk for data, bases, snapshots and logs, beside the frames."""
EPOCHS_KEPT = 3
"""Epochs whose frames may be on disk at once: in training, under audit, being deleted."""
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
    root = command.run_dir or _new_run_dir()
    if not (root / "options.json").exists():
        _check(SwarmOptions.of(**given), root)
    if command.port is not None and not is_free(command.port):
        raise ValueError(f"port {command.port} is in use: stop what uses it, or give another --port")
    if command.summary is not None and command.summary.is_dir():
        raise ValueError(f"--summary {command.summary} is a folder: give the name of a file")
    with RunDir(root) as run_dir:
        options = _options(run_dir, given)
        if run_dir.info().get("finished") and run_dir.summary_file.exists():
            console.print(f"the run in {run_dir.root} has ended; a new one needs another --run-dir")
            summary = Summary.read(run_dir.summary_file)
        else:
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
    call_on_stop(task.cancel, (signal.SIGTERM, signal.SIGHUP))
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


def _check(options: SwarmOptions, root: Path) -> None:
    """Refuse bad options, an unreadable data source and a full disk before a file is written.

    The manifest's id and the vocabulary are not known yet; placeholders of the right form stand for them.
    """
    from iota.data import open_source

    spec = options.spec("0" * 64, 2)
    open_source(options.data)
    steps = spec.schedule.steps * spec.schedule.microbatches
    frames = 2 * (spec.layout.stages - 1) * steps * payload_size(spec)
    needed = SPARE_BYTES + EPOCHS_KEPT * frames
    there = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f"{there} has {free / 1e6:.0f} MB free and the run may need {needed / 1e6:.0f} MB:"
            " free some, or give a --run-dir on another disk"
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
