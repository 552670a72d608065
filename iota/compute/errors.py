"""Errors of ops. After one that an op itself raises, weights, moments and sums are as before it."""


class ComputeError(Exception):
    """An op or a load that was refused."""


class BadValueError(ComputeError):
    """NaN or Inf in an input, an output, a loss or a gradient. Known when the op's result is read: the engine
    must then `discard` the microbatch."""


class VersionError(ComputeError):
    """A weight version that the engine does not have, or that the step does not use."""


class MicrobatchError(ComputeError):
    """A backward without its forward, a microbatch that was already added, or the wrong op for the stage."""


class CountError(ComputeError):
    """A STEP whose count differs from the number of microbatches in its gradient."""


class StateError(ComputeError):
    """A saved state that does not match the run's spec."""
