"""A Hugging Face Hub on loopback: repositories of files over HTTP, and faults in place of answers."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40
_INFO = re.compile(r"/api/(models|datasets)/(\w+/\w+)(?:/revision/([^/]+))?")
_TREE = re.compile(r"/api/(models|datasets)/(\w+/\w+)/(tree|paths-info)/([^/]+)/?(.*)")
_FILE = re.compile(r"/(datasets/)?(\w+/\w+)/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """Repositories, whose files are the same at each commit.

    `faults` are the statuses of the next answers to requests whose path and range contain `failing`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        """Files by path, by `models/OWNER/NAME` or `datasets/OWNER/NAME`."""
        self.commits = {"main": COMMIT, COMMIT: COMMIT}
        """Of all repositories, by revision."""
        self.asked: list[str] = []
        self.faults: list[int] = []
        self.failing = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, home: object) -> dict[str, str]:
        """For a process whose Hub this is; `huggingface_hub` reads it at its import."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if self.server.faults and self.server.failing in f"{path} {self.headers.get('Range', '')}":
            self._answer(self.server.faults.pop(0), b"")
        elif found := _INFO.fullmatch(path):
            files = self._files(found[1], found[2])
            commit = self.server.commits.get(found[3] or "main")
            siblings = [{"rfilename": name} for name in files or ()]
            document = {"id": found[2], "sha": commit, "siblings": siblings, "tags": [], "private": False}
            self._answer(404 if files is None or commit is None else 200, json.dumps(document).encode())
        elif found := _TREE.fullmatch(path):
            self._tree(self._files(found[1], found[2]) or {}, found[3], found[5])
        elif found := _FILE.fullmatch(path):
            files = self._files("datasets" if found[1] else "models", found[2]) or {}
            self._file(files.get(found[4]))
        else:
            self._answer(404, b"")

    do_HEAD = do_POST = do_GET

    def _files(self, kind: str, name: str) -> dict[str, bytes] | None:
        return self.server.repositories.get(f"{kind}/{name}")

    def _tree(self, files: dict[str, bytes], kind: str, folder: str) -> None:
        wanted = None
        if kind == "paths-info":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wanted = json.loads(body)["paths"]
        rows = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
            if (name in wanted if wanted is not None else name.startswith(folder))
        ]
        self._answer(200, json.dumps(rows).encode())

    def _file(self, data: bytes | None) -> None:
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        headers["Accept-Ranges"] = "bytes"
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(part[1]), int(part[2] or len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            self._answer(206, data[start:stop], headers)
        else:
            self._answer(200, data, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what came of it."""


@contextmanager
def serving_hub() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
