"""How often a run reads its training data, and whether a spec fits a data set."""

from __future__ import annotations

from iota.console.counts import counted
from iota.data.manifest import Manifest
from iota.data.sequences import SequenceMap
from iota.spec import RunSpec


def passes(spec: RunSpec, manifest: Manifest) -> float:
    """Passes over the training data by the run's end: sequences that are read by then, over those there are.

    Those that earlier runs have read (`data.first_sequence`) are among them.

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
    return spec.sequences_before(spec.schedule.epochs) / there


def check_passes(spec: RunSpec, manifest: Manifest, most: float) -> str:
    """One sentence that says the passes.

    Raises:
        ValueError: there are more than `most`, or no shard holds a sequence.
    """
    found = passes(spec, manifest)
    share = f"{found:,.2f}" if found >= 0.01 else "under 0.01"
    before = spec.data.first_sequence * spec.data.sequence_length
    after = f", with the {before:,} that earlier runs have read," if before else ""
    text = (
        f"{spec.tokens:,} tokens{after} are {share} passes over the {manifest.tokens:,} of the training data"
    )
    if found > most:
        raise ValueError(
            f"{text}, and at most {most:g} are allowed: take more data, train for fewer epochs, or give"
            f" --max-passes {-(-found // 1):.0f}"
        )
    return text


def check_data(spec: RunSpec, manifest: Manifest) -> None:
    """Refuse data that a spec does not fit.

    Raises:
        ValueError: it holds out fewer sequences than the held-out microbatches of an epoch have, or the spec
            masks documents by another token than the one that separates them.
    """
    eos = manifest.tokenizer.eos_id
    if spec.data.eos_id not in (None, eos):
        raise ValueError(
            f"data.eos_id is {spec.data.eos_id}, and documents of this data end in {eos}: make the spec anew"
            " with `iota spec`"
        )
    heldout, length = spec.schedule.heldout, spec.data.sequence_length
    needed, there = heldout * spec.data.sequences, SequenceMap((manifest.heldout,), length).count
    if there < needed:
        raise ValueError(
            f"the data holds out {counted(there, 'sequence')} of {counted(length, 'token')}, and"
            f" schedule.heldout {heldout} needs {needed}: lower it, or prepare the data with more"
            " --heldout-tokens"
        )
