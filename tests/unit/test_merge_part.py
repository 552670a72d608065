"""The merge of one partition from bytes: what stays out of it, and the mean of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from iota.objects import part_sizes
from iota.objects.delta_sizes import merged_bytes
from iota.outer import open_delta_codec
from iota.outer.merge import MergedPart, merge_part
from iota.outer.merged_part import read_merged
from iota.outer.partition import Vector, part_bytes
from iota.outer.weighted_mean import weighted_mean
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut, merge_output
from iota.simulate.names import fake_hotkey
from iota.spec import OuterCodec, RunSpec
from tests.support.small_spec import small_spec

SPEC = small_spec(outer={"part_elements": 1000})
SIZE = part_sizes(SPEC, 0)[0]
KEYS = [fake_hotkey(n) for n in range(4)]


def small(seed: int) -> Vector:
    """Within what one step can do."""
    return (np.random.default_rng(seed).uniform(-1, 1, SIZE) * 5e-3).astype(np.float32)


def merged(
    given: dict[str, bytes | None], announced: dict[str, bytes] | None = None, spec: RunSpec = SPEC
) -> MergedPart:
    """The merge of these bytes; `announced` are those whose digests are named, where they are others."""
    contributions = []
    for number, (hotkey, data) in enumerate(sorted(given.items())):
        told = (announced or {}).get(hotkey, data or b"\0" * 4 * SIZE)
        stored = StoredObject(key=hotkey, digest=blake3(told).hexdigest(), size=len(told))
        contributions.append(Contribution(hotkey=hotkey, tokens=10 + number, joined=0, stored=stored))
    assign = MergeAssign(epoch=0, stage=0, part=0, contributions=tuple(contributions))
    return merge_part(spec, assign, lambda contribution: given[contribution.hotkey])


def mean(parts: dict[str, Vector], tokens: dict[str, int]) -> bytes:
    return part_bytes(weighted_mean(tokens, parts.__getitem__))


def test_honest_contributions_give_their_weighted_mean_to_the_bit() -> None:
    parts = {hotkey: small(n) for n, hotkey in enumerate(KEYS)}
    found = merged({hotkey: part_bytes(part) for hotkey, part in parts.items()})
    tokens = {hotkey: 10 + n for n, hotkey in enumerate(sorted(KEYS))}
    assert found == MergedPart(mean(parts, tokens), {})


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("replicas", [1, 2, 3, 30])
def test_encoded_contributions_give_the_mean_of_what_they_decode_to(codec: OuterCodec, replicas: int) -> None:
    """Also where another one is none, which is left out: the merge is that of the others."""
    spec, code = small_spec(outer={"part_elements": 1000, "codec": codec}), open_delta_codec(codec)
    keys = sorted(fake_hotkey(n) for n in range(replicas + 1))
    given: dict[str, bytes | None] = {hotkey: code.encode(small(n)) for n, hotkey in enumerate(keys)}
    given[keys[-1]] = b"\xff" * len(given[keys[-1]] or b"")
    found = merged(given, spec=spec)
    assert found.left_out.keys() == {keys[-1]}
    decoded = {hotkey: code.decode(given[hotkey] or b"", SIZE) for hotkey in keys[:-1]}
    expected = weighted_mean({hotkey: 10 + n for n, hotkey in enumerate(keys[:-1])}, decoded.__getitem__)
    assert read_merged(codec, found.data, SIZE).tobytes() == expected.tobytes()
    assert len(found.data) <= merged_bytes(codec, SIZE, replicas)


@pytest.mark.parametrize("codec", [OuterCodec.INT8, OuterCodec.SPARSE])
def test_a_scaled_contribution_is_out_of_bounds_in_every_codec(codec: OuterCodec) -> None:
    spec, code = small_spec(outer={"part_elements": 1000, "codec": codec}), open_delta_codec(codec)
    good = code.encode(small(1))
    found = merged({KEYS[0]: good, KEYS[1]: code.encode(small(1) * np.float32(-100))}, spec=spec)
    assert found.left_out == {KEYS[1]: LeftOut.OUT_OF_BOUNDS}
    assert np.array_equal(read_merged(codec, found.data, SIZE), code.decode(good, SIZE))


def test_the_shares_of_those_that_stay_add_up_to_one() -> None:
    same = small(1)
    bad = part_bytes(np.full(SIZE, np.nan, np.float32))
    found = merged({KEYS[0]: part_bytes(same), KEYS[1]: bad, KEYS[2]: part_bytes(same)})
    assert found.left_out == {KEYS[1]: LeftOut.NOT_FINITE}
    assert np.allclose(np.frombuffer(found.data, "<f4"), same, rtol=1e-6)


def test_each_fault_is_named() -> None:
    good, other = part_bytes(small(1)), part_bytes(small(2))
    for data, told, why in (
        (other, good, LeftOut.UNREADABLE),
        (good[:-4], good[:-4], LeftOut.UNREADABLE),
        (b"", good, LeftOut.UNREADABLE),
        (None, good, LeftOut.MISSING),
        (part_bytes(small(1) * np.float32(1e30)), None, LeftOut.OUT_OF_BOUNDS),
        (part_bytes(np.float32(-100) * small(1)), None, LeftOut.OUT_OF_BOUNDS),
        (part_bytes(np.full(SIZE, np.inf, np.float32)), None, LeftOut.NOT_FINITE),
    ):
        announced = {} if told is None else {KEYS[1]: told}
        found = merged({KEYS[0]: good, KEYS[1]: data}, announced)
        assert found == MergedPart(good, {KEYS[1]: why})


def test_where_nothing_stays_the_merge_is_zeros() -> None:
    bad = part_bytes(np.full(SIZE, np.nan, np.float32))
    found = merged({KEYS[0]: bad, KEYS[1]: None})
    assert found.data == bytes(4 * SIZE)
    assert found.left_out == {KEYS[0]: LeftOut.NOT_FINITE, KEYS[1]: LeftOut.MISSING}


def test_the_output_of_a_receipt_tells_apart_what_is_left_out() -> None:
    digest = "ab" * 32
    outputs = {
        merge_output(digest, {}),
        merge_output(digest, {KEYS[0]: LeftOut.MISSING}),
        merge_output(digest, {KEYS[0]: LeftOut.NOT_FINITE}),
        merge_output(digest, {KEYS[1]: LeftOut.NOT_FINITE}),
        merge_output("cd" * 32, {}),
    }
    assert len(outputs) == 5
    both = {KEYS[1]: LeftOut.MISSING, KEYS[0]: LeftOut.MISSING}
    assert merge_output(digest, both) == merge_output(digest, dict(sorted(both.items())))
