"""Compute on one device: forward, backward and step, with the digests of receipts.

Import the engine from `iota.compute.engine`. The names exported here load without torch.
"""

from iota.compute.errors import BadValueError, CountError, MicrobatchError, StateError, VersionError
from iota.compute.names import Microbatch, Output, StepOutput

__all__ = [
    "BadValueError",
    "CountError",
    "Microbatch",
    "MicrobatchError",
    "Output",
    "StateError",
    "StepOutput",
    "VersionError",
]
