"""When the orchestrator collects its garbage."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from orchestrator import garbage


class Loop:
    """An object that holds itself, as a broken connection may."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The process's collector is as it was, for other tests."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def old_loop(gone: Callable[[], object]) -> None:
    """Make garbage that has outlived young collections; `gone` is called once it is collected."""
    loop = Loop()
    weakref.finalize(loop, gone)
    gc.collect(1)
    gc.collect(1)


def full_collections() -> int:
    return int(gc.get_stats()[2]["collections"])


def test_old_objects_are_not_looked_at_by_themselves() -> None:
    garbage.settle()
    before, young = full_collections(), gc.get_stats()[1]["collections"]
    kept = []
    for _ in range(300_000):  # by default, more than enough for a full collection
        kept.append([kept])
    assert gc.get_stats()[1]["collections"] > young
    assert full_collections() == before
    assert gc.get_freeze_count() > 1000


async def test_garbage_that_has_grown_old_is_collected_in_the_end() -> None:
    garbage.settle()
    gone = asyncio.Event()
    old_loop(gone.set)
    assert not gone.is_set()
    task = asyncio.create_task(garbage.collect_now_and_then(0.01))
    try:
        await asyncio.wait_for(gone.wait(), 30)
    finally:
        task.cancel()
