"""Opens the store that a URL in the settings names."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from iota.store.embedded import EmbeddedStore
from iota.store.store import ObjectStore


def open_store(url: str, secret: bytes | None = None, *, public_url: str | None = None) -> ObjectStore:
    """Open the store at `url`.

    `http://HOST:PORT` or `https://...` is an embedded store, which needs its `secret`. Presigned URLs then
    begin with `public_url`. `s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME` is any S3, with
    credentials from boto3's own chain; prefix, endpoint and region are optional.

    Raises:
        ValueError: for any other URL, or an embedded store without its secret.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc:
        if secret is None:
            raise ValueError(f"the embedded store at {url} needs its secret: give --store-secret-file FILE")
        return EmbeddedStore(url, secret, public_url=public_url)
    if parts.scheme == "s3" and parts.netloc:
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := sorted(options.keys() - {"endpoint", "region"}):
            raise ValueError(f"{unknown[0]!r} is no option of an s3:// URL: use endpoint= and region=")
        # boto3 is slow to import, and an embedded store does not need it.
        from iota.store.s3 import S3Store

        return S3Store(
            parts.netloc,
            endpoint_url=options.get("endpoint"),
            region=options.get("region"),
            prefix=parts.path.strip("/"),
        )
    raise ValueError(f"{url!r} is no store: use http://HOST:PORT or s3://BUCKET/PREFIX")
