"""Property tests draw the same examples in every run of the same code, so that a failure is a change's.

`--hypothesis-profile explore` draws others each time.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("explore", derandomize=False)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes with one thread during the test."""
    import torch  # takes seconds, and few tests need it here

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
