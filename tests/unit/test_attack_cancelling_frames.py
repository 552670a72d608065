"""A frame by which a stage cancels what it is given: then an honest op's rounding is most of its output."""

from __future__ import annotations

import torch
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.compute.state import StageState
from iota.model.stage import Stage, run_stage
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from tests.support.small_spec import small_spec
from validator.audits.declared import declared_bounds
from validator.audits.distances import GIVEN_FLOOR, sums, token_norms, worst_token
from validator.core.results import Quantity

STAGE, TRIES = 1, 20


def _spec() -> RunSpec:
    values = small_spec(layout={"cuts": [1, 1, 1]}).model_dump(mode="json")
    return RunSpec.model_validate({**values, "boundary": {"codec": "identity", "wire": "fp32"}})


class Module:
    """The middle stage on one token that a whole batch repeats, in fp32 or with weights in fp64."""

    def __init__(self, spec: RunSpec) -> None:
        self._module = Stage(spec, STAGE)
        self._weights = StageState.initial(spec, STAGE).weights

    def output(self, x_BTK: Tensor) -> Tensor:
        weights = {name: weight.to(x_BTK.dtype) for name, weight in self._weights.items()}
        return run_stage(self._module, weights, x_BTK, torch.zeros(x_BTK.shape[:2], dtype=torch.long)).out

    def of_token(self, x_K: Tensor) -> Tensor:
        return self.output(x_K.view(1, 1, -1)).view(-1).double()


def _cancelled(module: Module, width: int) -> Tensor:
    """A token (width,) whose residual stream the stage takes back to almost zero (Levenberg-Marquardt)."""
    token, damping = (torch.randn(width, generator=torch.Generator().manual_seed(0)) * 0.05).double(), 1.0
    out = module.of_token(token).detach()
    for _ in range(TRIES):
        jacobian = torch.autograd.functional.jacobian(module.of_token, token)  # type: ignore[no-untyped-call]
        jacobian = jacobian.double()
        square = jacobian.T @ jacobian
        change = torch.linalg.solve(square + damping * square.diagonal().diag(), -(jacobian.T @ out))
        moved = module.of_token(token + change).detach()
        if moved.norm() / (token + change).norm() < out.norm() / token.norm():
            token, out, damping = token + change, moved, damping / 4
        else:
            damping *= 4
    return token.float()


def test_a_frame_that_a_stage_cancels_fails_no_honest_miner_of_another_class() -> None:
    """Its sender has not computed it, and knows the weights of a base. fp64 stands for the other class."""
    spec = _spec()
    module, shape = Module(spec), payload_shape(spec)
    frame = _cancelled(module, shape[2]).expand(shape).contiguous()
    ours, theirs = module.output(frame).double(), module.output(frame.double()).double()
    bounds, found = declared_bounds(spec, 1).values, sums(ours, theirs)
    assert found.error > 1.0, "its rounding is all that is left of it"
    floor_N = GIVEN_FLOOR * token_norms(frame)
    assert found.error_by(float(floor_N.norm())) <= bounds[OpKind.FORWARD, Quantity.ERROR]
    assert worst_token(ours, theirs, floor_N).distance <= bounds[OpKind.FORWARD, Quantity.TOKEN]
