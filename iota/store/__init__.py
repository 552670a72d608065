"""Object stores: the embedded one and S3 for holders of credentials, URLs for everyone else.

`embedded_server` (the embedded store's own process) and `s3` (boto3) are imported where needed.
"""

from iota.store.embedded import EmbeddedStore
from iota.store.open_store import open_store
from iota.store.store import (
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    ObjectTooLarge,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UrlRefused,
)
from iota.store.transfer import ObjectClient

__all__ = [
    "EmbeddedStore",
    "ObjectClient",
    "ObjectExists",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectStore",
    "ObjectTooLarge",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "UrlRefused",
    "open_store",
]
