"""Errors of payloads."""


class PayloadError(Exception):
    """A payload or tokens whose size, shape or range is not the run's."""
