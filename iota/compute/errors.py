"""What can go wrong on a device; every one leaves the engine as it was before the op."""


class ComputeError(Exception):
    """An op that was not carried out."""


class BadValueError(ComputeError):
    """NaN or Inf in an input, an output, a loss or a gradient; nothing was accumulated."""


class VersionError(ComputeError):
    """A weight version that is not held, or not the one that this step uses."""


class MicrobatchError(ComputeError):
    """A backward without its forward, or one that was already counted."""


class CountError(ComputeError):
    """A STEP over another number of microbatches than its gradient holds."""


class StateError(ComputeError):
    """A saved state that is not what the run's spec says it must be."""
