"""Speed of one plain PyTorch process on the same model, optimizer and data: the baseline of `--compare`."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from iota.settings.spec_file import read_spec
from iota.spec import RunSpec
from iota.swarm.run_dir import write_json

REPEATS = 3
"""The median of three ignores one repeat that another process disturbed."""
MIN_TOKENS = 16_384
"""Least tokens of a measurement, rounded up to whole steps: some seconds for the default run."""


def measure(spec: RunSpec, data: Path, threads: int) -> list[float]:
    """Tokens per second of each repeat. `data` is the folder that holds the prepared data sets."""
    import numpy as np

    from iota.data import DirectoryReader, sequence_indices
    from iota.reference.plain import train_plain

    reader = DirectoryReader(data, spec.data.manifest)
    length, schedule = spec.data.sequence_length, spec.schedule
    count = reader.sequence_count(length)
    steps = max(2, -(-MIN_TOKENS // (spec.data.tokens * schedule.microbatches)))
    batches = [
        np.stack(
            [
                reader.tokens(sequence, length)
                for sequence in sequence_indices(
                    spec.seed, 0, step, index,
                    steps=steps, microbatches=schedule.microbatches,
                    sequences=spec.data.sequences, count=count, first=spec.data.first_sequence,
                )
            ]
        ).astype(np.int64)
        for step in range(steps)
        for index in range(schedule.microbatches)
    ]  # fmt: skip
    return [train_plain(spec, batches, threads) for _ in range(REPEATS)]


def main() -> None:
    """Measure, and write `{"tokens_per_second": median, "all": [...]}` to `--out`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = measure(read_spec(given.spec), given.data, given.threads)
    write_json(given.out, {"tokens_per_second": statistics.median(found), "all": found})
