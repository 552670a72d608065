"""From the store's URL in the settings to an open store."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from iota.store.embedded import EmbeddedStore
from iota.store.store import ObjectStore

_S3_OPTIONS = {"endpoint", "region"}


def open_store(url: str, secret: bytes | None = None, *, public_url: str | None = None) -> ObjectStore:
    """Open the store at `url`.

    `http://HOST:PORT` or `https://...` is an embedded store and needs its `secret`; `public_url` is
    then what presigned URLs begin with. `s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME` is
    any S3, with credentials from boto3's own chain; prefix, endpoint and region may be left out.

    Raises:
        ValueError: on any other URL, or without the secret.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc:
        if secret is None:
            raise ValueError(f"the embedded store at {url} needs its secret: set the store secret")
        return EmbeddedStore(url, secret, public_url=public_url)
    if parts.scheme == "s3" and parts.netloc:
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := sorted(options.keys() - _S3_OPTIONS):
            raise ValueError(f"{unknown[0]!r} is no option of an s3:// URL: use endpoint= and region=")
        # Imported here so that nobody needs boto3 for an embedded store.
        from iota.store.s3 import S3Store

        return S3Store(
            parts.netloc,
            endpoint_url=options.get("endpoint"),
            region=options.get("region"),
            prefix=parts.path.strip("/"),
        )
    raise ValueError(f"{url!r} is no store: use http://HOST:PORT or s3://BUCKET/PREFIX")
