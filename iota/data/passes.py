"""How often a run reads its training data."""

from __future__ import annotations

from iota.data.manifest import Manifest
from iota.data.sequences import SequenceMap
from iota.spec import RunSpec


def passes(spec: RunSpec, manifest: Manifest) -> float:
    """Passes of the whole run over the training data: sequences that it reads, over those that there are.

    1.0 reads every sequence once.

    Raises:
        ValueError: if the data holds no sequence of the spec's length.
    """
    there = SequenceMap(manifest.train, spec.data.sequence_length).count
    if there == 0:
        raise ValueError(
            f"the data holds {manifest.tokens} training tokens, which is no sequence of"
            f" {spec.data.sequence_length}: prepare more data or shorten the sequences"
        )
    schedule = spec.schedule
    return schedule.epochs * schedule.steps * schedule.microbatches * spec.data.sequences / there
