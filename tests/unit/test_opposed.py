"""Contributions that go against the others: who is left out of a merge for it, and who is not."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from iota.objects import part_sizes
from iota.outer import open_delta_codec
from iota.outer.direction import BLOCK, SAMPLE, opposed, sample_start, sampled
from iota.outer.merge import MergedPart, merge_part
from iota.outer.merged_part import read_merged
from iota.outer.partition import Vector
from iota.outer.weighted_mean import weighted_mean
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.simulate.names import fake_hotkey
from iota.spec import OuterCodec, RunSpec
from tests.support.small_spec import small_spec

SPEC = small_spec(outer={"part_elements": 1_000_000})
SIZE = part_sizes(SPEC, 0)[0]
Parts = dict[str, Vector]


def replicas(count: int, likeness: float, size: int = SIZE, seed: int = 0) -> Parts:
    """Honest contributions, two of which have a cosine of `likeness` on average."""
    chance = np.random.default_rng(seed)
    signal = np.sqrt(likeness) * chance.standard_normal(size)
    return {
        fake_hotkey(n): (1e-3 * (signal + np.sqrt(1 - likeness) * chance.standard_normal(size))).astype(
            np.float32
        )
        for n in range(count)
    }


def equal(parts: Parts) -> dict[str, int]:
    return dict.fromkeys(parts, 10)


def flipped(parts: Parts, *numbers: int) -> tuple[Parts, set[str]]:
    """The same, of which these have the other sign."""
    liars = {fake_hotkey(n) for n in numbers}
    return {hotkey: -part if hotkey in liars else part for hotkey, part in parts.items()}, liars


def merged(parts: Parts, codec: OuterCodec) -> tuple[MergedPart, RunSpec, Parts]:
    """The merge of partition 0 of these, and what they decode to."""
    spec, code = small_spec(outer={"part_elements": 1_000_000, "codec": codec}), open_delta_codec(codec)
    data = {hotkey: code.encode(part) for hotkey, part in parts.items()}
    given = [
        Contribution(
            hotkey=hotkey,
            tokens=10,
            joined=0,
            stored=StoredObject(key=hotkey, digest=blake3(data[hotkey]).hexdigest(), size=len(data[hotkey])),
        )
        for hotkey in sorted(data)
    ]
    assign = MergeAssign(epoch=0, stage=0, part=0, contributions=tuple(given))
    decoded = {hotkey: code.decode(each, SIZE) for hotkey, each in data.items()}
    return merge_part(spec, assign, lambda contribution: data[contribution.hotkey]), spec, decoded


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize(("count", "liars"), [(3, (1,)), (5, (0, 4)), (30, (3, 7, 11, 29))])
def test_who_reverses_its_pseudo_gradient_is_left_out_and_the_others_are_merged(
    codec: OuterCodec, count: int, liars: tuple[int, ...]
) -> None:
    parts, false = flipped(replicas(count, likeness=0.8), *liars)
    found, spec, decoded = merged(parts, codec)
    assert found.left_out == dict.fromkeys(sorted(false), LeftOut.OPPOSED)
    honest = {hotkey: 10 for hotkey in parts if hotkey not in false}
    expected = weighted_mean(honest, decoded.__getitem__)
    assert read_merged(spec.outer.codec, found.data, SIZE).tobytes() == expected.tobytes()


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("count", [1, 2, 3, 30])
@pytest.mark.parametrize("likeness", [0.0, 0.1, 0.5, 0.99])
def test_nobody_honest_is_left_out(codec: OuterCodec, count: int, likeness: float) -> None:
    """Also where gradients are noise, and replicas have nothing in common."""
    found, _, _ = merged(replicas(count, likeness), codec)
    assert found.left_out == {}


def test_of_two_nobody_can_say_which_one_is_right() -> None:
    parts, _ = flipped(replicas(2, likeness=0.9), 1)
    assert opposed(OuterCodec.NONE, parts, equal(parts)) == []


def test_more_than_half_always_stay() -> None:
    parts, _ = flipped(replicas(4, likeness=0.9), 0, 1)
    assert len(opposed(OuterCodec.NONE, parts, equal(parts))) == 1
    parts, _ = flipped(replicas(7, likeness=0.9), 0, 1, 2, 3)
    assert len(opposed(OuterCodec.NONE, parts, equal(parts))) == 3


def test_who_did_little_is_not_left_out_because_a_liar_did_much() -> None:
    """Of three, the liar and one honest replica did most of the work; the third joined late."""
    parts, liars = flipped(replicas(3, likeness=0.3), 1)
    tokens = {fake_hotkey(0): 45, fake_hotkey(1): 45, fake_hotkey(2): 10}
    assert set(opposed(OuterCodec.NONE, parts, tokens)) == liars


def test_a_few_large_elements_are_not_clear() -> None:
    """A thousand honest elements do not weigh against one that is as large as all of them."""
    parts = replicas(3, likeness=0.0)
    for number, part in enumerate(parts.values()):
        part[0] = 1.0 if number else -1.0
    assert opposed(OuterCodec.NONE, parts, equal(parts)) == []


def test_a_small_one_that_is_reversed_is_seen_and_zeros_are_not() -> None:
    parts, liars = flipped(replicas(3, likeness=0.5), 2)
    parts[fake_hotkey(2)] *= np.float32(1e-6)
    assert set(opposed(OuterCodec.NONE, parts, equal(parts))) == liars
    parts[fake_hotkey(2)] *= np.float32(0)
    assert opposed(OuterCodec.NONE, parts, equal(parts)) == []


def test_the_largest_values_are_compared_as_any() -> None:
    parts, liars = flipped(replicas(3, likeness=0.5), 0)
    huge = {hotkey: part / np.abs(part).max() * np.float32(3e38) for hotkey, part in parts.items()}
    assert set(opposed(OuterCodec.NONE, huge, equal(huge))) == liars


def test_a_sample_is_of_blocks_that_follow_from_all_digests() -> None:
    large = np.arange(5 * SAMPLE * BLOCK + 7, dtype=np.float32)
    chosen = {start: sampled(large, start) for start in range(7)}
    assert {part.size for part in chosen.values()} == {SAMPLE * BLOCK}
    assert np.array_equal(chosen[0], chosen[5])
    assert not np.array_equal(chosen[0], chosen[1])
    assert np.array_equal(sampled(large[:BLOCK], 3), large[:BLOCK])
    assert sample_start(["a", "b"]) == sample_start(["b", "a"]) != sample_start(["a", "c"])
