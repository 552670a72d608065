"""Values and texts that strangers chose raise nothing, change nothing in the process and do not add up."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import warnings

import pytest
import torch

from iota.protocol.messages import AuditKind, Outcome, Verdict
from iota.protocol.problems import Problem
from iota.protocol.receipts import Receipt
from tests.support.hostile_evidence import SNAPSHOTS, audited, hostile, rewrite, trained
from validator.audits.verdicts import VerdictSigner, verify_verdict
from validator.core.effects import FileVerdict
from validator.core.results import Result
from validator.core.tasks import AuditTask


def test_a_verdict_can_quote_any_bytes_that_a_server_sent() -> None:
    """Header fields come with lone surrogates in place of what is not UTF-8, and JSON has no such text."""
    text = b"HTTP/1.1 500 \xff\n\x1b[2J".decode("utf-8", "surrogateescape")
    result = Result(Outcome.INCONCLUSIVE, 1, text, text, text, f"{text} http://store/a?signature=secret")
    filed = FileVerdict(0, trained().miners[0].hotkey, AuditTask(AuditKind.OP, "op:1", 1), result)
    verdict = VerdictSigner(trained().run, trained().miners[0].key)(filed)
    assert verify_verdict(trained().run, Verdict.model_validate_json(verdict.model_dump_json()), filed.miner)
    assert "secret" not in verdict.reason
    assert verdict.reason.isprintable()


@pytest.mark.parametrize("hint", ["1" + "0" * 400, '"soon"', "[]", "1e999", "-1", "NaN"])
def test_a_problem_with_any_hint_to_wait_is_read(hint: str) -> None:
    body = f'{{"type": "urn:iota:problem:late", "detail": "x", "retry_after": {hint}}}'.encode()
    assert Problem.from_json(409, body).retry_after is None


async def test_device_classes_that_a_miner_makes_up_leave_the_process_as_it_was() -> None:
    threads = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), sys.getrecursionlimit()
    world = hostile(trained())
    miner = world.miners[1]
    own = [r.model_copy(update={"device": "cpu/x/t4096/" + "y" * 100}) for r in world.of_epoch(0, miner)]
    rewrite(world, miner, own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (await audited(world)).check()
    assert threads[0] == torch.get_num_threads()
    assert threads[2] == sys.getrecursionlimit()


async def test_memory_stays_flat_over_the_same_hostile_epoch_again_and_again() -> None:
    """A leak of one payload, state or engine an epoch would exceed the bound several times."""
    world = hostile(trained())
    miner = world.miners[1]
    for version in (1, 2):
        miner.snapshots[version] = SNAPSHOTS["another value"](miner.snapshots[version])  # type: ignore[assignment]
    rewrite(world, miner, [_with_norm(r, 1e38) for r in world.of_epoch(0, miner)])
    for _ in range(3):
        await audited(world)
    gc.collect()
    tracemalloc.start()
    await audited(world)
    gc.collect()
    tensors = _tensor_bytes()  # first: torch keeps an object for each storage that was asked for
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(EPOCHS):
        await audited(world)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < MAX_GROWN_BYTES
    assert _tensor_bytes() <= tensors


def _with_norm(receipt: Receipt, norm: float) -> Receipt:
    if receipt.update is None:
        return receipt
    return receipt.model_copy(update={"update": receipt.update.model_copy(update={"gradient_norm": norm})})


EPOCHS = 20
MAX_GROWN_BYTES = 400_000
"""In all of them. One kept state an epoch would be 2.9 MB; the interpreter keeps a state or two."""


def _tensor_bytes() -> int:
    """Bytes of all tensors that are alive, which tracemalloc does not see."""
    alive = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
    return sum(tensor.untyped_storage().nbytes() for tensor in alive if tensor.device.type == "cpu")
