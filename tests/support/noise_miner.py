"""A miner that does no work: it returns noise of the right size, signed and on time."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.engine import Engine, Tokens
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from tests.support.miner_program import run_miner


class NoiseEngine(Engine):
    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        return self._noisy(super().forward(mb, version, stage_input, tokens))

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        return self._noisy(super().loss(mb, version, stage_input, tokens))

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        output = super().backward(mb, version, gradient)
        return output if output.payload is None else self._noisy(output)

    def _noisy(self, output: DeviceOutput) -> DeviceOutput:
        payload = encode_wire(torch.randn(payload_shape(self.spec)), self.spec.boundary.wire)
        return replace(output, hashed_N=payload)


def main() -> None:
    """`iota-miner start`, with an engine that makes noise."""
    run_miner(make_engine=NoiseEngine)
