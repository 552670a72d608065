"""What runs on one device: forward, backward and step, with the digests and sketches that receipts hold.

Import the engine from `iota.compute.engine`; what stands here needs no torch.
"""

from iota.compute.errors import (
    BadValueError,
    ComputeError,
    CountError,
    MicrobatchError,
    StateError,
    VersionError,
)
from iota.compute.names import Microbatch, Output, StepOutput

__all__ = [
    "BadValueError",
    "ComputeError",
    "CountError",
    "Microbatch",
    "MicrobatchError",
    "Output",
    "StateError",
    "StepOutput",
    "VersionError",
]
