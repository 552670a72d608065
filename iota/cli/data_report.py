"""What `iota data` says: how far a preparation is, and what a data set holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from iota.console.counts import counted
from iota.console.durations import LINE_EVERY_S, duration

if TYPE_CHECKING:
    from iota.data import Manifest, PackProgress
    from iota.data.manifest import SourceInfo


class Pace:
    """Describes progress, with the rate since the first call and an estimate of the time left."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._said = clock, clock()
        self._first: tuple[PackProgress, float] | None = None

    def line(self, at: PackProgress) -> str:
        """`at` as a line."""
        first, began = self._first = self._first or (at, self._clock())
        text = f"{counted(at.documents, 'document')}, {counted(at.tokens, 'token')},"
        text += f" {counted(at.shards, 'shard')}"
        seconds = self._clock() - began
        if at.tokens > first.tokens and seconds > 0:
            text += f"; {(at.tokens - first.tokens) / seconds:,.0f} tokens/s"
        if at.fraction is not None:
            text += f"; {at.fraction:.0%} read"
            if at.fraction > (first.fraction or 0.0) and seconds > 0:
                rate = (at.fraction - (first.fraction or 0.0)) / seconds
                text += f", about {duration((1 - at.fraction) / rate)} left"
        return text

    def due(self) -> bool:
        """Whether a line is due, and if so, starts the time to the next one."""
        if self._clock() - self._said < LINE_EVERY_S:
            return False
        self._said = self._clock()
        return True


def summary(manifest: Manifest) -> str:
    """What a data set holds, in one sentence."""
    skipped: dict[str, int] = {}
    for info in manifest.sources:
        for reason, count in info.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    text = (
        f"{counted(manifest.tokens, 'token')} in {counted(len(manifest.train), 'shard')},"
        f" {manifest.heldout.tokens:,} held out, {_counts(skipped)} skipped"
    )
    if manifest.duplicates:
        text += f", {manifest.duplicates} duplicates of held-out text left out"
    return text


def description(manifest: Manifest, identity: str) -> list[str]:
    """Lines on a data set: its id, what it holds, and what was read from each source."""
    tokenizer = manifest.tokenizer
    return [
        identity,
        f"  {summary(manifest)}",
        f"  tokenizer {tokenizer.name}, {counted(tokenizer.vocab_size, 'id')}, digest {tokenizer.digest}",
        *(f"  {source_line(info)}" for info in manifest.sources),
    ]


def source_line(info: SourceInfo) -> str:
    """What was read from a source."""
    end = "to its end" if info.complete else "and not to its end"
    return (
        f"{info.name}: weight {info.weight:.4g}, {counted(info.documents, 'document')},"
        f" {counted(info.tokens, 'token')}, read {end}, {_counts(info.skipped)} skipped; {info.fingerprint}"
    )


def _counts(skipped: dict[str, int]) -> str:
    total = sum(skipped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    return f"{total} ({reasons})" if total else "0"
