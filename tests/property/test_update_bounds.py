"""No honest pseudo-gradient is ever outside of its bounds: real optimizer steps on extreme gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from iota.compute.clip import largest_of, mean_and_clip
from iota.compute.optim import InnerOptimizer
from iota.compute.rounding import rounding_of
from iota.model.initial import initial_weights
from iota.model.updates import clip_threshold, largest_start
from iota.model.weight_dtype import as_weights
from iota.objects import part_sizes
from iota.outer import open_delta_codec
from iota.outer.bounds import part_bounds
from iota.outer.error_feedback import encode_part
from iota.outer.nesterov import OuterState, outer_step
from iota.outer.partition import Vector, split
from iota.outer.pseudo_gradient import flatten, unflatten
from iota.protocol.bridge import MAX_LR_FACTOR, MIN_LR_FACTOR
from iota.spec import OuterCodec, Precision, RunSpec
from tests.support.small_spec import small_spec

STAGE = 0
SHAPES = ["noise", "constant", "growing", "shrinking", "flips", "one element", "rank one", "zeros"]


def extreme_gradient(shape: str, scale: float, step: int, w: Tensor, generator: torch.Generator) -> Tensor:
    """A gradient for the weights `w` of one tensor; `scale` is the size of its elements."""
    noise = torch.randn(w.shape, generator=generator)
    match shape:
        case "noise":
            return noise * scale
        case "constant":
            return torch.full(w.shape, scale)
        case "growing":  # by 1/sqrt(b2) and less a step the quotient of the moments is largest
            return noise.sign() * scale * 1.06**step
        case "shrinking":
            return torch.full(w.shape, scale * 0.3**step)
        case "flips":
            return torch.full(w.shape, scale * (-1) ** step)
        case "one element":
            found = torch.zeros(w.shape)
            found.view(-1)[step % w.numel()] = scale
            return found
        case "rank one":
            return scale * noise if w.dim() < 2 else scale * noise[:, :1] * noise[:1, :]
        case _:
            return torch.zeros(w.shape)


def trained(
    spec: RunSpec,
    epoch: int,
    base: Vector,
    optimizer: InnerOptimizer | None,
    shape: str,
    scale: float,
    joined: int,
    factors: tuple[float, ...] = (1.0,),
) -> tuple[Vector, InnerOptimizer]:
    """The pseudo-gradient of one epoch by real steps from `base`, and the optimizer after them.

    `factors` are those of the operator on the rate, step by step, by turns.
    """
    like = initial_weights(spec, STAGE)
    weights = {name: w.clone() for name, w in unflatten(torch.from_numpy(base), like).items()}
    generator = torch.Generator().manual_seed(epoch)
    weights = as_weights(spec, weights)
    optimizer = optimizer or InnerOptimizer(spec.optimizer, weights)
    start = flatten(weights).numpy()
    for step in range(joined, spec.schedule.steps):
        gradients = {n: extreme_gradient(shape, scale, step, w, generator) for n, w in weights.items()}
        mean_and_clip(gradients, 1, clip_threshold(spec, STAGE), largest_of(gradients.values()))
        rate = spec.learning_rate(epoch, step) * factors[step % len(factors)]
        optimizer.update(weights, gradients, rate, rounding_of(spec, epoch, step))
    return start - flatten(weights).numpy(), optimizer


def outside(spec: RunSpec, epoch: int, delta: Vector, joined: int = 0) -> list[str]:
    """The tensors of a pseudo-gradient that are outside of their bounds, in any partition."""
    parts = split(delta, spec.outer.part_elements)
    assert [part.size for part in parts] == part_sizes(spec, STAGE)
    return [
        bound.tensor
        for number, part in enumerate(parts)
        for bound in part_bounds(spec, epoch, STAGE, number, joined)
        if not bound.holds(part)
    ]


Feedback = list[Vector | None]
"""By partition."""


def sent(spec: RunSpec, delta: Vector, feedback: Feedback) -> tuple[Vector, Feedback]:
    """What arrives of a pseudo-gradient, and the feedback that is left."""
    arrived, left, codec = [], [], open_delta_codec(spec.outer.codec)
    for part, before in zip(split(delta, spec.outer.part_elements), feedback, strict=True):
        data, after = encode_part(spec.outer, part, before)
        arrived.append(codec.decode(data, part.size))
        left.append(after)
    return np.concatenate(arrived), left


def the_spec(
    kind: str,
    precision: Precision = Precision.FP32,
    steps: int = 6,
    codec: OuterCodec = OuterCodec.NONE,
    beta: float = 0.95,
    **changes: object,
) -> RunSpec:
    optimizer = {"kind": kind, "lr": 0.01, "weight_decay": 0.1, **changes}
    schedule = {"epochs": 4, "steps": steps, "microbatches": 2}
    return small_spec(
        optimizer=optimizer,
        schedule=schedule,
        precision=precision,
        outer={
            "eta": 0.7,
            "momentum": 0.9,
            "momentum_warmup": 2,
            "part_elements": 1000,
            "codec": codec,
            "beta": beta,
        },
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["adamw", "muon", "sgd"]),
    rate=st.sampled_from([1e-8, 1e-4, 0.01, 1.0, 30.0]),
    betas=st.sampled_from([(0.9, 0.95), (0.9, 0.999), (0.0, 0.5), (0.99, 0.9), (0.5, 0.0)]),
    eps=st.sampled_from([1e-8, 1e-12]),
    decay=st.sampled_from([0.0, 0.1, 3.0]),
    state=st.sampled_from(["carry", "reset"]),
    shape=st.sampled_from(SHAPES),
    scale=st.sampled_from([1e-30, 1e-12, 1.0, 1e8, 1e15]),
    clip=st.sampled_from([1.0, 0.01, None]),
    joined=st.integers(0, 6),
    precision=st.sampled_from([Precision.FP32, Precision.BF16_SR]),
    moments=st.sampled_from(["fp32", "bf16", "int8"]),
    factors=st.sampled_from([(1.0,), (MAX_LR_FACTOR, MIN_LR_FACTOR), (0.5,)]),
)
def test_honest_steps_stay_inside_whatever_the_gradients(
    kind: str,
    rate: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    state: str,
    shape: str,
    scale: float,
    clip: float | None,
    joined: int,
    precision: Precision,
    moments: str,
    factors: tuple[float, ...],
) -> None:
    adamw = {"betas": betas, "eps": eps, "moments": moments}
    spec = the_spec(kind, precision, lr=rate, weight_decay=decay, state=state, clip=clip, **adamw)
    start = flatten(initial_weights(spec, STAGE)).numpy()
    base, optimizer = OuterState(start, np.zeros_like(start)), None
    for epoch in range(3):
        delta, used = trained(spec, epoch, base.weights, optimizer, shape, scale, 0, factors)
        if not np.isfinite(delta).all():
            return  # rates at which the model diverges
        assert not outside(spec, epoch, delta)
        optimizer = used if state == "carry" else None
        base = outer_step(base, delta, spec.outer.eta, spec.outer.momentum_at(epoch))
    late, _ = trained(spec, 3, base.weights, None, shape, scale, joined, factors)
    assert not np.isfinite(late).all() or not outside(spec, 3, late, joined)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["adamw", "muon", "sgd"]),
    rate=st.sampled_from([1e-8, 1e-4, 0.01, 1.0]),
    decay=st.sampled_from([0.0, 0.1, 3.0]),
    shapes=st.lists(st.sampled_from(SHAPES), min_size=5, max_size=5),
    scale=st.sampled_from([1e-12, 1.0, 1e8]),
    codec=st.sampled_from([OuterCodec.INT8, OuterCodec.SPARSE, OuterCodec.SPARSE64]),
    beta=st.sampled_from([0.0, 0.5, 0.95]),
    joined=st.integers(0, 6),
    precision=st.sampled_from([Precision.FP32, Precision.BF16_SR]),
)
def test_what_an_honest_replica_sends_stays_inside_with_what_it_did_not_send_before(
    kind: str,
    rate: float,
    decay: float,
    shapes: list[str],
    scale: float,
    codec: OuterCodec,
    beta: float,
    joined: int,
    precision: Precision,
) -> None:
    spec = the_spec(kind, precision, codec=codec, beta=beta, lr=rate, weight_decay=decay)
    start = flatten(initial_weights(spec, STAGE)).numpy()
    base, optimizer = OuterState(start, np.zeros_like(start)), None
    feedback: Feedback = [None] * len(part_sizes(spec, STAGE))
    for epoch, shape in enumerate(shapes):
        first = joined if epoch == 4 else 0
        delta, optimizer = trained(spec, epoch, base.weights, optimizer, shape, scale, first)
        if not np.isfinite(delta).all():
            return  # rates at which the model diverges
        arrived, feedback = sent(spec, delta, feedback)
        assert not outside(spec, epoch, arrived, first)
        base = outer_step(base, arrived, spec.outer.eta, spec.outer.momentum_at(epoch))


@pytest.mark.parametrize("codec", [OuterCodec.INT8, OuterCodec.SPARSE])
def test_bounds_of_what_is_sent_grow_with_what_may_not_be_sent_yet(codec: OuterCodec) -> None:
    """In the first epoch they are those without a codec, where no two tensors share a unit of it."""
    plain, coded = the_spec("adamw", weight_decay=0.0), the_spec("adamw", codec=codec, weight_decay=0.0)
    largest = [max(b.element for b in part_bounds(plain, epoch, STAGE, 0, 0)) for epoch in range(3)]
    for epoch, factor in enumerate([1.0, 1.95, 2.8525]):
        found = part_bounds(coded, epoch, STAGE, 0, 0)
        assert [b.start for b in found] == [0, *(b.stop for b in found[:-1])]
        assert found[-1].stop == part_sizes(coded, STAGE)[0]
        assert largest[0] * factor * 0.999 < max(b.element for b in found) < largest[2] * factor * 1.01


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("codec", [OuterCodec.INT8, OuterCodec.SPARSE])
@pytest.mark.parametrize("factor", [10.0, -100.0, 1e30])
def test_a_scaled_pseudo_gradient_is_outside_with_a_codec(
    kind: str, codec: OuterCodec, factor: float
) -> None:
    spec = the_spec(kind, codec=codec)
    base = flatten(initial_weights(spec, STAGE)).numpy()
    nothing: Feedback = [None] * len(part_sizes(spec, STAGE))
    delta, _ = trained(spec, 0, base, None, "constant", 1.0, 0)
    assert not outside(spec, 0, sent(spec, delta, nothing)[0])
    with np.errstate(over="ignore"):
        assert outside(spec, 0, sent(spec, np.float32(factor) * delta, nothing)[0])


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("factor", [10.0, -100.0, 1e30])
def test_a_scaled_pseudo_gradient_is_outside(kind: str, factor: float) -> None:
    spec = the_spec(kind)
    base = flatten(initial_weights(spec, STAGE)).numpy()
    delta, _ = trained(spec, 0, base, None, "noise", 1.0, 0)
    assert not outside(spec, 0, delta)
    assert outside(spec, 0, np.float32(factor) * delta)


@pytest.mark.parametrize("joined", [0, 5])
def test_what_roundings_alone_may_do_is_inside_and_little_more(joined: int) -> None:
    """With a learning rate of nearly nothing every change is a rounding of a weight to its neighbour."""
    spec = the_spec("adamw", Precision.BF16_SR, lr=1e-12)
    sizes = {
        bound.tensor: bound.element
        for number in range(len(part_sizes(spec, STAGE)))
        for bound in part_bounds(spec, 0, STAGE, number, joined)
    }
    steps = spec.schedule.steps - joined
    for name, w in initial_weights(spec, STAGE).items():
        most = steps * 2**-7 * largest_start(spec, STAGE, name, w.dim())
        assert most <= sizes[name] < 1.1 * most + 1e-9, name


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("rate", [1e-3, 1e-5])
@pytest.mark.parametrize("shape", ["noise", "constant", "flips"])
def test_roundings_of_many_steps_stay_inside_and_poison_of_that_size_does_not(
    kind: str, rate: float, shape: str
) -> None:
    """Each element may go as far as its roundings allow, but not all of them."""
    spec = the_spec(kind, lr=rate, precision=Precision.BF16_SR, steps=60)
    base = flatten(initial_weights(spec, STAGE)).numpy()
    delta, _ = trained(spec, 0, base, None, shape, 1.0, 0)
    assert not outside(spec, 0, delta)
    for number in range(len(part_sizes(spec, STAGE))):
        for bound in part_bounds(spec, 0, STAGE, number, 0):
            poison = np.zeros(bound.stop, np.float32)
            poison[bound.start] = 0.999 * bound.element
            assert bound.holds(poison)
            poison[bound.start :] = 0.999 * bound.element
            assert not bound.holds(poison) or bound.stop - bound.start < 200


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_one_poisoned_tensor_is_outside_and_named(kind: str) -> None:
    spec = the_spec(kind)
    base = flatten(initial_weights(spec, STAGE)).numpy()
    delta, _ = trained(spec, 0, base, None, "noise", 1.0, 0)
    names = list(initial_weights(spec, STAGE))
    pieces = unflatten(torch.from_numpy(delta), initial_weights(spec, STAGE))
    for poisoned in names:
        changed = {n: piece * 100 if n == poisoned else piece for n, piece in pieces.items()}
        assert set(outside(spec, 0, flatten(changed).numpy())) == {poisoned}


def test_the_changes_of_a_late_joiner_are_held_to_its_own_steps() -> None:
    spec = the_spec("adamw")
    base = flatten(initial_weights(spec, STAGE)).numpy()
    whole, _ = trained(spec, 0, base, None, "constant", 1.0, 0)
    assert not outside(spec, 0, whole, joined=0)
    assert outside(spec, 0, whole, joined=3)


@pytest.mark.parametrize("precision", Precision)
def test_what_nothing_bounds_is_held_to_no_bound(precision: Precision) -> None:
    for bound in part_bounds(the_spec("sgd", precision, clip=None), 0, STAGE, 0, 0):
        assert (bound.element, bound.norm) == (np.inf, np.inf)
        assert bound.holds(np.full(bound.stop, 3e38, np.float32))


def test_a_reversed_pseudo_gradient_is_inside() -> None:
    """What the bounds cannot see, as their docstring says."""
    spec = the_spec("adamw")
    base = flatten(initial_weights(spec, STAGE)).numpy()
    delta, _ = trained(spec, 0, base, None, "noise", 1.0, 0)
    assert not outside(spec, 0, -delta)
