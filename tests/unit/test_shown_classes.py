"""A device class is shown by its fingerprint: what is compared to the bit, and what only within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

import validator.audits.replay as replay
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.state import StageState
from iota.protocol.fingerprints import Fingerprint, fingerprint_nonce
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import AuditSpec, Precision
from tests.support import audit_benches as benches
from tests.support.audited_miners import Honest, Miner, NudgedStep
from tests.support.audited_runs import DEVICE, World
from tests.support.receipts import BEGINNING
from tests.support.small_runs import small_run

Open = Callable[..., Coroutine[Any, Any, benches.Bench]]
OTHER = "cuda/Some GPU/cuda1/torch1"
"""A device class that is not this machine's."""
SMALL = 1e-7
"""Share of a change by which a nudge is within all bounds, and still moves bits."""


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as opened:

        async def make(way: Honest, device: str = DEVICE, epochs: int = 1) -> benches.Bench:
            world = World(small_run(audit=AuditSpec(commit_every=2)), {1: way}, device)
            for epoch in range(epochs):
                world.train(epoch)
            return await opened(world, epochs - 1)

        yield make


class Shows(NudgedStep):
    """Nudges one element a little, and shows `shown` or this machine's fingerprint."""

    def __init__(self, shown: Callable[[Miner, str], Fingerprint] | None = None) -> None:
        super().__init__(1, SMALL)
        self.shown = shown

    def fingerprint(self, miner: Miner, nonce: str) -> Fingerprint:
        if self.shown is not None:
            return self.shown(miner, nonce)
        return fingerprint(miner.spec, miner.stage, "cpu", nonce)


def of_another(change: Callable[[list[Any]], list[Any]]) -> Callable[[Miner, str], Fingerprint]:
    """This machine's answer to the nonce of another name than the miner's own."""

    def shown(miner: Miner, nonce: str) -> Fingerprint:
        names = change([miner.spec.id, 0, miner.spec.id, miner.hotkey])
        return fingerprint(miner.spec, miner.stage, "cpu", fingerprint_nonce(*names))

    return shown


@pytest.mark.parametrize("device", [DEVICE, OTHER], ids=["this", "another"])
async def test_who_shows_this_class_is_compared_to_the_bit_whatever_it_names(
    device: str, open_bench: Open
) -> None:
    bench = await open_bench(Shows(), device)
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert (result.outcome, result.profile) == (Outcome.FAIL, "exact")
    assert result.seq == bench.op(1, OpKind.COMMIT, 2).seq


@pytest.mark.parametrize(
    ("device", "profile"),
    [(DEVICE, "class not shown/declared/"), (OTHER, "declared/")],
    ids=["this", "another"],
)
async def test_who_shows_other_bits_is_compared_within_bounds_and_not_charged_for_them(
    device: str, profile: str, open_bench: Open
) -> None:
    bench = await open_bench(Shows(lambda *_: BEGINNING.fingerprint), device)
    for kind, seq in ((AuditKind.SEGMENT, 0), (AuditKind.OP, bench.op(1, OpKind.FORWARD, 0).seq)):
        result = await bench.audit(1, kind, seq=seq)
        assert result.outcome is Outcome.PASS, result
        assert result.profile.startswith(profile)
    assert await bench.check(1) is None


async def test_bounds_of_a_class_that_is_not_shown_find_what_they_find_across_classes(
    open_bench: Open,
) -> None:
    way = Shows(lambda *_: BEGINNING.fingerprint)
    way.share = 100.0
    result = await (await open_bench(way)).audit(1, AuditKind.SEGMENT)
    assert result.outcome is Outcome.FAIL, result


@pytest.mark.parametrize(
    "change",
    [
        lambda names: [*names[:3], f"{names[3]}x"],
        lambda names: [names[0], names[1] + 1, *names[2:]],
        lambda names: names,
    ],
    ids=["hotkey", "epoch", "base"],
)
async def test_an_answer_to_another_nonce_shows_nothing(
    change: Callable[[list[Any]], list[Any]], open_bench: Open
) -> None:
    bench = await open_bench(Shows(of_another(change)))
    result = await bench.audit(1, AuditKind.SEGMENT)
    assert result.profile.startswith("class not shown/"), result


async def test_the_answer_of_the_epoch_before_shows_nothing(open_bench: Open) -> None:
    answers: list[Fingerprint] = []

    def first(miner: Miner, nonce: str) -> Fingerprint:
        answers.append(fingerprint(miner.spec, miner.stage, "cpu", nonce))
        return answers[0]

    bench = await open_bench(Shows(first), epochs=2)
    assert answers[0] != answers[1]
    result = await bench.audit(1, AuditKind.OP, seq=bench.op(1, OpKind.FORWARD, 0).seq)
    assert result.profile.startswith("class not shown/"), result


async def test_the_audits_of_a_miner_compute_one_fingerprint(
    open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(*given: Any) -> Fingerprint:
        asked.append(given[-1])
        return fingerprint(*given)

    monkeypatch.setattr(replay, "fingerprint", counted)
    bench = await open_bench(Honest())
    for stage in (1, 1, 2, 2):
        result = await bench.audit(stage, AuditKind.SEGMENT)
        assert (result.outcome, result.profile) == (Outcome.PASS, "exact"), result
    assert len(asked) == len(set(asked)) == 2


# ---- bf16 in place of fp32 ------------------------------------------------------------------------


class Bf16(Honest):
    """Computes in bf16 where the run says fp32, and shows a made-up fingerprint."""

    def fingerprint(self, miner: Miner, nonce: str) -> Fingerprint:
        return Fingerprint(**dict.fromkeys(Fingerprint.model_fields, "1" * 64))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("device", [DEVICE, OTHER])
async def test_bf16_for_fp32_fails_in_every_op_whatever_class_is_named(optimizer: str, device: str) -> None:
    spec = small_run(
        data={"sequence_length": 64}, optimizer={"kind": optimizer}, audit=AuditSpec(commit_every=2)
    )
    world = World(spec, {1: Bf16()}, device)
    liar = world.miners[1]
    liar.engine = Engine(spec.model_copy(update={"precision": Precision.BF16_MASTER}), 1)
    liar.engine.load(StageState.initial(spec, 1), version=0)
    world.train()
    opened = await benches.bench(world)
    ops = opened.sealed.auditable(liar.hotkey)
    assert ops
    for receipt in ops:
        result = await opened.audit(1, AuditKind.OP, step=receipt.step, seq=receipt.seq)
        assert result.outcome is Outcome.FAIL, result
    for step in (0, 2):
        result = await opened.audit(1, AuditKind.SEGMENT, step=step)
        assert result.outcome is Outcome.FAIL, result
    opened.worker.close()
