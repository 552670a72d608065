"""Data sets of the Hub are read at one commit. The Hub is a small HTTP server that knows one data set."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from iota.console.command import WorkFailed
from iota.data import open_source

MAIN, TAGGED = "a" * 40, "b" * 40


class Hub(ThreadingHTTPServer):
    """Answers which commit a revision of the data set `owner/set` is."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits = {"": MAIN, "/revision/v1": TAGGED}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        commit = self.server.commits.get(path.removeprefix("/api/datasets/owner/set"))
        body = json.dumps({"id": "owner/set", "sha": commit, "tags": [], "private": False}).encode()
        self.send_response(200 if commit else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at `asked`."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def test_a_data_set_is_read_at_the_commit_that_its_branch_is_now(hub: Hub) -> None:
    source = open_source("hf:owner/set")
    assert (source.fingerprint, source.name) == (MAIN, f"hf:owner/set@{MAIN}::train")
    hub.commits[""] = "c" * 40
    assert source.fingerprint == MAIN, "one preparation reads one commit"
    assert open_source("hf:owner/set").identity != source.identity


def test_a_revision_is_resolved_to_its_commit(hub: Hub) -> None:
    assert open_source("hf:owner/set@v1").fingerprint == TAGGED
    assert hub.asked == ["/api/datasets/owner/set/revision/v1"]


def test_a_pinned_commit_asks_nobody(hub: Hub) -> None:
    pinned = open_source(f"hf:owner/set@{TAGGED}")
    assert pinned.identity == open_source("hf:owner/set@v1").identity
    assert len(hub.asked) == 1


@pytest.mark.parametrize("spec", ["hf:owner/set@v2", "hf:owner/other"])
def test_a_data_set_that_the_hub_does_not_know_is_named_with_a_remedy(hub: Hub, spec: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read .*check the name"):
        _ = open_source(spec).fingerprint


def test_a_hub_that_is_away_is_said_in_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WorkFailed, match=r"cannot be read .*continues where it stopped"):
        _ = open_source("hf:owner/set").fingerprint
