"""The threads that a replay takes."""

from __future__ import annotations

from iota.compute.determinism import device_class
from validator.audits.replay import ReplayOptions


def test_a_replay_takes_the_miners_thread_count_where_that_makes_the_classes_equal() -> None:
    own = ReplayOptions(threads=1, max_threads=4)
    assert own.matching(device_class("cpu", 2)).threads == 2
    assert own.matching(device_class("cpu", 8)) == own
    assert own.matching("cuda/Some GPU/cuda13/torch2") == own
