"""Keys of objects: one text for one object, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.compute.state import StageState, state_bytes, zero_moments
from iota.objects import (
    BaseKey,
    DeltaKey,
    EvidenceKey,
    FrameKey,
    MergedKey,
    PlanKey,
    RunObject,
    ServerObject,
    SettledKey,
    epoch_prefixes,
    max_bytes,
    merge_prefixes,
    parse_key,
    part_count,
    part_sizes,
    plans_prefix,
    snapshot_bytes,
    validate_key,
)
from iota.protocol.frames import Direction, EvidenceItem, FrameName
from iota.simulate.names import fake_hotkey
from iota.spec import Moments
from tests.support.small_spec import small_spec

RUN = "ab" * 32
numbers = st.integers(0, 2**31 - 1)
parts = st.integers(0, 999_999)
hotkeys = st.integers(0, 500).map(fake_hotkey)
runs = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.builds(
    FrameName,
    epoch=numbers,
    step=numbers,
    microbatch=numbers,
    attempt=numbers,
    stage=numbers,
    direction=st.sampled_from(Direction),
)
keys = st.one_of(
    st.builds(FrameKey, runs, names),
    st.builds(DeltaKey, runs, numbers, numbers, hotkeys, parts),
    st.builds(MergedKey, runs, numbers, numbers, parts, hotkeys),
    st.builds(BaseKey, runs, numbers, numbers, parts, st.just("") | hotkeys),
    st.builds(EvidenceKey, runs, numbers, hotkeys, st.sampled_from(EvidenceItem), numbers),
    st.builds(PlanKey, runs, numbers, numbers, runs),
    st.builds(SettledKey, runs, numbers, numbers, parts, runs),
)


@given(keys)
def test_a_key_is_read_back_as_the_object_that_it_names(key: RunObject | ServerObject) -> None:
    assert parse_key(str(key)) == key
    assert validate_key(str(key)) == str(key)


@given(keys, st.integers(0, 200), st.sampled_from("0/.x5 \n"))
def test_another_text_is_another_object_or_none(
    key: RunObject | ServerObject, place: int, inserted: str
) -> None:
    text = str(key)
    changed = text[: place % len(text)] + inserted + text[place % len(text) :]
    found = parse_key(changed)
    assert found is None or str(found) == changed != text


@given(keys)
def test_every_object_of_an_epoch_lies_below_the_epochs_prefixes(key: RunObject | ServerObject) -> None:
    epoch = key.name.epoch if isinstance(key, FrameKey) else key.epoch
    own, merge = epoch_prefixes(key.run, epoch), merge_prefixes(key.run, epoch, keeps_base=False)
    prefixes = [*own, *merge, plans_prefix(key.run, epoch)]
    assert sum(str(key).startswith(prefix) for prefix in prefixes) == 1
    kept = [*own, *merge_prefixes(key.run, epoch, keeps_base=True)]
    assert any(str(key).startswith(p) for p in kept) == (not isinstance(key, BaseKey | PlanKey))


@pytest.mark.parametrize(
    "text",
    [
        f"{RUN}/frames/00/0/0.0/0.f",
        f"{RUN}/frames/0/0/0.0/0.x",
        f"{RUN}/frames/2147483648/0/0.0/0.f",
        f"{RUN}/delta/0/0/{fake_hotkey(1)}/part-0",
        f"{RUN}/delta/0/0/{fake_hotkey(1)}/part-0000",
        f"{RUN}/delta/0/0/someone/part-000",
        f"{RUN}/base/0/0/manifest.json",
        f"{RUN}/audit/0/{fake_hotkey(1)}/1/",
        f"{RUN[:-1]}/base/0/0/part-000.safetensors",
        "",
    ],
)
def test_what_is_nearly_a_key_is_none(text: str) -> None:
    assert parse_key(text) is None


def test_parts_of_a_stage_cover_its_vector() -> None:
    spec = small_spec(outer={"part_elements": 1000})
    for stage in range(spec.layout.stages):
        sizes = part_sizes(spec, stage)
        assert len(sizes) == part_count(spec, stage)
        assert set(sizes[:-1]) <= {1000}
        assert 0 < sizes[-1] <= 1000


def test_sizes_grow_with_what_they_hold() -> None:
    spec = small_spec()
    part, base = (
        max_bytes(spec, key, 0) for key in (DeltaKey(RUN, 0, 0, fake_hotkey(1), 0), BaseKey(RUN, 0, 0, 0))
    )
    assert base > part > 4 * spec.outer.part_elements
    wider = small_spec(model=spec.model.model_dump() | {"hidden_size": 64})
    assert snapshot_bytes(wider, 0) > snapshot_bytes(spec, 0)


@pytest.mark.parametrize("moments", Moments)
@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_a_snapshot_with_all_moments_fits_its_bound(kind: str, moments: Moments) -> None:
    spec = small_spec(optimizer={"lr": 1e-2, "kind": kind, "moments": moments})
    for stage in range(spec.layout.stages):
        weights = StageState.initial(spec, stage).weights
        state = StageState(weights, zero_moments(spec, stage))
        assert len(state_bytes(state)) <= snapshot_bytes(spec, stage)
