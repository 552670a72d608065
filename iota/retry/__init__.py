"""The policy of everything that is tried again."""

from iota.retry.backoff import Backoff

__all__ = ["Backoff"]
