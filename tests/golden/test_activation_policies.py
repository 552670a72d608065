"""Every activation policy gives the bits of kept graphs."""

from __future__ import annotations

import gc

import pytest
import torch
from torch._C._functorch import is_functorch_wrapped_tensor as _is_wrapped
from torch._subclasses import FakeTensor

from iota.compute import Microbatch
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.model.graph_sizes import POLICIES
from iota.settings import Activations
from iota.spec import Precision
from tests.support.devices import DEVICES
from tests.support.small_runs import assert_same_bits, sample, small_run
from tests.support.trained_stages import Trained

OTHERS = POLICIES[1:]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", OTHERS)
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("codec", ["identity", "resbm-anchor"])
def test_losses_payloads_gradients_and_states_are_those_of_kept_graphs(
    codec: str, precision: Precision, pipeline: str, policy: Activations, device: str
) -> None:
    """Of the first, a middle and the last stage; stage 0's gradient is in its digest."""
    spec = small_run(boundary={"codec": codec}, precision=precision, schedule={"pipeline": pipeline})
    kept, other = (Trained(spec, device, each) for each in (Activations.KEEP, policy))
    assert other.made == kept.made
    assert_same_bits([engine.state() for engine in other.engines], [e.state() for e in kept.engines])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_may_change_between_microbatches_and_a_remembered_one_has_any(
    policy: Activations, device: str
) -> None:
    spec = small_run()
    kept = Trained(spec, device, Activations.KEEP)
    turns = Trained(spec, device, policy, turns=True)
    assert turns.made == kept.made
    assert_same_bits([engine.state() for engine in turns.engines], [e.state() for e in kept.engines])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("precision", list(Precision))
def test_a_pass_leaves_no_tensor_in_memory_whether_it_ends_or_is_dropped(
    precision: Precision, policy: Activations
) -> None:
    """Without the help of a garbage collection, which comes too late for gigabytes."""
    spec, mb = small_run(precision=precision), Microbatch(0, 0, 0)
    tokens = sample(spec)(0, 0, 0)
    sizes = []
    for _ in range(2):
        engine = Engine(spec, 0, activations=policy)
        engine.load(StageState.initial(spec, 0), version=0)
        gc.collect()
        gc.disable()
        try:
            for ends in (True, False, True):
                payload = engine.forward(mb, 0, None, tokens).payload
                assert payload is not None
                if ends:
                    engine.backward(mb, 0, payload)
                    engine.clear_gradient(0)
                else:
                    engine.drop(mb)
                del payload
                sizes.append(_live_bytes())
        finally:
            gc.enable()
    assert max(sizes) - min(sizes) <= spec.data.tokens * 8, "token ids alone may differ"


def _live_bytes() -> int:
    """Of all tensors that Python can reach.

    Those that a compiler or `vmap` of an earlier test leaves behind have no memory of their own.
    """
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    found = [
        each for each in tensors if not (isinstance(each, FakeTensor) or each.is_meta or _is_wrapped(each))
    ]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}
    return sum(storages.values())
