"""The threads that a replay takes."""

from __future__ import annotations

import pytest
import torch

from iota.compute.determinism import device_class
from iota.compute.fingerprint import fingerprint
from iota.compute.state import StageState
from tests.support.receipts import BEGINNING
from tests.support.small_runs import small_run
from validator.audits.replay import OwnFingerprint, Replay, ReplayOptions
from validator.core.jobs import Shown


def test_a_replay_takes_the_miners_thread_count_where_that_makes_the_classes_equal() -> None:
    own = ReplayOptions(threads=1, max_threads=4)
    assert own.matching(device_class("cpu", 2)).threads == 2
    assert own.matching(device_class("cpu", 8)) == own
    assert own.matching("cuda/Some GPU/cuda13/torch2") == own


@pytest.mark.parametrize(("shown", "threads"), [(True, 1), (False, 2)], ids=["shown", "named alone"])
def test_a_name_alone_does_not_have_a_validator_compute_with_one_thread(shown: bool, threads: int) -> None:
    spec, before = small_run(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        made = fingerprint(spec, 0, "cpu", "ab" * 32) if shown else BEGINNING.fingerprint
        theirs = Shown(device_class("cpu", 1), made, "ab" * 32)
        replay = Replay(spec, 0, theirs, ReplayOptions(threads=2, max_threads=2), OwnFingerprint())
        replay.load(StageState.initial(spec, 0), 0)
        assert (torch.get_num_threads(), replay.profile.exact) == (threads, shown)
    finally:
        torch.set_num_threads(before)
