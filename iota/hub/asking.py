"""Requests to the Hugging Face Hub. Its libraries' failures become errors that say whether they pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_BUSY = (408, 429)


class HubAway(Exception):
    """The Hub, or the network to it, cannot answer now. The same request may succeed later."""


@contextmanager
def asking(what: str, remedy: str) -> Iterator[None]:
    """Turn the failures of the Hub's libraries in the block into errors of ours.

    Raises:
        HubAway: no connection, or an answer of 5xx, 408 or 429.
        ValueError: what the Hub answers to the same request again, such as 404 or 401; it says that `what`
            cannot be read, why, and `remedy`.
        OSError: this machine fails a system call, as with a full disk.
    """
    # OSError: network failures, unknown names. ValueError: unknown configs, splits and formats.
    # ImportError: a format that needs a package. RuntimeError: a failed transfer in the library's Rust part.
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, _client_error()) as error:
        if isinstance(error, OSError) and error.errno is not None and not _of_network(error):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if _may_pass(error):
            raise HubAway(first) from error
        raise ValueError(f"{what} cannot be read ({first}): {remedy}") from error


def model_folder(name: str, revision: str | None, files: Sequence[str]) -> Path:
    """The folder of a model's `files` (patterns) at `revision`, by default main; its name is the commit.

    What is in the Hub's cache on this machine is not fetched again, and serves while the Hub is away. Call it
    inside `asking`.
    """
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: the first error of the chain that tells decides."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    chain = list(_chain(error))
    if any(isinstance(link, OfflineModeIsEnabled) for link in chain):  # the user's HF_HUB_OFFLINE
        return False
    for link in chain:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return bool(status >= 500 or status in _BUSY)
        if _of_network(link):
            return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it, also where a library hides them (`raise ... from None`)."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_network(error: BaseException) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError, _client_error()))


def _client_error() -> type[Exception]:
    """The base of the errors of the Hub's HTTP client, whichever that is."""
    from huggingface_hub.errors import HfHubHTTPError

    kinds = (kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception))
    return next(kind for kind in kinds if not issubclass(kind, OSError))
