"""Saved tensors leave beside the forward, and come back ahead of the backward."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from iota.compute.device import Event
from iota.compute.offload import Lane, Offload
from iota.compute.stage_pass import StagePass
from iota.compute.state import StageState
from iota.model.graph_sizes import kept_bytes
from iota.settings import Activations
from iota.spec import RunSpec
from tests.support.small_engines import tokens
from tests.support.small_runs import small_run

CPU = torch.device("cpu")
LAYERS = 4


class Noting(Lane):
    """A lane that notes what it is asked, and which bytes of it are on the device."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.asked: list[str] = []
        self.sent_bytes = 0
        self.here: list[weakref.ref[Tensor]] = []
        self.most_here = 0

    def send(self, here_N: Tensor) -> Tensor:
        self.asked.append("send")
        self.sent_bytes += here_N.nbytes
        self._note([here_N])
        return super().send(here_N)

    def fetch(self, there: Sequence[Tensor], sent: Event) -> tuple[list[Tensor], Event]:
        self.asked.append("fetch")
        here, mark = super().fetch(there, sent)
        self._note(here)
        return here, mark

    def hold(self, mark: Event) -> None:
        self.asked.append("hold")

    def _note(self, tensors: list[Tensor]) -> None:
        self.here += [weakref.ref(tensor) for tensor in tensors]
        alive = [tensor for ref in self.here if (tensor := ref()) is not None]
        self.most_here = max(self.most_here, sum(tensor.nbytes for tensor in alive))


def spec_of_layers() -> RunSpec:
    return small_run(model={"layers": LAYERS + 1}, layout={"cuts": [LAYERS, 1]})


def test_two_layers_are_on_the_device_at_a_time_and_the_next_comes_before_it_is_needed() -> None:
    lane = Noting()
    graph, spec = a_graph(lane)
    kept = kept_bytes(spec, 0, 4)
    own = kept[Activations.SELECTIVE].graph - kept[Activations.OFFLOAD].graph
    assert lane.asked.count("fetch") == 0
    assert lane.sent_bytes == pytest.approx(own, rel=0.05)
    assert lane.asked.count("hold") == LAYERS - 1, "the newest layer stays until another has run"
    lane.asked.clear()
    torch.autograd.backward(graph, torch.ones_like(graph))
    # The newest is there already. Each of the others is asked for when the one behind it begins.
    assert lane.asked == ["fetch", "hold"] * (LAYERS - 1)
    assert lane.most_here <= 2.05 * own / LAYERS


def test_the_newest_layer_of_another_pass_makes_room_for_what_comes_back() -> None:
    lane = Noting()
    offload = Offload(CPU, lane)
    passes = [offload.begin([]) for _ in range(2)]
    held = []
    for layers in passes:
        for _ in range(3):
            layer = layers()
            held.append(layer.put(torch.randn(1024)))
            layer.close()
    lane.most_here = 0
    for number in (2, 1, 0, 5, 4, 3):
        held[number]()
    assert lane.most_here == 2 * 4096


def test_what_is_dropped_is_freed() -> None:
    lane = Noting()
    graph, _ = a_graph(lane)
    del graph
    assert lane.most_here > 0
    assert [ref() for ref in lane.here] == [None] * len(lane.here)


def test_an_abandoned_backward_leaves_a_lane_that_goes_on() -> None:
    offload = Offload(CPU, Noting())
    for _ in range(2):
        layers = offload.begin([])
        first, second = layers(), layers()
        held = [layer.put(torch.full((512,), float(n))) for n, layer in enumerate((first, second))]
        for layer in (first, second):
            layer.close()
        assert float(held[1]()[0]) == 1.0  # begins to fetch the first, of which nothing is taken
        del held, first, second, layers
        gc.collect()


def test_weights_and_small_tensors_stay() -> None:
    lane = Noting()
    weight, small = torch.zeros(512), torch.zeros(4)
    layer = Offload(CPU, lane).begin([weight])()
    found = [layer.put(each)() for each in (weight[1:], small)]
    assert lane.sent_bytes == 0
    assert found[0].data_ptr() == weight[1:].data_ptr()
    assert found[1].data_ptr() == small.data_ptr()


def test_a_storage_is_moved_once_and_comes_back_in_each_shape() -> None:
    lane = Noting()
    offload = Offload(CPU, lane)
    whole = torch.arange(512.0).view(16, 32)
    views = [whole, whole.t(), whole[3:, ::2]]
    layers = offload.begin([])
    layer = layers()
    held = [layer.put(view) for view in views]
    layer.close()
    following = layers()
    following.close()
    expected = [view.clone() for view in views]
    whole.zero_()
    for take, view, saved in zip(held, views, expected, strict=True):
        found = take()
        assert torch.equal(found, saved)
        assert found.stride() == view.stride()
    assert lane.asked.count("send") == 1


def a_graph(lane: Lane) -> tuple[Tensor, RunSpec]:
    """What stage 0 sends, with its graph offloaded over `lane`."""
    spec = spec_of_layers()
    weights = {n: w.clone().requires_grad_() for n, w in StageState.initial(spec, 0).weights.items()}
    stage = StagePass(spec, 0, CPU)
    stage._offload = Offload(CPU, lane)
    inputs = stage.inputs(None, tokens(spec))
    return stage.graph(weights, inputs, Activations.OFFLOAD).out, spec
