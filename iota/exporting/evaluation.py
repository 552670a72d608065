"""The held-out loss of an export: measured while its stages pass, or as the run has measured it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from iota.compute.evaluate import Evaluation
from iota.compute.heldout_loss import HeldoutLoss, heldout_loss
from iota.compute.state import StageState
from iota.console.counts import counted
from iota.data import Manifest, ShardReader
from iota.data.samples import HeldoutTokens, Samples
from iota.exporting.objects import Objects
from iota.model.exported_config import EVALUATION_NAME
from iota.spec import RunSpec

_CACHE_BYTES: Final = 1 << 28


class HeldoutRun:
    """A measurement that each stage takes part in once it is read."""

    def __init__(self, spec: RunSpec, tokens: HeldoutTokens) -> None:
        """Raises ValueError without batches."""
        self._tokens = tokens
        self._evaluation = Evaluation(spec, tokens.batches)

    @staticmethod
    def samples(spec: RunSpec, manifest: Manifest, objects: Objects, work: Path) -> Samples:
        """Reads held-out tokens from the store; blocks are cached in `work`."""
        return Samples(spec, ShardReader(manifest, objects.get_range, work / "blocks", _CACHE_BYTES))

    def watching(
        self, weights_by_stage: Iterator[dict[str, Tensor]], progress: Callable[[str, float], None]
    ) -> Iterator[dict[str, Tensor]]:
        """The same stages; each is evaluated after it was taken. `progress` is that of the export."""
        batches = len(self._tokens.batches)
        for stage, weights in enumerate(weights_by_stage):
            yield weights
            what = f"stage {stage}: held-out loss of {counted(batches, 'microbatch')}"
            progress(what, 0)
            for batch in self._evaluation.stage(stage, StageState(weights)):
                progress(what, (batch + 1) / batches)

    def write(self, folder: Path, epoch: int) -> HeldoutLoss:
        """The loss, also written to `evaluation.json` in `folder`."""
        found = heldout_loss(self._evaluation.losses, self._tokens.documents)
        text = json.dumps({"epoch": epoch, **asdict(found)}, indent=2)
        (folder / EVALUATION_NAME).write_text(text + "\n")
        return found


def reported(spec: RunSpec, status: dict[str, Any], epoch: int) -> HeldoutLoss | None:
    """The held-out loss of the base of `epoch`, if its held-out microbatches gave one.

    None where replicas begin that epoch with something else, as with overlap.

    Raises ValueError for a status that does not follow the protocol.
    """
    if spec.anchor(epoch) != epoch:
        return None
    try:
        at = str(epoch)
        if at not in status["heldout"]:
            return None
        error = status["heldout_error"][at]
        return HeldoutLoss(
            float(status["heldout"][at]),
            None if error is None else float(error),
            int(status["heldout_tokens"][at]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the orchestrator's status is malformed ({error!r})") from error
