"""The miner's line in its log: what it did since the last one. Pure: times are arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace

from iota.console.counts import counted
from iota.console.durations import LINE_EVERY_S, duration
from miner.activity import Activity


@dataclass(frozen=True)
class Position:
    """Where a replica is in its run."""

    epoch: int
    step: int
    """Steps of the epoch that are applied."""
    steps: int
    stage: int
    credit_used: int
    credit: int
    state: str
    """The core's state in a few words."""


@dataclass
class ProgressLines:
    """Decides when a line is due, and writes it.

    One comes with the first step, and then each `LINE_EVERY_S`; without a step it says what the miner does.
    """

    began: float
    """Monotonic seconds."""
    _before: Activity | None = None
    _at: float = float("-inf")
    _place: tuple[int, int] = (-1, 0)
    _stepped_at: float | None = None
    """When a line last told of a step."""

    def look(self, now: float, position: Position, activity: Activity) -> str | None:
        """The line that is due at `now` (monotonic seconds), or None."""
        place = (position.epoch, position.step)
        stepped = place != self._place and position.step > 0
        since = max(self._at, self.began)
        first = stepped and self._before is None
        if not first and now < since + LINE_EVERY_S:
            return None
        text = progress_line(position, self._before or Activity(), activity, now - since)
        self._before, self._at, self._place = replace(activity), now, place
        if stepped:
            self._stepped_at = now
            return text
        idle_s = now - (self.began if self._stepped_at is None else self._stepped_at)
        doing = f"no step for {duration(idle_s)} ({position.state})"
        return f"{text}; {doing}: `iota status` says what the run waits for"


def progress_line(position: Position, before: Activity, now: Activity, passed_s: float) -> str:
    """One line on the `passed_s` seconds between two states of the activity.

    Waiting is the share of the wall time without an op to run. Bytes are those of frames, in all.
    """
    passed = max(passed_s, 1e-9)
    loss = ""
    if now.losses > before.losses:
        loss = f" loss {(now.loss_sum - before.loss_sum) / (now.losses - before.losses):.4f},"
    return (
        f"epoch {position.epoch} step {position.step}/{position.steps}, stage {position.stage}:{loss}"
        f" {(now.tokens - before.tokens) / passed:,.0f} tokens/s,"
        f" waiting {min(1.0, max(0.0, now.wait_s - before.wait_s) / passed):.0%},"
        f" {position.credit_used} of {counted(position.credit, 'microbatch')} in flight,"
        f" frames {_size(now.sent_bytes)} up {_size(now.received_bytes)} down"
    )


def _size(count: int) -> str:
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
