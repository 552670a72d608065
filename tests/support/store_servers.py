"""Real stores on loopback for the store tests: the embedded server, and moto's S3 over HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from moto.server import ThreadedMotoServer

from iota.protocol.messages import Method, ObjectReply, ObjectRequest
from iota.protocol.problems import Problem
from iota.store import EmbeddedStore, ObjectStore
from iota.store.embedded_server import make_app
from orchestrator.http.object_replies import reply_to
from orchestrator.intake import Access

SECRET = b"0123456789abcdef0123456789abcdef"
URL_S = 600.0
NO_METADATA = {"AWS_EC2_METADATA_DISABLED": "true"}
"""Keeps boto3 from asking a cloud for credentials."""


class Clock:
    """A clock that tests set by hand."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


@asynccontextmanager
async def serving(app: web.Application, **options: Any) -> AsyncIterator[str]:
    """Serve `app` on a free loopback port; yields the base URL."""
    runner = web.AppRunner(app, access_log=None, lingering_time=1.0, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def embedded(
    root: Path, now: Callable[[], float] | None = None, **options: Any
) -> AsyncIterator[EmbeddedStore]:
    clock = now or Clock()
    async with serving(make_app(root, SECRET, now=clock, **options)) as url:
        store = EmbeddedStore(url, SECRET, now=clock)
        try:
            yield store
        finally:
            await store.close()


@contextmanager
def moto_s3(bucket: str) -> Iterator[str]:
    """An S3 over real HTTP with one bucket, and credentials where boto3's chain finds them."""
    import boto3

    with environment({**NO_METADATA, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        try:
            boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket=bucket)
            yield url
        finally:
            server.stop()


@contextmanager
def environment(given: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, and give them back as they were."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class StoreUrls:
    """URLs by key, as the orchestrator gives them, from the store itself; or the Problem `refusal`."""

    def __init__(self, store: ObjectStore, refusal: Problem | None = None) -> None:
        self.store, self.refusal = store, refusal
        self.asked: list[Method] = []

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        self.asked.append(request.method)
        if self.refusal is not None:
            raise self.refusal
        if request.method is Method.PUT and self.store.in_parts(request.size):
            access = Access(Method.PUT, request.key, request.size)
            return await reply_to(self.store, access, request.upload, URL_S)
        if request.method is Method.PUT:
            url = self.store.presign_put(request.key, request.size, URL_S)
        else:
            url = self.store.presign_get(request.key, URL_S)
        return ObjectReply(url=url, expires=0.0)
