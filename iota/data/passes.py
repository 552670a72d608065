"""How often a run reads its training data, and whether there is enough held out for it."""

from __future__ import annotations

from iota.console.counts import counted
from iota.data.manifest import Manifest
from iota.data.sequences import SequenceMap
from iota.spec import RunSpec


def passes(spec: RunSpec, manifest: Manifest) -> float:
    """Passes of the whole run over the training data: sequences that it reads, over those that there are.

    Raises:
        ValueError: no shard holds a sequence of the spec's length.
    """
    length = spec.data.sequence_length
    there = SequenceMap(manifest.train, length).count
    if there == 0:
        longest = max(shard.tokens for shard in manifest.train) - 1
        raise ValueError(
            f"data.sequence_length {length} is longer than every training shard of the data, of which the"
            f" longest has room for {longest}: give shorter sequences or more data"
        )
    return spec.tokens / length / there


def check_passes(spec: RunSpec, manifest: Manifest, most: float) -> str:
    """One sentence that says the passes.

    Raises:
        ValueError: there are more than `most`, or no shard holds a sequence.
    """
    found = passes(spec, manifest)
    share = f"{found:,.2f}" if found >= 0.01 else "under 0.01"
    text = f"{spec.tokens:,} tokens are {share} passes over the {manifest.tokens:,} of the training data"
    if found > most:
        raise ValueError(
            f"{text}, and at most {most:g} are allowed: take more data, train for fewer epochs, or give"
            f" --max-passes {-(-found // 1):.0f}"
        )
    return text


def check_heldout(spec: RunSpec, manifest: Manifest) -> None:
    """Refuse data that holds out fewer sequences than the held-out microbatches of an epoch have.

    Raises:
        ValueError: it does.
    """
    heldout, length = spec.schedule.heldout, spec.data.sequence_length
    needed, there = heldout * spec.data.sequences, SequenceMap((manifest.heldout,), length).count
    if there < needed:
        raise ValueError(
            f"the data holds out {counted(there, 'sequence')} of {counted(length, 'token')}, and"
            f" schedule.heldout {heldout} needs {needed}: lower it, or prepare the data with more"
            " --heldout-tokens"
        )
