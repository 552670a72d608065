"""An earlier run, from one of whose bases a new run starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from iota.exporting.export import Progress
from iota.exporting.run_weights import RunWeights, chosen_epoch, run_weights
from iota.settings import NodeSettings, OrchestratorSettings
from iota.spec import RunSpec
from iota.spec.continuation import continued
from iota.spec.draft import merged
from iota.swarm.options import SwarmOptions
from iota.swarm.run_dir import RunDir
from iota.swarm.run_sources import Opened, from_folder, from_journal, from_orchestrator

Opening = Callable[[AsyncExitStack], Coroutine[Any, Any, Opened]]
"""Opens a run, of which the stack closes the connections."""


class EarlierRun:
    """A run as it was read, and the base that is taken of it."""

    def __init__(self, runner: asyncio.Runner, opened: Opened, epoch: int) -> None:
        self._runner = runner
        self._facts, self._objects = opened
        self.epoch = epoch
        """Number of merged epochs of the base."""

    @property
    def spec(self) -> RunSpec:
        """The earlier run's spec."""
        return self._facts.spec

    def epochs_begun(self) -> int:
        """Epochs of which it has read samples."""
        status = self._runner.run(self._facts.status())
        return min(int(status["epoch"]) + 1, self.spec.schedule.epochs)

    def weights(self, folder: Path, progress: Progress) -> RunWeights:
        """The base's checked weights; what is downloaded lies in `folder`. Raises as `run_weights`."""
        return run_weights(self._facts, self._objects, self.epoch, folder, self._runner, progress)


@contextmanager
def earlier_run(opening: Opening, epoch: int | None) -> Iterator[EarlierRun]:
    """The run that `opening` opens, for its base of `epoch` or the newest one.

    Raises ValueError where there is no such run or base, and the errors of `opening`.
    """
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            opened = runner.run(opening(stack))
            yield EarlierRun(runner, opened, runner.run(chosen_epoch(opened[0], epoch)))
        finally:
            runner.run(stack.aclose())


def opening_of(
    where: str, node: dict[str, Any], recorded: dict[str, Any], say: Callable[[str], None]
) -> Opening:
    """How to open the run at `where`: an orchestrator's URL, a folder of `iota up`, or a journal.

    `node` holds settings for a URL, `recorded` for a journal. Raises ValueError for anything else.
    """
    if where.startswith(("http://", "https://")):
        return lambda stack: from_orchestrator(NodeSettings.load(**node, orchestrator=where), stack, say)
    path = Path(where).expanduser()
    if path.is_dir():
        return lambda stack: from_folder(path, say)
    if path.is_file():
        settings = OrchestratorSettings.load(**recorded, journal=path)
        return lambda stack: from_journal(settings, stack, say)
    raise ValueError(
        f"--from {where}: give the folder of an `iota up`, an orchestrator's URL, or its journal with --store"
    )


def after_folder(given: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The options of an `iota up --from DIR`: what is `given`, and what goes on from the run in DIR.

    Its data goes on too, unless other is given. Raises ValueError where there is no such run or base.
    """
    origin = Path(given["origin"])
    saved = RunDir(origin).saved_options()
    if saved is None:
        raise ValueError(f"--from {origin}: there is no run of `iota up`; `iota spec --from` takes others")
    data = {"data": saved.data, "tokenizer": saved.tokenizer}
    same_data = all(given.get(name, value) == value for name, value in data.items())
    with earlier_run(opening_of(str(origin), {}, {}, say), given.get("epoch")) as earlier:
        draft = SwarmOptions.of(**given).draft()
        values = continued(earlier.spec, earlier.epoch, draft, same_data=same_data)
        if same_data:
            values = merged(values, {"data": {"manifest": earlier.spec.data.manifest}})
        say(f"from the base of epoch {earlier.epoch} of run {earlier.spec.id[:12]}")
        return {**data, **given, "values": values, "epoch": earlier.epoch}
