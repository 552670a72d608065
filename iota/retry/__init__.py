"""The policy of all retries: exponential backoff with jitter."""

from iota.retry.backoff import Backoff

__all__ = ["Backoff"]
