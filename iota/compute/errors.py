"""Errors of ops. After one, weights and moments are as before the op; sums too, or they are empty."""


class ComputeError(Exception):
    """An op or a load that was refused."""


class BadValueError(ComputeError):
    """NaN or Inf in an input, an output, a loss or a gradient. Nothing was accumulated."""


class VersionError(ComputeError):
    """A weight version that the engine does not have, or that the step does not use."""


class MicrobatchError(ComputeError):
    """A backward without its forward, a microbatch that was already added, or the wrong op for the stage."""


class CountError(ComputeError):
    """A STEP whose count differs from the number of microbatches in its gradient."""


class StateError(ComputeError):
    """A saved state that does not match the run's spec."""
