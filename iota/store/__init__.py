"""Object stores: `ObjectStore` for processes with credentials, `ObjectClient` for presigned URLs.

Import `embedded_server` (the store's own process) and `s3` (which imports boto3) as submodules.
"""

from iota.store.embedded import EmbeddedStore
from iota.store.open_store import open_store
from iota.store.store import (
    OUTAGES,
    BucketMissing,
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
    "OUTAGES",
    "BucketMissing",
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
