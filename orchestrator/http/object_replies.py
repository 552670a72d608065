"""Answers to members who ask for URLs of one object."""

from __future__ import annotations

import time

from iota.protocol.messages import Method, ObjectParts, ObjectReply
from iota.protocol.problems import Problem, ProblemType
from iota.store import OUTAGES, ObjectStore, StoreError
from orchestrator.http.delivery import presign
from orchestrator.intake import Access


async def reply_to(store: ObjectStore, access: Access, upload: str, expires_s: float) -> ObjectReply:
    """The URL of an access that was granted, or those of its parts; what came of completing `upload`.

    Raises:
        Problem: REFUSED for an upload that is none, or not whole; UNAVAILABLE for a store that is away.
    """
    expires = time.time() + expires_s
    if access.method is Method.GET or not store.in_parts(access.size):
        return ObjectReply(url=presign(store, access, expires_s), expires=expires)
    try:
        if upload:
            created = await store.end_parts(access.key, access.size, upload)
            return ObjectReply(url="", expires=expires, existed=not created)
        parts = await store.begin_parts(access.key, access.size, expires_s)
    except OUTAGES as error:
        why = f"the run's object store does not answer: {error}"
        raise Problem(ProblemType.UNAVAILABLE, why, retry_after=1.0) from error
    except StoreError as error:
        raise Problem(ProblemType.REFUSED, str(error)) from error
    made = ObjectParts(upload=parts.upload, part_bytes=parts.part_bytes, urls=parts.urls)
    return ObjectReply(url="", expires=expires, parts=made)
