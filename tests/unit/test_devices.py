"""The seam between the engine and kinds of devices, by an accelerator that is made up on the CPU."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

import iota.compute.devices as module
from iota.codec.wire_dtype import encode_wire
from iota.compute import Microbatch
from iota.compute.cuda_device import Cuda
from iota.compute.device import Device
from iota.compute.devices import check_dtypes, device_of, resolve_device
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.host_copy import HostCopy, start_copy
from iota.compute.mps_device import Mps
from iota.compute.offload import Lane, Offload
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState
from iota.model.graph_sizes import POLICIES
from iota.settings import Activations
from iota.spec import Precision, WireDtype
from tests.support.fake_device import FakeDevice, on_fake_device
from tests.support.small_runs import assert_same_bits, sample, small_run
from tests.support.trained_stages import Trained

ROOT = Path(__file__).parents[2]
SEAM = {"device.py", "devices.py", "cuda_device.py", "mps_device.py"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def fake() -> Iterator[FakeDevice]:
    with on_fake_device() as device:
        yield device


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
@pytest.mark.parametrize("precision", list(Precision))
def test_an_accelerator_with_late_copies_gives_the_bits_of_the_cpu(
    precision: Precision, pipeline: str, policy: Activations
) -> None:
    spec = small_run(precision=precision, schedule={"pipeline": pipeline})
    kept = Trained(spec, "cpu", Activations.KEEP)
    with on_fake_device() as device:
        other = Trained(spec, "cpu", policy)
        states = [engine.copy_state().result() for engine in other.engines]
    assert device.copies > 0
    assert other.made == kept.made
    assert_same_bits(states, [engine.state() for engine in kept.engines])


def test_a_held_out_loss_and_a_fingerprint_are_those_of_the_cpu() -> None:
    spec = small_run(optimizer={"kind": "muon"})
    expected = fingerprint(spec, 2, "cpu", "ab" * 32)
    mb, tokens, payload = Microbatch(0, 0, 0), sample(spec)(0, 0, 0), _payload()
    engine = _loaded(Engine(spec, 2))
    loss = engine.evaluate(mb, 0, payload, tokens).read().result()
    with on_fake_device():
        found = _loaded(Engine(spec, 2)).evaluate(mb, 0, payload, tokens).read().result()
        assert found == loss
    with patch.dict(module.KINDS, cpu=FakeDevice):
        device_of.cache_clear()
        assert fingerprint(spec, 2, "cpu", "ab" * 32) == expected
    device_of.cache_clear()


def test_a_result_is_there_when_it_is_waited_for_and_not_before(fake: FakeDevice) -> None:
    reading = DeviceOutput(torch.arange(4096).view(torch.uint8), True, 1).read()
    assert bool((reading._host[0] == 0xFF).all())
    made = reading.result()
    assert made.payload == torch.arange(4096).numpy().tobytes()


def test_a_copy_of_a_state_holds_later_writes_back(fake: FakeDevice) -> None:
    weights = {"w": torch.zeros(64)}
    torn, whole = start_copy(weights, {}, {}), start_copy(weights, {}, {})
    whole.hold_back_writes(torch.device("cpu"))
    weights["w"].fill_(1.0)
    assert _value(whole) == 0.0
    assert _value(torn) == 1.0, "the fake device shows who forgets to"


def test_a_copy_of_a_state_keeps_memory_that_its_owner_lets_go_of(fake: FakeDevice) -> None:
    copying = start_copy({"w": torch.zeros(64)}, {}, {})
    assert _value(copying) == 0.0


def test_a_lane_waits_in_each_direction(fake: FakeDevice) -> None:
    lane = Lane(torch.device("cpu"))
    here = torch.arange(2048, dtype=torch.uint8)
    there = lane.send(here)
    sent = lane.sent()
    [back], fetched = lane.fetch([there], sent)
    assert bool((there == 0xFF).all())
    assert bool((back == 0xFF).all())
    lane.hold(fetched)
    assert torch.equal(back, here)


def test_memory_that_is_not_pinned_is_not_copied_beside_the_device(fake: FakeDevice) -> None:
    lane = Lane(torch.device("cpu"))
    with pytest.raises(AssertionError, match="not pinned"):
        lane.fetch([torch.zeros(8, dtype=torch.uint8)], lane.sent())


def test_an_offload_over_the_fake_device_frees_what_has_left(fake: FakeDevice) -> None:
    layers = Offload(torch.device("cpu")).begin([])
    held = []
    for number in range(3):
        layer = layers()
        held.append(layer.put(torch.full((512,), float(number))))
        layer.close()
    del layer
    assert [float(take()[7]) for take in reversed(held)] == [2.0, 1.0, 0.0]


def test_the_fake_device_has_no_float64(fake: FakeDevice) -> None:
    with pytest.raises(AssertionError, match="float64"):
        torch.ones(3).double()
    assert float(fake.exact_mean(torch.ones(3))) == 1.0


def test_a_device_without_bf16_refuses_a_run_that_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(Device):
        has_bf16 = False

    monkeypatch.setitem(module.KINDS, "meta", Old)
    for precision in (Precision.BF16_MASTER, Precision.BF16_SR):
        with pytest.raises(ValueError, match=r"computes in bf16 .* give --device cpu"):
            check_dtypes(small_run(precision=precision), "meta")
    with pytest.raises(ValueError, match="Muon does"):
        check_dtypes(small_run(optimizer={"kind": "muon"}), "meta")
    check_dtypes(small_run(), "meta")
    device_of.cache_clear()


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_kind_that_this_machine_lacks_is_refused_with_what_it_has(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (Cuda, Mps):
        monkeypatch.setattr(each, "count", lambda: 0)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match=f"no {kind} device"):
        resolve_device(kind)
    monkeypatch.setattr(Cuda, "count", lambda: 1)
    assert resolve_device("auto") == "cuda"
    with pytest.raises(ValueError, match="1 cuda device"):
        resolve_device("cuda:1")


def test_apples_gpus_are_not_taken_by_auto_and_are_compared_within_tolerances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Cuda, "count", lambda: 0)
    monkeypatch.setattr(Mps, "count", lambda: 1)
    assert resolve_device("auto") == "cpu"
    assert resolve_device("mps") == "mps"
    assert not Mps.repeats


def test_no_other_file_asks_which_kind_a_device_is() -> None:
    """Neither by torch's modules of a kind, nor by the type of a device."""
    asked = []
    for folder in ("iota", "miner", "validator", "orchestrator", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.parent.name != "compute" or path.name not in SEAM:
                asked += [f"{path.relative_to(ROOT)}:{node.lineno}" for node in _kinds_in(path)]
    assert asked == []


def _kinds_in(path: Path) -> Iterator[ast.expr]:
    """Where a file names `torch.cuda`, `torch.mps`, `is_cuda`, `pin_memory`, or compares a device's type."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            of_torch = isinstance(node.value, ast.Name) and node.value.id == "torch"
            if node.attr in (("cuda", "mps") if of_torch else ("is_cuda", "is_mps", "pin_memory")):
                yield node
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(s, ast.Constant) and s.value in ("cuda", "mps") for s in sides):
                yield node


def _loaded(engine: Engine) -> Engine:
    engine.load(StageState.initial(engine.spec, engine.stage), version=0)
    return engine


def _payload() -> torch.Tensor:
    values = torch.linspace(-1, 1, 2 * 12 * 8).view(2, 12, 8)
    return encode_wire(values, WireDtype.BF16)


def _value(copying: HostCopy) -> float:
    return float(copying.result().weights["w"][5])
