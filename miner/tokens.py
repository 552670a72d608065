"""Tokens of microbatches: fetched ahead from the shards, by whoever needs them."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from iota.data.reader import ShardReader
from iota.data.sample import sequence_indices
from iota.spec import Codec, RunSpec

Tokens = npt.NDArray[np.int64]


def needs_tokens(spec: RunSpec, stage: int) -> bool:
    """Stage 0 embeds them, the last has its labels in them, and an anchor looks them up."""
    return stage in (0, spec.last_stage) or spec.boundary.codec is Codec.RESBM_ANCHOR


async def microbatch_tokens(reader: ShardReader, spec: RunSpec, epoch: int, step: int, index: int) -> Tokens:
    """(sequences, sequence_length + 1) token ids of a microbatch, by its name alone."""
    length = spec.data.sequence_length
    sequences = sequence_indices(
        spec.seed,
        epoch,
        step,
        index,
        steps=spec.schedule.steps,
        microbatches=spec.schedule.microbatches,
        sequences=spec.data.sequences,
        count=reader.sequence_count(length),
    )
    return np.stack(await asyncio.gather(*(reader.tokens(s, length) for s in sequences)))


def no_tokens(spec: RunSpec) -> Tokens:
    """What a stage that reads no tokens is given in their place."""
    return np.zeros((spec.data.sequences, spec.data.sequence_length + 1), dtype=np.int64)
