"""Merkle roots, paths and frontiers agree, and a path proves nothing else than its entry."""

from __future__ import annotations

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.merkle import EMPTY, MerkleFrontier, merkle_paths, merkle_root, merkle_root_of

COUNTS = st.integers(1, 70)


def digests(count: int, salt: int = 0) -> list[str]:
    return [blake3(f"{salt}/{n}".encode()).hexdigest() for n in range(count)]


@given(COUNTS)
def test_each_path_gives_the_root(count: int) -> None:
    leaves = digests(count)
    root = merkle_root(leaves)
    for at, path in enumerate(merkle_paths(leaves)):
        assert merkle_root_of(leaves[at], at, count, path) == root


@given(COUNTS, st.data())
def test_no_path_proves_another_digest_place_or_count(count: int, data: st.DataObject) -> None:
    leaves = digests(count)
    root, paths = merkle_root(leaves), merkle_paths(leaves)
    at = data.draw(st.integers(0, count - 1))
    assert merkle_root_of(digests(1, salt=1)[0], at, count, paths[at]) != root
    other = data.draw(st.integers(-1, count))
    if other != at:
        assert merkle_root_of(leaves[at], other, count, paths[at]) != root
    assert merkle_root_of(leaves[at], at, count, [*paths[at], "0" * 64]) is None
    if paths[at]:
        assert merkle_root_of(leaves[at], at, count, paths[at][:-1]) is None


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    leaves = digests(4)
    left = merkle_paths(leaves)[2][1]  # the node over the first two
    assert merkle_root([left, merkle_paths(leaves)[0][1]]) != merkle_root(leaves)


@given(st.integers(0, 70))
def test_a_growing_list_has_the_root_of_the_whole(count: int) -> None:
    leaves, frontier = digests(count), MerkleFrontier()
    assert frontier.root == EMPTY
    for n, leaf in enumerate(leaves, 1):
        frontier.append(leaf)
        assert frontier.root == merkle_root(leaves[:n])
    assert frontier.count == count
