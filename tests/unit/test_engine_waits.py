"""The engine does not wait for the device: what is bad is found when a result is read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iota.compute import (
    BadValueError,
    Microbatch,
)
from iota.spec import OptimizerKind, Precision
from tests.support.small_engines import loaded, read, tensor, tokens
from tests.support.small_runs import assert_same_bits
from tests.support.small_spec import small_spec

MB = Microbatch(epoch=0, step=0, index=0)


@pytest.mark.parametrize("later", [1, 2])
def test_an_op_after_a_bad_one_gives_what_it_gives_without_it(later: int) -> None:
    """The bad one is noticed after `later` others of its step."""
    spec = small_spec()
    engine, clean = loaded(spec), loaded(spec)
    bad, others = MB, [dataclasses.replace(MB, index=1 + index) for index in range(later)]
    engine.remember(bad, 0, None, tokens(spec))
    pending = engine.backward(bad, 0, tensor(float("nan"))).read()
    results = []
    for each in (engine, clean):
        made = []
        for mb in others:
            made += [each.forward(mb, 0, None, tokens(spec, mb.index)), each.backward(mb, 0, tensor())]
        results.append([read(one) for one in made])
    with pytest.raises(BadValueError):
        pending.result()
    engine.discard(bad)
    assert results[0] == results[1]
    assert engine.summed(0) == []


def test_a_step_refuses_a_sum_with_a_bad_gradient_and_changes_nothing() -> None:
    spec = small_spec()
    engine = loaded(spec)
    before = engine.state()
    engine.remember(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor(float("inf")))
    with pytest.raises(BadValueError):
        engine.step(0, 1, 0.1)
    assert engine.newest == 0
    assert_same_bits([engine.state()], [before])


def test_weights_that_a_step_made_bad_are_found_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.remember(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor())
    monkeypatch.setattr("iota.compute.clip._norm", lambda _: torch.tensor(math.nan))
    made = engine.step(0, 1, 0.1)
    with pytest.raises(BadValueError, match="norm"):
        read(made)


class Unreadable(TorchDispatchMode):
    """Fails where the host would wait for a device: where it reads a value of a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", list(OptimizerKind))
@pytest.mark.parametrize("precision", list(Precision))
def test_no_op_waits_for_the_device(precision: Precision, kind: OptimizerKind) -> None:
    spec = small_spec(precision=precision, optimizer={"kind": kind, "lr": 1e-2})
    first, last = loaded(spec), loaded(spec, 1)
    with Unreadable():
        sent = first.forward(MB, 0, None, tokens(spec)).payload
        gradient = last.loss(MB, 0, sent, tokens(spec)).payload
        assert gradient is not None
        made = [first.backward(MB, 0, gradient), first.evaluate(MB, 0, None, tokens(spec))]
        made += [last.evaluate(MB, 0, sent, tokens(spec))]
    bound = {engine: engine._steps[0].bound for engine in (first, last)}  # read with the last backward
    with Unreadable(), pytest.MonkeyPatch.context() as known:
        for engine in (first, last):
            known.setattr(type(engine._steps[0]), "bound", bound[engine])
            engine.step(0, 1, 0.1)
    for each in made:
        read(each)
