"""A miner that does no work: it returns noise of the right size, signed and on time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from blake3 import blake3

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.engine import Engine, Tokens
from iota.compute.names import LossOutput, Microbatch, Output
from tests.support.miner_program import run_miner


class NoiseEngine(Engine):
    def forward(self, mb: Microbatch, version: int, stage_input: bytes | None, tokens: Tokens) -> Output:
        return replace(super().forward(mb, version, stage_input, tokens), **self._noise())

    def loss(self, mb: Microbatch, version: int, stage_input: bytes | None, tokens: Tokens) -> LossOutput:
        return replace(super().loss(mb, version, stage_input, tokens), **self._noise())

    def backward(self, mb: Microbatch, version: int, gradient: bytes) -> Output:
        output = super().backward(mb, version, gradient)
        return output if output.payload is None else replace(output, **self._noise())

    def _noise(self) -> dict[str, Any]:
        payload = encode_wire(torch.randn(payload_shape(self.spec)), self.spec.boundary.wire)
        return {"payload": payload, "digest": blake3(payload).hexdigest()}


def main() -> None:
    """`iota-miner start`, with an engine that makes noise."""
    run_miner(make_engine=NoiseEngine)
