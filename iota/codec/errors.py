"""What can be wrong with a payload."""


class PayloadError(Exception):
    """Bytes or tokens that do not have the run's size, shape or range."""
