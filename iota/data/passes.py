"""How often a run goes over its training data."""

from __future__ import annotations

from iota.data.manifest import Manifest
from iota.data.sequences import SequenceMap
from iota.spec import RunSpec


def passes(spec: RunSpec, manifest: Manifest) -> float:
    """Tokens that the run trains on, over the tokens of the training shards."""
    return spec.tokens / manifest.tokens


def check_passes(spec: RunSpec, manifest: Manifest, most: float) -> str:
    """One sentence that says the passes.

    Raises:
        ValueError: there are more than `most`, or no shard holds a sequence.
    """
    length = spec.data.sequence_length
    if SequenceMap(manifest.train, length).count == 0:
        longest = max(shard.tokens for shard in manifest.train) - 1
        raise ValueError(
            f"data.sequence_length {length} is longer than every training shard of the data, of which the"
            f" longest has room for {longest}: give shorter sequences or more data"
        )
    found = passes(spec, manifest)
    text = f"{spec.tokens:,} tokens are {found:,.2f} passes over the {manifest.tokens:,} of the training data"
    if found > most:
        raise ValueError(
            f"{text}, and at most {most:g} are allowed: take more data, train for fewer epochs, or give"
            f" --max-passes {-(-found // 1):.0f}"
        )
    return text
