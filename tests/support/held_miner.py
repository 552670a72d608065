"""The points of a merge in a miner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import miner.bases
import miner.delta_files
import miner.disk
import miner.duty_worker
from iota.client.run_objects import RunObjects
from iota.objects import BaseKey, DeltaKey, MergedKey, parse_key
from iota.protocol.receipts import OpKind
from miner.bases import BaseKeeper
from miner.delta_files import DeltaFiles
from miner.disk import MinerDisk
from miner.duty_worker import DutyWorker
from miner.receipt_log import ReceiptLog
from tests.support.held_process import Post, after, after_awaiting, before_awaiting
from tests.support.merge_points import Point


def install(post: Post) -> None:
    """Hold this process at its points."""
    _delta(post)
    _merge(post)
    _swap(post)
    _uploads(post)


def _delta(post: Post) -> None:
    write, parts = DeltaFiles.write, miner.delta_files.encoded_parts
    epoch = -1

    def written(self: DeltaFiles, start: Any, final: Any) -> str:
        nonlocal epoch
        epoch = start.epoch
        root = write(self, start, final)
        post.reach(Point.ENCODED, epoch)
        return root

    def held_parts(*given: Any) -> Iterator[Any]:
        for part in parts(*given):
            yield part
            post.reach(Point.HALF_ENCODED, epoch)  # the part that was yielded is written by now

    def appended(receipt: Any, *_: Any) -> None:
        if receipt.kind is OpKind.MERGE:
            post.reach(Point.SIGNED, receipt.epoch)
        elif receipt.kind is OpKind.COMMIT and receipt.version == post.steps:
            post.reach(Point.COMMITTED, receipt.epoch)

    DeltaFiles.write = written  # type: ignore[method-assign]
    miner.delta_files.encoded_parts = held_parts
    after(ReceiptLog, "append", appended)


def _merge(post: Post) -> None:
    before_awaiting(DutyWorker, "_merge", lambda _, assign, urls: post.reach(Point.ASSIGNED, assign.epoch))
    after_awaiting(
        miner.duty_worker,
        "read_contributions",
        lambda _, objects, assign, urls: post.reach(Point.FETCHED, assign.epoch),
    )
    after(
        miner.duty_worker,
        "merge_part",
        lambda _, spec, assign, read: post.reach(Point.MERGED, assign.epoch),
    )


def _swap(post: Post) -> None:
    folder, now = miner.disk.whole_folder, {"epoch": -1}

    @contextmanager
    def filled(path: Path, **more: Any) -> Iterator[Path]:
        with folder(path, **more) as part:
            yield part
            post.reach(Point.BASE_FILLED, int(path.name) - 1)

    def began(self: BaseKeeper, effect: Any, urls: Any) -> None:
        now["epoch"] = effect.epoch

    before_awaiting(BaseKeeper, "apply", began)
    after(miner.bases, "read_merged_stage", lambda *_: post.reach(Point.MERGE_FETCHED, now["epoch"]))
    after(miner.bases, "next_base", lambda *_: post.reach(Point.NEXT_BASE_MADE, now["epoch"]))
    after(miner.bases, "save_state", lambda *_: post.reach(Point.START_SAVED, now["epoch"]))
    after(
        MinerDisk,
        "save_base",
        lambda _, self, spec, epoch, *more: post.reach(Point.BASE_RENAMED, epoch - 1),
    )
    after_awaiting(BaseKeeper, "apply", lambda held, *_: post.reach(Point.READY_DUE, held.epoch - 1))
    after_awaiting(BaseKeeper, "from_disk", lambda *_: post.recovered())
    miner.disk.whole_folder = filled


def _uploads(post: Post) -> None:
    def put(stored: Any, *_: Any, **__: Any) -> None:
        match parse_key(stored.key):
            case DeltaKey(epoch=epoch):
                post.reach(Point.HALF_UPLOADED, epoch)
            case MergedKey(epoch=epoch):
                post.reach(Point.MERGED_UPLOADED, epoch)
            case BaseKey(epoch=epoch):
                post.reach(Point.BASE_HALF_STORED, epoch - 1)
            case _:
                pass

    after_awaiting(RunObjects, "put", put)
    after_awaiting(DutyWorker, "_store_delta", lambda _, self, epoch: post.reach(Point.UPLOADED, epoch))
    after_awaiting(DutyWorker, "_store_base", lambda _, self, epoch: post.reach(Point.BASE_STORED, epoch - 1))
