"""Data sets of the Hub are read at one commit. tests/chaos/test_hub_conditions.py has a Hub that fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iota.data import open_source
from tests.support.hubs import COMMIT as MAIN
from tests.support.hubs import Hub, serving_hub

TAGGED = "b" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub() as serving:
        serving.repositories = {"datasets/owner/set": {}}
        serving.commits["v1"] = TAGGED
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", serving.url)
        yield serving


def test_a_data_set_is_read_at_the_commit_that_its_branch_is_now(hub: Hub) -> None:
    source = open_source("hf:owner/set")
    assert (source.fingerprint, source.name) == (MAIN, f"hf:owner/set@{MAIN}::train")
    hub.commits["main"] = "c" * 40
    assert source.fingerprint == MAIN, "one preparation reads one commit"
    assert open_source("hf:owner/set").identity != source.identity


def test_a_revision_is_resolved_to_its_commit(hub: Hub) -> None:
    assert open_source("hf:owner/set@v1").fingerprint == TAGGED
    assert "/api/datasets/owner/set/revision/v1" in hub.asked


def test_a_pinned_commit_asks_nobody(hub: Hub) -> None:
    pinned = open_source(f"hf:owner/set@{TAGGED}")
    assert pinned.identity == open_source("hf:owner/set@v1").identity
    assert sum(path.startswith("/api/datasets/") for path in hub.asked) == 1


@pytest.mark.parametrize("spec", ["hf:owner/set@v2", "hf:owner/other"])
def test_a_data_set_that_the_hub_does_not_know_is_named_with_a_remedy(hub: Hub, spec: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read .*check the name"):
        _ = open_source(spec).fingerprint
