"""Engines of the small run, and inputs for their ops."""

from __future__ import annotations

from typing import overload

import numpy as np
import torch

from iota.codec.wire_dtype import encode_wire
from iota.compute import Output, StepOutput
from iota.compute.engine import Engine
from iota.compute.output import DeviceOutput, DeviceStep
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.settings import Activations
from iota.spec import RunSpec, WireDtype


def loaded(spec: RunSpec, stage: int = 0, activations: Activations = Activations.KEEP) -> Engine:
    """A loaded engine of `stage`, at its initial weights."""
    engine = Engine(spec, stage, activations=activations)
    engine.load(StageState.initial(spec, stage), version=0)
    return engine


def tokens(spec: RunSpec, seed: int = 0) -> Tokens:
    """Random tokens of one microbatch."""
    shape = (spec.data.sequences, spec.data.sequence_length + 1)
    return np.random.default_rng(seed).integers(0, spec.model.vocab_size, shape)


def tensor(value: float = 0.1) -> torch.Tensor:
    """A payload of one microbatch, filled with `value`."""
    return encode_wire(torch.full((2, 8, 8), value), WireDtype.BF16)


@overload
def read(made: DeviceOutput) -> Output: ...
@overload
def read(made: DeviceStep) -> StepOutput: ...
def read(made: DeviceOutput | DeviceStep) -> Output | StepOutput:
    """The result, on the host."""
    return made.read().result()
