"""A miner whose device makes one NaN: in the forward of microbatch 1 of step 1."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from iota.compute.engine import Engine, Tokens
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from tests.support.miner_program import run_miner


class NanEngine(Engine):
    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        made = super().forward(mb, version, stage_input, tokens)
        if (mb.epoch, mb.step, mb.index) == (0, 1, 1):
            return dataclasses.replace(made, checks={"the output": torch.tensor(math.nan)})
        return made


def main() -> None:
    run_miner(make_engine=NanEngine)
