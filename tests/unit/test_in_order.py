"""Partitions that several threads work on come out in order, few at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from iota.compute.in_order import in_order


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield int(request.param)
    torch.set_num_threads(before)


def test_results_have_the_order_of_the_items(threads: int) -> None:
    assert list(in_order(lambda n: n * n, range(20))) == [n * n for n in range(20)]


def test_no_more_items_are_taken_than_there_are_threads(threads: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(20):
            taken.append(n)
            yield n

    for result in in_order(lambda n: n, items()):
        assert len(taken) <= result + threads


def test_several_threads_work_at_a_time() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = threading.Barrier(2, timeout=10)
        assert len(list(in_order(lambda _: both.wait(), range(4)))) == 4
    finally:
        torch.set_num_threads(before)


def test_an_error_of_the_work_is_raised(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // (n - 5), range(20)))
