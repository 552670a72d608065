"""Sealed records in virtual time: a replay of the journal gives the same bytes, and nothing changes them."""

from __future__ import annotations

import zlib
from typing import Any

from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iota.protocol.merkle import merkle_root
from iota.protocol.records import EpochRecord
from iota.protocol.seals import member_parts
from iota.simulate.swarm import LIMITS, VirtualSwarm
from orchestrator.coordinator import Coordinator, Entry
from tests.support.small_spec import small_spec

LIMIT_S = 20_000.0


class Watched(VirtualSwarm):
    """Notes each seal and record with the entry after which it was first seen."""

    def apply(self, entry: Entry) -> None:
        super().apply(entry)
        seen = self.__dict__.setdefault("seen", {})
        for number, published in self.state.audits.published.items():
            known = seen.setdefault(number, (published.seal, published.packed))
            assert known == (published.seal, published.packed), "a sealed record has changed"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    replicas=st.integers(1, 2),
    steps=st.integers(1, 3),
    kills=st.lists(st.floats(0, 40), max_size=3),
    nan_rate=st.sampled_from([0.0, 0.05]),
)
def test_a_replay_gives_the_same_record_bytes_and_no_entry_changes_them(
    seed: int, replicas: int, steps: int, kills: list[float], nan_rate: float
) -> None:
    spec = small_spec(
        layout={"cuts": [1, 2], "replicas": replicas},
        schedule={"epochs": 3, "steps": steps, "microbatches": 4, "heldout": 3},
    )
    swarm: Any = Watched(spec, seed, nan_rate=nan_rate)
    miners = [swarm.add_miner() for _ in range(2 * replicas)]
    for number, at in enumerate(kills):
        miner = miners[number % len(miners)]
        swarm.clock.later(at, miner.kill)
        swarm.clock.later(at + 5.0, lambda miner=miner: miner.start(fresh=False))
    swarm.run(lambda: swarm.state.run_end_sent, limit_s=LIMIT_S)
    assert sorted(swarm.seen) == [0, 1, 2]
    again = Coordinator(spec, LIMITS)
    for entry in swarm.entries:
        again.apply(entry)
    for number, (seal, packed) in swarm.seen.items():
        replayed = again.published(number)
        assert replayed is not None
        assert (replayed.seal, replayed.packed) == (seal, packed)
        data = zlib.decompress(packed)
        record = EpochRecord.model_validate_json(data)
        assert record.model_dump_json().encode() == data, "the bytes have one form"
        assert blake3(data).hexdigest() == seal.record
        assert merkle_root([part.content_digest() for part in member_parts(record)]) == seal.members
        assert (record.root, record.receipts) == (seal.root, seal.receipts)
