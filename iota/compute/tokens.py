"""Checks the token ids of a microbatch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iota.codec.errors import PayloadError
from iota.compute.devices import device_of
from iota.spec import RunSpec

Tokens = npt.NDArray[np.integer]
"""(sequences, sequence_length + 1): inputs, and labels shifted by one."""


def token_tensors(spec: RunSpec, tokens: Tokens, device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and labels, each int64 (sequences, sequence_length) on `device`.

    Raises PayloadError for another shape or dtype, or ids outside the vocabulary.
    """
    shape = (spec.data.sequences, spec.data.sequence_length + 1)
    if tokens.shape != shape or tokens.dtype.kind not in "iu":
        raise PayloadError(f"tokens are {tokens.dtype} {tokens.shape}, the run's are integers {shape}")
    if int(tokens.min()) < 0 or int(tokens.max()) >= spec.model.vocab_size:
        raise PayloadError(f"a token id lies outside the vocabulary of {spec.model.vocab_size}")
    ids = device_of(device).to_device(torch.from_numpy(tokens.astype(np.int64)))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
